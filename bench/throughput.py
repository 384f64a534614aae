"""How many scores a second, and how late: clients in a closed loop on one model, in three ways.

"scheduler" is csrm.Scheduler, "lock" one lock around Scorer.score, "threads" Scorer.score called by
all clients at once. Each client is a thread that sends its next request when the last is answered;
requests are turns of mixed lengths, never scored before, under one of several cached configs. The
ways run interleaved, round after round. Also the price of the scheduler when nothing else waits.
Rows go to the caller, to a JSON file and to a chart of the same stem. Not: an open loop.
"""

from __future__ import annotations

import json
import math
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import csrm
from csrm.bench.compared import assistant_turn
from csrm.bench.machine import environment
from csrm.bench.report import write_throughput_chart
from csrm.bench.texts import CaseTexts, case_texts, open_renderer
from csrm.bench.timing import interleaved, median_ms, ratio_interval
from csrm.errors import BadArgument
from csrm.paths import default_artifact

WAYS = ("scheduler", "lock", "threads")
CONFIG_TOKENS = 256
LENGTHS = (32, 900)  # tokens of a turn; log-uniform between them
IDLE_LENGTH = 64

Score = Callable[[csrm.SafetyConfig, list[dict[str, str]]], csrm.Score]


@dataclass(frozen=True)
class Request:
    """One turn under one config."""

    config: csrm.SafetyConfig
    conversation: list[dict[str, str]]


@dataclass(frozen=True)
class Measurement:
    """One round of one way: what every client saw."""

    seconds: float  # until the last answer
    cpu_seconds: float  # of the process meanwhile
    latencies: list[float]  # of each request
    real_tokens: int  # rows of the scheduler; 0 for the other ways
    padded_tokens: int


