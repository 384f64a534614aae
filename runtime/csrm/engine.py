"""Finds the ONNX Runtime library that the C++ core loads: the one in the installed wheel.

Not: the Python module `onnxruntime`, which embeds a second copy of the engine and is never
imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from csrm.errors import BadArtifact, EngineUnavailable

_ADVICE = "install it with: pip install 'onnxruntime>=1.32'"
_PATTERNS = ("libonnxruntime.so*", "libonnxruntime*.dylib", "onnxruntime.dll")


def engine_library() -> Path:
    """The path of the engine's shared library. Errors: EngineUnavailable, with what to do."""
    own = _version_of_gpu_package()
    spec = find_spec("onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        raise EngineUnavailable(f"the package onnxruntime is not installed; {_ADVICE}")
    folders = [Path(location) / "capi" for location in spec.submodule_search_locations]
    for folder in folders:
        for pattern in _PATTERNS:
            found = sorted(folder.glob(pattern))
            # onnxruntime and onnxruntime-gpu share a folder; only the latter's has the GPU.
            gpu = [path for path in found if own and path.name.endswith(f".so.{own}")]
            if found:
                return (gpu or found)[0]
    raise EngineUnavailable(
        "the installed onnxruntime ships no library of its own (wheels before 1.32 have none); "
        + _ADVICE
    )


def _version_of_gpu_package() -> str | None:
    try:
        return metadata.version("onnxruntime-gpu")
    except metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class DeviceReport:
    """One of csrm's devices: whether it can be used here, and what it is or what is missing."""

    name: str  # "cpu", "cuda" or "tensorrt"
    is_available: bool
    detail: str


def devices() -> tuple[DeviceReport, ...]:
    """A report for each device. Loads the libraries they need. Errors: EngineUnavailable.

    Which one runs a model is `csrm.load`'s to say: an artifact may have no graph for a device.
    """
    from csrm import _core

    return tuple(DeviceReport(*report) for report in _core.devices(str(engine_library())))


@dataclass(frozen=True)
class TensorRtEngine:
    """A TensorRT engine among an artifact's files, and why it cannot run here ("" if it can)."""

    file: str
    package: str  # that built it: "tensorrt" or "tensorrt_rtx"
    version: str
    precision: str
    architectures: tuple[str, ...]  # none: those that the package takes by itself
    problem: str


def tensorrt_engines(artifact: Path) -> tuple[TensorRtEngine, ...]:
    """The engines that an artifact's manifest lists; their files are not read.

    Errors: BadArtifact when the manifest cannot be read.
    """
    from csrm import _core

    try:
        manifest = (artifact / "manifest.json").read_bytes()
    except OSError as error:
        raise BadArtifact(f"manifest.json cannot be read: {type(error).__name__}") from error
    return tuple(TensorRtEngine(*engine) for engine in _core.tensorrt_engines(manifest))
