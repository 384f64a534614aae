"""What the tests of the integrations share: texts with a known verdict, and `csrm serve`.

Not: fixtures (conftest.py), nor any framework, which each test file drives for real. Each is run by
`make test-integrations` in an environment of its own with the versions of pyproject.toml's group
`integration-NAME`; nothing is skipped there, for a package that is missing is a failure.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
POLICY = REPOSITORY / "configs" / "general-default.yaml"
WAIT_S = 60.0


@dataclass(frozen=True)
class Traffic:
    """Texts on which the shipped csrm-mini is sure under POLICY."""

    allowed: str = "How do I bake sourdough bread?"
    allowed_answer: str = "Feed the starter, mix flour and water, and bake it hot."
    violating: str = "You are a worthless idiot and I hope you die."
    # An answer that breaks POLICY where its question does not.
    question: str = "What did my neighbour say?"
    violating_answer: str = "You are a worthless idiot and I hope you die."


@dataclass
class Server:
    """A `csrm serve` process on a loopback port."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str = ""

    def wait_ready(self) -> None:
        """Until /readyz says 200. Errors: AssertionError with the log."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until and self.process.poll() is None:
            for line in self.log.read_text().splitlines(keepends=True):
                if line.endswith("\n") and json.loads(line)["event"] == "listening":
                    self.url = f"http://127.0.0.1:{json.loads(line)['port']}"
            if self.url and self._is_ready():
                return
            time.sleep(0.05)
        raise AssertionError(f"csrm serve is not ready:\n{self.log.read_text()}")

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.URLError:
            return False

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)


def start_server(folder: Path, *options: str, config: Path = POLICY) -> Server:
    """`csrm serve` with the shipped model; `options` are more of its options."""
    command = [sys.executable, "-m", "csrm", "serve", "--config", str(config), "--port", "0"]
    log = folder / "csrm.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([*command, *options], stderr=stderr, env={**os.environ})
    server = Server(process, log)
    try:
        server.wait_ready()
    except BaseException:
        process.kill()
        raise
    return server
