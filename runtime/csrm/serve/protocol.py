"""`http_protocol`: how uvicorn reads HTTP: httptools takes half of the time that h11 does.

Not: the requests. httptools alone puts no bound on a request's head; `BoundedProtocol` does. Where
httptools is not installed (it is C), h11 serves, which has a bound of its own.
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
        """Answers 400 and closes when a head has more bytes than the bound after its first part
        (asyncio hands over at most 256 KiB at a time).
        """

        _n_head = -1  # bytes of a head that is not whole yet; -1 = there is none

        def data_received(self, data: bytes) -> None:
            was_in_head = self._n_head >= 0
            super().data_received(data)
            if was_in_head and self._n_head >= 0:
                self._n_head += len(data)
                if self._n_head > MAX_HEAD_BYTES and not self.transport.is_closing():
                    self.send_400_response("The head of the request is too large.")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._n_head = 0

        def on_headers_complete(self) -> Any:
            self._n_head = -1
            if sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
                raise ValueError("the head is too large")  # uvicorn answers 400
            return super().on_headers_complete()

    return BoundedProtocol
