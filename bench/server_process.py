"""`ServerProcess`: one `csrm serve` on a loopback port, its signals and what it logs.

Not: requests (http_client.py) or what is measured with it. The log goes to a file of the given
folder and is read while it grows.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from csrm.errors import EngineFailed

START_TIMEOUT_S = 120.0
_POLL_S = 0.005


class ServerProcess:
    """Started by the constructor; a context manager that kills what still runs at its end.

    port: 0 = the system chooses. options: more of `csrm serve`. Files are looked at on SIGHUP only.
    """

    def __init__(
        self,
        folder: Path,
        config: Path,
        artifact: Path,
        threads: int,
        *,
        port: int = 0,
        options: Sequence[str] = (),
    ) -> None:
        command = [sys.executable, "-m", "csrm", "serve", "--config", str(config)]
        command += ["--model", str(artifact), "--threads", str(threads), "--poll-s", "0"]
        command += ["--port", str(port), *options]
        self._log = folder / f"log-{time.monotonic_ns()}"
        self.started = time.monotonic()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ})
        self.port = port
        self.events: list[dict[str, Any]] = []
        self._read = 0

    def wait_ready(self) -> float:
        """Waits until it serves, and sets `port`; seconds since it was started. Errors:
        EngineFailed.
        """
        self.wait_for(lambda: bool(self.named("loaded") and self.named("listening")))
        self.port = int(self.named("listening")[0]["port"])
        return time.monotonic() - self.started

    def wait_for(self, is_true: Callable[[], bool], timeout_s: float = START_TIMEOUT_S) -> None:
        """Waits for what the log must come to say. Errors: EngineFailed."""
        until = time.monotonic() + timeout_s
        while not is_true():
            if time.monotonic() > until or self.process.poll() is not None:
                raise EngineFailed(
                    "csrm serve did not do what was asked; try it alone: csrm serve --config FILE"
                )
            time.sleep(_POLL_S)

    def named(self, event: str) -> list[dict[str, Any]]:
        """The lines of the log so far with this event."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            data = log.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        self.events += [json.loads(line) for line in whole.splitlines() if line[:1] == b"{"]
        return [line for line in self.events if line["event"] == event]

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        self.process.send_signal(number)

    def stop(self, timeout_s: float = 60.0) -> int:
        """SIGTERM, and the exit status. Errors: EngineFailed if it does not end."""
        self.send(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 60.0) -> int:
        """The exit status. Errors: EngineFailed if it does not end."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise EngineFailed(f"csrm serve has not ended after {timeout_s:g} seconds") from None

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
        return False
