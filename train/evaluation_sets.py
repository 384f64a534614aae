"""Evaluation cases: the records of one file, each under configurations whose label is known.

Turns records into `Case`s by the rules of the data's documentation ("Composing configurations").
Every draw is seeded by the record's id and the given seed, so a file gives the same cases on every
machine and in any order of reading. It scores nothing: `csrm.train.evaluate` does. It shares no
sampling code with training (`csrm.train.compose`), so a leak there cannot hide here.

Groups (`Case.group`), the types of configuration that figures are also reported by:
- categorised: `forbid`, `omit`, `allow` (the concerned categories are forbidden, unmentioned,
  explicitly allowed beside the same other rules); `forbid_all` (one sentence against all harm) and
  `forbid_each` (every category forbidden by name) for rows of unknown category and for prompts;
- ruled: `concerned` (the rule is among the rules), `toggled` (it and its like are left out);
- policy: `given`;  preference: `chosen`, `rejected` (no label; they are compared).
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from csrm.errors import BadArgument
from csrm.train.records import (
    BookRule,
    Categorised,
    Category,
    Judged,
    Policy,
    Preference,
    Prompt,
    Record,
    Ruled,
    Turn,
)
from csrm.train.wording import Wording

Rule: TypeAlias = tuple[str, str]
"""(name, text); the name may be empty."""

UNSPECIFIED = "unspecified"
MAX_OTHER_CATEGORIES = 6
MIN_RULES, MAX_RULES = 3, 15
# A word in more than this share of a rulebook's rules says nothing about what one rule is about.
_COMMON_SHARE = 0.3
_STEM_LETTERS = 5
# Rules such as "follow all applicable laws", which statements about anything may break.
_CATCH_ALL = re.compile(r"\b(illegal|unlawful|laws?|regulations?|polic(y|ies)|ethic\w*)\b", re.I)


@dataclass(frozen=True, slots=True)
class Case:
    """One conversation under one configuration.

    `id` is the record's id and the group; `record` the record's id (cases of one record are not
    independent). `violation`: the label, None where only pairs are labelled.
    """

    id: str
    record: str
    rules: tuple[Rule, ...]
    conversation: tuple[Turn, ...]
    judged: Literal["last", "assistant"]
    violation: bool | None
    group: str


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """The cases of one file and how many of its records gave none.

    Skipped are: records without a documented label under a configuration (kind severity), harms
    without a wording, and conversations that lack the turn to judge.
    """

    cases: tuple[Case, ...]
    n_records: int
    n_skipped: int


class CaseComposer:
    """Composes cases from records. Safe to share between threads.

    `taxonomy` may be empty: then rules are worded from `wording` alone and combined category ids
    are unknown. `rulebooks` is needed for records of kind ruled.
    """

    def __init__(
        self,
        wording: Wording,
        taxonomy: Mapping[str, Category],
        rulebooks: Mapping[str, Sequence[BookRule]],
        seed: int = 0,
    ) -> None:
        self._wording = wording
        self._taxonomy = taxonomy
        self._rulebooks = rulebooks
        self._seed = seed

    def compose(self, records: Iterable[Record], limit: int | None = None) -> EvaluationSet:
        """The cases of one file's `records`; `limit` keeps that many records, drawn by id.

        All records are read whatever the limit, because the configurations of safe rows without
        `prompt_harms` take their categories from the file's unsafe rows: a configuration must not
        tell the label. Errors: BadArgument when a ruled record's body is in no rulebook.
        """
        rows = list(records)
        pool = [row.harms for row in rows if isinstance(row, Categorised) and row.harms]
        if limit is not None and limit < len(rows):
            rows = sorted(rows, key=lambda row: self._rng(row.origin.id, "limit").random())[:limit]
        cases: list[Case] = []
        n_skipped = 0
        for row in rows:
            composed = self._cases(row, pool)
            cases += composed
            n_skipped += not composed
        return EvaluationSet(tuple(cases), len(rows), n_skipped)

    def _cases(self, row: Record, pool: Sequence[tuple[str, ...]]) -> list[Case]:
        judged = _judged_part(row.conversation, row.origin.judged)
        if isinstance(row, Preference):
            return _preference_cases(row)
        if judged is None:
            return []
        if isinstance(row, Categorised):
            return self._categorised_cases(row, judged, pool)
        if isinstance(row, Prompt):
            return self._forbid_all_cases(row, judged, violation=False)
        if isinstance(row, Ruled):
            return self._ruled_cases(row, judged)
        if isinstance(row, Policy):
            return [_policy_case(row, judged)]
        return []

    def _rng(self, record: str, purpose: str) -> random.Random:
        text = f"{self._seed}\0{purpose}\0{record}"
        return random.Random(hashlib.sha256(text.encode()).digest())

    def _categorised_cases(
        self, row: Categorised, conversation: tuple[Turn, ...], pool: Sequence[tuple[str, ...]]
    ) -> list[Case]:
        rng = self._rng(row.origin.id, "categorised")
        harms = row.harms or row.prompt_harms or (rng.choice(pool) if pool else (UNSPECIFIED,))
        if UNSPECIFIED in harms:
            return self._forbid_all_cases(row, conversation, violation=not row.safe)
        concerned = sorted({part for harm in harms for part in self._parts(harm)})
        if not all(part in self._wording.categories for part in concerned):
            return []
        others = self._others(rng, concerned)
        style = rng.random() < 0.5 and bool(self._taxonomy)
        shared = [self._forbid(rng, category, style) for category in others]
        shared += [("", text) for text in rng.sample(self._wording.fillers, rng.randint(2, 4))]
        added = {
            "forbid": [self._forbid(rng, category, style) for category in concerned],
            "omit": [],
            "allow": [self._allow(rng, category, style) for category in concerned],
        }
        return [
            _case(
                row,
                group,
                _shuffled(rng, shared + rules),
                conversation,
                violation=group == "forbid" and not row.safe,
            )
            for group, rules in added.items()
        ]

    def _others(self, rng: random.Random, concerned: Sequence[str]) -> list[str]:
        """Categories to forbid in all three configurations: none that overlaps `concerned`."""
        near = {n for category in concerned for n in self._wording.neighbours.get(category, ())}
        free = [c for c in self._wording.categories if c not in near and c not in concerned]
        return rng.sample(free, min(len(free), rng.randint(1, MAX_OTHER_CATEGORIES)))

    def _forbid_all_cases(
        self, row: Categorised | Prompt, conversation: tuple[Turn, ...], violation: bool
    ) -> list[Case]:
        rng = self._rng(row.origin.id, "forbid_all")
        fillers = [("", text) for text in rng.sample(self._wording.fillers, rng.randint(0, 3))]
        general = [("", rng.choice(self._wording.forbid_all)), *fillers]
        style = rng.random() < 0.5 and bool(self._taxonomy)
        each = [self._forbid(rng, category, style) for category in self._wording.categories]
        return [
            _case(row, group, _shuffled(rng, rules), conversation, violation)
            for group, rules in (("forbid_all", general), ("forbid_each", each))
        ]

    def _parts(self, harm: str) -> tuple[str, ...]:
        category = self._taxonomy.get(harm)
        return category.parts if category is not None and category.parts else (harm,)

    def _forbid(self, rng: random.Random, category: str, from_taxonomy: bool) -> Rule:
        """A rule against `category`, in the taxonomy's words or in one of the wordings."""
        wording, defined = self._wording.categories[category], self._taxonomy.get(category)
        if from_taxonomy and defined is not None:
            return defined.name, f"Not allowed: {defined.definition}"
        return rng.choice(("", *wording.names)), rng.choice(wording.forbid)

    def _allow(self, rng: random.Random, category: str, from_taxonomy: bool) -> Rule:
        wording, defined = self._wording.categories[category], self._taxonomy.get(category)
        if from_taxonomy and defined is not None:
            return defined.name, f"Allowed here: {defined.definition}"
        return rng.choice(("", *wording.names)), rng.choice(wording.allow)

    def _ruled_cases(self, row: Ruled, conversation: tuple[Turn, ...]) -> list[Case]:
        book = self._rulebooks.get(row.body)
        if book is None:
            raise BadArgument(
                f"record {row.origin.id}: its body is none of the {len(self._rulebooks)} "
                "rulebooks; add it to rulebooks.json"
            )
        rng = self._rng(row.origin.id, "ruled")
        others = [("", text) for text in unrelated_rules(row.rule, row.rule_category, book)]
        n_rules = min(rng.randint(MIN_RULES, MAX_RULES), len(others))
        if n_rules < MIN_RULES:
            return []
        drawn = rng.sample(others, n_rules)
        concerned = _shuffled(rng, [*drawn[1:], ("", row.rule)])
        return [
            _case(row, "concerned", concerned, conversation, row.violates),
            _case(row, "toggled", _shuffled(rng, drawn), conversation, violation=False),
        ]


