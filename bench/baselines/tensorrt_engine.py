"""TensorRT without csrm's plugins on an NVIDIA GPU: the artifact's typed graph in fp16.

What it is: one engine for each shape and way, built on the GPU for exactly these sizes, its inputs
on the GPU before the clock starts, its launch captured in a CUDA graph. PyTorch has the memory and
computes the config's keys and values. A graph beyond protobuf's 2 GiB is not taken. Not: csrm's own
use of TensorRT (csrm.export.tensorrt, `csrm.load(device="tensorrt")`).
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from csrm.bench.baselines.artifact_weights import ArtifactWeights
from csrm.bench.baselines.interface import CachedRows, Rewards, Rows
from csrm.bench.baselines.onnx_model import PREFIX, cached_model, plain_model
from csrm.bench.baselines.pytorch_engine import Run, captured, model_of
from csrm.errors import EngineFailed, EngineUnavailable, Unsupported
from csrm.export.artifact_files import read_manifest
from csrm.export.tensorrt import EngineBuilder, TensorRtOptions, installed_package, serialised
from csrm.export.tensorrt_profiles import Profile

_SOURCES = {PREFIX[0]: 0, PREFIX[1]: 1}


class TensorrtFp16:
    """A CachingBaseline. Not thread-safe. `artifact` is the folder.

    device: "cpu" for tests with a stand-in. Errors: Unsupported without the package or a GPU, or
    for a model that is too large.
    """

    def __init__(self, artifact: Path, threads: int, *, device: str = "cuda") -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise Unsupported("this PyTorch finds no NVIDIA GPU")
        torch.set_num_threads(threads)
        try:
            self._package = installed_package("tensorrt")
        except EngineUnavailable as error:
            raise Unsupported(error.message) from error
        self._artifact = artifact
        self._device = device
        # Serialised at once: a model that is too large is refused before anything is timed.
        self._graphs = {
            "whole": serialised(read_inputs_only(plain_model(artifact, "fp16"))),
            "cached": serialised(read_inputs_only(cached_model(artifact, "fp16"))),
        }
        self._engines: dict[tuple[str, tuple[int, ...]], Any] = {}
        self._runs: dict[str, Run] = {}

    def prepare(self, rows: Rows) -> Rows:
        """See Baseline. Builds an engine for a shape that is new."""
        self._take("whole", self._moved(rows))
        return rows

    def run(self) -> Rewards:
        """See Baseline."""
        return self._rewards("whole")

    def prepare_cached(self, rows: CachedRows) -> None:
        """See CachingBaseline. Builds an engine for a shape that is new."""
        self._take("cached", {**self._moved(rows.turns), **self._prefix(rows)})

    def run_cached(self) -> Rewards:
        """See CachingBaseline."""
        return self._rewards("cached")

    def close(self) -> None:
        """See Baseline."""

    def _moved(self, rows: Rows) -> dict[str, Tensor]:
        return {name: torch.from_numpy(ids).to(self._device) for name, ids in rows.items()}

    @torch.inference_mode()
    def _prefix(self, rows: CachedRows) -> dict[str, Tensor]:
        model = model_of(ArtifactWeights(self._artifact, self._device, torch.float16))
        parts = [model.keys_values(model.inputs(block)) for block in rows.blocks]
        layers = range(len(parts[0]))
        return {
            name: torch.stack(
                [torch.cat([part[layer][side][0] for part in parts], 1) for layer in layers]
            )
            for name, side in _SOURCES.items()
        }

    def _take(self, way: str, inputs: Mapping[str, Tensor]) -> None:
        self._runs.pop(way, None)
        shapes = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
        key = (way, tuple(size for name in sorted(shapes) for size in shapes[name]))
        if key not in self._engines:
            self._engines[key] = self._built(self._graphs[way], shapes)
        run = self._bound(self._engines[key], inputs)
        self._runs[way] = captured(run) if self._device == "cuda" else run

    def _built(self, graph: bytes, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        batch, tokens = shapes["input_ids"]
        n_prefix = shapes[PREFIX[0]][2] if PREFIX[0] in shapes else 0
        profile = Profile((batch,) * 3, (tokens,) * 3, (n_prefix,) * 3, (1, 1, 1))
        builder = _Builder(self._package, TensorRtOptions(profiles=(profile,)))
        builder.names = {item.name for item in onnx.load_from_string(graph).graph.input}
        data = builder.build(graph, read_manifest(self._artifact)["model"])
        engine = self._package.Runtime(builder.logger).deserialize_cuda_engine(data)
        if engine is None:
            raise EngineFailed("TensorRT cannot read the engine that it has built")
        return engine

    def _bound(self, engine: Any, inputs: Mapping[str, Tensor]) -> Run:
        context = engine.create_execution_context()
        names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        held = {name: tensor.contiguous() for name, tensor in inputs.items() if name in names}
        for name, tensor in held.items():
            context.set_input_shape(name, tuple(tensor.shape))
        held["reward"] = torch.empty(inputs["pooled_at"].shape, device=self._device)
        for name, tensor in held.items():
            context.set_tensor_address(name, tensor.data_ptr())

        def run() -> Tensor:
            is_gpu = self._device == "cuda"
            stream = torch.cuda.current_stream().cuda_stream if is_gpu else 0
            if not context.execute_async_v3(stream):
                raise EngineFailed("TensorRT refuses to run the engine")
            return held["reward"]

        return run

    def _rewards(self, way: str) -> Rewards:
        if way not in self._runs:
            raise RuntimeError("run before prepare")
        return np.asarray(self._runs[way]().cpu().numpy()[:, 0], np.float64)


class _Builder(EngineBuilder):
    """An EngineBuilder of a graph that has some of the signature's inputs, `names`."""

    names: Set[str] = frozenset()

    def add_profile(
        self, builder: Any, config: Any, shapes: dict[str, tuple[tuple[int, ...], ...]]
    ) -> None:
        """Leaves out what the graph has not."""
        own = {name: sizes for name, sizes in shapes.items() if name in self.names}
        super().add_profile(builder, config, own)


def read_inputs_only(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` (changed in place) without inputs that nothing reads, for which no size is known."""
    read = {name for node in model.graph.node for name in node.input}
    kept = [item for item in model.graph.input if item.name in read]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model
