"""What the scaling benches share: the times of a row, its line on stderr, the report.

Not: what grows. That is in scaling_turns.py, scaling_rules.py, scaling_configs.py,
scaling_calls.py (batch, threads) and scaling_memory.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import csrm
from csrm.bench.cpu_peaks import CpuPeaks
from csrm.bench.engines import Arithmetic
from csrm.bench.machine import environment
from csrm.bench.own_engines import arithmetic_of
from csrm.bench.timing import Seconds, median_ms, p99_ms

Draw = Callable[[list[dict[str, Any]], Path], None]


def arithmetic(scorer: csrm.Scorer) -> Arithmetic:
    """How the variant that `scorer` has taken multiplies, which a row's floor depends on."""
    return arithmetic_of(str(scorer.info()["variant"]))


def times(seconds: Seconds) -> dict[str, float]:
    """The fields median_ms and p99_ms of a row."""
    return {"median_ms": round(median_ms(seconds), 3), "p99_ms": round(p99_ms(seconds), 3)}


def announce(row: dict[str, Any], x: str, remark: str = "") -> None:
    """One line about a row, which has grown along the field `x`, on stderr.

    Without a remark it fits a terminal of 80 columns, where the bar's console wraps what is longer.
    """
    line = (
        f"{x} {row[x]:5}  {row['engine']:19}  median {row['median_ms']:7.1f}"
        f"  p99 {row['p99_ms']:7.1f}  floor {row['floor_ms']:6.1f} ms  {remark}"
    )
    sys.stderr.write(f"{line.rstrip()}\n")


def save(
    rows: list[dict[str, Any]], peaks: CpuPeaks | None, json_path: str | None, draw: Draw
) -> None:
    """Writes {"env", "peak_gflop_s", "rows"} and `draw`s a chart to the same stem .png.

    peaks: None = nothing was timed. json_path: None = nothing is written.
    """
    if json_path is None:
        return
    report: dict[str, Any] = {"env": environment()}
    if peaks is not None:
        report |= peaks.facts()
    path = Path(json_path)
    path.write_text(json.dumps(report | {"rows": rows}, indent=1) + "\n")
    draw(rows, path.with_suffix(".png"))
