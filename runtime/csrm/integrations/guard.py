"""`Guard`: may these turns pass? What the adapters of this folder ask, in process.

Not: any framework's interface, and not a client of `csrm serve`. Data comes from the adapters as
messages; scores come from a csrm.Scheduler, so that many callers share one model. No score, no
pass: a failure is the verdict "unknown", which blocks unless the operator chose otherwise.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

from csrm import errors
from csrm.config import SafetyConfig
from csrm.conversation import Conversation, conversation_from, unanswered_turns
from csrm.scheduler import Scheduler
from csrm.score import Score, Verdict
from csrm.scorer import Scorer, load
from csrm.stream import Stream

_LOGGER = logging.getLogger(__name__)
FailMode = Literal["closed", "open"]
T = TypeVar("T")
# What no input can cause. Only this may pass in fail mode "open", or bad input would be a way
# around.
_OURS = (
    errors.BadArtifact,
    errors.Cancelled,
    errors.DeadlineExceeded,
    errors.DigestMismatch,
    errors.EngineFailed,
    errors.EngineUnavailable,
    errors.Internal,
    errors.NonFinite,
    errors.Overloaded,
    errors.Unsupported,
)


@dataclass(frozen=True)
class Decision:
    """What a framework is told about some turns.

    `verdict` is the worst of them: violation, then unknown, then compliant. `reason` names the
    config or the kind of failure and holds no text of a user. `scores` are those of the turns
    that have one.
    """

    is_blocked: bool
    verdict: Verdict
    reason: str
    scores: tuple[Score, ...] = ()

    @property
    def compliance(self) -> float | None:
        """The lowest calibrated probability of compliance, or None without any score."""
        return min((score.compliance for score in self.scores), default=None)


class Blocked(Exception):  # noqa: N818  (not a failure: a decision)
    """Something may not pass. `decision` says why; the message is its reason, without user text."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.reason)
        self.decision = decision

    def __reduce__(self) -> tuple[type[Blocked], tuple[Decision]]:
        return (Blocked, (self.decision,))


