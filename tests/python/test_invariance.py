"""csrm.bench.invariance: its progress and its report. The figures: test_default_artifact.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from csrm.bench import invariance
from csrm.progress_bar import Advance


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(total, steps made) of every bar, in a small invariance bench."""
    made: list[tuple[int, int]] = []

    @contextmanager
    def counted(name: str, total: int, *, is_shown: bool) -> Iterator[Advance]:
        assert is_shown
        done: list[int] = []
        yield done.append
        made.append((total, sum(done)))

    monkeypatch.setattr(invariance, "CASES", ("24+12", "32+16"))
    monkeypatch.setattr(invariance, "BATCHES", (1, 4))
    monkeypatch.setattr(invariance, "progress_bar", counted)
    return made


def test_invariance_progress_ends_at_its_total(
    steps: list[tuple[int, int]], tmp_path: Path
) -> None:
    report = tmp_path / "rows.json"
    rows = invariance.run(json_path=str(report), per_case=3, threads=(1, 2))
    # 3 + 3 + 6 conversations: alone 4 times, in batches of 1, in batches of 4; on 1 and 2 threads.
    assert steps == [(2 * (12 * 4 + 12 + 16), 2 * (12 * 4 + 12 + 16))]
    assert [row.n for row in rows] == [12] * 9
    assert all(row.bit_equal == 1 for row in rows)
    assert [row["condition"] for row in json.loads(report.read_text())] == [
        row.condition for row in rows
    ]
