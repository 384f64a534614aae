"""PyTorch as a baseline, on a CPU or an NVIDIA GPU: eager, or compiled and captured in CUDA graphs.

What it is: torch_encoder.py's or torch_decoder.py's model with the artifact's weights; rows are on
the device before the clock starts, and the time ends when the rewards are on the host. Compiled
means: Inductor makes one kernel sequence of a layer, which serves all layers (a whole model of 32
takes minutes to compile and gains nothing, for a layer's ends are its matrix products), and the run
from token ids to rewards is one captured CUDA graph, for each shape. Uses torch's process-wide
thread count. Not: the engines' names (csrm.bench.engines) and a GPU's precisions (pytorch_cuda.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from csrm.bench.baselines.artifact_weights import ArtifactWeights
from csrm.bench.baselines.interface import CachedRows, Rewards, Rows
from csrm.bench.baselines.torch_decoder import TorchDecoder
from csrm.bench.baselines.torch_encoder import TorchEncoder
from csrm.bench.baselines.torch_layers import Cache, Inputs, TorchModel, filled_cache
from csrm.errors import Unsupported

_WARMUP = 3  # runs before a graph is captured: compilation, and libraries that allocate at first
_RECOMPILATIONS = 256  # a shape each; more than any bench has

Run = Callable[[], Tensor]


class PytorchEngine:
    """A CachingBaseline. Not thread-safe. Errors: BadArtifact, Unsupported without the device."""

    def __init__(
        self,
        artifact: Path,
        threads: int,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        is_compiled: bool = False,
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise Unsupported("this PyTorch finds no NVIDIA GPU")
        torch.set_num_threads(threads)
        self._model = model_of(ArtifactWeights(artifact, device, dtype))
        self.notes = self._model.notes
        self._is_captured = is_compiled and device == "cuda"
        if is_compiled:
            self._model.compile(compiled)
        self._runs: dict[str, Run] = {}

    def prepare(self, rows: Rows) -> Rows:
        """See Baseline. Errors: Unsupported, rows of another kind or beyond the GPU's memory."""
        self._take("whole", lambda: (self._model.inputs(rows), None))
        return rows

    def run(self) -> Rewards:
        """See Baseline."""
        return self._rewards("whole")

    def prepare_cached(self, rows: CachedRows) -> None:
        """See CachingBaseline. Errors: as `prepare`."""
        self._take(
            "cached", lambda: (self._model.inputs(rows.turns), filled_cache(self._model, rows))
        )

    def run_cached(self) -> Rewards:
        """See CachingBaseline."""
        return self._rewards("cached")

    def close(self) -> None:
        """See Baseline."""

    @torch.inference_mode()
    def _take(self, way: str, place: Callable[[], tuple[Inputs, Cache | None]]) -> None:
        self._runs.pop(way, None)  # its memory, before the next one's
        try:
            inputs, cache = place()

            def run() -> Tensor:
                return self._model.reward(inputs, cache)

            self._runs[way] = captured(run) if self._is_captured else run
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise Unsupported("the GPU's memory does not hold this case beside the rest") from error

    @torch.inference_mode()
    def _rewards(self, way: str) -> Rewards:
        if way not in self._runs:
            raise RuntimeError("run before prepare")
        return np.asarray(self._runs[way]().cpu().numpy(), np.float64)


def model_of(weights: ArtifactWeights) -> TorchModel:
    """The model of these weights. Errors: BadArtifact."""
    return TorchDecoder(weights) if weights.backbone == "decoder" else TorchEncoder(weights)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` through Inductor, once for each shape and in one piece."""
    torch._dynamo.config.recompile_limit = _RECOMPILATIONS
    made: Callable[..., Any] = torch.compile(function, dynamic=False, fullgraph=True)
    return made


def captured(run: Run) -> Run:
    """`run` as one CUDA graph, which writes the same tensor at each replay.

    A graph reads what `run` read where it lay, so the replay keeps `run` and its tensors.
    """
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARMUP):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return partial(_replayed, graph, result, run)


def _replayed(graph: torch.cuda.CUDAGraph, result: Tensor, _kept: Run) -> Tensor:
    graph.replay()
    return result
