"""Interleaved timing: A B A B, so that a slow moment of the machine hits every candidate alike.

Not: what is timed (latency.py, kernels.py). Actions are called on the caller's thread; all times
are wall-clock seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A ratio of medians and its bootstrap interval."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """What an action returns that has taken its own time (in another process)."""

    seconds: float


def interleaved(
    actions: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 50,
    warmup: int = 5,
    pause_s: float = 0.0,
    lead: int = 0,
    after_call: Callable[[], object] = lambda: None,
) -> dict[str, Seconds]:
    """Seconds [rounds] of every action.

    Each round calls each action once; the order turns by one from round to round, so none always
    follows the same neighbour (and inherits its caches). `pause_s` is slept before each turn of an
    action; it is not timed, nor are the `lead` calls that come first in the turn, nor `after_call`,
    which follows each call. An action that returns `Measured` is believed. Errors: ValueError when
    rounds < 1.
    """
    if rounds < 1 or warmup < 0:
        raise ValueError(f"rounds is {rounds} and warmup {warmup}; need at least 1 and 0")
    names = list(actions)
    seconds = {name: np.empty(rounds) for name in names}
    for index in range(-warmup, rounds):
        turn = index % max(1, len(names))
        for name in names[turn:] + names[:turn]:
            time.sleep(pause_s)
            for _ in range(lead):
                actions[name]()
                after_call()
            start = time.perf_counter()
            result = actions[name]()
            elapsed = time.perf_counter() - start
            if isinstance(result, Measured):
                elapsed = result.seconds
            if index >= 0:
                seconds[name][index] = elapsed
            after_call()
    return seconds


def median_ms(seconds: Seconds) -> float:
    """Median in milliseconds."""
    return float(np.median(seconds) * 1e3)


def p99_ms(seconds: Seconds) -> float:
    """99th percentile in milliseconds (the slowest round when there are fewer than 100)."""
    return float(np.quantile(seconds, 0.99, method="higher") * 1e3)


def ratio_interval(
    slow: Seconds, fast: Seconds, *, level: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> Interval:
    """median(slow) / median(fast) with a percentile bootstrap over rounds.

    Rounds are resampled in pairs, as they were taken: `slow` and `fast` have equal lengths and come
    from one `interleaved` call.
    """
    if slow.shape != fast.shape:
        raise ValueError(f"{slow.size} and {fast.size} rounds; pairs need equal counts")
    picks = np.random.default_rng(seed).integers(0, slow.size, (n_resamples, slow.size))
    ratios = np.median(slow[picks], axis=1) / np.median(fast[picks], axis=1)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.median(slow) / np.median(fast)), float(low), float(high))
