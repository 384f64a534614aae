"""`AnswerStream`: a model's answer judged while it is written, its pieces held back till then.

Not: a framework's format of pieces. An adapter hands over each piece with the text in it; what may
leave comes back, and a block is raised as `Blocked`. Scores come from `csrm.Stream`, which encodes
only what is new: no text is scanned anew for every piece.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Generic, Literal, TypeVar

from csrm import errors
from csrm.integrations.guard import Blocked, Decision, Guard
from csrm.score import Score
from csrm.stream import Stream

Piece = TypeVar("Piece")
Release = Literal["whole", "judged"]
_Answer = Score | errors.Error


class AnswerStream(Generic[Piece]):
    """One answer to `messages` (which may be an empty list), for one thread or task at a time.

    It is scored at ends of sentences and lines, every 32 tokens, and as a whole; the first score
    that is a violation blocks it. release: "whole" holds every piece until the whole answer has
    been judged; "judged" lets a piece go once a compliant score covers its text and all before it,
    so that the beginning of an answer can be out when the rest turns out to be a violation. A score
    that comes later than the Guard's deadline after its piece is "unknown".
    Errors: BadArgument.
    """

    def __init__(self, guard: Guard, messages: object, release: Release = "whole") -> None:
        if release not in ("whole", "judged"):
            raise errors.BadArgument('release must be "whole" or "judged"')
        self._guard = guard
        self._messages = messages
        self._holds_rest = release == "whole"
        self._held: list[Piece] = []
        self._texts: dict[int, Stream] = {}
        self._unopened: dict[
            int, str
        ] = {}  # what a stream that could not be opened is to begin with
        self._unjudged: set[int] = set()
        self._decision: Decision | None = None

    def push(self, piece: Piece, texts: Mapping[int, str], *, is_last: bool = False) -> list[Piece]:
        """The pieces that may leave, `piece` perhaps among them.

        texts: what `piece` adds to each text of the answer (a choice, its reasoning), by a number
        of the caller's. is_last: `piece` and all after it stay until `finish`, as those must whose
        text is given to `finish` instead. Errors: Blocked, now and in every later call.
        """
        return self._push(piece, texts, is_last, time.monotonic())

    def finish(self, others: Sequence[str] = ()) -> list[Piece]:
        """The rest of the pieces, when the answer has ended and complies as a whole.

        others: texts of the answer that were not given with pieces, such as calls of tools; each is
        judged as an answer of its own. Errors: Blocked, also if there was no text at all.
        """
        return self._finish(others, time.monotonic())

    async def apush(
        self, piece: Piece, texts: Mapping[int, str], *, is_last: bool = False
    ) -> list[Piece]:
        """`push` for asyncio."""
        return await self._in_worker(partial(self._push, piece, texts, is_last, time.monotonic()))

    async def afinish(self, others: Sequence[str] = ()) -> list[Piece]:
        """`finish` for asyncio."""
        return await self._in_worker(partial(self._finish, others, time.monotonic()))

    def decision(self) -> Decision:
        """The worst so far: a block, then what passed without a verdict, then the newest."""
        if self._decision is None:
            return self._guard.decide([errors.EmptyConversation("no text has been judged")])
        return self._decision

    def _push(
        self, piece: Piece, texts: Mapping[int, str], is_last: bool, started: float
    ) -> list[Piece]:
        self._raise_if_blocked()
        self._held.append(piece)
        self._holds_rest = self._holds_rest or is_last
        for number, text in texts.items():
            if text:
                self._append(number, text, started)
        if self._holds_rest or self._unjudged:
            return []
        return self._let_go()

    def _append(self, number: int, text: str, started: float) -> None:
        self._unjudged.add(number)
        text = self._unopened.pop(number, "") + text
        answers = self._answers(lambda: self._text(number).append(text), started)
        if number not in self._texts:
            self._unopened[number] = text
        if answers:
            self._settle(self._guard.decide(answers))
            self._unjudged.discard(number)

    def _finish(self, others: Sequence[str], started: float) -> list[Piece]:
        self._raise_if_blocked()
        answers = [
            answer
            for text in self._texts.values()
            for answer in self._answers(text.finish, started)
        ]
        if answers:
            self._settle(self._guard.decide(answers))
        others = [*self._unopened.values(), *others]
        if others or not answers:
            self._settle(self._guard.check_output(self._messages, others))
        return self._let_go()

    def _answers(self, score: Callable[[], Score | None], started: float) -> list[_Answer]:
        """The score if there is one, and the error: a violation that comes late is both."""
        answers: list[_Answer] = []
        try:
            found = score()
            if found is not None:
                answers.append(found)
                self._guard.check_time(started)
        except errors.Error as error:
            answers.append(error)
        return answers

    def _text(self, number: int) -> Stream:
        found = self._texts.get(number)
        if found is None:
            found = self._texts[number] = self._guard.open_stream(self._messages)
        return found

    def _settle(self, decision: Decision) -> None:
        worst = self._decision
        if worst is None or _weight(decision) >= _weight(worst):
            self._decision = decision
        self._raise_if_blocked()

    def _raise_if_blocked(self) -> None:
        if self._decision is not None and self._decision.is_blocked:
            self._held.clear()
            raise Blocked(self._decision)

    def _let_go(self) -> list[Piece]:
        free, self._held = self._held, []
        return free

    async def _in_worker(self, work: partial[list[Piece]]) -> list[Piece]:
        return await self._guard.in_stream_worker(work)


def _weight(decision: Decision) -> tuple[bool, bool]:
    return decision.is_blocked, decision.verdict == "unknown"
