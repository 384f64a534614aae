"""Every row of bad_input_table.py gets the error that the table states, and no message leaks text.

Not: tokens and native calls, which need the extension (test_bad_tokens_* below run with it).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bad_input_table import BAD_INPUTS, BadInput, outcome

from csrm import errors

ROLES = {"system": 3, "user": 4, "assistant": 5, "tool": 6}


def test_bad_input_table_has_at_least_forty_distinct_kinds() -> None:
    assert len({(case.area, case.what) for case in BAD_INPUTS}) == len(BAD_INPUTS) >= 40


@pytest.mark.parametrize("case", BAD_INPUTS, ids=lambda case: f"{case.area}: {case.what}")
def test_bad_input_gets_the_stated_error_with_advice(case: BadInput) -> None:
    error = outcome(case)
    assert type(error) is case.error
    assert error is not None
    assert error.line == case.line or case.line is None
    assert len(error.message) > 15
    assert "refunds" not in error.message


@pytest.mark.parametrize(
    ("tokenizer_json", "error"),
    [
        (b"", errors.BadArtifact),
        (b"not json", errors.BadArtifact),
        (b'{"model": 7}', errors.BadArtifact),
        (json.dumps({"model": {"type": "BPE"}}).encode(), errors.Error),
    ],
)
def test_bad_tokens_tokenizer_json_gets_a_typed_error(
    tokenizer_json: bytes, error: type[errors.Error]
) -> None:
    core = pytest.importorskip("csrm._core")
    with pytest.raises(error):
        core.Renderer(
            tokenizer_json,
            cls=101,
            sep=102,
            rule=1,
            name_end=2,
            roles=ROLES,
            max_block_tokens=512,
            n_turn_indices=32,
        )


def test_bad_tokens_artifact_folder_without_manifest_gets_bad_artifact(tmp_path: Path) -> None:
    pytest.importorskip("csrm._core")
    import csrm

    with pytest.raises(errors.BadArtifact):
        csrm.load(tmp_path)
