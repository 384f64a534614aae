"""How the cost of a score grows with the turns before it, with and without reuse_turns.

Not: other engines (latency.py). Every round is a conversation with texts not seen before, scored
after each of its turns as a service would; the two ways run side by side, turn by turn, and take
turns at being first. Rows go to the caller, to a JSON file and to a chart of the same stem.
"""

from __future__ import annotations

import random
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import csrm
from csrm.bench.cpu_peaks import CpuPeaks
from csrm.bench.floor import encoder_size, floor_operations, set_floors
from csrm.bench.report import write_growth_chart
from csrm.bench.scaling import announce, arithmetic, save, times
from csrm.bench.texts import CaseTexts, case_texts, open_renderer
from csrm.bench.timing import Seconds, median_ms
from csrm.errors import BadArgument
from csrm.paths import default_artifact
from csrm.progress_bar import Advance, progress_bar

WAYS = {"csrm": False, "csrm reuse_turns": True}
ROLES = ("user", "assistant")

Messages = list[dict[str, str]]


def run_turns(
    artifact: str | None,
    *,
    n_turns: int = 50,
    config_tokens: int = 256,
    turn_tokens: int = 40,
    threads: int = 2,
    rounds: int = 20,
    json_path: str | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Rows of every turn, 1 to `n_turns`, and way.

    Row: engine, turn, prefix_tokens (config and earlier turns), new_tokens, threads, median_ms,
    p99_ms, floor_ms (the new turn alone over that prefix, csrm.bench.floor), and to_turn_2 and
    floor_to_turn_2: the ratios to turn 2 (None for turn 1). json_path: {"env", "peak_gflop_s",
    "rows"} is written there and a chart to the same stem .png. Errors: BadArgument, and those of
    csrm.load.
    """
    if n_turns < 2 or threads < 1 or rounds < 1:
        raise BadArgument("give at least 2 turns, 1 thread and 1 round")
    folder = default_artifact() if artifact is None else Path(artifact)
    texts = case_texts(open_renderer(folder), f"{config_tokens}+{turn_tokens}")
    cache_tokens = 4 * (config_tokens + n_turns * turn_tokens)
    scorer = csrm.load(folder, n_threads=threads, cache_tokens=cache_tokens)
    computed = arithmetic(scorer)
    peaks = CpuPeaks(threads)
    peaks.measure([computed])
    seconds = {way: np.empty((rounds, n_turns)) for way in WAYS}
    total = (rounds + 1) * n_turns * len(WAYS)
    with progress_bar("scaling turns", total, is_shown=progress) as advance:
        for index in range(-1, rounds):  # the first conversation warms up
            time_conversation(scorer, texts, index, seconds, advance)
    peaks.measure([computed])
    size = encoder_size(folder)
    rows = [
        turn_row(way, turn, own)
        | {
            "arithmetic": computed,
            "prefix_tokens": config_tokens + (turn - 1) * turn_tokens,
            "new_tokens": turn_tokens,
            "threads": threads,
        }
        for way, own in seconds.items()
        for turn in range(1, n_turns + 1)
    ]
    set_floors(rows, lambda r: floor_operations(size, r["prefix_tokens"], turn_tokens, 1), peaks)
    for row in rows:
        floor_2 = rows[1]["floor_ms"]
        row["floor_to_turn_2"] = round(row["floor_ms"] / floor_2, 3) if row["turn"] > 1 else None
    if progress:
        for row in rows:
            if row["turn"] in (1, 2, 10, 25, n_turns):
                announce(row, "turn", ratio(row))
    label = f"turn, of {turn_tokens} tokens"
    draw = partial(write_growth_chart, x="turn", x_label=label, is_log=False)
    save(rows, peaks, json_path, draw)
    return rows


def time_conversation(
    scorer: csrm.Scorer,
    texts: CaseTexts,
    index: int,
    seconds: dict[str, Seconds],
    advance: Advance,
) -> None:
    """Scores a new conversation after each of its turns; times go to row `index` if it is >= 0."""
    n_turns = next(iter(seconds.values())).shape[1]
    rng = random.Random(index)
    config = csrm.SafetyConfig.from_rules(texts.rules)
    messages: Messages = []
    for turn in range(n_turns):
        messages.append({"role": ROLES[turn % 2], "content": texts.permuted(rng)})
        ways = list(WAYS.items())
        for way, reuse in ways if (turn + index) % 2 else ways[::-1]:
            start = time.perf_counter()
            scorer.score(config, messages, reuse_turns=reuse)
            elapsed = time.perf_counter() - start
            if index >= 0:
                seconds[way][index, turn] = elapsed
            advance(1)


def turn_row(way: str, turn: int, seconds: Seconds) -> dict[str, Any]:
    """The times of turn `turn` (from 1) out of `seconds` [rounds, turns]."""
    own = seconds[:, turn - 1]
    is_first = turn == 1
    return {
        "engine": way,
        "turn": turn,
        **times(own),
        "to_turn_2": None if is_first else round(median_ms(own) / median_ms(seconds[:, 1]), 3),
    }


def ratio(row: dict[str, Any]) -> str:
    """What a row says of turn 2, if anything."""
    return "" if row["to_turn_2"] is None else f"{row['to_turn_2']:.2f} x turn 2"
