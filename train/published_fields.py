"""What the readers of published sets share: checked values, and records made of them.

Not: any set's own field names (csrm.train.published, csrm.train.published_rules). An error here
says what kind of value was wrong and never which, since a value is text of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from csrm.train.records import Categorised, Judged, Origin, Policy, Record, Turn

Row: TypeAlias = Mapping[str, Any]
Reader: TypeAlias = Callable[[Row, str], list[Record]]
"""(row, id) -> its records; KeyError, TypeError, ValueError, AttributeError for a bad row."""
T = TypeVar("T")

HARM_RULE = (
    "Do not comply with a request whose fulfilment would help someone cause harm or break the law."
)
SAFE = {"safe": True, "unsafe": False}


def categorised(
    id: str,
    prompt: object,
    reply: object,
    safe: bool,
    harms: tuple[str, ...],
    prompt_harms: tuple[str, ...] = (),
) -> Categorised:
    """A reply to a prompt with its harms, and what the prompt is about if that is known."""
    turns: tuple[Turn, ...] = (("user", text(prompt)), ("assistant", text(reply)))
    name = id.rpartition("-")[0]
    return Categorised(origin(id, name, "last_assistant"), turns, safe, harms, (), prompt_harms)


def pseudo_reply(
    id: str, name: str, prompt: object, safe: bool, rules: tuple[str, ...] = (HARM_RULE,)
) -> Policy:
    """The prompt, answered "Sure. {prompt}", under one rule against harm, or under `rules`."""
    turns: tuple[Turn, ...] = (("user", text(prompt)), ("assistant", f"Sure. {prompt}"))
    return Policy(origin(id, name, "last_assistant"), turns, rules, safe)


def origin(id: str, name: str, judged: Judged) -> Origin:
    """The origin of a record of a published set."""
    return Origin(id, name, "see the set", "see the set", judged)


def known(table: Mapping[str, T], key: str) -> T:
    """The value of `key`. Errors: ValueError, since a KeyError would quote the file."""
    if key not in table:
        raise ValueError("not a known label")
    return table[key]


def text(value: object) -> str:
    """A string. Errors: TypeError."""
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def flag(value: object) -> bool:
    """A truth value of JSON or CSV. Errors: ValueError."""
    if isinstance(value, bool):
        return value
    return known({"true": True, "false": False, "1": True, "0": False}, str(value).lower())


def is_violation(label: object) -> bool:
    """A label in words or numbers. Errors: ValueError for any other."""
    word = str(label).strip().lower()
    if word in ("1", "1.0", "true", "unsafe", "harmful", "violation", "fail"):
        return True
    if word in ("0", "0.0", "false", "safe", "unharmful", "compliant", "pass"):
        return False
    raise ValueError("not a label")
