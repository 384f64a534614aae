"""`Stream`: a turn scored while it is being written.

Not: scoring or finding the boundaries (runtime/src/stream.cc). Text comes from the caller in pieces
of any length; `Score` or a typed `Error` goes back. Made by `Scorer.stream`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from csrm.errors import BadArgument
from csrm.score import Score, Verdict

if TYPE_CHECKING:
    from csrm._core import ScoreStream as NativeStream


class Stream:
    """One growing turn. For one thread at a time: a call during a call is BadArgument.

    A failed call raises a typed error, and `verdict` is "unknown" until the next score; the stream
    can go on. Text is never lost: what a failed `append` added is scored with the next one, except
    a text that is not valid (BadUtf8), which is not taken at all.
    """

    def __init__(
        self, native: NativeStream, score_from: Callable[[tuple[Any, ...]], Score]
    ) -> None:
        self._native = native
        self._score_from = score_from
        self._lock = threading.Lock()

    def append(self, text: str) -> Score | None:
        """Adds `text`; the Score of the turn so far if a boundary was reached, else None.

        Errors: BadUtf8, BadArgument (the stream has finished), and those of `Scorer.score`.
        """
        if not isinstance(text, str):
            raise BadArgument("the text is not a str")
        answer = self._call(lambda: self._native.append(text))
        return None if answer is None else self._score_from(answer)

    def finish(self) -> Score:
        """The Score of the whole turn: bit for bit that of `Scorer.score(..., reuse_turns=True)`.

        Afterwards the stream has finished; after an error it has not and can go on. Errors:
        EmptyConversation (no text yet), BadArgument (it has finished already), and those of
        `Scorer.score`.
        """
        return self._score_from(cast("tuple[Any, ...]", self._call(self._native.finish)))

    @property
    def verdict(self) -> Verdict:
        """Of the newest score; "unknown" before the first one and after an error."""
        return cast(Verdict, self._native.verdict())

    def _call(self, call: Callable[[], tuple[Any, ...] | None]) -> tuple[Any, ...] | None:
        if not self._lock.acquire(blocking=False):
            raise BadArgument("a stream is for one thread at a time; open one per turn")
        try:
            return call()
        finally:
            self._lock.release()