class Guard:
    """Judges what is new in a conversation under one config.

    config: a SafetyConfig, or the path of a config file. model: a Scorer, or an artifact's folder
    (None = the shipped csrm-mini). deadline_s: seconds for one call; past it the verdict is
    "unknown". fail_mode "open" lets by what csrm itself failed at, never what the input caused.
    Thread-safe; usable from threads and from asyncio, not in the child of a fork.
    Errors: BadArgument, BadConfig and those of `csrm.load`, at construction only.
    """

    def __init__(
        self,
        config: SafetyConfig | str | os.PathLike[str],
        *,
        model: Scorer | str | os.PathLike[str] | None = None,
        deadline_s: float = 10.0,
        fail_mode: FailMode = "closed",
    ) -> None:
        if fail_mode not in ("closed", "open"):
            raise errors.BadArgument('fail_mode must be "closed" or "open"')
        self.config = config if isinstance(config, SafetyConfig) else SafetyConfig.load(config)
        self._scorer = model if isinstance(model, Scorer) else load(model)
        self._scheduler = Scheduler(self._scorer)
        self._deadline_s = deadline_s
        self._fail_mode = fail_mode
        self._closed = threading.Event()
        # One thread for all streams of asyncio, because a score uses them all.
        self._stream_worker = ThreadPoolExecutor(1, thread_name_prefix="csrm-stream")

    def check_input(self, messages: object) -> Decision:
        """The Decision on a request to a model: every turn since its last answer is judged."""
        return self._check(partial(_new_turns, messages))

    def check_output(self, messages: object, answers: Sequence[str]) -> Decision:
        """The Decision on a model's `answers`, the choices of one turn after `messages`, which may
        be an empty list.
        """
        return self._check(partial(_choices, messages, answers))

    async def acheck_input(self, messages: object) -> Decision:
        """`check_input` for asyncio; cancelling the task withdraws the request."""
        return await self._acheck(partial(_new_turns, messages))

    async def acheck_output(self, messages: object, answers: Sequence[str]) -> Decision:
        """`check_output` for asyncio; cancelling the task withdraws the request."""
        return await self._acheck(partial(_choices, messages, answers))

    def at_least(self, threshold: float | None) -> Guard:
        """This Guard with a config whose threshold is not below `threshold`; the rest is shared.

        None = this Guard. Errors: BadConfig, a threshold outside [0, 1].
        """
        if threshold is None:
            return self
        asked = replace(self.config, threshold=threshold)
        if asked.threshold <= self.config.threshold:
            return self
        stricter = copy.copy(self)
        stricter.config = asked
        return stricter

    def close(self) -> None:
        """Withdraws what is queued and ends the threads; later checks are "unknown"."""
        self._closed.set()
        self._scheduler.close()
        # Not cancelling: whoever waits for a piece of a stream would take it for a cancelled task.
        self._stream_worker.shutdown(wait=False)

    def open_stream(self, messages: object) -> Stream:
        """A Stream of an answer to `messages`, for answer_stream. Errors: of `Scorer.stream`."""
        return self._scorer.stream(self.config, messages)

    async def in_stream_worker(self, work: Callable[[], T]) -> T:
        """What `work`, which scores a stream, returns in a thread of its own; raises its errors."""
        loop = asyncio.get_running_loop()
        try:
            done = loop.run_in_executor(self._stream_worker, work)
        except RuntimeError:  # closed, as `work` will find in any thread
            done = loop.run_in_executor(None, work)
        return await done

    def check_time(self, started: float) -> None:
        """Errors: DeadlineExceeded, too late for what began at `started`; Cancelled, is closed."""
        if self._closed.is_set():
            raise errors.Cancelled("the guard is closed")
        if time.monotonic() - started > self._deadline_s:
            raise errors.DeadlineExceeded("the deadline passed before there was a score")

    def _check(self, read: Callable[[], list[Conversation]]) -> Decision:
        try:
            conversations = read()
        except errors.Error as error:
            return self.decide([error])
        futures = [
            self._scheduler.submit(self.config, turns, deadline_s=self._deadline_s)
            for turns in conversations
        ]
        return self.decide([future.exception() or future.result() for future in futures])

    async def _acheck(self, read: Callable[[], list[Conversation]]) -> Decision:
        try:
            conversations = read()
        except errors.Error as error:
            return self.decide([error])
        # Not `submit`: it would tokenise a long conversation in the event loop.
        scores = [
            self._scheduler.score(self.config, turns, deadline_s=self._deadline_s)
            for turns in conversations
        ]
        return self.decide(await asyncio.gather(*scores, return_exceptions=True))

    def decide(self, answers: Sequence[Score | BaseException]) -> Decision:
        """The Decision on scores and the failures in place of some."""
        scores = tuple(answer for answer in answers if isinstance(answer, Score))
        if any(score.verdict == "violation" for score in scores):
            return Decision(True, "violation", f"violates the config {self.config.id}", scores)
        failures = [answer for answer in answers if not isinstance(answer, Score)]
        if not failures:
            return Decision(
                False, "compliant", f"complies with the config {self.config.id}", scores
            )
        # What the input caused decides: it must not pass because csrm failed at something else.
        worst = min(failures, key=lambda failure: isinstance(failure, _OURS))
        kind = type(worst).__name__ if isinstance(worst, errors.Error) else "Internal"
        is_blocked = not (self._fail_mode == "open" and isinstance(worst, _OURS))
        if not is_blocked:
            _LOGGER.critical("let by what could not be judged: %s", kind)
        return Decision(is_blocked, "unknown", f"not judged ({kind})", scores)


def _new_turns(messages: object) -> list[Conversation]:
    """Each new turn of a request with all before it. Errors: EmptyConversation, of the messages."""
    turns = conversation_from(messages)
    return _some([turns[: i + 1] for i in unanswered_turns(turns)])


def _choices(messages: object, answers: Sequence[str]) -> list[Conversation]:
    """Each answer that has text after the messages. Errors: as of `_new_turns`, of the answers."""
    earlier = () if messages in ([], ()) else conversation_from(messages)
    choices = [conversation_from([{"role": "assistant", "content": text}]) for text in answers]
    return _some([(*earlier, *choice) for choice in choices if choice[0].content])


def _some(conversations: list[Conversation]) -> list[Conversation]:
    if not conversations:
        raise errors.EmptyConversation("there is no turn with text to judge")
    return conversations
