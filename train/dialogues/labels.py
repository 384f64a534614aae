"""Labels of dialogues: whether the last turn breaks a rule of a composed config.

What it is: the four things a family is built of (segment, dialogue, focus, config) and the verdict
that follows from the tags of content.py and the checks of styles.py. Not: sampling (composer.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from csrm.train.batch import RuleText, TurnText
from csrm.train.dialogues.content import Permit, Topic, TopicRule
from csrm.train.dialogues.styles import STYLES


@dataclass(frozen=True)
class Part:
    """A reply segment: where it comes from and what it does."""

    topic: str
    keys: frozenset[str]  # its tag, and its tag behind the kind of opening
    text: str  # the template, slots unfilled


@dataclass(frozen=True)
class Dialogue:
    """A conversation whose last turn is judged."""

    turns: tuple[TurnText, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Focus:
    """A family of rules and the one of its rules that this family of examples turns on."""

    name: str
    rule: TopicRule | None  # None: a style


@dataclass(frozen=True)
class Config:
    """A composed config: what it states and in which words."""

    focuses: tuple[Focus, ...]
    permits: tuple[tuple[str, Permit], ...]
    rules: tuple[RuleText, ...]


def judge(
    config: Config, dialogue: Dialogue, slots: Mapping[str, str], topics: Mapping[str, Topic]
) -> bool | None:
    """True if the last turn breaks a rule of `config`, None if some rule's text leaves it open.

    An open rule wins over a broken one: otherwise configs with open rules would only ever be seen
    with violations.
    """
    verdicts: list[bool | None] = []
    for focus in config.focuses:
        verdicts += _judge(focus, config, dialogue, slots, topics)
    return None if None in verdicts else True in verdicts


def _judge(
    focus: Focus,
    config: Config,
    dialogue: Dialogue,
    slots: Mapping[str, str],
    topics: Mapping[str, Topic],
) -> list[bool | None]:
    role, reply = dialogue.turns[-1]
    if focus.rule is None:
        return [STYLES[focus.name].broken(reply, slots) if role == "assistant" else None]
    return [_judge_part(focus, focus.rule, config, part, topics) for part in dialogue.parts]


def _judge_part(
    focus: Focus, rule: TopicRule, config: Config, part: Part, topics: Mapping[str, Topic]
) -> bool | None:
    if part.topic != focus.name:
        return None if focus.name in topics[part.topic].near else rule.elsewhere
    if part.keys & rule.clears:
        return False
    if not part.keys & rule.breaks:
        return None
    covered = any(
        topic == part.topic and part.keys & permit.covers for topic, permit in config.permits
    )
    return not covered
