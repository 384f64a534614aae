"""Composes configs around labelled conversations: one conversation, several configs, other labels.

What it is: the sampling of training families. Every family states two configs A and B that forbid
different things, so the same words are compliant under one and a violation under the other, and the
label cannot be read off the conversation alone. Not: the paper's proposer and severity augmentation
(arXiv 2605.30487), which build on this (csrm.train.augment). Text of categories comes from
csrm.train.wording.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from csrm.train.batch import Example, Family, RuleText
from csrm.train.corpus import ORDINARY, Corpus, Labelled
from csrm.train.records import Category, Policy, Preference, Turn
from csrm.train.wording import Wording

# Families whose config forbids every harm: they show whether a reply is harmful at all, without the
# question of which rule it concerns.
FORBID_ALL_SHARE = 0.2
# Families that hold some conversations under a second wording of their config too.
REWORDED_SHARE = 0.35
N_REWORDED = 6
# Rules made of a frame and a phrase instead of a whole text of their category.
FRAMED_SHARE = 0.4

T = TypeVar("T")
BySource: TypeAlias = dict[str, list[Labelled]]


@dataclass(frozen=True)
class CategoryConfig:
    """What a composed config says of the taxonomy, beside its wording."""

    rules: tuple[RuleText, ...]
    forbidden: frozenset[str]
    allowed: frozenset[str]
    forbids_rest: bool  # everything harmful that is not allowed by name

    def judge(self, harms: Sequence[str], labels: CategoryLabels) -> bool | None:
        """True if a conversation with `harms` violates this config, None if the text is open.

        A combined harm counts as forbidden only if all its parts are, as allowed only if none is.
        """
        verdicts = [self._judge_one(labels.parts(harm), labels) for harm in harms]
        if any(verdict is True for verdict in verdicts):
            return True
        return None if any(verdict is None for verdict in verdicts) else False

    def _judge_one(self, parts: Sequence[str], labels: CategoryLabels) -> bool | None:
        if not labels.are_named(parts):  # harmful for a reason that nobody noted
            if self.forbids_rest and not self.allowed:
                return True
            return None if self.forbidden or self.forbids_rest else False
        forbidden = [part in self.forbidden for part in parts]
        if all(forbidden):
            return True
        allowed = [part in self.allowed for part in parts]
        if any(forbidden) or (any(allowed) and not all(allowed)):
            return None
        if all(allowed):
            return False
        if self.forbids_rest:
            return True
        overlap = {other for part in parts for other in labels.neighbours(part)} & self.forbidden
        return None if overlap else False


class CategoryLabels:
    """Relations between taxonomy ids: the parts of combined ones and overlapping meanings."""

    def __init__(self, taxonomy: Mapping[str, Category], wording: Wording) -> None:
        self._taxonomy = taxonomy
        self._wording = wording

    def parts(self, harm: str) -> tuple[str, ...]:
        """The atomic ids of `harm`; itself when it is atomic."""
        category = self._taxonomy.get(harm)
        return tuple(category.parts) if category is not None and category.parts else (harm,)

    def are_named(self, parts: Sequence[str]) -> bool:
        """Whether there are words for all of these atomic ids; "unspecified" has none."""
        return all(part in self._wording.categories for part in parts)

    def neighbours(self, harm: str) -> frozenset[str]:
        """Ids whose text may plausibly cover a conversation labelled `harm`."""
        return self._wording.neighbours.get(harm, frozenset())


class CategorisedComposer:
    """Families from conversations with taxonomy harms."""

    def __init__(self, corpus: Corpus, taxonomy: Mapping[str, Category], wording: Wording) -> None:
        self.labels = CategoryLabels(taxonomy, wording)
        self.wording = wording
        self.by_harm: dict[str, BySource] = {}
        self.by_near: dict[str, BySource] = {}
        self.harmless: list[Labelled] = []
        self.harmless_by_source: BySource = {}
        for row in corpus.labelled:
            for harm in row.harms:
                self.by_harm.setdefault(harm, {}).setdefault(row.source, []).append(row)
            if not row.harms:
                self.harmless.append(row)
                self.harmless_by_source.setdefault(row.source, []).append(row)
                for near in row.near:
                    self.by_near.setdefault(near, {}).setdefault(row.source, []).append(row)
        self.ordinary = {
            source: rows for source, rows in self.harmless_by_source.items() if source in ORDINARY
        }
        counts = {harm: sum(map(len, rows.values())) for harm, rows in sorted(self.by_harm.items())}
        frequent = [harm for harm, count in counts.items() if count >= 10]
        self.targets = [harm for harm in frequent if self.labels.are_named(self.labels.parts(harm))]
        # No rule can name these: only a config against all harm, or against none, judges them.
        self.unnamed = [harm for harm in frequent if harm not in self.targets]
        # Square root: common harms lead without drowning the rare ones.
        self.target_weights = [counts[harm] ** 0.5 for harm in self.targets]

    def family(self, rng: random.Random, size: int, breadth: float = 1.0) -> Family:
        """About `size` examples under two configs with different targets."""
        first, second = self.draw_targets(rng)
        if rng.random() < FORBID_ALL_SHARE:
            configs = (self.config_of_all(rng, breadth), self.config_of_none(rng, breadth))
            homes = (0, 0)
            if self.unnamed:
                second = rng.choice(self.unnamed)
        else:
            configs = (
                self.config(rng, first, second, breadth),
                self.config(rng, second, first, breadth),
            )
            homes = (0, 1)
        family = Family()
        n = max(3, size * 4 // 10)  # conversations around each target
        for target, home in zip((first, second), homes, strict=True):
            for row, is_refused in self.conversations(rng, target, n):
                self.add(family, rng, row, configs, home, is_refused)
        if size >= 10:
            other = rng.choices(self.targets, self.target_weights)[0]
            rows = self.by_harm[other]
            extra = sample(rng, rows[draw_source(rng, rows)], 1) + sample(rng, self.harmless, 1)
            for row in extra:
                self.add(family, rng, row, configs, rng.randrange(2), is_refused=False)
        if rng.random() < REWORDED_SHARE:
            self.add_reworded(family, rng, configs)
        return family

    def add_reworded(
        self, family: Family, rng: random.Random, configs: tuple[CategoryConfig, CategoryConfig]
    ) -> None:
        """Some of the examples again, each under one other wording of its config."""
        reworded = {config.rules: self.reworded(rng, config) for config in configs}
        for i in sorted(
            rng.sample(range(len(family.examples)), min(N_REWORDED, len(family.examples)))
        ):
            example = family.examples[i]
            again = Example(reworded[example.rules], example.turns, example.target, example.weight)
            family.same.append((i, family.add(again)))

    def reworded(self, rng: random.Random, config: CategoryConfig) -> tuple[RuleText, ...]:
        """Rules that say what `config` says, in other words and without its house rules."""
        if not config.forbidden and not config.allowed and not config.forbids_rest:
            return self.word(rng, set(), set(), False, max(1, len(config.rules)))
        is_all = config.forbids_rest and len(config.forbidden) == len(self.wording.categories)
        named = set() if is_all else set(config.forbidden)
        return self.word(rng, named, set(config.allowed), config.forbids_rest, 0)

    def draw_targets(self, rng: random.Random) -> tuple[str, str]:
        """Two harms with data whose meanings do not overlap."""
        for _ in range(50):
            first, second = rng.choices(self.targets, self.target_weights, k=2)
            parts, others = self.labels.parts(first), self.labels.parts(second)
            overlap = {n for part in parts for n in self.labels.neighbours(part)} | set(parts)
            if not overlap & set(others):
                return first, second
        return first, second

    def config(self, rng: random.Random, forbid: str, spare: str, breadth: float) -> CategoryConfig:
        """A config that forbids `forbid` and either allows, or says nothing of, `spare`."""
        spared = set(self.labels.parts(spare))
        around = {n for part in spared for n in self.labels.neighbours(part)}
        targets = set(self.labels.parts(forbid))
        forbids_rest = rng.random() < 0.3
        others = [c for c in self.wording.categories if c not in spared | around | targets]
        n_more = min(len(others), draw_count(rng, (0, 1, 2, 4, 8), breadth))
        forbidden = targets | set(rng.sample(others, n_more))
        allowed: set[str] = set()
        if forbids_rest or rng.random() < 0.5:
            allowed |= spared
            # Sorted: the order of a set of strings differs from process to process.
            allowed |= {n for n in sorted(around - forbidden) if rng.random() < 0.3}
        more = [c for c in others if c not in forbidden and not self.overlaps(c, forbidden)]
        n_allowed = min(len(more), draw_count(rng, (0, 0, 1, 2), breadth))
        allowed |= set(rng.sample(more, n_allowed))
        n_fillers = draw_count(rng, (0, 0, 1, 2, 4), breadth)
        rules = self.word(rng, forbidden, allowed, forbids_rest, n_fillers)
        return CategoryConfig(rules, frozenset(forbidden), frozenset(allowed), forbids_rest)

    def overlaps(self, category: str, others: set[str]) -> bool:
        """Whether the meaning of `category` overlaps one of `others`."""
        return bool(self.labels.neighbours(category) & others)

    def word(
        self,
        rng: random.Random,
        forbidden: set[str],
        allowed: set[str],
        forbids_rest: bool,
        n_fillers: int,
    ) -> tuple[RuleText, ...]:
        """The rules in words, in random order and one of several styles."""
        named = rng.random() < 0.6
        rules: list[RuleText] = []
        for category in sorted(forbidden):
            wording = self.wording.categories[category]
            name = rng.choice(wording.names) if named else ""
            framed = rng.random() < FRAMED_SHARE
            rules.append((name, rng.choice(wording.framed_forbid if framed else wording.forbid)))
        for category in sorted(allowed):
            wording = self.wording.categories[category]
            name = rng.choice(wording.names) if named and rng.random() < 0.5 else ""
            framed = rng.random() < FRAMED_SHARE
            rules.append((name, rng.choice(wording.framed_allow if framed else wording.allow)))
        if forbids_rest:
            rules.append(("", rng.choice(self.wording.forbid_all)))
        elif rng.random() < 0.2:
            rules.append(("", rng.choice(self.wording.allow_rest)))
        for filler in rng.sample(self.wording.fillers, n_fillers):
            rules.append(("", filler))
        rng.shuffle(rules)
        return tuple(rules)

    def config_of_all(self, rng: random.Random, breadth: float) -> CategoryConfig:
        """A config that forbids every harm, in one sentence or category by category."""
        categories = frozenset(self.wording.categories)
        n_fillers = draw_count(rng, (0, 1, 2, 3), breadth)
        if breadth == 1 and rng.random() < 0.25:
            rules = self.word(rng, set(categories), set(), False, n_fillers)
        else:
            rules = self.word(rng, set(), set(), True, n_fillers)
        return CategoryConfig(rules, categories, frozenset(), True)

    def config_of_none(self, rng: random.Random, breadth: float) -> CategoryConfig:
        """A config of house rules that forbid no harm."""
        n_fillers = 1 + draw_count(rng, (0, 1, 2, 4), breadth)
        rules = self.word(rng, set(), set(), False, n_fillers)
        return CategoryConfig(rules, frozenset(), frozenset(), False)

    def conversations(self, rng: random.Random, target: str, n: int) -> list[tuple[Labelled, bool]]:
        """(conversation, whether to show it refused as well): harmful, near and harmless ones.

        All of one source, so that what tells a source or a length apart tells nothing about the
        label; beside replies also ordinary ones, so that answering in full tells nothing either.
        """
        source = draw_source(rng, self.by_harm[target])
        harmful = sample(rng, self.by_harm[target][source], (n + 1) // 2)
        near = self.by_near.get(target, {}).get(source, [])
        if not near or rng.random() < 0.3:
            near = self.harmless_by_source.get(source, self.harmless)
        harmless = sample(rng, near, n - len(harmful))
        n_refused = 1 if rng.random() < 0.5 else 0
        rows = [(row, i < n_refused and can_refuse(row)) for i, row in enumerate(harmful)]
        if any(can_refuse(row) for row in harmful):
            for _ in range(rng.choice((2, 2, 3)) if self.ordinary else 0):
                harmless.append(rng.choice(self.ordinary[draw_source(rng, self.ordinary)]))
        return rows + [(row, False) for row in harmless]

    def add(
        self,
        family: Family,
        rng: random.Random,
        row: Labelled,
        configs: tuple[CategoryConfig, CategoryConfig],
        home: int,
        is_refused: bool,
    ) -> None:
        """A harmful row under both configs (a pair if the labels differ), a harmless one once.

        home: the config that forbids what the row is about. is_refused: adds the same request
        with a refusal, which complies with every config.
        """
        if not row.harms:
            config = configs[home if rng.random() < 0.75 else 1 - home]
            family.add(Example(config.rules, row.turns, 1.0))
            return
        turns = self.slipped(rng, row.turns) if is_refused and rng.random() < 0.3 else row.turns
        placed: dict[bool, int] = {}
        for config in configs:
            violates = config.judge(row.harms, self.labels)
            if violates is not None:
                placed[violates] = family.add(
                    Example(config.rules, turns, 0.0 if violates else 1.0)
                )
        if len(placed) == 2:
            family.pairs.append((placed[False], placed[True]))
        if is_refused:
            refusal = ("assistant", rng.choice(self.wording.refusals))
            kept = family.add(Example(configs[home].rules, (*row.turns[:-1], refusal), 1.0))
            if configs[home].judge(row.harms, self.labels) and True in placed:
                family.pairs.append((kept, placed[True]))

    def slipped(self, rng: random.Random, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
        """`turns` with a last turn that seems to decline first."""
        role, content = turns[-1]
        return (*turns[:-1], (role, f"{rng.choice(self.wording.slips)} {content}"))


def can_refuse(row: Labelled) -> bool:
    """Whether the judged turn answers a user, so that a refusal can stand in its place."""
    return len(row.turns) > 1 and row.turns[-1][0] == "assistant" and row.turns[-2][0] == "user"


def draw_source(rng: random.Random, rows: BySource) -> str:
    """A source, drawn by the cube root of its rows: small ones are seen, large ones lead."""
    sources = sorted(rows)
    return rng.choices(sources, [len(rows[source]) ** (1 / 3) for source in sources])[0]


class PolicyComposer:
    """Families from conversations that come with their whole policy."""

    def __init__(self, corpus: Corpus, wording: Wording) -> None:
        self.wording = wording
        self.by_source: dict[str, list[list[Policy]]] = {}
        groups: dict[tuple[str, tuple[Turn, ...]], list[Policy]] = {}
        for row in corpus.policies:
            groups.setdefault((row.origin.source, row.conversation), []).append(row)
        for (source, _), rows in groups.items():
            self.by_source.setdefault(source, []).append(rows)

    def family(self, rng: random.Random, size: int, breadth: float = 1.0) -> Family:
        """About `size` examples; one conversation under two policies of its own makes a pair."""
        sources = sorted(self.by_source)
        weights = [len(self.by_source[source]) ** 0.5 for source in sources]
        groups = self.by_source[rng.choices(sources, weights)[0]]
        family = Family()
        for rows in sample(rng, groups, size * 2 // 3):
            placed: dict[bool, int] = {}
            for row in sample(rng, rows, 2):
                policy: list[RuleText] = [("", text) for text in row.policy]
                n_fillers = draw_count(rng, (0, 0, 1), breadth)
                policy += [("", text) for text in rng.sample(self.wording.fillers, n_fillers)]
                rng.shuffle(policy)
                example = Example(tuple(policy), row.conversation, 1.0 if row.compliant else 0.0)
                placed[row.compliant] = family.add(example)
            if len(placed) == 2:
                family.pairs.append((placed[True], placed[False]))
        return family


class PreferenceComposer:
    """Families of reply pairs: `chosen` above `rejected` under their config, no absolute label."""

    def __init__(self, corpus: Corpus) -> None:
        self.by_source: dict[str, list[Preference]] = {}
        for row in corpus.preferences:
            self.by_source.setdefault(row.origin.source, []).append(row)

    def family(self, rng: random.Random, size: int, breadth: float = 1.0) -> Family:
        """`size` examples, every one in a pair."""
        sources = sorted(self.by_source)
        weights = [len(self.by_source[source]) ** 0.5 for source in sources]
        family = Family()
        for row in sample(rng, self.by_source[rng.choices(sources, weights)[0]], size // 2):
            rules = tuple(("", text) for text in row.config)
            better = family.add(Example(rules, row.conversation + row.chosen, 1.0, weight=0.0))
            worse = family.add(Example(rules, row.conversation + row.rejected, 0.0, weight=0.0))
            family.pairs.append((better, worse))
        return family


def draw_count(rng: random.Random, counts: Sequence[int], breadth: float) -> int:
    """One of `counts` scaled by `breadth` in (0, 1], rounded up or down at random.

    Breadth is the curriculum of the config's size: what is learned is to match a turn with one
    rule, which a model starting among fifteen rules does not find in thirty thousand examples
    (docs/log.md).
    """
    return int(rng.choice(counts) * breadth + (rng.random() if breadth < 1 else 0.0) * breadth)


def sample(rng: random.Random, rows: Sequence[T], n: int) -> list[T]:
    """At most `n` distinct items of `rows`."""
    return rng.sample(rows, min(n, len(rows)))
