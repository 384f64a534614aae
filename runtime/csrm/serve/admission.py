"""`Admission`: can a request still be answered by its deadline? If not, it is refused at once.

Not: the queue's own bounds and order (csrm.Scheduler). It knows of each request what its head says
before the body is read: the endpoint and the number of bytes. How long the engine takes for a byte
is learned from what it has answered. Belongs to one event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from csrm.serve.failures import Failure

# What is learned fades by this much with every answer.
_KEEP = 0.95
# Predicted time is multiplied by a margin: more after an answer that came late, less after others.
_MARGIN, _MAX_MARGIN = 1.2, 3.0
_LATER, _SOONER = 1.05, 0.995
# The scheduler runs first what is due first: at its deadline, or sooner if it is short.
_PATIENCE_S = 1.0
_PATIENT_BYTES = 4096.0
# A shorter request that is refused has itself not made it late.
_LONG_BYTES = 4096
# An endpoint of which nothing was learned for so long has one request tried, whatever is known:
# else one slow answer could keep it shut for as long as others are busy.
_STALE_S = 1.0


@dataclass(eq=False)
class Ticket:
    """A request that is in the queue or the engine."""

    name: str
    n_bytes: int
    deadline: float
    begun: float
    due: float


class Admission:
    """What is accepted and not answered yet, and how fast the engine has been. `n_workers`: engine
    calls at a time.
    """

    def __init__(self, n_workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._n_workers = n_workers
        self._clock = clock
        self._tickets: dict[Ticket, None] = {}  # in the order of their begin
        self._busy: dict[str, tuple[float, float]] = {}  # endpoint -> seconds, bytes; both fade
        self._learned: dict[str, float] = {}  # endpoint -> when something was last learned of it
        self._last = float("-inf")  # when the engine last ended something
        self._margin = _MARGIN

    def check(self, name: str, n_bytes: int, deadline: float) -> None:
        """Errors: Failure Overloaded, with the seconds after which it may be worth trying again; it
        is the request's own fault if a short one could still be answered.
        """
        now = self._clock()
        if self._is_in_time(name, n_bytes, deadline, now) or self._is_stale(name, now):
            return
        is_theirs = n_bytes > _LONG_BYTES and self._is_in_time(name, _LONG_BYTES, deadline, now)
        raise Failure(
            "Overloaded",
            "what is already accepted leaves no time for this request before its deadline",
            is_theirs=is_theirs,
        )

    def begin(self, name: str, n_bytes: int, deadline: float) -> Ticket:
        """Checks again and counts the request until `end`. Errors: Failure Overloaded."""
        self.check(name, n_bytes, deadline)
        now = self._clock()
        ticket = Ticket(name, n_bytes, deadline, now, _due(now, n_bytes, deadline))
        self._tickets[ticket] = None
        return ticket

    def end(self, ticket: Ticket, *, is_scored: bool) -> None:
        """Forgets the request, and learns from it if the engine has scored it."""
        del self._tickets[ticket]
        now = self._clock()
        is_late = now > ticket.deadline
        if is_scored or is_late:
            factor = _LATER if is_late else _SOONER
            self._margin = min(max(self._margin * factor, _MARGIN), _MAX_MARGIN)
        if is_scored:
            seconds, n_bytes = self._busy.get(ticket.name, (0.0, 0.0))
            seconds = seconds * _KEEP + now - max(self._last, ticket.begun)
            self._busy[ticket.name] = (seconds, n_bytes * _KEEP + ticket.n_bytes)
            self._last = self._learned[ticket.name] = now

    def _is_in_time(self, name: str, n_bytes: int, deadline: float, now: float) -> bool:
        """Whether such a request would be answered by its deadline; always if nothing is ahead."""
        own_s = self._seconds(name, n_bytes) * self._n_workers
        wait_s = self._wait_s(_due(now, n_bytes, deadline), now)
        return not wait_s or now + (wait_s + own_s) * self._margin <= deadline

    def _is_stale(self, name: str, now: float) -> bool:
        """Whether what is known of an endpoint is old, and nothing on its way will renew it."""
        if now - self._learned.get(name, float("-inf")) <= _STALE_S:
            return False
        return not any(ticket.name == name for ticket in self._tickets)

    def _seconds(self, name: str, n_bytes: int) -> float:
        """What the engine takes for such a request; 0 while nothing is known."""
        seconds, known = self._busy.get(name, (0.0, 0.0))
        return n_bytes * seconds / known if known else 0.0

    def _wait_s(self, due: float, now: float) -> float:
        """Until the engine has done what is due before `due`."""
        wait_s, done_s = 0.0, None
        for ticket in self._tickets:
            seconds = self._seconds(ticket.name, ticket.n_bytes)
            if done_s is None:  # the oldest is being worked on
                done_s = min(now - max(self._last, ticket.begun), seconds)
                wait_s += seconds - done_s
            elif ticket.due <= due:
                wait_s += seconds
        return wait_s


def _due(now: float, n_bytes: int, deadline: float) -> float:
    return min(deadline, now + _PATIENCE_S * min(1.0, n_bytes / _PATIENT_BYTES))
