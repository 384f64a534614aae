"""`Scheduler`: many requests from many threads on one Scorer, as futures.

Not: the queue, its order and its threads (runtime/src/job_queue.h, workers.h; docs/scheduler.md).
Requests are checked here as by `Scorer.score`; answers come from native threads, which take the GIL
only to set a result.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, get_args

from csrm.config import SafetyConfig, config_from
from csrm.conversation import conversation_from
from csrm.errors import BadArgument
from csrm.score import Score
from csrm.scorer import Explain, Judged, Scorer, answer_from, checked_explain

if TYPE_CHECKING:
    from types import TracebackType

    from csrm._core import Scheduler as NativeScheduler

_MAX_COUNT = 2**31 - 1
_MAX_PATIENCE_S = 86400.0
# Tokenising more characters than this takes milliseconds: `score` does it off the event loop.
_LONG_TEXT = 20_000


# Native schedulers with threads. At exit these must be gone before the interpreter is.
_OPEN: set[NativeScheduler] = set()


class Scheduler:
    """Queues requests on one Scorer, the most urgent first, several short ones in an engine call.

    n_workers: engine calls at a time. max_requests, max_tokens: bounds of what is accepted and not
    yet answered, beyond which a request is Overloaded. batch_tokens: padded tokens of an engine
    call that several requests share, 0 = 128 for each engine thread, at least 256. patience_s: how
    much later another request may come and still run first. max_begun: conversations of several
    engine calls in progress at a time.
    Thread-safe; a context manager, which closes it. Closed as well when it is garbage and when the
    process exits. Not usable in the child of a fork. Errors: BadArgument.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        n_workers: int = 1,
        max_requests: int = 1024,
        max_tokens: int = 65536,
        batch_tokens: int = 0,
        patience_s: float = 1.0,
        max_begun: int = 4,
    ) -> None:
        counts = {
            "n_workers": n_workers,
            "max_requests": max_requests,
            "max_tokens": max_tokens,
            "batch_tokens": batch_tokens,
            "max_begun": max_begun,
        }
        for name, value in counts.items():
            _check_count(name, value, least=0 if name == "batch_tokens" else 1)
        if not _is_number(patience_s) or not 0 <= patience_s <= _MAX_PATIENCE_S:
            raise BadArgument(f"patience_s must be a number from 0 to {_MAX_PATIENCE_S:,.0f}")
        self._native = _open_native(scorer, counts, patience_s)
        _OPEN.add(self._native)
        self._close = weakref.finalize(self, _close, self._native)

    def submit(
        self,
        config: object,
        conversation: object,
        *,
        deadline_s: float | None = None,
        judged: Judged = "last",
        explain: Explain = False,
        reuse_turns: bool = False,
    ) -> Future[Score]:
        """A Future of the Score that `Scorer.score` gives for the same arguments.

        deadline_s: seconds from now after which no engine call is made for it any more. Config and
        conversation are checked and tokenised before this returns; nothing is encoded. Cancelling
        the Future withdraws the request: no further engine call is made for it.
        Every error is in the Future: those of `Scorer.score`, Overloaded, DeadlineExceeded, and
        Cancelled after `close`. With reuse_turns all that is new of a conversation is encoded at
        once, so a long one that is new as a whole holds up the others.
        """
        future: Future[Score] = Future()
        self._start(future, config, conversation, deadline_s, judged, explain, reuse_turns)
        return future

    async def score(
        self,
        config: object,
        conversation: object,
        *,
        deadline_s: float | None = None,
        judged: Judged = "last",
        explain: Explain = False,
        reuse_turns: bool = False,
    ) -> Score:
        """The same for asyncio; cancelling the task withdraws the request.

        What has much text is tokenised in the loop's executor. Errors: as of `submit`, raised.
        """

        future: Future[Score] = Future()
        awaited = asyncio.wrap_future(future)
        request = (future, config, conversation, deadline_s, judged, explain, reuse_turns)
        if _n_characters(config, conversation) > _LONG_TEXT:
            asyncio.get_running_loop().run_in_executor(None, self._start, *request)
        else:
            self._start(*request)
        return await awaited

    def stats(self) -> dict[str, Any]:
        """Counts by the names in `csrm::SchedulerStats`; queue_s and max_queue_s are seconds."""
        return dict(self._native.stats())

    def close(self) -> None:
        """Ends engine calls that run and answers Cancelled to everything else; idempotent."""
        self._close()

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        self.close()
        return False

    def _start(self, future: Future[Score], *request: Any) -> None:
        """Submits a request that ends in `future`, errors of any kind included."""
        try:
            ticket = self._submit(future, *request)
        except Exception as error:
            _settle(future, error)
            return
        native = self._native

        def withdraw(done: Future[Score]) -> None:
            if done.cancelled():
                native.cancel(ticket)

        future.add_done_callback(withdraw)

    def _submit(
        self,
        future: Future[Score],
        config: object,
        conversation: object,
        deadline_s: float | None,
        judged: str,
        explain: Explain,
        reuse_turns: bool,
    ) -> int:
        if judged not in get_args(Judged):
            raise BadArgument('judged must be "last" or "assistant"')
        if deadline_s is not None and not _is_number(deadline_s):
            raise BadArgument("deadline_s must be a number of seconds, or None")
        rules = config_from(config)
        turns = conversation_from(conversation)
        return self._native.submit(
            [(rule.name, rule.text) for rule in rules.rules],
            rules.threshold,
            list(turns),
            judged,
            checked_explain(explain),
            bool(reuse_turns),
            # Beyond it nothing changes, and the clock's range is not exceeded.
            None if deadline_s is None else max(-1.0, min(float(deadline_s), 1e9)),
            _answerer(future, lambda native: answer_from(rules, native)),
        )


def _close(native: NativeScheduler) -> None:
    if native.shutdown():  # else called by one of its threads, in a callback
        _OPEN.discard(native)


@atexit.register
def _close_all() -> None:
    for native in tuple(_OPEN):
        _close(native)


def _answerer(
    future: Future[Score], read: Callable[[tuple[Any, ...]], Score | Exception]
) -> Callable[[tuple[Any, ...]], None]:
    def answer(native: tuple[Any, ...]) -> None:
        found: Score | BaseException
        try:
            found = read(native)
        except BaseException as error:  # else nobody would ever answer it
            found = error
        _settle(future, found)

    return answer


def _settle(future: Future[Score], answer: Score | BaseException) -> None:
    if not future.set_running_or_notify_cancel():
        return  # withdrawn; nobody waits
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _open_native(scorer: Scorer, counts: dict[str, int], patience_s: float) -> NativeScheduler:
    from csrm._core import Scheduler as NativeScheduler

    return NativeScheduler(scorer.native, patience_s=float(patience_s), **counts)


def _check_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MAX_COUNT:
        raise BadArgument(f"{name} must be an integer from {least} to {_MAX_COUNT:,}")


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def _n_characters(config: object, conversation: object) -> int:
    """Characters of rules and of well-formed turns; 0 for what the checks will refuse."""
    rules = config.rules if isinstance(config, SafetyConfig) else ()
    n = sum(len(rule.text) for rule in rules)
    if not isinstance(conversation, list | tuple):
        return n
    for turn in conversation:
        content = turn.get("content") if isinstance(turn, dict) else getattr(turn, "content", None)
        parts = content if isinstance(content, list) else [content]
        texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
        n += sum(len(text) for text in texts if isinstance(text, str))
    return n
