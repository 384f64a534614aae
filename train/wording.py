"""Wordings from which training configurations are composed: names, prohibitions and permissions.

Not the composition itself (which categories a configuration forbids, in what order, with which
label). The texts are content and lie in the wording_*.yaml files beside this file; `load_wording`
reads and checks them once per process. Category ids are those of the taxonomy in the training data,
without its combined labels.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

MIN_NAMES = 3
MIN_FORBID = 7
MIN_ALLOW = 5
MIN_FRAMES = 15
MIN_PHRASES = 3
SLOT = "{harm}"  # where a frame takes its phrase


class WordingError(ValueError):
    """A wording file is incomplete or contradicts itself. The message names the file and key."""


@dataclass(frozen=True)
class CategoryWording:
    """Texts about one harm category; each forbid or allow text covers the whole category."""

    names: tuple[str, ...]  # short, fit as a rule's name
    forbid: tuple[str, ...]  # 2 to 60 words each
    allow: tuple[str, ...]  # 2 to 60 words each
    framed_forbid: tuple[str, ...]  # short rules, made of every frame and phrase
    framed_allow: tuple[str, ...]


@dataclass(frozen=True)
class Wording:
    """All texts. `categories` and `neighbours` have the same keys, in the same order."""

    categories: dict[str, CategoryWording]
    fillers: tuple[str, ...]  # house rules about nothing harmful, which ordinary chats keep
    forbid_all: tuple[str, ...]  # each forbids every harm
    allow_rest: tuple[str, ...]  # each allows what the rules before it do not forbid
    neighbours: dict[str, frozenset[str]]  # symmetric; a category is not its own neighbour
    refusals: tuple[str, ...]  # whole replies that decline whatever was asked
    slips: tuple[str, ...]  # seem to decline; what was asked follows


@functools.cache
def load_wording() -> Wording:
    """All wordings, read from the installed package once; do not modify the result.

    Errors: WordingError (a file is unreadable, incomplete or contradicts itself). Thread-safe.
    """
    frames = _read("wording_frames.yaml")
    categories = {
        name: _category(name, entry, frames)
        for name, entry in _read("wording_categories.yaml").items()
    }
    general = _read("wording_general.yaml")
    replies = _read("wording_replies.yaml")
    wording = Wording(
        categories=categories,
        fillers=_texts("fillers", general.get("fillers"), 60),
        forbid_all=_texts("forbid_all", general.get("forbid_all"), 12),
        allow_rest=_texts("allow_rest", general.get("allow_rest"), 10),
        neighbours=_symmetric(general.get("neighbours"), categories),
        refusals=_texts("refusals", replies.get("refusals"), 40),
        slips=_texts("slips", replies.get("slips"), 10),
    )
    _check_unique(wording)
    return wording


def _read(file_name: str) -> dict[str, Any]:
    text = resources.files(__package__).joinpath(file_name).read_text(encoding="utf-8")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise WordingError(f"{file_name} is not valid YAML; correct its syntax") from error
    if not isinstance(content, dict):
        raise WordingError(f"{file_name} must hold a mapping, not a {type(content).__name__}")
    return content


def _category(name: str, entry: object, frames: Mapping[str, Any]) -> CategoryWording:
    if not isinstance(entry, dict) or set(entry) != {"names", "forbid", "allow"}:
        raise WordingError(f"category {name} must have exactly the keys names, forbid and allow")
    return CategoryWording(
        names=_texts(f"{name}.names", entry["names"], MIN_NAMES),
        forbid=_texts(f"{name}.forbid", entry["forbid"], MIN_FORBID),
        allow=_texts(f"{name}.allow", entry["allow"], MIN_ALLOW),
        framed_forbid=_framed("forbid", name, frames),
        framed_allow=_framed("allow", name, frames),
    )


def _framed(kind: str, category: str, frames: Mapping[str, Any]) -> tuple[str, ...]:
    """Every frame of `kind` filled with every phrase of `category`."""
    harms = frames.get("harms")
    phrases = harms.get(category) if isinstance(harms, dict) else None
    filled = []
    for frame in _texts(f"frames {kind}", frames.get(kind), MIN_FRAMES):
        if frame.count(SLOT) != 1:
            raise WordingError(f"a frame of {kind} must hold {SLOT} once")
        for phrase in _texts(f"phrases of {category}", phrases, MIN_PHRASES):
            filled.append(frame.replace(SLOT, phrase))
    return tuple(filled)


def _texts(key: str, value: object, at_least: int) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(t, str) and t.strip() for t in value):
        raise WordingError(f"{key} must be a list of texts")
    if len(value) < at_least:
        raise WordingError(f"{key} has {len(value)} texts; at least {at_least} are needed")
    return tuple(value)


def _symmetric(value: object, categories: Mapping[str, object]) -> dict[str, frozenset[str]]:
    if not isinstance(value, dict):
        raise WordingError("neighbours must map a category id to a list of category ids")
    found: dict[str, set[str]] = {name: set() for name in categories}
    for name, others in value.items():
        for other in _texts(f"neighbours.{name}", others, 1):
            if name not in found or other not in found or name == other:
                raise WordingError(f"neighbours pairs {name} with {other}; use two known ids")
            found[name].add(other)
            found[other].add(name)
    return {name: frozenset(others) for name, others in found.items()}


def _check_unique(wording: Wording) -> None:
    owner: dict[str, str] = {}
    lists = {"fillers": wording.fillers, "forbid_all": wording.forbid_all}
    lists |= {"allow_rest": wording.allow_rest, "refusals": wording.refusals}
    lists["slips"] = wording.slips
    for name, category in wording.categories.items():
        lists[f"{name}.forbid"] = category.forbid
        lists[f"{name}.allow"] = category.allow
    for key, texts in lists.items():
        for text in texts:
            previous = owner.setdefault(text.casefold(), key)
            if previous != key or texts.count(text) > 1:
                raise WordingError(f"{key} repeats a text of {previous}; reword one of them")
