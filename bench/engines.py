"""The compared engines: where each one's code is, what it needs, and where that is installed.

Not: the engines (baselines/) or the processes they run in (worker.py, remote.py). An engine is
taken from the current environment, else from a virtual environment of its own under one folder
(`make bench-environments`), because some of them need packages that contradict each other's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from csrm.bench.baselines.interface import Baseline
from csrm.errors import BadArgument

INSTALLED = "installed"
ALL = "all"
# Root mean square difference of rewards, in log-odds, from csrm's (agreement.py). Rewards of the
# texts compared there have a standard deviation of about 2, and another model's are farther away.
FP32 = 1e-3
FP16 = 0.05  # 0.008 measured of random weights in 3 layers
BF16 = 0.2  # 0.06 likewise
INT8 = 0.6
# ONNX Runtime's dynamic int8 scales per tensor and saturates in AVX2 without VNNI: 0.72 measured.
DYNAMIC_INT8 = 1.5
# optimum's O3 approximates GELU: 0.005 measured.
FAST_GELU = 0.05
# How an engine multiplies matrices, which makes its floor (floor.py).
Arithmetic = Literal["fp32", "fp16", "bf16", "int8"]
ENCODERS = frozenset({"encoder"})
BOTH = frozenset({"encoder", "decoder"})


@dataclass(frozen=True)
class EngineSpec:
    """One compared engine."""

    name: str
    module: str  # in csrm.bench.baselines
    factory: str  # the class in it
    packages: tuple[str, ...]  # what it imports
    distributions: tuple[str, ...]  # whose versions a report states
    extra: str  # of csrm, which installs them
    tolerance: float
    reads: frozenset[str] = ENCODERS  # backbones, as the manifest names them
    is_caching: bool = (
        False  # a CachingBaseline: also timed with the config's keys and values given
    )
    arithmetic: Arithmetic = "fp32"

    def load(self, artifact: Path, threads: int) -> Baseline:
        """The engine with its model. Errors: those of its module."""
        module = import_module(f"csrm.bench.baselines.{self.module}")
        baseline: Baseline = getattr(module, self.factory)(artifact, threads)
        return baseline


_TORCH = (("torch", "onnx"), ("torch",), "bench")
_ORT = (("onnxruntime", "onnx"), ("onnxruntime",), "bench")
_OPENVINO = (("openvino", "nncf", "onnx"), ("openvino", "nncf"), "bench-openvino")
_CTRANSLATE2 = (
    ("ctranslate2", "transformers", "torch", "safetensors", "onnx"),
    ("ctranslate2",),
    "bench-ctranslate2",
)
_OPTIMUM = (
    ("optimum.onnxruntime", "torch", "safetensors", "onnx"),
    ("optimum-onnx", "onnxruntime", "transformers"),
    "bench-optimum",
)
_INFINITY = (
    ("infinity_emb", "sentence_transformers", "torch", "safetensors", "onnx"),
    ("infinity-emb", "torch", "transformers"),
    "bench-infinity",
)
_TENSORRT = (("tensorrt", "torch", "onnx"), ("tensorrt", "torch"), "")
ENGINES: tuple[EngineSpec, ...] = (
    EngineSpec("pytorch-eager", "pytorch_engine", "PytorchEngine", *_TORCH, FP32, BOTH, True),
    EngineSpec(
        "pytorch-eager-bf16", "pytorch_bf16", "PytorchBf16", *_TORCH, BF16, BOTH, True, "bf16"
    ),
    EngineSpec("torch-compile", "torch_compile", "TorchCompile", *_TORCH, FP32),
    EngineSpec("onnxruntime-fp32", "onnxruntime_fp32", "OnnxruntimeFp32", *_ORT, FP32, BOTH, True),
    EngineSpec(
        "onnxruntime-int8",
        "onnxruntime_int8",
        "OnnxruntimeInt8",
        *_ORT,
        DYNAMIC_INT8,
        arithmetic="int8",
    ),
    EngineSpec("optimum-o2", "optimum_onnx", "OptimumO2", *_OPTIMUM, FP32),
    EngineSpec("optimum-o3", "optimum_onnx", "OptimumO3", *_OPTIMUM, FAST_GELU),
    EngineSpec("openvino-fp32", "openvino_engine", "OpenvinoFp32", *_OPENVINO, FP32),
    EngineSpec(
        "openvino-bf16", "openvino_engine", "OpenvinoBf16", *_OPENVINO, BF16, arithmetic="bf16"
    ),
    EngineSpec(
        "openvino-int8", "openvino_engine", "OpenvinoInt8", *_OPENVINO, INT8, arithmetic="int8"
    ),
    EngineSpec("ctranslate2-fp32", "ctranslate2_encoder", "Ctranslate2Fp32", *_CTRANSLATE2, FP32),
    EngineSpec(
        "ctranslate2-int8",
        "ctranslate2_encoder",
        "Ctranslate2Int8",
        *_CTRANSLATE2,
        INT8,
        arithmetic="int8",
    ),
    EngineSpec("infinity-http", "infinity_http", "InfinityHttp", *_INFINITY, FP32),
)
CUDA_ENGINES: tuple[EngineSpec, ...] = (
    EngineSpec(
        "pytorch-eager-cuda", "pytorch_cuda", "PytorchEagerCuda", *_TORCH, BF16, BOTH, True, "bf16"
    ),
    EngineSpec(
        "torch-compile-cuda", "pytorch_cuda", "TorchCompileCuda", *_TORCH, BF16, BOTH, True, "bf16"
    ),
    EngineSpec("onnxruntime-cuda", "onnxruntime_cuda", "OnnxruntimeCuda", *_ORT, FP32, BOTH, True),
    EngineSpec(
        "onnxruntime-cuda-fp16",
        "onnxruntime_cuda",
        "OnnxruntimeCudaFp16",
        *_ORT,
        FP16,
        BOTH,
        True,
        "fp16",
    ),
    EngineSpec(
        "tensorrt-fp16", "tensorrt_engine", "TensorrtFp16", *_TENSORRT, FP16, BOTH, True, "fp16"
    ),
)


def engine_named(name: str) -> EngineSpec:
    """The engine of that name. Errors: BadArgument."""
    for spec in (*ENGINES, *CUDA_ENGINES):
        if spec.name == name:
            return spec
    known = ", ".join(spec.name for spec in (*ENGINES, *CUDA_ENGINES))
    raise BadArgument(f"there is no such engine; known are {known}, and {INSTALLED} or {ALL}")


def selected(engines: Sequence[str], device: str = "cpu") -> tuple[EngineSpec, ...]:
    """The engines of names, "installed" or "all" of those for `device`. Errors: BadArgument."""
    if INSTALLED in engines or ALL in engines:
        return CUDA_ENGINES if device == "cuda" else ENGINES
    return tuple(engine_named(name) for name in dict.fromkeys(engines))


def refusal(spec: EngineSpec, backbone: str, *, is_random: bool) -> str:
    """Why the engine cannot be compared on such a model; "" when it can."""
    if backbone not in spec.reads:
        return f"it is not compared on {backbone}s"
    if is_random and spec.tolerance > BF16:
        return (
            "random weights do not survive int8 arithmetic, so that its rewards would say nothing"
        )
    return ""


def interpreter_of(spec: EngineSpec, environments: Path | None) -> Path | None:
    """The Python that has the engine: this one, else that of its own environment; None = none."""
    if all(_is_installed(package) for package in spec.packages):
        return Path(sys.executable)
    if environments is not None:
        python = environments / spec.extra / "bin" / "python"
        if python.is_file():
            return python.absolute()
    return None


def how_to_install(spec: EngineSpec) -> str:
    """The commands that would make the engine available."""
    if not spec.extra:
        return f"it needs {', '.join(spec.packages)}, which csrm has no extra for (docs/gpu.md)"
    return f"pip install 'csrm[{spec.extra}]', or: make bench-environments"


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the parent of a submodule is missing
        return False
