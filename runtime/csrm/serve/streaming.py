"""A WebSocket that scores a model's turn while it is being written: /v1/stream.

Not: scoring (csrm.Stream encodes only what is new). The first message opens the stream, each append
gets exactly one answer, and the answer to finish is the score of the whole turn. A failure ends the
stream with "unknown". Scoring runs beside the scheduler, at most n_workers streams at a time.

    -> {"messages": [...], "config": "ID"}      <- {"open": true, "id": ..., "config_id": ...}
    -> {"append": "text"}                       <- {"append": 1, "scored": false, "flagged": ...}
    -> {"finish": true}                         <- {"final": true, "verdict": ..., ...}
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocket, WebSocketDisconnect

from csrm.errors import Error
from csrm.serve.answers import fields_of, identity
from csrm.serve.body import parse_object
from csrm.serve.call import Call
from csrm.serve.configs import NamedConfig
from csrm.serve.failures import Failure, failure_of
from csrm.serve.judging import Judgement, count
from csrm.serve.logs import log_exception
from csrm.serve.native import check_fields, stated_config
from csrm.serve.service import Service
from csrm.stream import Stream

T = TypeVar("T")
STREAM_PATH = "/v1/stream"
OPEN_FIELDS = frozenset(
    [
        *("config", "rules", "threshold", "messages"),
        *("role", "every_tokens", "sentence_ends", "every_append"),
    ]
)
_FLAGS = ("sentence_ends", "every_append")
_CLOSE_OK, _CLOSE_REFUSED, _CLOSE_FAILED, _CLOSE_LATER = 1000, 1008, 1011, 1013


def stream_endpoint(service: Service) -> Callable[[WebSocket], Awaitable[None]]:
    """The endpoint as Starlette calls it. The result never raises, except when cancelled."""

    async def serve(socket: WebSocket) -> None:
        call = Call(service, socket, "stream", reads_headers=True)
        outcome, close, last = "ok", _CLOSE_OK, None
        service.n_in_flight += 1
        service.n_streams += 1
        try:
            await socket.accept()
            await _converse(call, socket)
        except (WebSocketDisconnect, ClientDisconnect):
            outcome = "abandoned"
        except Exception as error:
            failure = failure_of(error)
            if not isinstance(error, Failure | Error):
                log_exception("unexpected", error, request_id=call.id, endpoint=call.name)
            outcome, close = failure.kind, _close_code(failure)
            last = {"error": failure.fields(), "verdict": "unknown", "flagged": True}
            if call.named is not None:
                count(call, [Judgement(call.named, failure=failure)])
        finally:
            service.n_streams -= 1
            service.n_in_flight -= 1
            call.leave()
        if outcome != "abandoned":
            await _end(socket, last, close)
        call.report(close, outcome)

    return serve


async def _converse(call: Call, socket: WebSocket) -> None:
    """The whole exchange. Errors: Failure, csrm.Error, WebSocketDisconnect."""
    limits = call.service.options.limits
    call.admit()
    if call.service.n_streams > limits.max_streams:
        raise Failure("Overloaded", f"{limits.max_streams:,} streams are open; that is the limit")
    call.body = await _receive(call, socket)
    check_fields(call.body, OPEN_FIELDS)
    named = call.named = stated_config(call)
    call.service.quotas.take(call.tenant, 1)
    stream = _open(call, named)
    await _send(socket, {"open": True, **identity(call), **named.fields()})
    n_appends = n_chars = 0
    while True:
        message = await _receive(call, socket)
        if message == {"finish": True}:
            break
        text = message.get("append")
        if len(message) != 1 or not isinstance(text, str):
            raise Failure("BadRequest", 'send {"append": "text"} or {"finish": true}')
        n_appends, n_chars = n_appends + 1, n_chars + len(text)
        if n_chars > limits.max_body_bytes:
            raise Failure(
                "LimitExceeded", f"the turn has over {limits.max_body_bytes:,} characters"
            )
        score = await _in_turn(call, partial(stream.append, text))
        answer: dict[str, object] = {"append": n_appends, "scored": score is not None}
        if score is None:
            answer.update(verdict=stream.verdict, flagged=stream.verdict != "compliant")
        else:
            answer.update(fields_of(Judgement(named, score)))
        await _send(socket, answer)
    judgement = Judgement(named, await _in_turn(call, stream.finish))
    count(call, [judgement])
    await _send(socket, {"final": True, **identity(call), **fields_of(judgement)})


def _open(call: Call, named: NamedConfig) -> Stream:
    """The stream that the first message asks for. Errors: Failure, csrm.Error."""
    body, limits = call.body, call.service.options.limits
    messages = body.get("messages", [])
    if isinstance(messages, list) and len(messages) > limits.max_turns:
        raise Failure("LimitExceeded", f"{len(messages):,} turns; limit {limits.max_turns:,}")
    flags = {name: body.get(name, name == "sentence_ends") for name in _FLAGS}
    if not all(isinstance(value, bool) for value in flags.values()):
        raise Failure("BadRequest", f"{' and '.join(_FLAGS)} must be true or false")
    return call.snapshot.model.lane(call.tenant).scorer.stream(
        named.config,
        messages,
        role=body.get("role", "assistant"),
        every_tokens=body.get("every_tokens", 32),
        **flags,
    )


async def _in_turn(call: Call, work: Callable[[], T]) -> T:
    """`work` in a thread, when one is free for streams. Errors: Failure DeadlineExceeded when that
    takes longer than a request may; a thread that hangs keeps its place.
    """

    async def run() -> T:
        async with call.service.stream_workers:
            return await asyncio.to_thread(work)

    task = asyncio.ensure_future(run())
    try:
        await asyncio.wait({task}, timeout=call.service.options.deadline_s)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not task.done():
        raise Failure("DeadlineExceeded", "the engine has not answered within the deadline")
    if task.cancelled():
        raise Failure("Cancelled", "the score was withdrawn by the server itself")
    return task.result()


async def _receive(call: Call, socket: WebSocket) -> dict[str, object]:
    limits = call.service.options.limits
    try:
        message = await asyncio.wait_for(socket.receive(), limits.stream_idle_s)
    except (asyncio.TimeoutError, TimeoutError):
        raise Failure(
            "BodyTimeout", f"no message came for {limits.stream_idle_s:g} seconds"
        ) from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    data = message.get("bytes") or (message.get("text") or "").encode("utf-8", "surrogatepass")
    if len(data) > limits.max_body_bytes:
        raise Failure("BodyTooLarge", f"a message is larger than {limits.max_body_bytes:,} bytes")
    return parse_object(data, limits.max_depth)


async def _send(socket: WebSocket, answer: dict[str, object]) -> None:
    await socket.send_text(json.dumps(answer, ensure_ascii=False, separators=(",", ":")))


async def _end(socket: WebSocket, last: dict[str, object] | None, code: int) -> None:
    try:
        if last is not None:
            await _send(socket, last)
        await socket.close(code)
    except (WebSocketDisconnect, ClientDisconnect, RuntimeError):
        return  # gone meanwhile


def _close_code(failure: Failure) -> int:
    if failure.status in (429, 503):
        return _CLOSE_LATER
    return _CLOSE_FAILED if failure.status >= 500 else _CLOSE_REFUSED
