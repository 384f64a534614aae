"""`csrm.serve.reload.watch` on its own: what SIGHUP asks for while there is no model yet.

Not: reloads of a running server (test_serve_operations.py, test_serve_process.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("starlette", reason="NO SERVER TESTED: csrm[serve] is not installed")

from csrm.serve.reload import watch


class LoadingService:
    """Counts what `watch` does; becomes ready when the test says so."""

    def __init__(self) -> None:
        self.options = SimpleNamespace(poll_s=0)
        self.state = "loading"
        self.n_looks = 0
        self.n_reloads = 0

    def files(self) -> tuple[()]:
        self.n_looks += 1
        return ()

    async def reload(self) -> None:
        self.n_reloads += 1


def test_watch_sighup_while_loading_waits_and_reloads_once() -> None:
    service: Any = LoadingService()

    async def run() -> int:
        watching = asyncio.ensure_future(watch(service))
        await asyncio.sleep(0.1)
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.5)
        n_looks_while_loading: int = service.n_looks
        service.state = "ready"
        for _ in range(100):
            await asyncio.sleep(0.05)
            if service.n_reloads:
                break
        await asyncio.sleep(0.3)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        return n_looks_while_loading

    before = signal.getsignal(signal.SIGHUP)
    try:
        n_looks = asyncio.run(run())
    finally:
        signal.signal(signal.SIGHUP, before)
    assert n_looks == 1  # the one at the start
    assert service.n_reloads == 1
