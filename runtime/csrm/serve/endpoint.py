"""From an HTTP request to a handler and back: keys, limits, deadline, failures, metrics, log.

Not: what an endpoint does (native.py, moderations.py, ...). A handler gets a `Call` and returns a
Response; whatever it raises becomes the endpoint's own kind of refusal. A handler is cancelled when
the client has gone, and with it what it queued.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from csrm.errors import Error
from csrm.serve.body import parse_object, read_body
from csrm.serve.configs import NamedConfig
from csrm.serve.failures import Failure, failure_of
from csrm.serve.logs import LOGGER, log_exception
from csrm.serve.service import Service, Snapshot
from csrm.serve.tenants import Tenant

CONFIG_HEADER = "x-csrm-config"
DEADLINE_HEADER = "x-csrm-deadline-ms"
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Call:
    """One request while it is served. `facts` go into its log line."""

    def __init__(self, service: Service, request: Request, endpoint: Endpoint) -> None:
        self.service = service
        self.request = request
        self.endpoint = endpoint
        self.id = uuid.uuid4().hex
        self.started = time.monotonic()
        self.deadline = self.started + service.options.deadline_s
        self.data = b""
        self.body: dict[str, Any] = {}
        self.facts: dict[str, object] = {}
        self.named: NamedConfig | None = None
        self._snapshot: Snapshot | None = None
        self._tenant: Tenant | None = None

    @property
    def snapshot(self) -> Snapshot:
        """What the request is served with, from its beginning to its end."""
        if self._snapshot is None:
            raise Failure("NotReady", "the request was not admitted")
        return self._snapshot

    @property
    def tenant(self) -> Tenant:
        """Whose request it is."""
        if self._tenant is None:
            raise Failure("Unauthorized", "the request was not admitted")
        return self._tenant

    def admit(self) -> None:
        """Takes the snapshot and finds the tenant. Errors: Failure."""
        limit = self.service.options.limits.max_in_flight
        snapshot = self.service.snapshot
        self._tenant = snapshot.tenants.of_key(self._key())
        if self.service.n_in_flight > limit:  # this one included
            raise Failure("Overloaded", f"{limit:,} requests are in flight; that is the limit")
        snapshot.model.enter()
        self._snapshot = snapshot
        self.facts["tenant"] = self._tenant.name
        if self.endpoint.reads_headers:
            self.set_deadline(self.request.headers.get(DEADLINE_HEADER))

    def leave(self) -> None:
        """Lets go of what `admit` took."""
        if self._snapshot is not None:
            self._snapshot.model.leave()

    def set_deadline(self, stated: object) -> None:
        """Shortens the time for this request to `stated` milliseconds. Errors: Failure."""
        if stated is None:
            return
        try:
            seconds = float(str(stated)) / 1000
        except ValueError:
            seconds = -1.0
        if isinstance(stated, bool) or not 0 < seconds < 1e9:
            raise Failure("BadRequest", "the deadline must be a positive number of milliseconds")
        self.deadline = min(self.deadline, self.started + seconds)

    def config(self, *stated: object) -> NamedConfig:
        """The config for this request: of the path, the header, `stated`, the tenant, the default.

        The first that is there counts. Errors: Failure UnknownConfig, also for another tenant's.
        """
        header = self.request.headers.get(CONFIG_HEADER) if self.endpoint.reads_headers else None
        pinned = (self.request.path_params.get("config_id"), header)
        given = (*pinned, *stated, self.tenant.config, self.snapshot.configs.default)
        for id in given:
            if id is None or id == "":
                continue
            return self.config_of(id)
        raise Failure("UnknownConfig", "name a config: this server has no default")

    def config_of(self, id: object) -> NamedConfig:
        """The config `id` itself. Errors: Failure UnknownConfig, BadRequest."""
        if not isinstance(id, str):
            raise Failure("BadRequest", "the id of a config must be a string")
        if not self.tenant.may_use(id):
            raise Failure("UnknownConfig", "there is no config of that id; see GET /v1/configs")
        return self.snapshot.configs.get(id)

    def _key(self) -> str | None:
        headers = self.request.headers
        key = headers.get("x-csrm-key")
        if key is not None or not self.endpoint.reads_headers:
            return key
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")


Handler = Callable[[Call], Awaitable[Response]]
Refuser = Callable[[Call, Failure], Response]


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
    call = Call(service, request, endpoint)
    outcome = "ok"
    service.n_in_flight += 1
    try:
        call.admit()
        response = await _handled(endpoint, call)
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
    _finish(call, response, outcome)
    return response


async def _handled(endpoint: Endpoint, call: Call) -> Response:
    """The handler's response. Errors: what it raises; ClientDisconnect when the client has gone."""
    limits = call.service.options.limits
    if endpoint.reads != "nothing":
        call.data = await read_body(call.request, limits)
    if endpoint.reads == "json":
        call.body = parse_object(call.data, limits.max_depth)
    work = asyncio.ensure_future(endpoint.handler(call))
    gone = asyncio.ensure_future(_disconnected(call.request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise ClientDisconnect
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _finish(call: Call, response: Response, outcome: str) -> None:
    """Headers that say what answered, then metrics and one log line."""
    seconds = time.monotonic() - call.started
    response.headers["x-csrm-request-id"] = call.id
    named, snapshot = call.named, call._snapshot
    if snapshot is not None:
        response.headers["x-csrm-artifact-digest"] = snapshot.model.digest
    if named is not None:
        response.headers["x-csrm-config-id"] = named.id
        response.headers["x-csrm-config-version"] = _printable(named.config.version)
        response.headers["x-csrm-config-digest"] = named.digest
    metrics = call.service.metrics
    metrics.requests.labels(call.endpoint.name, outcome).inc()
    metrics.seconds.labels(call.endpoint.name).observe(seconds)
    trace = _TRACEPARENT.fullmatch(call.request.headers.get("traceparent", ""))
    facts = {
        "endpoint": call.endpoint.name,
        "status": response.status_code,
        "outcome": outcome,
        "request_id": call.id,
        "trace_id": trace.group(1) if trace else None,
        "artifact_digest": None if snapshot is None else snapshot.model.digest,
        "config_id": None if named is None else named.id,
        "config_digest": None if named is None else named.digest,
        "ms": round(seconds * 1000, 3),
        **call.facts,
    }
    LOGGER.info("request", extra={"csrm": facts})


def _printable(version: str) -> str:
    """A config's version as a header can carry it."""
    return "".join(c if 32 < ord(c) < 127 else "_" for c in version[:128])
