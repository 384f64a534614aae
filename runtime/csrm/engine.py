"""Finds the ONNX Runtime library that the C++ core loads: the one in the installed wheel.

Not: the Python module `onnxruntime`, which embeds a second copy of the engine and is never
imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from csrm.errors import EngineUnavailable

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
