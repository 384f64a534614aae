"""`Outbox`: a bounded queue in front of an exporter, and the thread that empties it.

Not: what is exported (otel.py) or how (OpenTelemetry's exporters). Items come from requests, which
never wait here: beyond the bound they are dropped. Every item is counted once, by what became of
it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from csrm.serve.logs import log_exception

T = TypeVar("T")
Result = Literal["sent", "queue_full", "export_failed", "shut_down"]


@dataclass(frozen=True)
class Bounds:
    """size: items that wait at most. batch: items in one export. delay_s: how long one waits."""

    size: int = 2048
    batch: int = 512
    delay_s: float = 5.0


class Outbox(Generic[T]):
    """Hands items to `export`, which says whether they arrived, in a thread of its own.

    count: told how many items had which result; called from any thread. `put` is thread-safe and
    does not block. Errors of `export` count as failures and go no further.
    """

    def __init__(
        self,
        name: str,
        export: Callable[[list[T]], bool],
        count: Callable[[Result, int], None],
        bounds: Bounds,
    ) -> None:
        self._export = export
        self._count = count
        self._bounds = bounds
        self._queue: deque[T] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_idle = threading.Condition(self._lock)
        self._n_sending = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Takes `item`, or drops it when the queue is full or closed."""
        with self._lock:
            is_full = len(self._queue) >= self._bounds.size
            if not self._is_closed and not is_full:
                self._queue.append(item)
                if len(self._queue) >= self._bounds.batch:
                    self._wake.set()
                return
        self._count("shut_down" if self._is_closed else "queue_full", 1)

    def flush(self, timeout_s: float) -> bool:
        """Sends at once what waits; whether all of it was handed over in time."""
        self._wake.set()
        with self._is_idle:
            return self._is_idle.wait_for(
                lambda: not self._queue and not self._n_sending, timeout_s
            )

    def close(self, timeout_s: float, interrupt: Callable[[], object]) -> None:
        """Sends what waits within `timeout_s`, then ends by `interrupt`, and drops the rest."""
        self._is_closed = True
        self._wake.set()
        self._thread.join(timeout_s)
        with self._lock:
            n_left = len(self._queue)
            self._queue.clear()
        if n_left:
            self._count("shut_down", n_left)
        interrupt()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._wake.wait(self._bounds.delay_s)
            self._wake.clear()
            is_last = self._is_closed
            while batch := self._next():
                self._send(batch)

    def _next(self) -> list[T]:
        with self._is_idle:
            n = min(len(self._queue), self._bounds.batch)
            batch = [self._queue.popleft() for _ in range(n)]
            self._n_sending = n
            if not n:
                self._is_idle.notify_all()
            return batch

    def _send(self, batch: list[T]) -> None:
        try:
            has_arrived = self._export(batch)
        except Exception as error:  # whatever an exporter does, the next batch is sent
            log_exception("telemetry_failed", error)
            has_arrived = False
        self._count("sent" if has_arrived else "export_failed", len(batch))
