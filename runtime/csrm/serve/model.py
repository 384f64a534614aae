"""`Model`: a loaded artifact with its schedulers, one for all tenants and one per isolated tenant.

Not: choosing when to load or to let go (service.py). All methods but the constructor and `close`
belong to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csrm.paths import default_artifact
from csrm.scheduler import Scheduler
from csrm.scorer import Scorer, load
from csrm.serve.configs import Signature
from csrm.serve.options import ServeOptions
from csrm.serve.tenants import Tenant, Tenants


@dataclass(frozen=True)
class Lane:
    """A Scorer with the Scheduler in front of it."""

    scorer: Scorer
    scheduler: Scheduler


class Model:
    """The artifact, loaded once for each lane. Takes seconds. Errors: those of csrm.load.

    Isolated tenants have a salt of their own in the keys of the prefix cache, new with every load.
    """

    def __init__(self, options: ServeOptions, isolated: frozenset[str], files: Signature) -> None:
        self.isolated = isolated
        self.files = files
        self._lanes: dict[str, Lane] = {}
        try:
            for name in ("", *sorted(isolated)):
                self._lanes[name] = _open_lane(options, name)
        except BaseException:
            self.close()
            raise
        self.info: dict[str, Any] = self._lanes[""].scorer.info()
        self.digest = str(self.info["artifact_digest"])
        self._n_users = 0
        self._unused = asyncio.Event()

    def lane(self, tenant: Tenant) -> Lane:
        """The lane of `tenant`."""
        return self._lanes[tenant.name if tenant.name in self.isolated else ""]

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """All lanes."""
        return tuple(self._lanes.values())

    def enter(self) -> None:
        """A request begins to use this model; `leave` ends it."""
        self._n_users += 1

    def leave(self) -> None:
        """Ends one `enter`."""
        self._n_users -= 1
        if not self._n_users:
            self._unused.set()

    async def retire(self) -> None:
        """Closes the model when its last request has left; no new one may enter."""
        while self._n_users:
            self._unused.clear()
            await self._unused.wait()
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Ends what runs; what waits is Cancelled. Blocks until the engine has stopped."""
        for lane in self._lanes.values():
            lane.scheduler.close()


def artifact_files(options: ServeOptions) -> Signature:
    """What changes when a file of the artifact changes."""
    folder = options.model if options.model is not None else default_artifact()
    found = []
    for path in sorted(folder.iterdir()):
        state = path.stat()
        found.append((str(path), state.st_mtime_ns, state.st_size, state.st_ino))
    return tuple(found)


def isolated_names(tenants: Tenants) -> frozenset[str]:
    """The names of tenants that have a lane of their own."""
    return frozenset(tenant.name for tenant in tenants.known if tenant.isolated)


def _open_lane(options: ServeOptions, name: str) -> Lane:
    scorer = load(
        options.model if options.model is None else Path(options.model),
        n_threads=options.n_threads,
        device=options.device,
        cache_tokens=options.cache_tokens,
        tenant_salt=f"{name}:{secrets.token_hex(16)}" if name else "",
    )
    scheduler = Scheduler(
        scorer,
        n_workers=options.n_workers,
        max_requests=options.max_queue_requests,
        max_tokens=options.max_queue_tokens,
    )
    return Lane(scorer, scheduler)
