"""From an HTTP request to a handler and back: keys, limits, deadline, failures, metrics, log.

Not: what an endpoint does (native.py, moderations.py, ...). A handler gets a `Call` and returns a
Response; whatever it raises becomes the endpoint's own kind of refusal. A handler is cancelled when
the client has gone, and with it what it queued.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from csrm.errors import Error
from csrm.serve.body import check_head, parse_object, read_body
from csrm.serve.call import Call
from csrm.serve.failures import Failure, failure_of
from csrm.serve.logs import log_exception
from csrm.serve.service import Service

Handler = Callable[[Call], Awaitable[Response]]
Refuser = Callable[[Call, Failure], Response]
# An engine call that began before the deadline may end after it; one that hangs is not waited for.
_LATE_S = 1.0
# More bytes of JSON than this can take the event loop tens of milliseconds, if all are brackets.
_LONG_BODY = 64 << 10


def refuse(call: Call, failure: Failure) -> Response:
    """The answer of most endpoints when there is no score: never anything but "unknown"."""
    body = {"error": failure.fields(), "verdict": "unknown", "flagged": True}
    return JSONResponse(body, failure.status)


@dataclass(frozen=True)
class Endpoint:
    """One endpoint.

    name: its label in metrics and logs. reads: what the handler finds in `Call.data`, or parsed in
    `Call.body`; it must not read the request itself. reads_headers: Authorization, x-api-key and
    x-csrm-config are the caller's own, and not those of someone whose request is being checked.
    """

    name: str
    handler: Handler
    refuser: Refuser = refuse
    reads: Literal["json", "bytes", "nothing"] = "json"
    reads_headers: bool = True

    def bound_to(self, service: Service) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint as Starlette calls it. The result never raises, except when cancelled."""

        async def serve(request: Request) -> Response:
            return await _serve(self, service, request)

        return serve


async def _serve(endpoint: Endpoint, service: Service, request: Request) -> Response:
    call = Call(service, request, endpoint.name, reads_headers=endpoint.reads_headers)
    outcome = "ok"
    service.n_in_flight += 1
    try:
        call.admit()
        if endpoint.reads == "json":
            n_bytes = check_head(request, service.options.limits)
            service.admission.check(endpoint.name, n_bytes, call.deadline)
        response = await _handled(endpoint, call, request)
    except ClientDisconnect:
        outcome, response = "abandoned", Response(status_code=499)
    except Exception as error:
        failure = failure_of(error)
        if not isinstance(error, Failure | Error):
            log_exception("unexpected", error, request_id=call.id, endpoint=endpoint.name)
        outcome = failure.kind
        response = endpoint.refuser(call, failure)
        if failure.retry_after_s is not None and response.status_code in (429, 503):
            response.headers["retry-after"] = str(failure.retry_after_s)
        if failure.status == 401:
            response.headers["www-authenticate"] = "Bearer"
    finally:
        service.n_in_flight -= 1
        call.leave()
    response.headers.update(call.identity())
    if service.state == "draining":
        response.headers["connection"] = "close"  # the client's next request goes elsewhere
    call.report(response.status_code, outcome)
    return response


async def _handled(endpoint: Endpoint, call: Call, request: Request) -> Response:
    """The handler's response. Errors: what it raises; ClientDisconnect when the client has gone;
    Failure DeadlineExceeded when what judges has not answered long after the deadline.
    """
    limits = call.service.options.limits
    with call.stage("read"):
        if endpoint.reads != "nothing":
            call.data = await read_body(request, limits)
            call.has_read()
        if endpoint.reads == "json" and len(call.data) > _LONG_BODY:
            call.body = await asyncio.to_thread(parse_object, call.data, limits.max_depth)
        elif endpoint.reads == "json":
            call.body = parse_object(call.data, limits.max_depth)
    work = asyncio.ensure_future(endpoint.handler(call))
    gone = asyncio.ensure_future(_disconnected(request))
    is_judging = endpoint.reads == "json"  # encoding a new config may take as long as it takes
    try:
        await asyncio.wait(
            {work, gone},
            timeout=call.deadline - time.monotonic() + _LATE_S if is_judging else None,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if work.cancelled():
            raise Failure("Cancelled", "the request was withdrawn by the server itself")
        if work.done():
            return work.result()
        if gone.done():
            raise ClientDisconnect
        raise Failure("DeadlineExceeded", "the engine has not answered; the deadline is long past")
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