def unrelated_rules(rule: str, category: str, book: Sequence[BookRule]) -> list[str]:
    """Texts of `book` that a statement about `rule` should not break, in the book's order.

    Left out: the rule's whole category, every rule that shares a telling word with it, and rules
    that refer to law or policy at large. Words are compared by their first letters; a word in many
    rules of the book is not telling.
    """
    n_rules_with = Counter(stem for entry in book for stem in _stems(entry.text))
    telling = {s for s in _stems(rule) if n_rules_with[s] <= max(1, _COMMON_SHARE * len(book))}
    return [
        entry.text
        for entry in book
        if entry.category != category
        and not telling & _stems(entry.text)
        and not _CATCH_ALL.search(entry.text)
    ]


def _stems(text: str) -> frozenset[str]:
    return frozenset(word[:_STEM_LETTERS] for word in re.findall(r"[^\W\d_]{4,}", text.lower()))


def _policy_case(row: Policy, conversation: tuple[Turn, ...]) -> Case:
    # A dialogue judged as a whole is broken by any of the agent's turns, so every one is judged and
    # the worst counts. Without agent turns (a case description) its last turn is all there is.
    whole = row.origin.judged == "conversation" and any(r == "assistant" for r, _ in conversation)
    rules = tuple(("", text) for text in row.policy)
    judged: Literal["last", "assistant"] = "assistant" if whole else "last"
    return _case(row, "given", rules, conversation, not row.compliant, judged)


def _preference_cases(row: Preference) -> list[Case]:
    rules = tuple(("", text) for text in row.config)
    return [
        _case(row, group, rules, row.conversation + turns, None)
        for group, turns in (("chosen", row.chosen), ("rejected", row.rejected))
    ]


def _case(
    row: Record,
    group: str,
    rules: tuple[Rule, ...],
    conversation: tuple[Turn, ...],
    violation: bool | None,
    judged: Literal["last", "assistant"] = "last",
) -> Case:
    return Case(
        id=f"{row.origin.id}/{group}",
        record=row.origin.id,
        rules=rules,
        conversation=conversation,
        judged=judged,
        violation=violation,
        group=group,
    )


def _judged_part(conversation: tuple[Turn, ...], judged: Judged) -> tuple[Turn, ...] | None:
    """The conversation up to the turn that the label is about; None when there is no such turn."""
    if judged == "conversation":
        return conversation
    role = judged.removeprefix("last_")
    last = max((i for i, turn in enumerate(conversation) if turn[0] == role), default=None)
    return None if last is None else conversation[: last + 1]


def _shuffled(rng: random.Random, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    return tuple(rng.sample(rules, len(rules)))
