"""How the cost of a score grows with the rules of the config: cached, edited, and not cached.

Not: memory (scaling_memory.py). A rule has 32 tokens, and every round scores a turn that was never
scored before. Rows go to the caller, to a JSON file and to a chart of the same stem.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import csrm
from csrm.bench.compared import Action, assistant_turn
from csrm.bench.cpu_peaks import CpuPeaks
from csrm.bench.floor import encoder_size, floor_operations, set_floors
from csrm.bench.report import write_growth_chart
from csrm.bench.scaling import announce, arithmetic, save, times
from csrm.bench.texts import RULE_TOKENS, CaseTexts, case_texts, open_renderer, shuffled
from csrm.bench.timing import Seconds, interleaved
from csrm.errors import BadArgument
from csrm.paths import default_artifact
from csrm.progress_bar import Advance, progress_bar

TURN_TOKENS = 64
WARMUP = 2
COLD_WARMUP = 1
# What the rounds without a cache encode at most (but there are two): seconds for 1,000 rules each.
COLD_TOKENS = 100_000

CACHED = "csrm cached"
EDITED = "csrm one rule new"
COLD = "csrm nothing cached"


def run_rules(
    artifact: str | None,
    *,
    rules: Sequence[int] = (1, 10, 100, 1000),
    threads: int = 2,
    rounds: int = 20,
    json_path: str | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Rows of every number of rules and state of the cache.

    artifact: a model folder, None = the shipped one. Row: engine ("csrm cached"; "csrm one rule
    new", as after an edit, with all other rules cached; "csrm nothing cached"), rules,
    config_tokens, threads, rounds (without a cache fewer, where a config is long), median_ms,
    p99_ms, floor_ms (the turn alone over a cached config, csrm.bench.floor). json_path: {"env",
    "peak_gflop_s", "rows"} is written there and a chart to the same stem .png. Errors: BadArgument,
    LimitExceeded, those of csrm.load.
    """
    if min(threads, rounds, *rules) < 1:
        raise BadArgument("rules, threads and rounds must be at least 1")
    folder = default_artifact() if artifact is None else Path(artifact)
    renderer = open_renderer(folder)
    size = encoder_size(folder)
    uncached = csrm.load(folder, n_threads=threads, cache_tokens=0)
    computed = arithmetic(uncached)
    peaks = CpuPeaks(threads)
    rows: list[dict[str, Any]] = []
    total = sum(2 * (rounds + WARMUP) + cold_rounds(n, rounds) + COLD_WARMUP for n in rules)
    with progress_bar("scaling rules", total, is_shown=progress) as advance:
        for n in rules:
            n_tokens = n * RULE_TOKENS
            texts = case_texts(renderer, f"{n_tokens}+{TURN_TOKENS}")
            # The rules, the config of all of them, and that of an edited one: three times over.
            cached = csrm.load(folder, n_threads=threads, cache_tokens=4 * n_tokens)
            seconds = measure(cached, uncached, texts, rounds, advance)
            peaks.measure([computed])
            for engine, own in seconds.items():
                row = {"engine": engine, "arithmetic": computed, "rules": n, "threads": threads}
                rows.append(row | {"config_tokens": n_tokens, "rounds": own.size, **times(own)})
            set_floors(
                rows, lambda r: floor_operations(size, r["config_tokens"], TURN_TOKENS, 1), peaks
            )
            if progress:
                for row in rows[-len(seconds) :]:
                    announce(row, "rules")
    label = f"rules of {RULE_TOKENS} tokens; a turn of {TURN_TOKENS}"
    save(rows, peaks, json_path, partial(write_growth_chart, x="rules", x_label=label))
    return rows


def measure(
    cached: csrm.Scorer, uncached: csrm.Scorer, texts: CaseTexts, rounds: int, advance: Advance
) -> dict[str, Seconds]:
    """Seconds of every engine for one config; the two with a cache take turns."""
    seconds = interleaved(
        cached_actions(cached, texts, rounds + WARMUP),
        rounds=rounds,
        warmup=WARMUP,
        after_call=lambda: advance(1),
    )
    return seconds | interleaved(
        {COLD: turn_action(uncached, texts)},
        rounds=cold_rounds(len(texts.rules), rounds),
        warmup=COLD_WARMUP,
        after_call=lambda: advance(1),
    )


def cold_rounds(n_rules: int, rounds: int) -> int:
    """How often a config of `n_rules` is scored without a cache, of `rounds` wanted."""
    return min(rounds, max(2, COLD_TOKENS // (n_rules * RULE_TOKENS)))


def cached_actions(scorer: csrm.Scorer, texts: CaseTexts, n_calls: int) -> dict[str, Action]:
    """The config of `texts` in the cache, and that config with one rule that never was."""
    configs = edited_configs(texts, n_calls)
    turn = turns(texts, seed=1)
    scorer.score(list(texts.rules), assistant_turn(texts.turn))
    return {
        CACHED: turn_action(scorer, texts),
        EDITED: lambda: scorer.score(next(configs), next(turn)),
    }


def turn_action(scorer: csrm.Scorer, texts: CaseTexts) -> Action:
    """A new turn under the config of `texts`."""
    config = csrm.SafetyConfig.from_rules(texts.rules)
    turn = turns(texts, seed=2)
    return lambda: scorer.score(config, next(turn))


def edited_configs(texts: CaseTexts, n: int) -> Iterator[csrm.SafetyConfig]:
    """`n` configs like that of `texts`, each with one rule in other words."""
    rng = random.Random(0)
    configs = []
    for index in range(n):
        rules = list(texts.rules)
        place = index % len(rules)
        rules[place] = shuffled(rules[place], rng)
        configs.append(csrm.SafetyConfig.from_rules(rules))
    return iter(configs)


def turns(texts: CaseTexts, seed: int) -> Iterator[list[dict[str, str]]]:
    """Conversations of one turn each, all as long as that of `texts`, without end."""
    rng = random.Random(seed)
    while True:
        yield assistant_turn(texts.permuted(rng))
