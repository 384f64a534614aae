"""Categories that a conversation would, and would not, violate beside those of its config.

What it is: the terms of configuration augmentation (arXiv 2605.30487, 1.5) and the proposers that
need no language model: one reads the taxonomy and its neighbours, one a rulebook. Not: what is done
with a proposal (csrm.train.augment.configuration).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from csrm.train.compose import CategoryLabels
from csrm.train.compose_rules import WITHDRAWN, RuledComposer
from csrm.train.corpus import Labelled
from csrm.train.records import Ruled, Turn
from csrm.train.wording import Wording

UNSPECIFIED = "unspecified"


@dataclass(frozen=True, slots=True)
class Clause:
    """A category that a config can list; `allow` is the text that permits it instead."""

    key: str
    name: str
    forbid: str
    allow: str


@dataclass(frozen=True, slots=True)
class Subject:
    """A conversation and its labels in terms of keys.

    breaks: it violates a config that lists every key of one of these sets. touches: keys that may
    apply to it; it surely complies only with a config that lists none of them. A combined label is
    one set of its parts. Harmless conversations have neither.
    """

    turns: tuple[Turn, ...]
    breaks: tuple[frozenset[str], ...]
    touches: frozenset[str]
    near: tuple[str, ...] = ()  # keys that it is about without violating them


@dataclass(frozen=True, slots=True)
class Proposal:
    """p+ and p-: unlisted keys; `plus` is empty where there is none, `minus` None.

    clauses: the words of those that the offline proposer does not know.
    """

    plus: frozenset[str]
    minus: str | None
    clauses: tuple[Clause, ...] = ()


class Proposer(Protocol):
    """Proposes categories for a conversation. What it says of them must be true of the subject."""

    def propose(self, rng: random.Random, subject: Subject, listed: Collection[str]) -> Proposal:
        """p+: unlisted keys which, listed together, `subject` violates; p-: one it keeps to."""
        ...


class OfflineProposer(Proposer, Protocol):
    """A proposer over a fixed list of categories that it can also word and relate."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Every category, in a fixed order."""
        ...

    def relatives(self, key: str) -> frozenset[str]:
        """`key` and the keys whose text may cover the same conversation."""
        ...

    def clause(self, rng: random.Random, key: str) -> Clause:
        """`key` in words."""
        ...


class TaxonomyProposer:
    """Proposes taxonomy categories by the labels of a conversation."""

    def __init__(self, labels: CategoryLabels, wording: Wording) -> None:
        self.labels = labels
        self.wording = wording
        self.keys = tuple(wording.categories)

    def subject(self, row: Labelled) -> Subject:
        """`row` with the parts of combined labels; one of unknown harm breaks only all keys."""
        breaks: list[frozenset[str]] = []
        touches: set[str] = set()
        for harm in row.harms:
            parts = self.labels.parts(harm)
            if harm == UNSPECIFIED:
                parts = self.keys
            breaks.append(frozenset(parts))
            touches |= {key for part in parts for key in self.relatives(part)}
        near = [part for harm in row.near for part in self.labels.parts(harm)]
        return Subject(
            row.turns,
            tuple(breaks),
            frozenset(touches),
            () if row.harms else tuple(key for key in near if key in self.wording.categories),
        )

    def relatives(self, key: str) -> frozenset[str]:
        """See `OfflineProposer`: the neighbours of a category."""
        return self.labels.neighbours(key) | {key}

    def propose(self, rng: random.Random, subject: Subject, listed: Collection[str]) -> Proposal:
        """See `Proposer`; p- is what a harmless conversation is about, where that is known."""
        return draw_proposal(rng, self.keys, subject, listed)

    def clause(self, rng: random.Random, key: str) -> Clause:
        """See `Proposer`."""
        texts = self.wording.categories[key]
        names, forbid, allow = texts.names, texts.forbid, texts.allow
        return Clause(key, rng.choice(names), rng.choice(forbid), rng.choice(allow))


class RulebookProposer:
    """Proposes the rules of one rulebook; keys are their texts."""

    def __init__(self, ruled: RuledComposer, body: str) -> None:
        self.ruled = ruled
        self.headings = {rule.text: rule.category for rule in ruled.books[body]}
        for rows in ruled.by_body[body].values():
            self.headings |= {row.rule: row.rule_category for row in rows}
        self.keys = tuple(sorted(self.headings))
        self._relatives: dict[str, frozenset[str]] = {}

    def relatives(self, key: str) -> frozenset[str]:
        """See `OfflineProposer`: the rules under the same heading and the similarly worded."""
        if key not in self._relatives:
            self._relatives[key] = frozenset(
                other
                for other in self.keys
                if self.headings[other] == self.headings[key] or self.ruled.similar(other, key)
            ) | {key}
        return self._relatives[key]

    def subject(self, row: Ruled) -> Subject:
        """`row` with its rule; a violation touches all relatives of the rule."""
        if not row.violates:
            return Subject(row.conversation, (), frozenset(), (row.rule,))
        return Subject(row.conversation, (frozenset({row.rule}),), self.relatives(row.rule))

    def propose(self, rng: random.Random, subject: Subject, listed: Collection[str]) -> Proposal:
        """See `Proposer`."""
        return draw_proposal(rng, self.keys, subject, listed)

    def clause(self, rng: random.Random, key: str) -> Clause:
        """See `Proposer`."""
        return Clause(key, self.headings[key], key, rng.choice(WITHDRAWN).format(rule=key))


def draw_proposal(
    rng: random.Random, keys: Sequence[str], subject: Subject, listed: Collection[str]
) -> Proposal:
    """p+ from what `subject` breaks, p- from `keys` that do not touch it; both unlisted."""
    unlisted = [keys_ for keys_ in subject.breaks if not keys_ & set(listed)]
    plus = rng.choice(unlisted) if unlisted else frozenset[str]()
    harmless = [key for key in keys if key not in subject.touches and key not in listed]
    near = [key for key in subject.near if key in harmless]
    if near or harmless:
        return Proposal(plus, rng.choice(near or harmless))
    return Proposal(plus, None)
