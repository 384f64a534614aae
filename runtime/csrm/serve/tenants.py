"""`Tenants`: who may ask, for which configs and how much.

Not: HTTP (endpoint.py). Keys are kept as SHA-256 only and compared in constant time with every
known one. They come from a file, or from the environment variable CSRM_API_KEYS.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from csrm.errors import BadArgument
from csrm.serve.failures import Failure

KEYS_VARIABLE = "CSRM_API_KEYS"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class Tenant:
    """One holder of a key.

    config: id used when its requests name none. configs: ids it may see and use; empty = all.
    requests_per_minute: conversations it may have judged, 0 = no bound. max_in_flight: of them at a
    time, 0 = no bound. isolated: has a model and prefix cache of its own, so that no other tenant's
    requests can tell from timing which configs it uses. admin: may PUT and DELETE configs.
    """

    name: str
    key_sha256: str = ""
    config: str = ""
    configs: frozenset[str] = frozenset()
    requests_per_minute: int = 0
    max_in_flight: int = 0
    isolated: bool = False
    admin: bool = False

    def may_use(self, id: str) -> bool:
        """Whether the config `id` is one of its own."""
        return not self.configs or id in self.configs


class Quotas:
    """Token buckets and counts of tenants, by name, so that a reload does not refill them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}
        self._in_flight: dict[str, int] = {}

    def take(self, tenant: Tenant, n: int) -> None:
        """Charges `n` conversations. Errors: Failure QuotaExceeded with the seconds to wait."""
        if not tenant.requests_per_minute:
            return
        capacity, now = float(tenant.requests_per_minute), self._clock()
        left, then = self._left.get(tenant.name, (capacity, now))
        left = min(capacity, left + (now - then) * capacity / 60)
        if left < n:
            self._left[tenant.name] = (left, now)
            wait_s = math.ceil((min(n, capacity) - left) * 60 / capacity)
            raise Failure("QuotaExceeded", "the quota is used up", retry_after_s=max(1, wait_s))
        self._left[tenant.name] = (left - n, now)

    def enter(self, tenant: Tenant, n: int) -> None:
        """Counts `n` conversations as in flight. Errors: Failure Overloaded beyond its bound."""
        present = self._in_flight.get(tenant.name, 0)
        if tenant.max_in_flight and present + n > tenant.max_in_flight:
            raise Failure("Overloaded", "this key has too many conversations in flight")
        self._in_flight[tenant.name] = present + n

    def leave(self, tenant: Tenant, n: int) -> None:
        """Ends what `enter` counted."""
        self._in_flight[tenant.name] -= n


class Tenants:
    """All tenants; with none, every request is that of `ANYONE`."""

    def __init__(self, known: tuple[Tenant, ...] = (), anyone: Tenant | None = None) -> None:
        self.known = known
        self._anyone = anyone or Tenant("anyone")

    def of_key(self, key: str | None) -> Tenant:
        """The tenant that holds `key`. Errors: Failure Unauthorized."""
        if not self.known:
            return self._anyone
        digest = hashlib.sha256((key or "").encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for tenant in self.known:  # all of them, whichever matches
            if hmac.compare_digest(digest, tenant.key_sha256):
                found = tenant
        if key is None or found is None:
            raise Failure("Unauthorized", "send a known key: Authorization: Bearer, or x-api-key")
        return found


def read_tenants(path: Path | None, environment: Mapping[str, str], *, writes: bool) -> Tenants:
    """Those of the file and of CSRM_API_KEYS. `writes`: without any, everyone may PUT configs.

    Errors: BadArgument, which names the entry by number and never repeats a value.
    """
    known = _from_file(path) if path is not None else []
    known += _from_environment(environment.get(KEYS_VARIABLE, ""))
    for what in ("name", "key_sha256"):
        if len({getattr(tenant, what) for tenant in known}) != len(known):
            raise BadArgument(f"two tenants have the same {what}")
    return Tenants(tuple(known), Tenant("anyone", admin=writes))


def _from_file(path: Path) -> list[Tenant]:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise BadArgument(f"the tenants file is larger than {_MAX_FILE_BYTES:,} bytes")
        document = yaml.safe_load(data)
    except OSError as error:
        raise BadArgument(f"the tenants file cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise BadArgument("the tenants file is not valid YAML") from None
    entries = document.get("tenants") if isinstance(document, dict) else None
    if not isinstance(entries, list) or set(document) != {"tenants"} or not entries:
        raise BadArgument('the tenants file must have one key, "tenants": a list of tenants')
    return [_tenant(entry, f"tenant {number}") for number, entry in enumerate(entries, start=1)]


def _tenant(entry: object, what: str) -> Tenant:
    known = {field.name: field.type for field in fields(Tenant)}
    if not isinstance(entry, dict) or not set(entry) <= set(known):
        raise BadArgument(f"{what} must be a mapping with the keys {', '.join(known)}")
    values: dict[str, Any] = dict(entry)
    for key, value in entry.items():
        if known[key] == "str":
            good = isinstance(value, str)
        elif known[key] == "bool":
            good = isinstance(value, bool)
        elif known[key] == "int":
            good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
        else:
            good = isinstance(value, list) and all(isinstance(id, str) for id in value)
        if not good:
            raise BadArgument(f"{what}: {key} is of a wrong type or out of range")
    values["configs"] = frozenset(values.get("configs", ()))
    if not _DIGEST.fullmatch(values.get("key_sha256", "")):
        raise BadArgument(f"{what}: key_sha256 must be the SHA-256 of the key, 64 hex digits")
    return _named(Tenant(**{"name": "", **values}), what)


def _from_environment(text: str) -> list[Tenant]:
    """`name=key` pairs between commas: tenants without limits."""
    tenants = []
    for number, pair in enumerate(filter(None, text.split(",")), start=1):
        name, equals, key = pair.partition("=")
        if not equals or len(key) < 16:
            raise BadArgument(
                f"{KEYS_VARIABLE}: pair {number} must be name=key, 16 letters or more"
            )
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        tenants.append(_named(Tenant(name.strip(), digest), f"{KEYS_VARIABLE}: pair {number}"))
    return tenants


def _named(tenant: Tenant, what: str) -> Tenant:
    if not _NAME.fullmatch(tenant.name):
        raise BadArgument(f"{what}: name must have 1 to 64 letters, digits and . _ -")
    if tenant.config and not tenant.may_use(tenant.config):
        raise BadArgument(f"{what}: its config is not among its configs")
    return tenant
