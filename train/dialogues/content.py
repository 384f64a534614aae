"""Texts of the dialogue families: rules, permissions, openings and replies, by topic.

What it is: the dataclasses of topics_*.yaml and shared.yaml beside this file, read and checked once
per process. A reply carries a tag; a rule lists the tags that break and those that keep it, so each
label is declared where the sentence is written. Not: sampling (composer.py) or rules that are
computed from the text of a reply (styles.py).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

FILES = (
    "topics_shop.yaml",
    "topics_service.yaml",
    "topics_advice.yaml",
    "topics_conduct.yaml",
    "topics_people.yaml",
    "topics_stories.yaml",
    "topics_members.yaml",
    "topics_harm.yaml",
    "topics_danger.yaml",
    "topics_money.yaml",
    "topics_body.yaml",
    "topics_speech.yaml",
    "topics_desk.yaml",
    "topics_trust.yaml",
    "topics_watch.yaml",
)
# Topics that no training draws from, so that they measure rules nobody has seen.
HELD_OUT_FILES = ("held_out.yaml",)
CHOICE = re.compile(r"\[([^\[\]|]*\|[^\[\]]*)\]")
SLOT = re.compile(r"\{([a-z_0-9]+)\}")
TOPIC_KEYS = {"near", "judged", "aside", "openings", "replies", "fits", "rules", "permits"}
ELSEWHERE = {"clears": False, "breaks": True, "unknown": None}

MIN_RULE_TEXTS = 6  # of a topic's first rule; its other rules need MIN_OTHER_TEXTS
MIN_OTHER_TEXTS = 3
MIN_PERMIT_TEXTS = 3
MIN_OPENINGS = 6
MIN_BREAKING = 8
MIN_KEEPING = 13


class ContentError(ValueError):
    """A dialogue file is incomplete or contradicts itself. The message names the topic and key."""


@dataclass(frozen=True)
class TopicRule:
    """One rule in several wordings. Tags are `tag` or `opening kind/tag`."""

    texts: tuple[str, ...]
    names: tuple[str, ...]
    breaks: frozenset[str]
    clears: frozenset[str]
    elsewhere: bool | None  # whether replies of unrelated topics break it; None: not known


@dataclass(frozen=True)
class Permit:
    """A permission in several wordings; `exception`: it may stand beside the topic's first rule."""

    texts: tuple[str, ...]
    covers: frozenset[str]
    exception: bool


@dataclass(frozen=True)
class Topic:
    """Dialogues about one thing and the rules about it."""

    name: str
    near: frozenset[str]  # topics whose rules may or may not cover these dialogues; symmetric
    judged: str  # role of the judged turn
    aside: frozenset[str]  # tags of replies that can be added to a reply about something else
    openings: Mapping[str, tuple[tuple[str, ...], ...]]  # kind -> turns before the judged one
    replies: Mapping[str, tuple[str, ...]]  # tag -> texts of the judged turn
    fits: Mapping[str, frozenset[str]]  # opening kind -> tags that can answer it
    rules: tuple[TopicRule, ...]
    permits: tuple[Permit, ...]


@dataclass(frozen=True)
class Shared:
    """Texts that all topics use."""

    slots: Mapping[str, tuple[str, ...]]
    bound: frozenset[str]  # slots that have one value in all rules and dialogues of a family
    greetings: tuple[str, ...]
    closers: tuple[str, ...]
    joiners: tuple[str, ...]
    small_talk: tuple[tuple[str, str], ...]  # (user, agent)
    conflicting_fillers: tuple[str, ...]  # parts of filler texts that may cover a dialogue
    styles: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Content:
    """Everything the composer draws from."""

    topics: Mapping[str, Topic]
    shared: Shared


@functools.cache
def load_content(files: tuple[str, ...] = FILES) -> Content:
    """The topics of `files`, read from the installed package once; do not modify the result.

    Errors: ContentError (a file is unreadable, incomplete or contradicts itself). Thread-safe.
    """
    entries: dict[str, dict[str, Any]] = {}
    for file_name in files:
        for name, entry in _read(file_name).items():
            if name in entries:
                raise ContentError(f"topic {name} is defined twice; rename one of them")
            entries[name] = entry
    near: dict[str, set[str]] = {name: set() for name in entries}
    for name, entry in entries.items():
        for other in entry.get("near", []):
            if other not in near or other == name:
                raise ContentError(f"{name}.near lists {other}; use another known topic")
            near[name].add(other)
            near[other].add(name)
    shared = _shared(_read("shared.yaml"))
    topics = {name: _topic(name, entry, near[name]) for name, entry in entries.items()}
    for topic in topics.values():
        _check_topic(topic, shared)
    return Content(topics, shared)


def _read(file_name: str) -> dict[str, Any]:
    text = resources.files(__package__).joinpath(file_name).read_text(encoding="utf-8")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ContentError(f"{file_name} is not valid YAML; correct its syntax") from error
    if not isinstance(content, dict):
        raise ContentError(f"{file_name} must hold a mapping, not a {type(content).__name__}")
    return content


