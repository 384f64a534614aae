"""What `csrm serve` costs beside the score: a request over a kept connection and Scorer.score.

The server is a process of its own with the same model, config and number of threads. Each round
asks both with a turn that no cache has seen, and /healthz for the price of HTTP alone; then clients
run in a closed loop. Rows go to the caller and to a JSON file. Not: scheduling (throughput.py).
"""

from __future__ import annotations

import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

import csrm
from csrm.bench.compared import assistant_turn
from csrm.bench.machine import environment
from csrm.bench.texts import CaseTexts, case_texts, open_renderer
from csrm.bench.timing import interleaved, median_ms, p99_ms, ratio_interval
from csrm.errors import BadArgument, EngineFailed
from csrm.paths import default_artifact

CONFIG_TOKENS = 256
_START_TIMEOUT_S = 120
_HEADERS = {"content-type": "application/json"}


def run(
    artifact: str | None = None,
    lengths: Sequence[int] = (32, 128, 512),
    clients: Sequence[int] = (1, 8, 32),
    threads: int = 2,
    rounds: int = 100,
    json_path: str | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Rows of every length ("way": "single") and every number of clients ("way": "clients").

    Single: turn_tokens, http_ms and http_p99_ms, plain_ms and plain_p99_ms, over_ms (median of the
    rounds' differences), slower with its 95% interval, alive_ms (GET /healthz). Clients:
    requests_per_s, p50_ms, p99_ms of `rounds` requests of lengths[0] tokens, at least two each.
    Errors: BadArgument; EngineFailed when the server does not start; those of csrm.load.
    """
    if min(threads, rounds, *lengths, *clients) < 1:
        raise BadArgument("threads, rounds, lengths and clients must be at least 1")
    folder = default_artifact() if artifact is None else Path(artifact)
    renderer = open_renderer(folder)
    cases = {n: case_texts(renderer, f"{CONFIG_TOKENS}+{n}") for n in lengths}
    config = csrm.SafetyConfig.from_rules(cases[lengths[0]].rules, id="bench")
    rows = []
    with serving(folder, config, threads) as port:
        scorer = csrm.load(folder, n_threads=threads)
        for n_tokens, case in cases.items():
            row = single_row(scorer, config, port, case, rounds)
            rows.append({"way": "single", "turn_tokens": n_tokens, "threads": threads, **row})
        for n_clients in clients:
            row = clients_row(port, cases[lengths[0]], n_clients, max(rounds, 2 * n_clients))
            rows.append({"way": "clients", "turn_tokens": lengths[0], "threads": threads, **row})
    for row in rows if progress else ():
        sys.stderr.write(f"{json.dumps(row)}\n")
    if json_path is not None:
        report = {"env": environment(), "rows": rows}
        Path(json_path).write_text(json.dumps(report, indent=1) + "\n")
    return rows


@contextmanager
def serving(artifact: Path, config: csrm.SafetyConfig, threads: int) -> Iterator[int]:
    """The port of a server with this config, ready. Errors: EngineFailed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.yaml"
        path.write_text(config.to_yaml(), encoding="utf-8")
        command = [sys.executable, "-m", "csrm", "serve", "--config", str(path), "--port", "0"]
        command += ["--model", str(artifact), "--threads", str(threads), "--poll-s", "0"]
        with (
            (Path(folder) / "log").open("w+b") as log,
            subprocess.Popen(command, stderr=log, env={**os.environ}) as server,
        ):
            try:
                yield _ready_port(server, log)
            finally:
                server.terminate()


def _ready_port(server: subprocess.Popen[bytes], log: IO[bytes]) -> int:
    until = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < until and server.poll() is None:
        log.seek(0)
        events = [json.loads(line) for line in log if line.startswith(b"{") and line[-1:] == b"\n"]
        ports = [event["port"] for event in events if event["event"] == "listening"]
        if ports and any(event["event"] == "loaded" for event in events):
            return int(ports[0])
        time.sleep(0.05)
    raise EngineFailed("csrm serve did not start; try it alone: csrm serve --config FILE")


@contextmanager
def asking(port: int) -> Iterator[Callable[[str, str], bytes]]:
    """A function that sends one request over its own kept connection, for one thread."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(path: str, turn: str) -> bytes:
        body = json.dumps({"messages": assistant_turn(turn)}) if turn else None
        connection.request("POST" if turn else "GET", path, body, _HEADERS)
        response = connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise EngineFailed(f"the server answered {response.status}")
        return data

    with closing(connection):
        yield ask


def single_row(
    scorer: csrm.Scorer, config: csrm.SafetyConfig, port: int, case: CaseTexts, rounds: int
) -> dict[str, Any]:
    """One request at a time, interleaved with the score alone."""
    rng = random.Random(0)
    with asking(port) as ask:
        seconds = interleaved(
            {
                "http": lambda: ask("/v1/score", case.permuted(rng)),
                "plain": lambda: scorer.score(config, assistant_turn(case.permuted(rng))),
                "alive": lambda: ask("/healthz", ""),
            },
            rounds=rounds,
        )
    slower = ratio_interval(seconds["http"], seconds["plain"])
    return {
        "http_ms": round(median_ms(seconds["http"]), 3),
        "http_p99_ms": round(p99_ms(seconds["http"]), 3),
        "plain_ms": round(median_ms(seconds["plain"]), 3),
        "plain_p99_ms": round(p99_ms(seconds["plain"]), 3),
        "over_ms": round(median_ms(seconds["http"] - seconds["plain"]), 3),
        "slower": round(slower.ratio, 4),
        "slower_low": round(slower.low, 4),
        "slower_high": round(slower.high, 4),
        "alive_ms": round(median_ms(seconds["alive"]), 3),
    }


def clients_row(port: int, case: CaseTexts, n_clients: int, n_requests: int) -> dict[str, Any]:
    """`n_requests` from threads that each send their next request when they have an answer."""
    rng = random.Random(1)
    waiting = iter([case.permuted(rng) for _ in range(n_requests)])
    take, latencies = threading.Lock(), []
    start = threading.Barrier(n_clients + 1, timeout=60)

    def client() -> None:
        with asking(port) as ask:
            ask("/healthz", "")
            start.wait()
            while True:
                with take:
                    turn = next(waiting, None)
                if turn is None:
                    return
                sent = time.perf_counter()
                ask("/v1/score", turn)
                latencies.append(time.perf_counter() - sent)

    threads = [threading.Thread(target=client) for _ in range(n_clients)]
    for thread in threads:
        thread.start()
    start.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    if len(latencies) != n_requests:
        raise EngineFailed(f"{len(latencies)} answers to {n_requests} requests")
    measured = np.array(latencies)
    return {
        "clients": n_clients,
        "requests_per_s": round(n_requests / seconds, 2),
        "p50_ms": round(median_ms(measured), 2),
        "p99_ms": round(p99_ms(measured), 2),
    }
