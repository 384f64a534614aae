"""WAYS: how every kind of failure is provoked, by a request that causes it or where it would arise.

Not: the answers (fail_closed_surfaces.py) or the table (fail_closed_table.py). Failures of the
engine come from a stand-in for the native queue or stream.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import serve_client
from fail_closed_surfaces import KEYS, MESSAGE, PINNABLE, Ask
from serve_client import CHAT, RULES

import csrm._core
from csrm import errors
from csrm.serve.admission import Admission


@dataclass(frozen=True)
class Way:
    """How a kind of failure is provoked: `ask` gives the cell, or None where it cannot arise."""

    kind: str
    where: str
    ask: Callable[[Ask], str | None]
    app: str = "plain"


class _FailingQueue:
    """Stands for the native scheduler: refuses, or accepts and answers an error."""

    def __init__(self, kind: str, *, accepts: bool) -> None:
        self._kind = kind
        self._accepts = accepts

    def submit(self, *given: Any) -> int:
        if not self._accepts:
            raise errors.error_from_name(self._kind, MESSAGE)
        threading.Thread(target=given[-1], args=(("error", self._kind, MESSAGE),)).start()
        return 1

    def cancel(self, ticket: int) -> bool:
        return False


class _HangingQueue:
    """Stands for the native scheduler: accepts and never answers."""

    def submit(self, *given: Any) -> int:
        return 1

    def cancel(self, ticket: int) -> bool:
        return False


def _failing_stream(error: Exception, method: str) -> type:
    """A class that stands for the native stream and fails in `method`."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    def append(self: Any, text: str) -> None:
        return None

    def verdict(self: Any) -> str:
        return "unknown"

    def take(*_: Any, **__: Any) -> None:
        return None

    members = {"__init__": take, "append": append, "verdict": verdict, method: fail}
    return type("FailingStream", (), members)


def engine_ways(kind: str) -> list[Way]:
    """A failure of csrm.errors: refused by the queue, or answered by the engine."""

    def ask(asked: Ask, accepts: bool) -> str | None:
        if not asked.surface.is_judging:
            return None
        if asked.surface.name == "stream":
            failing = _failing_stream(errors.error_from_name(kind, MESSAGE), "finish")
            if not accepts:
                failing = _failing_stream(errors.error_from_name(kind, MESSAGE), "append")
            asked.patch.setattr(csrm._core, "ScoreStream", failing, raising=True)
            return asked.answer()
        scheduler = asked.app.service.snapshot.model.lanes[0].scheduler
        asked.patch.setattr(scheduler, "_native", _FailingQueue(kind, accepts=accepts))
        return asked.answer()

    return [
        Way(kind, "the queue", lambda asked: ask(asked, False)),
        Way(kind, "the engine", lambda asked: ask(asked, True)),
    ]


def _hanging(asked: Ask) -> str | None:
    """The engine takes the conversation and never answers."""
    if not asked.surface.is_judging or asked.surface.name == "put_config":
        return None
    is_over = threading.Event()
    asked.patch.setattr("csrm.serve.endpoint._LATE_S", 0.0)
    changed = replace(asked.app.service.options, deadline_s=0.02)
    asked.patch.setattr(asked.app.service, "options", changed)
    scheduler = asked.app.service.snapshot.model.lanes[0].scheduler
    asked.patch.setattr(scheduler, "_native", _HangingQueue())
    stream = type("HangingStream", (), {"append": lambda *_: is_over.wait(serve_client.WAIT_S)})
    if asked.surface.name == "stream":
        asked.patch.setattr(csrm._core, "ScoreStream", lambda *_, **__: stream())
    try:
        return asked.answer()
    finally:
        is_over.set()


def _sized(asked: Ask) -> bool:
    return asked.surface.is_judging


def _with_body(content: bytes, text: str | None = None) -> Callable[[Ask], str | None]:
    """Sends `content` as the body, or as the first message of a stream."""

    def ask(asked: Ask) -> str | None:
        if not asked.surface.is_judging or asked.surface.name == "put_config":
            return None
        if asked.surface.name == "stream":
            return asked.answer(messages=[text]) if text is not None else None
        return asked.answer(content=content)

    return ask


