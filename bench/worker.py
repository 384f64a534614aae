"""`python -m csrm.bench.worker ENGINE ARTIFACT THREADS`: one baseline in a process of its own.

A line of JSON in, a line out (remote.py is the other end):

    (start)              -> {"versions": {"openvino": "2026.4.1"}}
    {"prepare": ROWS}    -> {"rows": ROWS}       what `run` will answer (interface.Baseline.prepare)
    {"run": null}        -> {"seconds": 0.012, "rewards": [1.5], "rss_mb": 210.4}
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
from typing import Any

import numpy as np

from csrm.bench.baselines.interface import Baseline
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
        answer({"versions": versions(spec)})
        serve(baseline, sys.stdin, answer, before)
    finally:
        baseline.close()
    return 0


def serve(baseline: Baseline, requests: Iterable[str], answer: Answer, rss: float | None) -> None:
    """Answers each line of `requests`; rss: memory before the baseline was loaded."""
    for line in requests:
        request = json.loads(line)
        try:
            if "prepare" in request:
                rows = {name: np.array(ids, np.int64) for name, ids in request["prepare"].items()}
                taken = baseline.prepare(rows)
                answer({"rows": {name: ids.tolist() for name, ids in taken.items()}})
            else:
                start = time.perf_counter()
                rewards = baseline.run()
                seconds = time.perf_counter() - start
                grown = growth_mb(rss, tree_rss_mb())
                answer({"seconds": seconds, "rewards": rewards.tolist(), "rss_mb": grown})
        except Exception as error:
            answer(failure(error))


def failure(error: Exception) -> dict[str, Any]:
    """The answer that reports `error`; its traceback goes to stderr."""
    traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, Error):
        return {"error": type(error).__name__, "message": error.message}
    return {"error": "EngineFailed", "message": f"the engine raised {type(error).__name__}"}


def versions(spec: EngineSpec) -> dict[str, str]:
    """Versions of the packages that make the engine."""
    return {name: metadata.version(name) for name in spec.distributions}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