def run(
    artifact: str | None = None,
    clients: Sequence[int] = (1, 4, 16, 64),
    configs: Sequence[int] = (1, 8),
    threads: int = 2,
    rounds: int = 3,
    requests: int = 96,
    json_path: str | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Rows of every number of clients and configs and every way, then the row of the idle price.

    requests: sent in a round of one way, shared by its clients (at least twice their number).
    Row: way, clients, configs, threads, requests_per_s (median of rounds), cpu_ms (of the process,
    for one request; unlike the rate little changed by neighbours on the machine), p50_ms, p99_ms
    (of all rounds' requests), padding (padded / real tokens of the scheduler, else None). The idle
    row has way "idle", and idle_ms, plain_ms, slower, slower_low, slower_high: median of
    submit().result(), of Scorer.score, and their ratio with its 95% interval.
    json_path: {"env", "rows"} is written there and a chart to the same stem .png.
    Errors: BadArgument, and those of csrm.load.
    """
    if min(threads, rounds, requests, *clients, *configs) < 1:
        raise BadArgument("threads, rounds, requests, clients and configs must be at least 1")
    folder = default_artifact() if artifact is None else Path(artifact)
    scorer = csrm.load(folder, n_threads=threads, cache_tokens=4 * CONFIG_TOKENS * max(configs))
    pool = Pool(folder, max(configs))
    rows = []
    for n_configs in configs:
        for config in pool.configs[:n_configs]:
            scorer.score(config, assistant_turn(pool.turns[0].turn))
        for n_clients in clients:
            measured: dict[str, list[Measurement]] = {way: [] for way in WAYS}
            for index in range(rounds):
                turn = index % len(WAYS)
                for way in WAYS[turn:] + WAYS[:turn]:
                    batch = pool.requests(max(requests, 2 * n_clients), n_configs, seed=index)
                    measured[way].append(measure(scorer, way, n_clients, batch))
            for way, measurements in measured.items():
                rows.append(row(way, n_clients, n_configs, threads, measurements))
                if progress:
                    sys.stderr.write(f"{json.dumps(rows[-1])}\n")
    rows.append(idle_row(scorer, pool, threads, 20 * rounds))
    if progress:
        sys.stderr.write(f"{json.dumps(rows[-1])}\n")
    if json_path is not None:
        Path(json_path).write_text(
            json.dumps({"env": environment(), "rows": rows}, indent=1) + "\n"
        )
        write_throughput_chart(rows, Path(json_path).with_suffix(".png"))
    return rows


class Pool:
    """Configs, and turns of mixed lengths that come in a new order of words each time."""

    def __init__(self, artifact: Path, n_configs: int) -> None:
        renderer = open_renderer(artifact)
        self.configs = [
            csrm.SafetyConfig.from_rules(
                case_texts(renderer, f"{CONFIG_TOKENS}+{LENGTHS[0]}", seed=seed).rules
            )
            for seed in range(n_configs)
        ]
        low, high = (math.log(length) for length in LENGTHS)
        rng = random.Random(0)
        lengths = [round(math.exp(rng.uniform(low, high))) for _ in range(24)]
        self.turns = [case_texts(renderer, f"32+{n}", seed=i) for i, n in enumerate(lengths)]
        self.idle: CaseTexts = case_texts(renderer, f"32+{IDLE_LENGTH}")

    def requests(self, n: int, n_configs: int, seed: int) -> list[Request]:
        """`n` requests, the same for equal arguments."""
        rng = random.Random(seed)
        return [
            Request(
                self.configs[rng.randrange(n_configs)],
                assistant_turn(rng.choice(self.turns).permuted(rng)),
            )
            for _ in range(n)
        ]


@contextmanager
def score_by(scorer: csrm.Scorer, way: str) -> Iterator[tuple[Score, csrm.Scheduler | None]]:
    """A function that scores one conversation in the given way."""
    lock = threading.Lock()

    def locked(config: csrm.SafetyConfig, conversation: list[dict[str, str]]) -> csrm.Score:
        with lock:
            return scorer.score(config, conversation)

    if way == "lock":
        yield locked, None
    elif way == "threads":
        yield scorer.score, None
    else:
        with csrm.Scheduler(scorer, max_tokens=2**31 - 1) as scheduler:
            yield lambda config, turns: scheduler.submit(config, turns).result(), scheduler


def measure(scorer: csrm.Scorer, way: str, n_clients: int, requests: list[Request]) -> Measurement:
    """Sends `requests` from `n_clients` threads, each its next one when it has its answer."""
    waiting = iter(requests)
    take = threading.Lock()
    latencies: list[float] = []
    start = threading.Barrier(n_clients + 1)

    with score_by(scorer, way) as (score, scheduler):

        def client() -> None:
            start.wait()
            while True:
                with take:
                    request = next(waiting, None)
                if request is None:
                    return
                sent = time.perf_counter()
                score(request.config, request.conversation)
                latencies.append(time.perf_counter() - sent)

        clients = [threading.Thread(target=client) for _ in range(n_clients)]
        for thread in clients:
            thread.start()
        start.wait()
        begun, cpu_begun = time.perf_counter(), time.process_time()
        for thread in clients:
            thread.join()
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu_begun
        stats = scheduler.stats() if scheduler is not None else {}
    if len(latencies) != len(requests):
        raise RuntimeError(f"{len(latencies)} answers to {len(requests)} requests")
    return Measurement(
        seconds, cpu_seconds, latencies, stats.get("real_tokens", 0), stats.get("padded_tokens", 0)
    )


def row(
    way: str, n_clients: int, n_configs: int, threads: int, measurements: list[Measurement]
) -> dict[str, Any]:
    """All rounds of one way as a row."""
    latencies = np.array([latency for m in measurements for latency in m.latencies]) * 1e3
    rates = [len(m.latencies) / m.seconds for m in measurements]
    cpu = sum(m.cpu_seconds for m in measurements)
    real = sum(m.real_tokens for m in measurements)
    padded = sum(m.padded_tokens for m in measurements)
    return {
        "way": way,
        "clients": n_clients,
        "configs": n_configs,
        "threads": threads,
        "requests_per_s": round(float(np.median(rates)), 3),
        "cpu_ms": round(cpu / latencies.size * 1e3, 2),
        "p50_ms": round(float(np.median(latencies)), 2),
        "p99_ms": round(float(np.quantile(latencies, 0.99, method="higher")), 2),
        "padding": round(padded / real, 4) if real else None,
    }


def idle_row(scorer: csrm.Scorer, pool: Pool, threads: int, rounds: int) -> dict[str, Any]:
    """One request at a time through the scheduler and without it, interleaved."""
    rng = random.Random(3)
    config = pool.configs[0]
    with csrm.Scheduler(scorer) as scheduler:
        seconds = interleaved(
            {
                "idle": lambda: scheduler.submit(
                    config, assistant_turn(pool.idle.permuted(rng))
                ).result(),
                "plain": lambda: scorer.score(config, assistant_turn(pool.idle.permuted(rng))),
            },
            rounds=rounds,
        )
    slower = ratio_interval(seconds["idle"], seconds["plain"])
    return {
        "way": "idle",
        "threads": threads,
        "idle_ms": round(median_ms(seconds["idle"]), 3),
        "plain_ms": round(median_ms(seconds["plain"]), 3),
        "slower": round(slower.ratio, 4),
        "slower_low": round(slower.low, 4),
        "slower_high": round(slower.high, 4),
    }