def _bad_request(asked: Ask) -> str | None:
    name = asked.surface.name
    if name == "stream":
        return asked.answer(messages=[{"mesages": []}])
    if name == "put_config":
        return asked.answer(json={"id": "other", "rules": RULES})
    return asked.answer(json={"a_field": 1}) if asked.surface.is_judging else None


def _too_large(asked: Ask) -> str | None:
    if not asked.surface.is_judging:
        return None
    asked.limit(max_body_bytes=10)
    return asked.answer()


def _too_slow(asked: Ask) -> str | None:
    if not asked.surface.is_judging:
        return None
    asked.limit(body_timeout_s=0.01, stream_idle_s=0.01)
    if asked.surface.name == "stream":
        return asked.answer(messages=[{}])

    async def parts() -> Any:
        yield b"{"
        await asyncio.sleep(serve_client.WAIT_S)

    return asked.answer(content=parts())


def _encoded(asked: Ask) -> str | None:
    if not asked.surface.is_judging or asked.surface.name == "stream":
        return None
    return asked.answer(headers={"content-encoding": "gzip"})


def _partial(asked: Ask) -> str | None:
    if asked.surface.name != "ext_authz":
        return None
    return asked.answer(headers={"x-envoy-auth-partial-body": "true"})


def _forbidden(asked: Ask) -> str | None:
    headers = {"x-csrm-key": KEYS["bound"]}
    if asked.surface.name == "score":
        return asked.answer(headers=headers, json={"messages": CHAT, "rules": RULES})
    if asked.surface.name == "stream":
        return asked.answer(headers=headers, messages=[{"rules": RULES}])
    if asked.surface.name in ("put_config", "delete_config"):
        return asked.answer(headers=headers)
    return None


def _unknown_config(asked: Ask) -> str | None:
    if asked.surface.name in ("config", "delete_config"):
        return asked.answer()  # the example's id is not there
    if asked.surface.name not in PINNABLE or asked.surface.path.startswith("/configs/"):
        return None
    return replace(asked, surface=asked.surface.at("/configs/absent")).answer()


def _conflict(asked: Ask) -> str | None:
    if asked.surface.name not in ("put_config", "delete_config"):
        return None
    at_file = replace(asked.surface, path="/v1/configs/lenient")
    return replace(asked, surface=at_file).answer()


def _used_up(asked: Ask) -> str | None:
    if not asked.surface.is_judging or asked.surface.name == "put_config":
        return None
    asked.patch.setitem(asked.app.service.quotas._left, "poor", (0.0, time.monotonic()))
    return asked.answer(headers={"x-csrm-key": KEYS["poor"]})


def _key_busy(asked: Ask) -> str | None:
    if not asked.surface.is_judging or asked.surface.name in ("put_config", "stream"):
        return None
    asked.patch.setitem(asked.app.service.quotas._in_flight, "busy", 1)
    return asked.answer(headers={"x-csrm-key": KEYS["busy"]})


def _in_state(state: str) -> Callable[[Ask], str | None]:
    def ask(asked: Ask) -> str | None:
        asked.patch.setattr(asked.app.service, "state", state)
        return asked.answer()

    return ask


def _in_flight(asked: Ask) -> str | None:
    asked.limit(max_in_flight=0)
    return asked.answer()


def _no_time(asked: Ask) -> str | None:
    """What is accepted already takes longer than the request may wait."""
    if not asked.surface.is_judging or asked.surface.name in ("put_config", "stream"):
        return None
    admission = Admission(1)
    asked.patch.setattr(admission, "_busy", {asked.surface.name: (1e9, 1.0)})
    admission.begin(asked.surface.name, 1, float("inf"))
    asked.patch.setattr(asked.app.service, "admission", admission)
    return asked.answer()


def _streams(asked: Ask) -> str | None:
    if asked.surface.name != "stream":
        return None
    asked.limit(max_streams=0)
    return asked.answer()


