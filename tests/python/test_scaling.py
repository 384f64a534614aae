"""csrm.bench.scaling on the shipped model: the rows, the files and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from csrm.cli import main
from csrm.errors import BadArgument


def test_scaling_turns_writes_a_row_for_each_turn_and_way(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report = tmp_path / "turns.json"
    args = ["--turns", "3", "--rounds", "2", "--threads", "1", "--json", str(report)]
    done = CliRunner().invoke(main, ["bench", "scaling", "turns", *args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = json.loads(report.read_text())["rows"]
    assert [(row["engine"], row["turn"]) for row in rows] == [
        (engine, turn) for engine in ("csrm", "csrm reuse_turns") for turn in (1, 2, 3)
    ]
    assert [row["prefix_tokens"] for row in rows[:3]] == [256, 296, 336]
    assert all(row["floor_ms"] > 0 and 0 < row["median_ms"] <= row["p99_ms"] for row in rows)
    assert [row["to_turn_2"] for row in rows[:2]] == [None, 1.0]
    assert rows[2]["floor_to_turn_2"] > 1.0
    assert report.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_scaling_single_turn_is_refused() -> None:
    scaling = pytest.importorskip("csrm.bench.scaling")
    with pytest.raises(BadArgument):
        scaling.run_turns(None, n_turns=1)
