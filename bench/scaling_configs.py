"""How a score's cost and the process's memory fare when many configs share a bounded prefix cache.

Requests draw their config out of 1 to 10,000 different ones, so that the cache churns: all alike
("uniform"), or the k-th in proportion to 1/k ("zipf"), as tenants of a service would. Every turn is
new. Not: several requests at once (throughput.py). Rows go to the caller, to a JSON file and to a
chart of the same stem.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

import csrm
from csrm.bench.compared import assistant_turn
from csrm.bench.cpu_peaks import CpuPeaks
from csrm.bench.floor import encoder_size, floor_operations, set_floors
from csrm.bench.memory import growth_mb, rss_mb
from csrm.bench.report import write_configs_chart
from csrm.bench.scaling import announce, arithmetic, save, times
from csrm.bench.texts import CaseTexts, case_texts, open_renderer, shuffled
from csrm.bench.timing import Seconds, median_ms
from csrm.errors import BadArgument
from csrm.paths import default_artifact
from csrm.progress_bar import Advance, progress_bar

DRAWS = ("uniform", "zipf")
CONFIG_TOKENS = 256  # eight rules
TURN_TOKENS = 64


@dataclass(frozen=True)
class Served:
    """What the requests of one row took, and which of them found their whole config cached."""

    seconds: Seconds
    was_hit: np.ndarray[tuple[int], np.dtype[np.bool_]]
    n_evictions: int


def run_configs(
    artifact: str | None,
    *,
    configs: Sequence[int] = (1, 10, 100, 1000, 10_000),
    cache_tokens: int = 16_384,
    threads: int = 2,
    requests: int = 400,
    json_path: str | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Rows of every number of configs and way of drawing them.

    artifact: a model folder, None = the shipped one. cache_tokens: bound of the cache, by default
    that of csrm.load. The cache is full of the likeliest configs before the first of `requests`.
    Row: engine ("csrm uniform", "csrm zipf"), configs, config_tokens, cache_tokens, threads,
    requests, hit_rate (requests whose whole config was cached), evictions (of cache entries),
    median_ms, p99_ms, hit_ms and miss_ms (medians; None where there was none), floor_ms (the turn
    alone, csrm.bench.floor), rss_mb (growth of the process since before the model was loaded).
    json_path: {"env", "peak_gflop_s", "rows"} is written there and a chart to the same stem .png.
    Errors: BadArgument, and those of csrm.load.
    """
    if min(threads, requests, *configs) < 1:
        raise BadArgument("configs, threads and requests must be at least 1")
    folder = default_artifact() if artifact is None else Path(artifact)
    texts = case_texts(open_renderer(folder), f"{CONFIG_TOKENS}+{TURN_TOKENS}")
    operations = floor_operations(encoder_size(folder), CONFIG_TOKENS, TURN_TOKENS, 1)
    peaks = CpuPeaks(threads)
    peaks.measure(["int8"])  # all, before the first look at memory, which torch takes too
    before = rss_mb()
    scorer = csrm.load(folder, n_threads=threads, cache_tokens=cache_tokens)
    computed = arithmetic(scorer)
    n_kept = cache_tokens // CONFIG_TOKENS
    rows: list[dict[str, Any]] = []
    total = len(DRAWS) * sum(min(n, n_kept) + requests for n in configs)
    with progress_bar("scaling configs", total, is_shown=progress) as advance:
        for n in configs:
            for draw in DRAWS:
                scorer.clear_cache()
                places = [*reversed(range(min(n, n_kept))), *drawn(draw, n, requests)]
                served = serve(scorer, texts, places, advance)
                peaks.measure([computed])
                row = {
                    "engine": f"csrm {draw}",
                    "arithmetic": computed,
                    "configs": n,
                    "config_tokens": CONFIG_TOKENS,
                    "cache_tokens": cache_tokens,
                    "threads": threads,
                    "rss_mb": growth_mb(before, rss_mb()),
                }
                rows.append(row | figures(served, requests))
                set_floors(rows, lambda _: operations, peaks)
                if progress:
                    remark = f"hits {rows[-1]['hit_rate']:.0%}  {row['rss_mb']} MB"
                    announce(rows[-1], "configs", remark)
    save(rows, peaks, json_path, write_configs_chart)
    return rows


def drawn(draw: str, n_configs: int, n: int) -> list[int]:
    """`n` of the places 0 to `n_configs` - 1, the same for equal arguments."""
    rng = random.Random(0)
    weights = [1.0 if draw == "uniform" else 1 / (k + 1) for k in range(n_configs)]
    return rng.choices(range(n_configs), cum_weights=list(accumulate(weights)), k=n)


def config_at(texts: CaseTexts, place: int) -> csrm.SafetyConfig:
    """The config of `texts` with the words of every rule in the order that belongs to `place`."""
    rng = random.Random(place)
    return csrm.SafetyConfig.from_rules([shuffled(rule, rng) for rule in texts.rules])


def serve(scorer: csrm.Scorer, texts: CaseTexts, places: Sequence[int], advance: Advance) -> Served:
    """Scores a new turn under each of the configs at `places`, one after another."""
    rng = random.Random(1)
    seconds = np.empty(len(places))
    was_hit = np.empty(len(places), np.bool_)
    before = stats = scorer.cache_stats()
    for index, place in enumerate(places):
        config, turn = config_at(texts, place), assistant_turn(texts.permuted(rng))
        start = time.perf_counter()
        scorer.score(config, turn)
        seconds[index] = time.perf_counter() - start
        n_misses, stats = stats["n_misses"], scorer.cache_stats()
        was_hit[index] = stats["n_misses"] == n_misses
        advance(1)
    return Served(seconds, was_hit, stats["n_evictions"] - before["n_evictions"])


def figures(served: Served, requests: int) -> dict[str, Any]:
    """The fields of a row that the last `requests` of `served` give."""
    seconds, was_hit = served.seconds[-requests:], served.was_hit[-requests:]
    return {
        "requests": requests,
        "hit_rate": round(float(was_hit.mean()), 4),
        "evictions": served.n_evictions,
        **times(seconds),
        "hit_ms": round(median_ms(seconds[was_hit]), 3) if was_hit.any() else None,
        "miss_ms": None if was_hit.all() else round(median_ms(seconds[~was_hit]), 3),
    }