def _no_path(asked: Ask) -> str | None:
    if asked.surface.name != "score":
        return None
    return replace(asked, surface=replace(asked.surface, path="/absent")).answer()


def _no_method(asked: Ask) -> str | None:
    if asked.surface.name != "score":
        return None
    return replace(asked, surface=replace(asked.surface, method="TRACE")).answer()


# Places at which an exception that nobody foresaw is raised: (where, object, attribute).
_PLACES = (
    ("finding the key's holder", "csrm.serve.tenants.Tenants.of_key"),
    ("the model's count of users", "csrm.serve.model.Model.enter"),
    ("parsing", "csrm.serve.endpoint.parse_object"),
    ("submitting", "csrm.scheduler.Scheduler._submit"),
    ("reading an answer", "csrm.scheduler.answer_from"),
    ("counting verdicts", "csrm.serve.judging.count"),
)
_UNFORESEEN = (ValueError, MemoryError, RecursionError, asyncio.CancelledError, TimeoutError)


def _unforeseen(place: str, error: type[BaseException]) -> Callable[[Ask], str | None]:
    def ask(asked: Ask) -> str | None:
        name = asked.surface.name
        if place.endswith("parse_object") and name in ("put_config", "stream"):
            return None
        if place.endswith("judging.count") and name in ("put_config", "stream"):
            return None
        if "serve.tenants" not in place and "Model.enter" not in place and not _sized(asked):
            return None

        def fail(*_: Any, **__: Any) -> Any:
            raise error(MESSAGE)

        if name == "stream" and place.startswith("csrm.scheduler"):
            failing = _failing_stream(error(MESSAGE), "append")  # type: ignore[arg-type]
            asked.patch.setattr(csrm._core, "ScoreStream", failing)
        else:
            asked.patch.setattr(place, fail)
        return asked.answer()

    return ask


def _unforeseen_ways() -> Iterator[Way]:
    for where, place in _PLACES:
        for error in _UNFORESEEN:
            # Cancelling is only what a future can do to its awaiter: elsewhere nothing raises it.
            if error is asyncio.CancelledError and place != "csrm.scheduler.answer_from":
                continue
            kind = "Cancelled" if error is asyncio.CancelledError else "Internal"
            yield Way(kind, f"{error.__name__}, {where}", _unforeseen(place, error))


WAYS: tuple[Way, ...] = (
    *(way for found in errors.ERROR_CLASSES for way in engine_ways(found.__name__)),
    *_unforeseen_ways(),
    Way("DeadlineExceeded", "an engine that never answers", _hanging),
    Way("Overloaded", "requests in flight", _in_flight),
    Way("Overloaded", "no time left before the deadline", _no_time),
    Way("Overloaded", "streams", _streams),
    Way("Overloaded", "conversations of the key", _key_busy, "keyed"),
    Way("BadUtf8", "the body", _with_body(b'{"a": "\xff"}')),
    Way(
        "LimitExceeded", "nesting of the body", _with_body(b'{"a":' + b"[" * 40 + b"]" * 40 + b"}")
    ),
    Way("BadJson", "the body", _with_body(b"{", "{")),
    Way("BadRequest", "a field", _bad_request),
    Way("BodyTooLarge", "the body", _too_large),
    Way("BodyTimeout", "the body", _too_slow),
    Way("UnsupportedEncoding", "the body", _encoded),
    Way("PartialBody", "the body, cut by the proxy", _partial),
    Way("Unauthorized", "no key", lambda asked: asked.answer(), "keyed"),
    Way("Forbidden", "rules of a bound key; changes without an admin key", _forbidden, "keyed"),
    Way("UnknownConfig", "the config's id", _unknown_config),
    Way("NotFound", "the path", _no_path),
    Way("MethodNotAllowed", "the method", _no_method),
    Way("ConfigConflict", "a config that a file has", _conflict),
    Way("QuotaExceeded", "the key's quota", _used_up, "keyed"),
    Way("NotReady", "loading", _in_state("loading")),
    Way("NotReady", "loading failed", _in_state("failed")),
    Way("Draining", "after SIGTERM", _in_state("draining")),
)
