"""The TensorRT baseline over a stand-in whose engines run the graph by ONNX Runtime on the CPU.

What it is: what is built, what is bound where, and that the rewards are csrm's. Not: TensorRT.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("torch")

import torch
from fake_tensorrt import FakeTensorRt

import csrm
from csrm.bench.agreement import Agreement
from csrm.bench.baselines import tensorrt_engine
from csrm.bench.baselines.tensorrt_engine import TensorrtFp16
from csrm.bench.engines import FP16
from csrm.bench.random_artifact import write_random_artifact
from csrm.bench.shapes import Sizes
from csrm.errors import EngineFailed, EngineUnavailable, Unsupported
from csrm.export import tensorrt as export_tensorrt
from csrm.train.decoder import DecoderShape
from csrm.train.model import ModelShape

TINY: dict[str, Sizes] = {
    "decoder": DecoderShape(30522, 48, 3, 6, 2, 16, 80, 4096, 3, 3),
    "encoder": ModelShape(30522, hidden=48, layers=3, heads=4, intermediate=192),
}
TYPES = {"tensor(int64)": np.int64, "tensor(float16)": np.float16, "tensor(float)": np.float32}


def at(address: int, shape: tuple[int, ...], dtype: Any) -> Any:
    """The array at an address."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * n_bytes).from_address(address), dtype).reshape(shape)


class Context:
    """An execution context over host memory."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.refuses = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self.shapes[name] = shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        inputs = {
            item.name: at(self.addresses[item.name], self.shapes[item.name], TYPES[item.type])
            for item in self.session.get_inputs()
        }
        (reward,) = self.session.run(["reward"], inputs)
        at(self.addresses["reward"], reward.shape, np.float32)[:] = reward
        return not self.refuses


class Engine:
    """An engine that is the graph's own session."""

    def __init__(self, graph: bytes) -> None:
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.names = [item.name for item in self.session.get_inputs()] + ["reward"]
        self.num_io_tensors = len(self.names)
        self.contexts: list[Context] = []

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def create_execution_context(self) -> Context:
        self.contexts.append(Context(self.session))
        return self.contexts[-1]


class Runnable(FakeTensorRt):
    """FakeTensorRt whose engines can be run."""

    def __init__(self) -> None:
        super().__init__("tensorrt")
        self.engines: list[Engine] = []
        self.is_broken = False

    def Runtime(self, logger: Any) -> Runnable:  # noqa: N802
        return self

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        if self.is_broken:
            return None
        self.engines.append(Engine(self.graph))
        return self.engines[-1]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Runnable:
    package = Runnable()
    monkeypatch.setattr(tensorrt_engine, "installed_package", lambda name: package)
    monkeypatch.setattr(export_tensorrt, "gpu_architecture", lambda: "sm90")
    return package


@pytest.mark.parametrize("kind", list(TINY))
def test_tensorrt_baseline_gives_the_rewards_of_csrm(
    kind: str, tmp_path: Path, package: Runnable
) -> None:
    folder = write_random_artifact(TINY[kind], tmp_path / kind, kind)
    agreement = Agreement(folder, csrm.load(folder, n_threads=1))
    baseline = TensorrtFp16(folder, 1, device="cpu")
    assert agreement.check("tensorrt", baseline, FP16) <= FP16
    assert package.config is not None
    assert len(package.engines) == 1  # one shape, however many rows of it
    whole = package.config.profiles[0].shapes
    assert len(package.config.profiles) == 1
    assert "prefix_key" not in whole
    assert ("segment_ids" in whole) == (kind == "encoder")  # nothing reads it in a decoder
    assert agreement.check_cached("tensorrt", baseline, FP16) <= FP16
    assert len(package.engines) == 2
    cached = package.config.profiles[0].shapes
    n_prefix, n_turn = (160, 64) if kind == "decoder" else (32, 50)
    assert whole["input_ids"] == ((3, n_prefix + n_turn),) * 3
    assert cached["input_ids"] == ((3, n_turn),) * 3
    assert cached["prefix_key"][0][2] == n_prefix
    package.engines[1].contexts[-1].refuses = True
    with pytest.raises(EngineFailed, match="refuses"):
        baseline.run_cached()


def test_tensorrt_engine_that_cannot_be_read_is_a_failure(
    tmp_path: Path, package: Runnable
) -> None:
    folder = write_random_artifact(TINY["encoder"], tmp_path / "encoder", "encoder")
    package.is_broken = True
    with pytest.raises(EngineFailed, match="cannot read"):
        Agreement(folder, csrm.load(folder, n_threads=1)).check(
            "tensorrt", TensorrtFp16(folder, 1, device="cpu"), FP16
        )


def test_tensorrt_absent_or_without_a_gpu_is_unsupported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise EngineUnavailable(f"no package {name}")

    monkeypatch.setattr(tensorrt_engine, "installed_package", absent)
    with pytest.raises(Unsupported, match="no package tensorrt"):
        TensorrtFp16(tmp_path, 1, device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(Unsupported, match="no NVIDIA GPU"):
            TensorrtFp16(tmp_path, 1)