def _texts(key: str, value: object, at_least: int = 1) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(t, str) and t.strip() for t in value):
        raise ContentError(f"{key} must be a list of texts")
    if len(value) < at_least:
        raise ContentError(f"{key} has {len(value)} texts; at least {at_least} are needed")
    if len(set(value)) < len(value):
        raise ContentError(f"{key} repeats a text; reword one of them")
    return tuple(value)


def _topic(name: str, entry: dict[str, Any], near: set[str]) -> Topic:
    unknown = set(entry) - TOPIC_KEYS
    if unknown:
        raise ContentError(f"{name} has the unknown keys {sorted(unknown)}")
    openings = {
        kind: tuple(
            _texts(f"{name}.openings.{kind}", [item] if isinstance(item, str) else item)
            for item in items
        )
        for kind, items in entry["openings"].items()
    }
    replies = {
        tag: _texts(f"{name}.replies.{tag}", texts) for tag, texts in entry["replies"].items()
    }
    fits = {kind: frozenset(tags) for kind, tags in entry.get("fits", {}).items()}
    return Topic(
        name=name,
        near=frozenset(near),
        judged=entry.get("judged", "assistant"),
        aside=frozenset(entry.get("aside", [])),
        openings=openings,
        replies=replies,
        fits={kind: fits.get(kind, frozenset(replies)) for kind in openings},
        rules=tuple(_rule(f"{name}.rules[{i}]", r, i) for i, r in enumerate(entry["rules"])),
        permits=tuple(_permit(f"{name}.permits", permit) for permit in entry["permits"]),
    )


def _rule(key: str, entry: dict[str, Any], index: int) -> TopicRule:
    elsewhere = entry.get("elsewhere", "clears")
    if elsewhere not in ELSEWHERE:
        raise ContentError(f"{key}.elsewhere must be one of {sorted(ELSEWHERE)}")
    at_least = MIN_RULE_TEXTS if index == 0 else MIN_OTHER_TEXTS
    return TopicRule(
        texts=_texts(f"{key}.texts", entry["texts"], at_least),
        names=_texts(f"{key}.names", entry["names"]),
        breaks=frozenset(entry["breaks"]),
        clears=frozenset(entry["clears"]),
        elsewhere=ELSEWHERE[elsewhere],
    )


def _permit(key: str, entry: dict[str, Any]) -> Permit:
    return Permit(
        texts=_texts(f"{key}.texts", entry["texts"], MIN_PERMIT_TEXTS),
        covers=frozenset(entry["covers"]),
        exception=bool(entry.get("exception", False)),
    )


def _shared(entry: dict[str, Any]) -> Shared:
    return Shared(
        slots={name: _texts(f"slots.{name}", v, 2) for name, v in entry["slots"].items()},
        bound=frozenset(entry["bound"]),
        greetings=_texts("greetings", entry["greetings"], 5),
        closers=_texts("closers", entry["closers"], 5),
        joiners=_texts("joiners", entry["joiners"], 5),
        small_talk=tuple((user, agent) for user, agent in entry["small_talk"]),
        conflicting_fillers=_texts("conflicting_fillers", entry["conflicting_fillers"]),
        styles=entry["styles"],
    )


def _check_topic(topic: Topic, shared: Shared) -> None:
    if sum(map(len, topic.openings.values())) < MIN_OPENINGS:
        raise ContentError(f"{topic.name} needs {MIN_OPENINGS} openings")
    known = set(topic.replies) | {f"{o}/{t}" for o in topic.openings for t in topic.replies}
    used: frozenset[str] = topic.aside.union(*(permit.covers for permit in topic.permits))
    for rule in topic.rules:
        if rule.breaks & rule.clears:
            raise ContentError(f"{topic.name}: a tag both breaks and keeps a rule")
        used = used | rule.breaks | rule.clears
    for tags in topic.fits.values():
        used = used | tags
    if used - known or set(topic.fits) - set(topic.openings):
        raise ContentError(f"{topic.name} names the unknown tags {sorted(used - known)}")
    first = topic.rules[0]
    for keys, least in ((first.breaks, MIN_BREAKING), (first.clears, MIN_KEEPING)):
        replied = {key.rpartition("/")[2] for key in keys}
        count = sum(len(topic.replies[tag]) for tag in replied)
        if count < least:
            raise ContentError(
                f"{topic.name} has {count} replies for {sorted(replied)}, not {least}"
            )
    texts = [text for group in topic.replies.values() for text in group]
    texts += [text for kind in topic.openings.values() for turns in kind for text in turns]
    texts += [text for rule in topic.rules for text in rule.texts]
    texts += [text for permit in topic.permits for text in permit.texts]
    for text in texts:
        for slot in SLOT.findall(text):
            if slot not in shared.slots:
                raise ContentError(f"{topic.name} uses the unknown slot {slot}")
