"""What csrm holds in memory: imported, with its model, after a score, per cached token of rules.

Measured is a process of its own (memory_worker.py), since nothing else of this one belongs to csrm.
Not: other engines (`rss_mb` of latency.py). Rows go to the caller, to a JSON file and to a chart of
the same stem.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csrm.bench.report import write_memory_chart
from csrm.bench.scaling import save
from csrm.bench.texts import RULE_TOKENS, case_texts, open_renderer
from csrm.errors import BadArgument, EngineFailed, Unsupported
from csrm.paths import default_artifact
from csrm.progress_bar import progress_bar

TURN_TOKENS = 64


def run_memory(
    artifact: str | None,
    *,
    rules: Sequence[int] = (1, 10, 100, 1000),
    variant: str = "",
    threads: int = 2,
    json_path: str | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Rows of the stages of one process, in order.

    artifact: a model folder, None = the shipped one. rules: sizes of the configs that are scored
    one after another; no two share a rule and all stay cached. variant: as of `csrm.load`. Row:
    stage, rules (of its config), rule_tokens, cached_tokens (the cache's own count; the rules of a
    config are kept apart and together, so twice), threads, rss_mb, grown_mb (since the row before),
    bytes_per_cached_token and bytes_per_rule_token (that growth over what this stage cached; None
    where it cached nothing), floor_bytes (keys and values of one token in the variant that was
    loaded). The engine's own buffers grow too, up to about 100 rules: the last row says most about
    the cache. json_path: {"env", "rows"} is written there and a chart to the same stem .png.
    Errors: BadArgument, Unsupported without /proc, EngineFailed when the process ends (its own
    error is on stderr then).
    """
    if min(threads, *rules) < 1:
        raise BadArgument("rules and threads must be at least 1")
    folder = default_artifact() if artifact is None else Path(artifact)
    renderer = open_renderer(folder)
    cache_tokens = 2 * sum(rules) * RULE_TOKENS
    options = {
        "artifact": str(folder),
        "n_threads": threads,
        "cache_tokens": cache_tokens,
        "variant": variant,
    }
    rows: list[dict[str, Any]] = []

    def add(stage: str, n_rules: int, held: dict[str, Any]) -> None:
        if held["rss_mb"] is None:
            raise Unsupported("resident memory is read from /proc, which this system lacks")
        rows.append(row(stage, n_rules, held, rows[-1] if rows else None))
        rows[-1] |= {"threads": threads, "floor_bytes": held["token_bytes"]}
        if progress:
            sys.stderr.write(describe(rows[-1]))

    with (
        progress_bar("scaling memory", 2 + len(rules), is_shown=progress) as advance,
        Holder() as holder,
    ):
        add("csrm imported", 0, holder.answer())
        advance(1)
        add("model loaded", 0, holder.ask(options))
        advance(1)
        for index, n in enumerate(rules):
            texts = case_texts(renderer, f"{n * RULE_TOKENS}+{TURN_TOKENS}", seed=index)
            stage = {"rules": texts.rules, "turn": texts.turn}
            add(f"config of {n} rules scored", n, holder.ask(stage))
            advance(1)
    rows[0]["floor_bytes"] = rows[1]["floor_bytes"]  # known once a model is loaded
    save(rows, None, json_path, write_memory_chart)
    return rows


class Holder:
    """The measured process. Not thread-safe; a context manager that ends it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "csrm.bench.memory_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def ask(self, stage: dict[str, Any]) -> dict[str, Any]:
        """What it holds after a stage. Errors: EngineFailed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(stage) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # `answer` tells
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """What it holds now. Errors: EngineFailed."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise EngineFailed(f"the measured process ended with {status}; its error is above")
        held: dict[str, Any] = json.loads(line)
        return held


def row(
    stage: str, n_rules: int, held: dict[str, Any], before: dict[str, Any] | None
) -> dict[str, Any]:
    """The row of a stage that followed `before`."""
    rule_tokens = n_rules * RULE_TOKENS
    grown = held["rss_mb"] - (0.0 if before is None else before["rss_mb"])
    cached = held["cached_tokens"] - (0 if before is None else before["cached_tokens"])
    return {
        "stage": stage,
        "rules": n_rules,
        "rule_tokens": rule_tokens,
        "cached_tokens": held["cached_tokens"],
        "rss_mb": round(held["rss_mb"], 3),
        "grown_mb": round(grown, 3),
        "bytes_per_cached_token": round(grown * 1e6 / cached) if cached else None,
        "bytes_per_rule_token": round(grown * 1e6 / rule_tokens) if cached else None,
    }


def describe(row: dict[str, Any]) -> str:
    """One line about a row."""
    per_token = row["bytes_per_cached_token"]
    rate = "" if per_token is None else f"  {per_token:,} bytes a cached token"
    return (
        f"{row['stage']:28} {row['rss_mb']:8.1f} MB  grown {row['grown_mb']:8.1f} MB"
        f"  cached {row['cached_tokens']:6} tokens{rate}\n"
    )
