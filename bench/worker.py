"""`python -m csrm.bench.worker ENGINE ARTIFACT THREADS`: one baseline in a process of its own.

A line of JSON in, a line out (remote.py is the other end):

    (start)              -> {"versions": {"openvino": "2026.4.1"}}
    {"prepare": ROWS}    -> {"rows": ROWS}       what `run` will answer (interface.Baseline.prepare)
    {"run": null}        -> {"seconds": 0.012, "rewards": [1.5], "rss_mb": 210.4}
    {"prepare_cached": {"blocks": [ROWS, ...], "turns": ROWS}} -> {}         of a CachingBaseline
    {"run_cached": null} -> as "run"
    (anything that fails) -> {"error": "Unsupported", "message": "..."}

ROWS is an object of nested lists. The time is measured here, around `run` alone. The process ends
when its input does. What an engine prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from csrm.bench.baselines.interface import (
    Baseline,
    CachedRows,
    CachingBaseline,
    listed_rows,
    rows_of,
)
from csrm.bench.engines import EngineSpec, engine_named
from csrm.bench.memory import growth_mb, tree_rss_mb
from csrm.errors import Error

Answer = Callable[[dict[str, Any]], None]


def main(arguments: list[str]) -> int:
    """Serves the baseline until stdin ends. Exit status 0, or 1 when it could not be loaded."""
    name, artifact, threads = arguments
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(fields: dict[str, Any]) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    before = tree_rss_mb()
    spec = engine_named(name)
    try:
        baseline = spec.load(Path(artifact), int(threads))
    except Exception as error:
        answer(failure(error))
        return 1
    try:
        answer({"versions": {**versions(spec), **getattr(baseline, "notes", {})}})
        serve(baseline, sys.stdin, answer, before)
    finally:
        baseline.close()
    return 0


def serve(baseline: Baseline, requests: Iterable[str], answer: Answer, rss: float | None) -> None:
    """Answers each line of `requests`; rss: memory before the baseline was loaded."""
    for line in requests:
        try:
            answer(answered(baseline, json.loads(line), rss))
        except Exception as error:
            answer(failure(error))


def answered(baseline: Baseline, request: dict[str, Any], rss: float | None) -> dict[str, Any]:
    """The answer to one request. Errors: the baseline's."""
    if "prepare" in request:
        return {"rows": listed_rows(baseline.prepare(rows_of(request["prepare"])))}
    caching = cast(CachingBaseline, baseline)  # whoever asks for more knows the EngineSpec
    if "prepare_cached" in request:
        wanted = request["prepare_cached"]
        blocks = tuple(rows_of(block) for block in wanted["blocks"])
        caching.prepare_cached(CachedRows(blocks, rows_of(wanted["turns"])))
        return {}
    run = caching.run_cached if "run_cached" in request else baseline.run
    start = time.perf_counter()
    rewards = run()
    seconds = time.perf_counter() - start
    grown = growth_mb(rss, tree_rss_mb())
    return {"seconds": seconds, "rewards": rewards.tolist(), "rss_mb": grown}


def failure(error: Exception) -> dict[str, Any]:
    """The answer that reports `error`; its traceback goes to stderr."""
    traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, Error):
        return {"error": type(error).__name__, "message": error.message}
    said = str(error).partition("\n")[0]
    message = f"the engine raised {type(error).__name__}{': ' if said else ''}{said}"
    return {"error": "EngineFailed", "message": message}


def versions(spec: EngineSpec) -> dict[str, str]:
    """Versions of the packages that make the engine."""
    return {name: metadata.version(name) for name in spec.distributions}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
