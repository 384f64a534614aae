"""`Rule`: one clause of a safety config.

Not: files (config_formats/) and not the whole config (config.py). The model reads `name` and
`text`; `owner`, `severity` and `action` are carried for people and gateways and never change a
score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from csrm.errors import BadConfig
from csrm.text import require_utf8

SEVERITIES = ("low", "medium", "high", "critical")
ACTIONS = ("block", "monitor")
RULE_KEYS = ("name", "text", "owner", "severity", "action")


@dataclass(frozen=True)
class Rule:
    """One clause: forbids or allows something in plain words. `name` may be empty, `text` not.

    Errors: BadConfig (no text, a wrong type, an unknown severity or action), BadUtf8.
    """

    name: str
    text: str
    owner: str = ""
    severity: str = ""
    action: str = ""

    def __post_init__(self) -> None:
        for key in RULE_KEYS:
            value = getattr(self, key)
            if not isinstance(value, str):
                raise BadConfig(
                    f"a rule's {key} is of type {type(value).__name__}; it must be a string"
                )
            require_utf8(value, f"a rule's {key}")
        if not self.text.strip():
            raise BadConfig("a rule has no text; write what it forbids or allows")
        check_choice("severity", self.severity, SEVERITIES)
        check_choice("action", self.action, ACTIONS)


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Errors: BadConfig if `value` is neither empty nor one of `choices`."""
    if value and value not in choices:
        raise BadConfig(f"a rule's {key} must be one of: {', '.join(choices)}")


def rule_from(item: object, index: int) -> Rule:
    """The rule that `item` states: a Rule, its text, a (name, text) pair or a mapping with "text".

    Errors: BadConfig and BadUtf8; messages carry the rule's number (`index` + 1).
    """
    if isinstance(item, Rule):
        return item
    try:
        if isinstance(item, str):
            return Rule("", item)
        if isinstance(item, Mapping):
            return _rule_from_mapping(item)
        if isinstance(item, tuple) and len(item) == 2:
            return Rule(item[0], item[1])
    except BadConfig as error:
        raise BadConfig(f"rule {index + 1}: {error.message}") from None
    raise BadConfig(
        f"rule {index + 1} is of type {type(item).__name__}; give a string, a Rule, a "
        '(name, text) pair or {"name": ..., "text": ...}'
    )


def _rule_from_mapping(item: Mapping[object, object]) -> Rule:
    if any(key not in RULE_KEYS for key in item):
        raise BadConfig(f"unknown key; the keys of a rule are {', '.join(RULE_KEYS)}")
    values: dict[str, str] = {}
    for key in RULE_KEYS:
        value = item.get(key, "")
        if not isinstance(value, str):
            raise BadConfig(f"{key} is of type {type(value).__name__}; it must be a string")
        values[key] = value
    return Rule(
        name=values["name"],
        text=values["text"],
        owner=values["owner"],
        severity=values["severity"],
        action=values["action"],
    )
