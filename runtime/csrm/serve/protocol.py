"""`http_protocol`: how uvicorn reads HTTP: httptools takes half of the time that h11 does.

Not: the requests. httptools alone puts no bound on a request's head and trailers;
`BoundedProtocol` does. Where httptools is not installed (it is C), h11 serves, which has a bound of
its own.
"""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any

MAX_HEAD_BYTES = 16 << 10


def http_protocol() -> type[asyncio.Protocol] | str:
    """What uvicorn.Config's `http` takes."""
    if importlib.util.find_spec("httptools") is None:
        return "h11"
    return _bounded()


def _bounded() -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class BoundedProtocol(HttpToolsProtocol):
        """Answers 400 and closes when a head, or what comes between the pieces of a body and after
        them (trailers, extensions of chunks), has more bytes than the bound after its first part
        (asyncio hands over at most 256 KiB at a time). Trailers are ignored.
        """

        _is_head = False
        _n_bare = -1  # bytes of a request since its first, or since its body went on; -1 = none
        _is_bare = False  # whether nothing but such bytes came with the newest part

        def data_received(self, data: bytes) -> None:
            self._is_bare = self._n_bare >= 0
            super().data_received(data)
            if self._is_bare:
                self._n_bare += len(data)
                if self._n_bare > MAX_HEAD_BYTES and not self.transport.is_closing():
                    self.send_400_response("The head of the request is too large.")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._is_head = True
            self._advance(0)

        def on_header(self, name: bytes, value: bytes) -> None:
            if self._is_head:
                super().on_header(name, value)

        def on_headers_complete(self) -> Any:
            self._is_head = False
            self._advance(0)
            if sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
                raise ValueError("the head is too large")  # uvicorn answers 400
            return super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._advance(0)
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._advance(-1)
            super().on_message_complete()

        def _advance(self, n_bare: int) -> None:
            self._n_bare, self._is_bare = n_bare, False

    return BoundedProtocol
