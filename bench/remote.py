"""A baseline in a process of its own (worker.py), seen from here as a `Baseline`.

Every baseline runs so, in this environment or another: one engine's thread pool, allocator or
patches of a shared library then never meet another's, and its memory can be told. Not: its code
(baselines/).
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from csrm.bench.baselines.interface import CachedRows, Rewards, Rows, listed_rows, rows_of
from csrm.bench.engines import EngineSpec
from csrm.bench.timing import Measured
from csrm.errors import EngineFailed, error_from_name

_LOG_LINES = 8
_CLOSE_TIMEOUT_S = 30


class RemoteBaseline:
    """One engine's process. Not thread-safe. Close it, or use it as a context manager.

    Errors of every method: those that the engine raised, and EngineFailed when its process ended.
    """

    def __init__(self, spec: EngineSpec, python: Path, artifact: Path, threads: int) -> None:
        self.name = spec.name
        self.is_caching = spec.is_caching
        self.rss_mb: float | None = None  # growth since before the model was loaded, after a run
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        # Intel's OpenMP threads spin for 200 ms after a call, into the next engine's time.
        environment = {"KMP_BLOCKTIME": "1", **os.environ}
        self._process = subprocess.Popen(
            [str(python), "-m", "csrm.bench.worker", spec.name, str(artifact), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            text=True,
        )
        try:
            self.versions: dict[str, str] = self._answer()["versions"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RemoteBaseline:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def prepare(self, rows: Rows) -> Rows:
        """See `Baseline.prepare`."""
        return rows_of(self._ask({"prepare": listed_rows(rows)})["rows"])

    def run(self) -> Rewards:
        """See `Baseline.run`."""
        return np.array(self._ask({"run": None})["rewards"], np.float64)

    def prepare_cached(self, rows: CachedRows) -> None:
        """See `CachingBaseline.prepare_cached`."""
        blocks = [listed_rows(block) for block in rows.blocks]
        self._ask({"prepare_cached": {"blocks": blocks, "turns": listed_rows(rows.turns)}})

    def run_cached(self) -> Rewards:
        """See `CachingBaseline.run_cached`."""
        return np.array(self._ask({"run_cached": None})["rewards"], np.float64)

    def measure(self) -> Measured:
        """The time of one `run`, taken in the engine's process."""
        return self._measured("run")

    def measure_cached(self) -> Measured:
        """The time of one `run_cached`, taken in the engine's process."""
        return self._measured("run_cached")

    def close(self) -> None:
        """Ends the process. May be called twice."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def _measured(self, request: str) -> Measured:
        answer = self._ask({request: None})
        self.rss_mb = answer["rss_mb"]
        return Measured(answer["seconds"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended() from error
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise error_from_name(answer["error"], f"{self.name}: {answer['message']}")
        return answer

    def _ended(self) -> EngineFailed:
        status = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
        return EngineFailed("\n".join([f"{self.name}: its process ended with {status}", *lines]))
