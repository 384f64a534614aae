"""`Connection`: HTTP/1.1 on one kept connection, one request at a time, in few microseconds.

Not: a general client. It knows what csrm serve answers: a head, a content-length, a body. So the
side that sends costs little beside the side that is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What came back. at: time.perf_counter() of its last byte."""

    status: int
    body: bytes
    at: float
    is_last: bool  # the server closes the connection after it


OnAnswer = Callable[[Answer | None], None]


def request(path: str, body: bytes | None, headers: dict[str, str] | None = None) -> bytes:
    """The bytes of a POST of JSON, or of a GET if `body` is None."""
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "host: csrm"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


class Connection(asyncio.Protocol):
    """For one event loop. `is_open` until either side closes."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._waiting: OnAnswer | None = None

    def send(self, data: bytes, on_answer: OnAnswer) -> None:
        """Sends a request; `on_answer` gets None if the connection ends without an answer."""
        if not self.is_open or self._transport is None:
            on_answer(None)
            return
        self._waiting = on_answer
        self._transport.write(data)

    async def ask(self, data: bytes) -> Answer | None:
        """The same, awaited."""
        future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()

        def settle(answer: Answer | None) -> None:
            if not future.done():
                future.set_result(answer)

        self.send(data, settle)
        return await future

    def close(self) -> None:
        """Closes it."""
        self.is_open = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.is_open = transport, True

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        at = time.perf_counter()
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._data[:end].lower()
        place = head.find(b"\r\ncontent-length: ")
        length = int(head[place + 18 :].partition(b"\r\n")[0]) if place >= 0 else 0
        if len(self._data) < end + 4 + length:
            return
        body, self._data = self._data[end + 4 : end + 4 + length], b""
        is_last = b"\r\nconnection: close" in head
        if is_last:
            self.close()
        self._settle(Answer(int(head[9:12]), body, at, is_last))

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self.is_open = False
        self._settle(None)

    def _settle(self, answer: Answer | None) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting(answer)


async def connect(port: int) -> Connection:
    """A connection to the loopback address. Errors: OSError."""
    _, made = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return made
