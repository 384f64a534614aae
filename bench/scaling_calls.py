"""How the cost of a call grows with the conversations in it, and shrinks with threads.

Not: several calls at once (throughput.py) or other engines (latency.py). The config is cached and
every turn is new. Rows go to the caller, to a JSON file and to a chart of the same stem.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import csrm
from csrm.bench.compared import Action
from csrm.bench.cpu_peaks import CpuPeaks
from csrm.bench.floor import encoder_size, floor_operations, set_floors
from csrm.bench.report import write_growth_chart
from csrm.bench.scaling import announce, arithmetic, save, times
from csrm.bench.scaling_rules import turn_action, turns
from csrm.bench.texts import CaseTexts, case_texts, open_renderer, parse_case
from csrm.bench.timing import Seconds, interleaved, median_ms, ratio_interval
from csrm.errors import BadArgument
from csrm.paths import default_artifact
from csrm.progress_bar import progress_bar

BATCH_CASE = "256+64"
CASES = ("256+128", "64+64")
WARMUP = 3


def run_batch(
    artifact: str | None,
    *,
    batch: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    threads: int = 2,
    rounds: int = 20,
    json_path: str | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Rows of every number of conversations in one `score_batch`, all under one config.

    artifact: a model folder, None = the shipped one. Row: engine, case, batch, threads, rounds,
    median_ms, p99_ms and floor_ms of the call (csrm.bench.floor), conversation_ms (the median
    divided by the batch). The sizes take turns in one run. json_path: {"env", "peak_gflop_s",
    "rows"} is written there and a chart to the same stem .png. Errors: BadArgument, and those of
    csrm.load.
    """
    if min(threads, rounds, *batch) < 1:
        raise BadArgument("batch, threads and rounds must be at least 1")
    folder = default_artifact() if artifact is None else Path(artifact)
    texts = case_texts(open_renderer(folder), BATCH_CASE)
    scorer = csrm.load(folder, n_threads=threads)
    computed = arithmetic(scorer)
    peaks = CpuPeaks(threads)
    peaks.measure([computed])
    total = len(set(batch)) * (rounds + WARMUP)
    with progress_bar("scaling batch", total, is_shown=progress) as advance:
        seconds = interleaved(
            {str(size): batch_action(scorer, texts, size) for size in batch},
            rounds=rounds,
            warmup=WARMUP,
            after_call=lambda: advance(1),
        )
    peaks.measure([computed])
    rows: list[dict[str, Any]] = [
        {
            "engine": "csrm",
            "arithmetic": computed,
            "case": BATCH_CASE,
            "batch": n,
            "threads": threads,
            "rounds": rounds,
            **times(own),
            "conversation_ms": round(median_ms(own) / n, 3),
        }
        for n, own in ((int(name), own) for name, own in seconds.items())
    ]
    size = encoder_size(folder)
    config_turn = parse_case(BATCH_CASE)
    set_floors(rows, lambda row: floor_operations(size, *config_turn, row["batch"]), peaks)
    if progress:
        for row in rows:
            announce(row, "batch", f"{row['conversation_ms']:.2f} ms a conversation")
    label = f"conversations in a call, {BATCH_CASE} tokens"
    save(rows, peaks, json_path, partial(write_growth_chart, x="batch", x_label=label))
    return rows


def run_threads(
    artifact: str | None,
    *,
    threads: Sequence[int] = (1, 2),
    cases: Sequence[str] = CASES,
    rounds: int = 50,
    json_path: str | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Rows of every case and number of engine threads, one conversation in a call.

    artifact: a model folder, None = the shipped one. cases: "CONFIG+TURN" in tokens. Row: engine
    ("csrm 256+128"), case, threads, rounds, median_ms, p99_ms, floor_ms (at the peak of so many
    threads, csrm.bench.floor), and faster, faster_low, faster_high: the median of the first number
    of threads over this one's, 95% interval. json_path: {"env", "peak_gflop_s" (of the last
    number), "rows"} is written there and a chart to the same stem .png. Errors: BadArgument, and
    those of csrm.load.
    """
    if not threads or min(rounds, *threads) < 1:
        raise BadArgument("rounds and every number of threads must be at least 1")
    folder = default_artifact() if artifact is None else Path(artifact)
    renderer = open_renderer(folder)
    size = encoder_size(folder)
    scorers = {n: csrm.load(folder, n_threads=n) for n in threads}
    peaks = {n: CpuPeaks(n) for n in scorers}
    rows: list[dict[str, Any]] = []
    total = len(cases) * len(scorers) * (rounds + WARMUP)
    with progress_bar("scaling threads", total, is_shown=progress) as advance:
        for case in cases:
            texts = case_texts(renderer, case)
            seconds = interleaved(
                {str(n): turn_action(scorer, texts) for n, scorer in scorers.items()},
                rounds=rounds,
                warmup=WARMUP,
                after_call=lambda: advance(1),
            )
            for n in scorers:
                row = thread_row(case, n, seconds[str(n)], seconds[str(threads[0])])
                rows.append(row | {"arithmetic": arithmetic(scorers[n]), "rounds": rounds})
                peaks[n].measure([arithmetic(scorers[n])])
    for n, of_threads in peaks.items():
        own_rows = [row for row in rows if row["threads"] == n]
        set_floors(
            own_rows, lambda row: floor_operations(size, *parse_case(row["case"]), 1), of_threads
        )
    if progress:
        for row in rows:
            announce(row, "threads", f"{row['faster']:.2f} x as fast as on {threads[0]}")
    draw = partial(write_growth_chart, x="threads", x_label="engine threads", is_log=False)
    save(rows, peaks[threads[-1]], json_path, draw)
    return rows


def thread_row(case: str, n: int, seconds: Seconds, first: Seconds) -> dict[str, Any]:
    """The times on `n` threads beside those on the first number of threads."""
    faster = ratio_interval(first, seconds)
    return {
        "engine": f"csrm {case}",
        "case": case,
        "threads": n,
        **times(seconds),
        "faster": round(faster.ratio, 3),
        "faster_low": round(faster.low, 3),
        "faster_high": round(faster.high, 3),
    }


def batch_action(scorer: csrm.Scorer, texts: CaseTexts, size: int) -> Action:
    """`size` new turns under the config of `texts` in one call."""
    config = csrm.SafetyConfig.from_rules(texts.rules)
    new = turns(texts, seed=size)
    return lambda: scorer.score_batch(config, list(islice(new, size)))
