"""`Call`: one request while it is served: who asks, with what, by when; and its line in the log.

Not: HTTP or WebSocket (endpoint.py, streaming.py make calls) or judging. Takes the snapshot of the
Service once; everything after reads it from here.
"""

from __future__ import annotations

import re
import time
import uuid
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from starlette.requests import HTTPConnection

from csrm.serve.configs import NamedConfig
from csrm.serve.failures import Failure
from csrm.serve.logs import LOGGER
from csrm.serve.service import Service, Snapshot
from csrm.serve.tenants import Tenant

CONFIG_HEADER = "x-csrm-config"
DEADLINE_HEADER = "x-csrm-deadline-ms"
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Call:
    """One request while it is served. `facts` go into its log line."""

    def __init__(
        self, service: Service, connection: HTTPConnection, name: str, *, reads_headers: bool
    ) -> None:
        self.service = service
        self.connection = connection
        self.name = name
        self.id = uuid.uuid4().hex
        self.started = time.monotonic()
        self.deadline = self.started + service.options.deadline_s
        self.is_hurried = False  # whether the request itself left less time, by word or by deed
        self.data = b""
        self.body: dict[str, Any] = {}
        self.facts: dict[str, object] = {}
        self.named: NamedConfig | None = None
        self._reads_headers = reads_headers
        self._snapshot: Snapshot | None = None
        self._tenant: Tenant | None = None
        telemetry = service.telemetry
        self.span = None if telemetry is None else telemetry.request(self)

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
        self.set_deadline(self.own_header(DEADLINE_HEADER))

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
        if self.started + seconds < self.deadline:
            self.deadline, self.is_hurried = self.started + seconds, True

    def has_read(self) -> None:
        """Notes that the body is there: one that took most of the time has itself to blame."""
        if time.monotonic() - self.started > self.deadline - time.monotonic():
            self.is_hurried = True

    def config(self, *stated: object) -> NamedConfig:
        """The config for this request: of the path, the header, `stated`, the tenant, the default.

        The first that is there counts. Errors: Failure UnknownConfig, also for another tenant's.
        """
        pinned = (self.connection.path_params.get("config_id"), self.own_header(CONFIG_HEADER))
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

    def own_header(self, name: str) -> str | None:
        """A header of the caller's own; None where headers are those of whom is being checked."""
        return self.connection.headers.get(name) if self._reads_headers else None

    def stage(self, name: str) -> AbstractContextManager[None]:
        """A stage of the request, for its span."""
        return nullcontext() if self.span is None else self.span.stage(name)

    def identity(self) -> dict[str, str]:
        """Headers that say what answered: the request's id, the model's digest, the config."""
        found = {"x-csrm-request-id": self.id}
        if self._snapshot is not None:
            found["x-csrm-artifact-digest"] = self._snapshot.model.digest
        if self.named is not None:
            found["x-csrm-config-id"] = self.named.id
            found["x-csrm-config-version"] = _printable(self.named.config.version)
            found["x-csrm-config-digest"] = self.named.digest
        return found

    def report(self, status: int, outcome: str) -> None:
        """Counts the request and writes its log line."""
        seconds = time.monotonic() - self.started
        metrics, named, snapshot = self.service.metrics, self.named, self._snapshot
        metrics.requests.labels(self.name, outcome).inc()
        metrics.seconds.labels(self.name).observe(seconds)
        facts = {
            "endpoint": self.name,
            "status": status,
            "outcome": outcome,
            "request_id": self.id,
            **self._trace(),
            "artifact_digest": None if snapshot is None else snapshot.model.digest,
            "config_id": None if named is None else named.id,
            "config_digest": None if named is None else named.digest,
            "ms": round(seconds * 1000, 3),
            **self.facts,
        }
        LOGGER.info("request", extra={"csrm": facts})
        if self.span is not None:
            self.span.end(status, outcome, facts)

    def _trace(self) -> dict[str, str]:
        if self.span is not None:
            return {"trace_id": self.span.trace_id, "span_id": self.span.span_id}
        trace = _TRACEPARENT.fullmatch(self.connection.headers.get("traceparent", ""))
        return {"trace_id": trace.group(1)} if trace else {}

    def _key(self) -> str | None:
        headers = self.connection.headers
        key = headers.get("x-csrm-key")
        if key is not None or not self._reads_headers:
            return key
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")


def _printable(version: str) -> str:
    """A config's version as a header can carry it."""
    return "".join(c if 32 < ord(c) < 127 else "_" for c in version[:128])
