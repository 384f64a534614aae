"""The invented services of domains.yaml: their tools, facts and actions.

What it is: dataclasses read and checked once per process. Not: sampling or wording.
"""

from __future__ import annotations

import datetime
import functools
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from csrm.errors import BadArgument

IDENTITY = "identity_verified"


@dataclass(frozen=True)
class Tool:
    """A look-up: its function name, its argument, and what it opens in words."""

    call: str
    arg: str
    see: str
    about_item: bool


@dataclass(frozen=True)
class Fact:
    """What a tool returns under `key`: "flag", "number", "date" (ordinal day) or "choice"."""

    key: str
    tool: str
    kind: str
    say: str
    want: str = "either"
    yes: str = ""
    no: str = ""
    unit: str = ""
    low: int = 0
    high: int = 0
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Action:
    """What an agent can do: function name and phrases; `{id}` stands for the item."""

    call: str
    do: str
    this: str
    done: str


@dataclass(frozen=True)
class Domain:
    """One invented service."""

    name: str
    agent: str
    person: str
    code: str
    tools: dict[str, Tool]
    facts: dict[str, Fact]
    actions: tuple[Action, ...]


@functools.cache
def load_domains() -> dict[str, Domain]:
    """All domains by name; do not modify. Errors: BadArgument (broken file). Thread-safe."""
    text = resources.files(__package__).joinpath("domains.yaml").read_text(encoding="utf-8")
    try:
        content = yaml.safe_load(text)
        return {name: _domain(name, entry) for name, entry in content.items()}
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise BadArgument(f"domains.yaml is broken: {type(error).__name__}; correct it") from error


def _domain(name: str, entry: dict[str, Any]) -> Domain:
    person = entry["person"]
    tools = {"verify": Tool("verify_identity", "person", f"the {person}'s identity check", False)}
    for key, tool in entry["tools"].items():
        tools[key] = Tool(tool["call"], tool["arg"], tool["see"], key == "item")
    identity = Fact(
        IDENTITY,
        "verify",
        "flag",
        f"the {person}'s identity",
        "yes",
        "has been verified",
        "could not be verified",
    )
    facts = {IDENTITY: identity}
    for key, fact in entry["facts"].items():
        facts[key] = _fact(key, fact)
    actions = tuple(Action(call, **words) for call, words in entry["actions"].items())
    return Domain(name, entry["agent"], person, entry["code"], tools, facts, actions)


def _fact(key: str, entry: dict[str, Any]) -> Fact:
    tool, say, want = entry["tool"], entry["say"], entry.get("want", "either")
    if "yes" in entry:
        return Fact(key, tool, "flag", say, want, entry["yes"], entry["no"])
    if "values" in entry:
        return Fact(key, tool, "choice", say, values=tuple(entry["values"]))
    if "dates" in entry:
        low, high = (datetime.date.fromisoformat(day).toordinal() for day in entry["dates"])
        return Fact(key, tool, "date", say, want, low=low, high=high)
    low, high = entry["range"]
    return Fact(key, tool, "number", say, want, unit=entry["unit"], low=low, high=high)


DOMAIN_NAMES: tuple[str, ...] = tuple(load_domains())
