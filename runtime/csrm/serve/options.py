"""`ServeOptions` and `Limits`: everything an operator can set, in one place.

Not: reading the command line (csrm.cli.serve) or using the values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from csrm.errors import BadArgument
from csrm.scorer import Device

FailMode = Literal["closed", "open"]


@dataclass(frozen=True)
class Limits:
    """Bounds of one request. Exceeding one is a failure, never a cut.

    The model's own bounds stand below them: 32,768 tokens in a conversation, 65,536 in a config.
    """

    max_body_bytes: int = 1 << 20
    max_depth: int = 32  # nesting of the JSON
    max_turns: int = 500  # of a conversation
    max_batch: int = 256  # conversations in a request
    max_judged: int = 16  # turns that a gateway's request judges one by one
    max_in_flight: int = 1024  # requests that are being read, queued or scored
    max_configs: int = 1000
    body_timeout_s: float = 10.0  # from the head of a request to the end of its body
    max_streams: int = 64  # WebSockets that score a turn while it is written
    stream_idle_s: float = 60.0  # between two messages of a stream


@dataclass(frozen=True)
class ServeOptions:
    """What a server is started with. Errors: BadArgument.

    config: a config file, the default of every endpoint, or a folder of them. default_config: id
    used when a request names none; "" = the only one there is. fail_mode: what gateways are told
    when csrm itself fails: "closed" = block. inline_configs: a request to the native endpoints may
    bring its own rules. tls_cert, tls_key: PEM files; both, or neither for HTTP in clear.
    config_writes: PUT and DELETE need no admin key (only without tenants).
    page: whether / shows the playground; None = only on a server without keys.
    poll_s: how often files are looked at for changes, 0 = only on SIGHUP. drain_delay_s: how long
    after SIGTERM the server still listens, saying 503, so that a balancer notices.
    """

    config: Path
    model: Path | None = None
    default_config: str = ""
    tenants: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    fail_mode: FailMode = "closed"
    inline_configs: bool = True
    config_writes: bool = False
    page: bool | None = None
    n_threads: int = 0
    device: Device = "auto"
    n_workers: int = 1
    cache_tokens: int = 16384
    max_queue_requests: int = 1024
    max_queue_tokens: int = 65536
    deadline_s: float = 10.0  # of a request that states none, and the most that it may state
    poll_s: float = 1.0
    drain_delay_s: float = 0.0
    drain_timeout_s: float = 30.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.fail_mode not in ("closed", "open"):
            raise BadArgument('the fail mode must be "closed" or "open"')
        if (self.tls_cert is None) != (self.tls_key is None):
            raise BadArgument("give both a TLS certificate and its key, or neither")
        for name in ("deadline_s", "drain_timeout_s"):
            if not 0 < getattr(self, name) <= 3600:
                raise BadArgument(f"{name} must be a number of seconds up to 3,600")
        for name in ("poll_s", "drain_delay_s"):
            if not 0 <= getattr(self, name) <= 3600:
                raise BadArgument(f"{name} must be a number of seconds from 0 to 3,600")
