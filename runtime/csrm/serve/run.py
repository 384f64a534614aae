"""`run`: the server process: uvicorn around the application, signals, exit status.

Not: the command line (csrm.cli.serve). SIGTERM and SIGINT drain: the server says 503 to what is new
for the drain delay, then stops listening, finishes what it accepted, and exits.
"""

from __future__ import annotations

import logging
import socket
import time
from types import FrameType

import uvicorn

from csrm.errors import BadArgument, EngineFailed
from csrm.serve.app import create_app
from csrm.serve.logs import log_event, log_to_stderr
from csrm.serve.options import ServeOptions
from csrm.serve.protocol import MAX_HEAD_BYTES, http_protocol
from csrm.serve.service import Service

# Idle connections are closed after this long; slower clients than this reconnect.
_KEEP_ALIVE_S = 30
_BACKLOG = 2048


def run(options: ServeOptions, host: str, port: int) -> None:
    """Serves until a signal ends it. Errors: csrm.Error of the files, the address, the model."""
    log_to_stderr()
    service = Service(options)
    if host not in ("127.0.0.1", "::1", "localhost") and not service.has_keys:
        log_event(
            "no_keys",
            logging.WARNING,
            host=host,
            note="everyone who reaches this address may use it",
        )
    bound = listen(host, port)
    config = _uvicorn_config(service)
    if service.certificate is not None:
        config.load()
        config.ssl = service.certificate.context  # uvicorn's own could not be renewed
    server = _Server(config, service)
    server.run(sockets=[bound])
    if service.state == "failed":
        raise service.error or EngineFailed("the model could not be loaded; see the log")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Errors: BadArgument, before the model is loaded."""
    bound = None
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Without the protocol's number asyncio does not know TCP, leaves Nagle's algorithm on, and
        # an answer of head and body waits 40 ms for an acknowledgement.
        bound = socket.socket(family, kind, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
        return bound
    except (OSError, UnicodeError) as error:
        if bound is not None:
            bound.close()
        reason = getattr(error, "strerror", None) or "not an address"
        raise BadArgument(f"cannot listen on the given host and port: {reason}") from None


def _uvicorn_config(service: Service) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(service),
        log_config=None,
        access_log=False,
        lifespan="on",
        http=http_protocol(),
        ws="wsproto",
        ws_max_size=service.options.limits.max_body_bytes,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(service.options.drain_timeout_s) + 1,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        ssl_certfile=service.options.tls_cert,
        ssl_keyfile=service.options.tls_key,
    )


class _Server(uvicorn.Server):
    """uvicorn that drains before it stops listening, and ends when the model cannot be loaded."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._stop_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, and logs where: with port 0 the system chooses."""
        await super().startup(sockets)
        for server in self.servers if self.started else ():
            for bound in server.sockets:
                host, port, *_ = bound.getsockname()
                log_event("listening", host=host, port=port, page=self._service.has_page)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins to drain, a second one ends the delay, a third one forces.

        Unlike uvicorn's own, it does not kill the process by the signal once all is done.
        """
        self._service.drain()
        if self._stop_at is None:
            self._stop_at = time.monotonic() + self._service.options.drain_delay_s
        elif not self.should_exit:
            self._stop_at = time.monotonic()
        else:
            self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is time to stop listening.

        uvicorn would then cut streams off at once, so they are waited for first.
        """
        if self._service.state == "failed":
            self.should_exit = True
        if self._stop_at is not None:
            past_s = time.monotonic() - self._stop_at
            is_over = past_s >= self._service.options.drain_timeout_s
            if past_s >= 0 and (is_over or not self._service.n_streams):
                self.should_exit = True
        return await super().on_tick(counter)
