"""`offline()`: proof that a framework reports to nobody while its tests run.

Not: a sandbox; it watches Python's sockets. The frameworks under test send usage reports unless
they are told not to, so their tests run inside it and at the end look at what it noted.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@contextmanager
def offline() -> Iterator[list[str]]:
    """Refuses every look-up of and connection to another machine, and lists their names."""
    others: list[str] = []
    resolve, connect = socket.getaddrinfo, socket.socket.connect

    def checked(host: object) -> None:
        name = host.decode() if isinstance(host, bytes) else host
        if isinstance(name, str) and name not in _LOOPBACK:
            others.append(name)
            raise OSError(f"the tests may not reach {name}")

    def checked_resolve(host: Any, *args: Any, **options: Any) -> Any:
        checked(host)
        return resolve(host, *args, **options)

    def checked_connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple):
            checked(address[0])
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", checked_resolve)
        patch.setattr(socket.socket, "connect", checked_connect)
        yield others
