"""`SafetyConfig`: the ordered rules a conversation is judged by, with id, version and threshold.

Not: the file formats (config_formats/) and not tokens (C++). Data comes from a file, a text or a
list of rules, and goes to `Scorer` as (name, text) pairs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from csrm import config_formats
from csrm.config_formats import MAX_CONFIG_BYTES
from csrm.errors import BadConfig, EmptyConfig, Error, LimitExceeded
from csrm.rule import RULE_KEYS, Rule, rule_from
from csrm.text import decode_utf8, require_utf8

MAX_RULES = 10_000


@dataclass(frozen=True)
class SafetyConfig:
    """An ordered list of rules, plus what identifies and applies them. Immutable.

    A conversation is compliant if and only if its compliance >= `threshold` (in [0, 1]).
    Errors: EmptyConfig (no rules), BadConfig, BadUtf8, LimitExceeded (more than 10,000 rules).
    """

    rules: tuple[Rule, ...]
    id: str = ""
    version: str = ""
    threshold: float = 0.5
    description: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", _checked_rules(self.rules))
        object.__setattr__(self, "threshold", _checked_threshold(self.threshold))
        for key in ("id", "version", "description"):
            value = getattr(self, key)
            if not isinstance(value, str):
                raise BadConfig(f"{key} is of type {type(value).__name__}; it must be a string")
            require_utf8(value, key)

    @classmethod
    def from_rules(
        cls,
        rules: Iterable[object],
        *,
        id: str = "",
        version: str = "",
        threshold: float = 0.5,
    ) -> SafetyConfig:
        """A config of `rules`: texts, Rules, (name, text) pairs or {"name", "text"} mappings."""
        if isinstance(rules, (str, bytes, Mapping)) or not isinstance(rules, Iterable):
            raise BadConfig(f"rules is of type {type(rules).__name__}; give a list of rules")
        items = tuple(rule_from(item, index) for index, item in enumerate(rules))
        return cls(items, id, version, threshold)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SafetyConfig:
        """The config in the file `path`; its format follows from the suffix and the content.

        Errors: as `parse`, with `path`, `line` and `column` set; BadConfig if the file cannot be
        read; LimitExceeded beyond 1 MiB. Formats and detection: docs/config.md.
        """
        source = Path(path)
        try:
            data = _read_bounded(source)
            text = decode_utf8(data, "the config file", line=1)
            return cls.parse(text, config_formats.detect(text, source.suffix))
        except Error as error:
            error.path = str(source)
            raise

    @classmethod
    def parse(cls, text: str, format: str | None = None) -> SafetyConfig:
        """The config that `text` states. `format`: yaml, text, llamaguard, numbered; None detects.

        Errors: BadConfig and EmptyConfig with line and column, BadUtf8, LimitExceeded (over 1 MiB).
        """
        fields = config_formats.parse(text, format)
        return cls(
            rules=tuple(fields.rules),
            id=fields.id,
            version=fields.version,
            threshold=fields.threshold,
            description=fields.description,
        )

    def to_yaml(self) -> str:
        """This config as a YAML file that `parse` reads back to an equal config."""
        return config_formats.to_yaml(
            config_formats.ConfigFields(
                rules=self.rules,
                id=self.id,
                version=self.version,
                threshold=self.threshold,
                description=self.description,
            )
        )

    def to_json(self) -> str:
        """This config as a line of ASCII JSON, which `parse` and the C and C++ APIs read back."""
        rules = [
            {key: getattr(rule, key) for key in RULE_KEYS if getattr(rule, key)}
            for rule in self.rules
        ]
        head = {key: getattr(self, key) for key in ("id", "version", "description")}
        document = {key: value for key, value in head.items() if value}
        return json.dumps({**document, "threshold": self.threshold, "rules": rules})

    def digest(self) -> str:
        """SHA-256 in hex of what the model reads: the rules' names and texts, in order.

        Equal digests mean equal scores from the same artifact; id, version and threshold are not
        part of it.
        """
        rules = [{"name": rule.name, "text": rule.text} for rule in self.rules]
        canonical = json.dumps(rules, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def config_from(config: object) -> SafetyConfig:
    """The config meant by `config`: a SafetyConfig, the path of a file, or an iterable of rules.

    Errors: as SafetyConfig.load and SafetyConfig.from_rules.
    """
    if isinstance(config, SafetyConfig):
        return config
    if isinstance(config, (str, os.PathLike)):
        if "\n" in str(config):
            raise BadConfig(
                "a config given as a string is the path of a file; this one has several lines; "
                "use SafetyConfig.parse(text)"
            )
        return SafetyConfig.load(config)
    if isinstance(config, Iterable):
        return SafetyConfig.from_rules(config)
    raise BadConfig(
        f"config is of type {type(config).__name__}; give a SafetyConfig, a path or a list of rules"
    )


def _checked_rules(rules: object) -> tuple[Rule, ...]:
    if not isinstance(rules, (tuple, list)):
        raise BadConfig(f"rules is of type {type(rules).__name__}; give a tuple of Rule")
    for index, rule in enumerate(rules):
        if not isinstance(rule, Rule):
            raise BadConfig(
                f"rule {index + 1} is of type {type(rule).__name__}; give a Rule, or use "
                "SafetyConfig.from_rules"
            )
    if not rules:
        raise EmptyConfig("the config has no rules; state at least one")
    if len(rules) > MAX_RULES:
        raise LimitExceeded(
            f"the config has {len(rules):,} rules; limit is {MAX_RULES:,}; split the config"
        )
    return tuple(rules)


def _checked_threshold(threshold: object) -> float:
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
        raise BadConfig(
            f"threshold is of type {type(threshold).__name__}; it must be a number in [0, 1]"
        )
    if not 0 <= threshold <= 1:  # NaN is not either
        shown = f"{threshold}" if abs(threshold) < 1e9 else "out of range"
        raise BadConfig(f"threshold is {shown}; it must be in [0, 1]")
    return float(threshold)


def _read_bounded(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_CONFIG_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a valid path"
        raise BadConfig(f"cannot read the config file: {reason}") from None
    if len(data) > MAX_CONFIG_BYTES:
        raise LimitExceeded(
            f"the config file is larger than the limit of {MAX_CONFIG_BYTES:,} bytes; "
            "split the config"
        )
    return data
