"""`Service`: what is loaded, its life from loading to drained, and its replacement while running.

Not: HTTP (endpoint.py, app.py) or judging (judging.py). Belongs to one event loop. A request takes
the `Snapshot` once and keeps it: model, configs and tenants are never mixed between two reloads.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import csrm
from csrm.errors import Error
from csrm.serve import configs, model, tenants
from csrm.serve.admission import Admission
from csrm.serve.audit import audit_key
from csrm.serve.configs import ConfigSet, NamedConfig, Signature
from csrm.serve.failures import Failure
from csrm.serve.logs import log_event, log_failure
from csrm.serve.metrics import Metrics
from csrm.serve.model import Model
from csrm.serve.options import ServeOptions
from csrm.serve.telemetry import open_telemetry
from csrm.serve.tenants import Quotas, Tenants
from csrm.serve.tls import Certificate

State = Literal["loading", "ready", "draining", "failed"]
_WARM_UP = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True)
class Snapshot:
    """Everything a request is served with."""

    model: Model
    configs: ConfigSet
    tenants: Tenants


@dataclass(frozen=True)
class _Files:
    """What the operator's files state, read together."""

    configs: Mapping[str, NamedConfig]
    default: str
    tenants: Tenants


class Service:
    """The state of a server. Errors of the constructor: those of the operator's files."""

    def __init__(self, options: ServeOptions, environment: Mapping[str, str] | None = None) -> None:
        self.options = options
        self.metrics = Metrics()
        self.quotas = Quotas()
        self.admission = Admission(options.n_workers)
        self.state: State = "loading"
        self.error: Error | None = None
        self.n_in_flight = 0  # requests, streams among them
        self.n_streams = 0
        self.stream_workers = asyncio.Semaphore(options.n_workers)
        # A megabyte of YAML takes seconds to read: beside the loop, and one at a time.
        self.parsing = ThreadPoolExecutor(1, "csrm-parse")
        self._environment = os.environ if environment is None else environment
        self.audit_key = audit_key(self._environment)
        self.certificate = _certificate(options)
        self._first = self._read_files()
        self._snapshot: Snapshot | None = None
        self._changing = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self.metrics.watch(self._model, csrm.__version__)
        self.telemetry = open_telemetry(self._environment, self.metrics)

    @property
    def snapshot(self) -> Snapshot:
        """What serves now. Errors: Failure NotReady, Draining."""
        if self.state == "draining":
            raise Failure("Draining", "the server is shutting down; ask another one")
        if self._snapshot is None or self.state != "ready":
            raise Failure("NotReady", "the model is being loaded; ask again")
        return self._snapshot

    @property
    def has_keys(self) -> bool:
        """Whether requests need a key, as the files said at the start."""
        return bool(self._first.tenants.known)

    @property
    def has_page(self) -> bool:
        """Whether / shows the playground: as the operator says, or else if no key is needed."""
        stated = self.options.page
        return not self.has_keys if stated is None else stated

    async def start(self) -> None:
        """Loads and warms up, then serves. Errors: those of csrm.load; the state is then failed."""
        try:
            async with self._changing:
                self._snapshot = await self._prepared(self._first)
        except Exception as error:
            self.state = "failed"
            if isinstance(error, Error):
                self.error = error
            raise
        if self.state == "loading":
            self.state = "ready"
        self._report("loaded", self._snapshot)

    async def reload(self) -> bool:
        """Reads files and model again and replaces what serves; on an error all stays as it is.

        The new is loaded and warm before the old goes, and requests under way keep the old.
        """
        async with self._changing:
            before = self._snapshot
            if before is None or self.state != "ready":
                return False
            await self._renew_certificate()
            try:
                files = await asyncio.to_thread(self._read_files)
                after = await self._prepared(files)
            except Exception as error:
                self.metrics.reloads.labels("failed").inc()
                log_failure("reload_failed", error)
                return False
            self._snapshot = after
            if after.model is not before.model:
                self._let_go(before.model)
        self.metrics.reloads.labels("loaded").inc()
        self._report("reloaded", after)
        return True

    async def put_config(self, named: NamedConfig) -> bool:
        """Adds or replaces an API's config; whether it is new. Errors: Failure, csrm.Error."""
        async with self._changing:
            before = self.snapshot
            after = before.configs.with_config(named, self.options.limits.max_configs)
            await _warm(before.model, [named])
            self._snapshot = replace(before, configs=after)
        log_event("config_put", config_id=named.id, config_digest=named.digest)
        return named.id not in before.configs.by_id

    async def delete_config(self, id: str) -> None:
        """Removes an API's config. Errors: Failure."""
        async with self._changing:
            before = self.snapshot
            self._snapshot = replace(before, configs=before.configs.without(id))
        log_event("config_deleted", config_id=id)

    def files(self) -> Signature:
        """What changes when any file does that `reload` reads."""
        found = configs.signature(self.options.config) + model.artifact_files(self.options)
        for path in (self.options.tenants, self.options.tls_cert, self.options.tls_key):
            if path is not None:
                found += configs.signature(path)
        return found

    def drain(self) -> None:
        """From now on refuses what comes; what is in flight goes on. Idempotent."""
        if self.state not in ("draining", "failed"):
            self.state = "draining"
            log_event("draining", in_flight=self.n_in_flight)

    async def stop(self) -> None:
        """Waits for what is in flight, at most the drain timeout, and closes the model."""
        self.drain()
        until = time.monotonic() + self.options.drain_timeout_s
        while self.n_in_flight and time.monotonic() < until:
            await asyncio.sleep(0.01)
        for task in tuple(self._retiring):
            task.cancel()
        self.parsing.shutdown(wait=False, cancel_futures=True)
        if self._snapshot is not None:
            await asyncio.to_thread(self._snapshot.model.close)
        if self.telemetry is not None:
            await asyncio.to_thread(self.telemetry.close)
        log_event("stopped", abandoned=self.n_in_flight)

    def _read_files(self) -> _Files:
        limit = self.options.limits.max_configs
        found = configs.read_files(self.options.config, limit)
        default = configs.default_of(found, self.options.default_config)
        known = tenants.read_tenants(
            self.options.tenants, self._environment, writes=self.options.config_writes
        )
        return _Files(found, default, known)

    async def _prepared(self, files: _Files) -> Snapshot:
        before = self._snapshot
        isolated = model.isolated_names(files.tenants)
        artifact = await asyncio.to_thread(model.artifact_files, self.options)
        present = configs.EMPTY if before is None else before.configs
        after = present.with_files(files.configs, files.default)
        is_same = (
            before is not None
            and before.model.isolated == isolated
            and before.model.files == artifact
        )
        if before is not None and is_same:
            loaded, known = before.model, {one.digest for one in present.by_id.values()}
        else:
            loaded, known = await asyncio.to_thread(Model, self.options, isolated, artifact), set()
        try:
            await _warm(loaded, [one for one in after.by_id.values() if one.digest not in known])
        except BaseException:
            if not is_same:
                await asyncio.to_thread(loaded.close)
            raise
        return Snapshot(loaded, after, files.tenants)

    async def _renew_certificate(self) -> None:
        """Apart from the rest: a bad config must not keep an old certificate until it expires."""
        if self.certificate is None:
            return
        try:
            await asyncio.to_thread(self.certificate.renew)
        except Error as error:
            self.metrics.reloads.labels("failed").inc()
            log_failure("certificate_failed", error)

    def _let_go(self, old: Model) -> None:
        task = asyncio.get_running_loop().create_task(old.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _model(self) -> Model | None:
        return None if self._snapshot is None else self._snapshot.model

    def _report(self, event: str, now: Snapshot) -> None:
        self.metrics.loaded_at.set_to_current_time()
        log_event(
            event,
            artifact_digest=now.model.digest,
            n_configs=len(now.configs.by_id),
            default=now.configs.default or None,
            n_tenants=len(now.tenants.known),
        )


def _certificate(options: ServeOptions) -> Certificate | None:
    if options.tls_cert is None or options.tls_key is None:
        return None
    return Certificate(options.tls_cert, options.tls_key)


async def _warm(loaded: Model, new: list[NamedConfig]) -> None:
    """Encodes new configs before anyone waits for them. Errors: those of Scheduler.score."""
    for named in new:
        await loaded.lanes[0].scheduler.score(named.config, _WARM_UP)
