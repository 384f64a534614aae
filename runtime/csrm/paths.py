"""Where the parts of the installed package are: what C and C++ programs are built with, the model.

Not: the engine's library (engine.py). Native files lie beside the extension module, which in an
editable install is another folder than that of the Python files.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from csrm.errors import BadArtifact, Internal

_PACKAGE = Path(__file__).resolve().parent


def get_library() -> Path:
    """libcsrm.so, for linking and for dlopen. Errors: Internal if the package lacks it."""
    return _installed("lib/libcsrm.so")


def get_include() -> Path:
    """The folder to give a C or C++ compiler (-I): it holds csrm/csrm.h. Errors: Internal."""
    return _installed("include")


def get_cmake_dir() -> Path:
    """The folder of csrmConfig.cmake, for `cmake -Dcsrm_DIR=...`. Errors: Internal."""
    return _installed("lib/cmake/csrm")


def get_pkgconfig_dir() -> Path:
    """The folder of csrm.pc, for PKG_CONFIG_PATH. Errors: Internal."""
    return _installed("lib/pkgconfig")


def default_artifact() -> Path:
    """The folder of the shipped model, csrm-mini. Errors: BadArtifact if this build has none."""
    path = _PACKAGE / "artifacts" / "csrm-mini"
    if not (path / "manifest.json").is_file():
        raise BadArtifact("this build ships no default model; name an artifact folder instead")
    return path


def _installed(relative: str) -> Path:
    spec = find_spec("csrm._core")
    native = _PACKAGE if spec is None or spec.origin is None else Path(spec.origin).parent
    path = native / relative
    if not path.exists():
        raise Internal(f"the installed package lacks {relative}; reinstall csrm")
    return path
