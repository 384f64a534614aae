"""Where the parts of the installed package are: the shared library, the C headers, the artifact.

Not: the engine's library (engine.py). Native files lie beside the extension module, which in an
editable install is another folder than that of the Python files.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from csrm.errors import BadArtifact, Internal

_PACKAGE = Path(__file__).resolve().parent


def library_path() -> Path:
    """libcsrm.so, for linking and for dlopen. Errors: Internal if the package lacks it."""
    return _installed("lib/libcsrm.so")


def include_path() -> Path:
    """The folder to give a C or C++ compiler (-I): it holds csrm/csrm.h. Errors: Internal."""
    return _installed("include")


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
