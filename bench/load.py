"""An open loop on `csrm serve`: how many requests a second in time, and what overload does.

A generator in a process of its own (load_generator.py) sends turns at Poisson times that are fixed
in advance; latency counts from the intended time, so a server that stalls is not spared what would
have come meanwhile. First the price of the server beside the score, then rates without a deadline
until p99 breaks the bound, then rates with the bound as the deadline, up to a multiple of the
highest goodput. Rows go to the caller, to a JSON file and to a chart. Not: a closed loop
(serving.py).
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

import csrm
from csrm.bench.compared import assistant_turn
from csrm.bench.machine import environment
from csrm.bench.report import write_load_chart
from csrm.bench.server_process import ServerProcess
from csrm.bench.serving import CONFIG_TOKENS, single_row
from csrm.bench.texts import CaseTexts, case_texts, open_renderer
from csrm.errors import BadArgument, EngineFailed
from csrm.paths import default_artifact
from csrm.progress_bar import progress_bar

# Multiples of one over the median of a lone request.
PATIENT = (0.2, 0.4, 0.6, 0.8, 1.0)
BOUNDED = (0.4, 0.7, 1.0, 1.3, 2.0)
N_HALVINGS = 3
N_BODIES = 256
LATE = 0.01  # the share of requests that may miss the bound
_OPTIONS = ("--deadline-s", "20")

Ask = Callable[..., dict[str, Any]]


def run(
    artifact: str | None = None,
    turn_tokens: int = 128,
    bound_ms: float = 50.0,
    overload: float = 5.0,
    seconds: float = 10.0,
    threads: int = 2,
    rounds: int = 60,
    json_path: str | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """A row "single" (see serving.single_row), a row "open" for each rate, a row "summary".

    open: is_bounded (whether requests state bound_ms as their deadline), offered_per_s, n,
    answered_per_s, goodput_per_s (answered within bound_ms), late (share of all requests that were
    not), p50_ms and p99_ms of the answered, refused (429) and refused_p99_ms, expired (504), other
    (anything else), healthz_p99_ms, lag_p99_ms (how late the generator sent) and generator_cpu.
    summary: rate_at_bound (highest rate of which 99% were in time), peak_goodput_per_s,
    overload_goodput (share of the peak at `overload` times it), overload_refused_p99_ms,
    overload_healthz_p99_ms. seconds: of each rate. Errors: BadArgument, EngineFailed; those of
    csrm.load.
    """
    if min(turn_tokens, threads, rounds) < 1 or min(bound_ms, overload, seconds) <= 0:
        raise BadArgument("all numbers must be above 0")
    folder = default_artifact() if artifact is None else Path(artifact)
    case = case_texts(open_renderer(folder), f"{CONFIG_TOKENS}+{turn_tokens}")
    config = csrm.SafetyConfig.from_rules(case.rules, id="bench")
    n_steps = len(PATIENT) + N_HALVINGS + len(BOUNDED) + 1
    with (
        loaded(folder, config, case, threads, seconds) as (port, ask),
        progress_bar("load", n_steps + 1, is_shown=progress) as advance,
    ):
        scorer = csrm.load(folder, n_threads=threads)
        single = single_row(scorer, config, port, case, rounds)
        del scorer
        advance(1)
        unit = 1e3 / single["http_ms"]

        def measure(rate: float, *, is_bounded: bool) -> dict[str, Any]:
            headers = {"x-csrm-deadline-ms": f"{bound_ms:g}"} if is_bounded else {}
            answer = ask(rate=rate, headers=headers)
            advance(1)
            return open_row(answer, rate, bound_ms, seconds, is_bounded=is_bounded)

        rows = [measure(unit * step, is_bounded=False) for step in PATIENT]
        rows += halved(rows, lambda rate: measure(rate, is_bounded=False))
        rows += [measure(unit * step, is_bounded=True) for step in BOUNDED]
        peak = max(row["goodput_per_s"] for row in rows if row["is_bounded"])
        rows.append(measure(overload * max(peak, 1.0), is_bounded=True))
    rows = [
        {"way": "single", "turn_tokens": turn_tokens, "threads": threads, **single},
        *({"way": "open", **row} for row in rows),
        {"way": "summary", "bound_ms": bound_ms, "overload": overload, **summary(rows, peak)},
    ]
    for row in rows if progress else ():
        sys.stderr.write(f"{json.dumps(row)}\n")
    if json_path is not None:
        report = {"env": environment(), "rows": rows}
        Path(json_path).write_text(json.dumps(report, indent=1) + "\n")
        write_load_chart(rows, Path(json_path).with_suffix(".png"))
    return rows


@contextmanager
def loaded(
    artifact: Path, config: csrm.SafetyConfig, case: CaseTexts, threads: int, seconds: float
) -> Iterator[tuple[int, Ask]]:
    """The port of a server, and a function that lets the generator play one rate on it."""
    rng = random.Random(2)
    bodies = [json.dumps({"messages": assistant_turn(case.permuted(rng))}) for _ in range(N_BODIES)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.yaml"
        path.write_text(config.to_yaml(), encoding="utf-8")
        with ServerProcess(Path(folder), path, artifact, threads, options=_OPTIONS) as server:
            server.wait_ready()
            command = [sys.executable, "-m", "csrm.bench.load_generator", str(server.port)]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as generator:
                jobs, answers = cast("IO[str]", generator.stdin), cast("IO[str]", generator.stdout)
                steps = iter(range(1 << 30))

                def ask(**job: Any) -> dict[str, Any]:
                    whole = {"seconds": seconds, "seed": next(steps), "bodies": bodies, **job}
                    jobs.write(json.dumps(whole) + "\n")
                    jobs.flush()
                    line = answers.readline()
                    if not line:
                        raise EngineFailed("the load generator has ended")
                    return dict(json.loads(line))

                try:
                    yield server.port, ask
                finally:
                    jobs.close()


def open_row(
    answer: dict[str, Any], rate: float, bound_ms: float, seconds: float, *, is_bounded: bool
) -> dict[str, Any]:
    """What the generator saw of one rate."""
    intended, status = np.array(answer["intended"]), answer["status"]
    sent = np.array([np.nan if at is None else at for at in answer["sent"]])
    done = np.array([np.nan if at is None else at for at in answer["done"]])
    latencies = (done - intended) * 1e3
    is_answered = np.array([code == 200 for code in status], dtype=bool)
    is_refused = np.array([code == 429 for code in status], dtype=bool)
    n_good = int((latencies[is_answered] <= bound_ms).sum())
    n_expired = sum(code == 504 for code in status)
    n = len(status)
    return {
        "is_bounded": is_bounded,
        "offered_per_s": round(rate, 2),
        "n": n,
        "answered_per_s": round(is_answered.sum() / seconds, 2),
        "goodput_per_s": round(n_good / seconds, 2),
        "late": round(1 - n_good / n, 4) if n else 0.0,
        "p50_ms": _quantile(latencies[is_answered], 0.5),
        "p99_ms": _quantile(latencies[is_answered], 0.99),
        "refused": int(is_refused.sum()),
        "refused_p50_ms": _quantile(latencies[is_refused], 0.5),
        "refused_p99_ms": _quantile(latencies[is_refused], 0.99),
        "expired": n_expired,
        "other": n - int(is_answered.sum()) - int(is_refused.sum()) - n_expired,
        "healthz_p99_ms": _quantile(np.array(answer["health"]) * 1e3, 0.99),
        "lag_p99_ms": _quantile((sent - intended)[~np.isnan(sent)] * 1e3, 0.99),
        "generator_cpu": round(answer["cpu_s"] / seconds, 3),
    }


def halved(
    rows: Sequence[dict[str, Any]], measure: Callable[[float], dict[str, Any]]
) -> list[dict[str, Any]]:
    """More rows between the highest rate that keeps the bound and the lowest that does not."""
    good = [row["offered_per_s"] for row in rows if row["late"] <= LATE]
    bad = [row["offered_per_s"] for row in rows if row["late"] > LATE]
    low, high = max(good, default=0.0), min(bad, default=2 * max(good, default=1.0))
    found = []
    for _ in range(N_HALVINGS):
        found.append(measure((low + high) / 2))
        if found[-1]["late"] <= LATE:
            low = found[-1]["offered_per_s"]
        else:
            high = found[-1]["offered_per_s"]
    return found


def summary(rows: Sequence[dict[str, Any]], peak: float) -> dict[str, Any]:
    """The figures that the server is held to; the last row is the overload."""
    good = [row["offered_per_s"] for row in rows if not row["is_bounded"] and row["late"] <= LATE]
    last = rows[-1]
    return {
        "rate_at_bound": max(good, default=0.0),
        "peak_goodput_per_s": peak,
        "overload_goodput": round(last["goodput_per_s"] / peak, 3) if peak else 0.0,
        "overload_refused_p99_ms": last["refused_p99_ms"],
        "overload_healthz_p99_ms": last["healthz_p99_ms"],
        "lag_p99_ms": max(row["lag_p99_ms"] or 0.0 for row in rows),
    }


def _quantile(values: Any, share: float) -> float | None:
    if not len(values):
        return None
    return round(float(np.quantile(values, share, method="higher")), 2)
