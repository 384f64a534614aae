"""`python -m csrm.bench.load_generator PORT`: requests at times that are fixed in advance.

A line of JSON in, a line out (load.py is the other end):

    {"rate": 40.0, "seconds": 8.0, "seed": 1, "bodies": [TEXT, ...], "headers": {...}}
    -> {"intended": [...], "sent": [...], "done": [...], "status": [...],
        "health": [...], "cpu_s": 0.1}

Arrivals are Poisson. All times are seconds since the first one could come; `done` and `status` are
null where no answer came. A request is never held back by another: it takes a free connection or
opens one. health: seconds of GET /healthz, asked every HEALTH_S meanwhile. Not: what it means.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

from csrm.bench.http_client import Answer, Connection, connect, request

HEALTH_S = 0.1
_N_OPEN = 32  # connections made before the first arrival
_PATIENCE_S = 15.0  # for answers after the last arrival


class _Run:
    """One job: its connections, and what became of each arrival."""

    def __init__(self, port: int, job: dict[str, Any]) -> None:
        rng = random.Random(job["seed"])
        self._port = port
        self._free: list[Connection] = []
        self.intended: list[float] = []
        at = rng.expovariate(job["rate"])
        while at < job["seconds"]:
            self.intended.append(at)
            at += rng.expovariate(job["rate"])
        bodies = job["bodies"]
        self._requests = [
            request("/v1/score", body.encode(), job.get("headers")) for body in bodies
        ]
        self.sent: list[float | None] = [None] * len(self.intended)
        self.done: list[float | None] = [None] * len(self.intended)
        self.status: list[int | None] = [None] * len(self.intended)
        self.health: list[float] = []
        self._start = 0.0
        self._n_left = len(self.intended)
        self._is_over = asyncio.Event()

    async def play(self, seconds: float) -> None:
        """Sends everything, and waits for what comes back."""
        loop = asyncio.get_running_loop()
        self._free = list(await asyncio.gather(*(connect(self._port) for _ in range(_N_OPEN))))
        health = asyncio.ensure_future(self._watch_health())
        self._start = time.perf_counter() + 0.05
        offset = loop.time() + self._start - time.perf_counter()
        for number, at in enumerate(self.intended):
            loop.call_at(offset + at, self._send, number)
        if not self.intended:
            self._is_over.set()
        try:
            await asyncio.wait_for(self._is_over.wait(), seconds + _PATIENCE_S)
        except (asyncio.TimeoutError, TimeoutError):
            sys.stderr.write("some requests have no answer\n")
        health.cancel()
        await asyncio.gather(health, return_exceptions=True)
        for connection in self._free:
            connection.close()

    def _send(self, number: int) -> None:
        while self._free:
            connection = self._free.pop()
            if connection.is_open:
                self._ask(connection, number)
                return
        task = asyncio.ensure_future(connect(self._port))
        task.add_done_callback(lambda made: self._connected(made, number))

    def _connected(self, made: asyncio.Future[Connection], number: int) -> None:
        if made.exception() is None:
            self._ask(made.result(), number)
        else:
            self._end()

    def _ask(self, connection: Connection, number: int) -> None:
        def settle(answer: Answer | None) -> None:
            if answer is not None:
                self.done[number] = answer.at - self._start
                self.status[number] = answer.status
                if not answer.is_last:
                    self._free.append(connection)
            self._end()

        self.sent[number] = time.perf_counter() - self._start
        connection.send(self._requests[number % len(self._requests)], settle)

    def _end(self) -> None:
        self._n_left -= 1
        if not self._n_left:
            self._is_over.set()

    async def _watch_health(self) -> None:
        """Asks /healthz at fixed times too: an answer that is late does not delay the next one."""
        free: list[Connection] = []
        opened: list[Connection] = []
        start, asked = time.perf_counter(), request("/healthz", None)
        try:
            for number in range(1 << 30):
                intended = start + number * HEALTH_S
                await asyncio.sleep(intended - time.perf_counter())
                if not free:
                    free.append(await connect(self._port))
                    opened.append(free[-1])
                self._ask_health(free, asked, intended)
        finally:
            for connection in opened:
                connection.close()

    def _ask_health(self, free: list[Connection], asked: bytes, intended: float) -> None:
        connection = free.pop()

        def settle(answer: Answer | None) -> None:
            if answer is not None and answer.status == 200:
                self.health.append(answer.at - intended)
                free.append(connection)

        connection.send(asked, settle)


def main(arguments: list[str]) -> int:
    """Plays the jobs that come on stdin until it ends."""
    port = int(arguments[0])
    for line in sys.stdin:
        job = json.loads(line)
        before = time.process_time()
        answer = asyncio.run(_played(port, job))
        answer["cpu_s"] = round(time.process_time() - before, 3)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


async def _played(port: int, job: dict[str, Any]) -> dict[str, Any]:
    run = _Run(port, job)
    await run.play(job["seconds"])
    names = ("intended", "sent", "done", "status", "health")
    return {name: getattr(run, name) for name in names}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
