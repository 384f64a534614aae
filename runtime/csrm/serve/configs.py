"""`ConfigSet`: the configs of a server at one moment, immutable, by id.

Not: parsing (csrm.config) or watching files (reload.py). Configs come from the operator's file or
folder, and from PUT /v1/configs; a set is replaced as a whole, so a request sees one version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from csrm.config import SafetyConfig
from csrm.config_files import SUFFIXES, config_files
from csrm.errors import BadArgument, BadConfig
from csrm.serve.failures import Failure

Source = Literal["file", "api", "request"]
Signature = tuple[tuple[str, int, int, int], ...]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class NamedConfig:
    """A config under the id by which requests name it. `digest` is that of its rules."""

    id: str
    config: SafetyConfig
    digest: str
    source: Source

    def at_least(self, threshold: float | None) -> NamedConfig:
        """This config with a threshold that is not below `threshold`: a request only tightens."""
        if threshold is None or threshold <= self.config.threshold:
            return self
        return replace(self, config=replace(self.config, threshold=threshold))

    @property
    def public_version(self) -> str:
        """The operator's version, for labels and spans; "" for what a request brought along."""
        return "" if self.source == "request" else self.config.version[:64]

    def fields(self) -> dict[str, object]:
        """What every answer says of the config it was made under."""
        return {
            "config_id": self.id,
            "config_version": self.config.version,
            "config_digest": self.digest,
            "threshold": self.config.threshold,
        }


@dataclass(frozen=True)
class ConfigSet:
    """All configs by id. `default` is the id for requests that name none; "" = there is none."""

    by_id: Mapping[str, NamedConfig]
    default: str

    def get(self, id: str) -> NamedConfig:
        """Errors: Failure UnknownConfig, which does not repeat the id."""
        found = self.by_id.get(id)
        if found is None:
            raise Failure("UnknownConfig", "there is no config of that id; see GET /v1/configs")
        return found

    def with_config(self, named: NamedConfig, max_configs: int) -> ConfigSet:
        """This set with `named` from the API. Errors: Failure ConfigConflict, LimitExceeded."""
        present = self.by_id.get(named.id)
        if present is not None and present.source == "file":
            raise Failure("ConfigConflict", "this config comes from a file; change the file")
        if present is None and len(self.by_id) >= max_configs:
            raise Failure("LimitExceeded", f"there are {max_configs:,} configs; that is the limit")
        return self._of({**self.by_id, named.id: named})

    def without(self, id: str) -> ConfigSet:
        """This set without the API's config `id`. Errors: Failure UnknownConfig, ConfigConflict."""
        if self.get(id).source == "file":
            raise Failure("ConfigConflict", "this config comes from a file; remove the file")
        if id == self.default:
            raise Failure("ConfigConflict", "this config is the default")
        return self._of({key: value for key, value in self.by_id.items() if key != id})

    def with_files(self, files: Mapping[str, NamedConfig], default: str) -> ConfigSet:
        """The set after a reload: these files and the API's configs. A file wins over the API."""
        kept = {key: value for key, value in self.by_id.items() if value.source == "api"}
        return ConfigSet(MappingProxyType({**kept, **files}), default)

    def _of(self, by_id: dict[str, NamedConfig]) -> ConfigSet:
        return ConfigSet(MappingProxyType(by_id), self.default)


EMPTY = ConfigSet(MappingProxyType({}), "")


def named_config(config: SafetyConfig, id: str, source: Source) -> NamedConfig:
    """`config` under `id`. Errors: BadConfig if the id cannot stand in a URL."""
    if not _ID.fullmatch(id):
        raise BadConfig(
            "the id of a config must have 1 to 128 letters, digits and . _ -, and begin with a "
            "letter or digit; set id in the file, or rename it"
        )
    return NamedConfig(id, config, config.digest(), source)


def read_files(place: Path, max_configs: int) -> dict[str, NamedConfig]:
    """The configs in the file or folder `place`, by id (a file's stem if it states none).

    Errors: those of SafetyConfig.load; BadConfig if two files have one id or there is none.
    """
    found: dict[str, NamedConfig] = {}
    paths = config_files(place)
    if len(paths) > max_configs:
        raise BadArgument(f"there are {len(paths):,} config files; limit is {max_configs:,}")
    for path in paths:
        config = SafetyConfig.load(path)
        try:
            named = named_config(config, config.id or path.stem, "file")
        except BadConfig as error:
            error.path = str(path)
            raise
        if named.id in found:
            raise BadConfig("two files state the same id; give each its own", path=str(path))
        found[named.id] = named
    if not found:
        raise BadConfig(f"there is no config file ({', '.join(SUFFIXES)})", path=str(place))
    return found


def default_of(files: Mapping[str, NamedConfig], wanted: str) -> str:
    """The default's id: `wanted`, the only one, or none. Errors: BadArgument if it is not there."""
    if wanted:
        if wanted not in files:
            raise BadArgument("the default config is not among the config files")
        return wanted
    return next(iter(files)) if len(files) == 1 else ""


def signature(place: Path) -> Signature:
    """What changes when a config file is added, removed, replaced or written to."""
    found = []
    for path in config_files(place):
        try:
            state = path.stat()
        except OSError:
            continue  # removed since it was listed
        found.append((str(path), state.st_mtime_ns, state.st_size, state.st_ino))
    return tuple(found)
