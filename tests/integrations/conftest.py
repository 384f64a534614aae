"""Fixtures shared by the tests of the integrations; what they are is in csrm_server.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from csrm_server import POLICY, Server, Traffic, start_server


@pytest.fixture(scope="session")
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture(scope="session")
def policy() -> Path:
    return POLICY


@pytest.fixture(scope="session")
def csrm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server under POLICY without keys."""
    server = start_server(tmp_path_factory.mktemp("csrm"))
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def late_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has no time to score: every verdict of it is "unknown"."""
    server = start_server(tmp_path_factory.mktemp("late"), "--deadline-s", "0.000001")
    yield server
    assert server.stop() == 0


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The thread's event loop, for frameworks that else make one which nobody closes."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)
    loop.close()
