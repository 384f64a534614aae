"""Families of strictness: the same conversation under a strict and a lenient guideline.

What it is: a composed config about other things, into which d_a or d_b of one severity scale is put
(arXiv 2605.30487, 1.6, step 5). Targets come from the ratings, with a margin left out; pairs only
where the dominance test kept (strict, lenient). Not: the test (csrm.train.augment.dominance).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

from csrm.train.augment.dominance import Pair, load_pairs
from csrm.train.augment.severity import STYLES, Guideline, Scale, guideline, load_scales, violates
from csrm.train.batch import Example, Family, RuleText
from csrm.train.compose import CategorisedComposer, draw_count, sample
from csrm.train.corpus import Corpus
from csrm.train.records import Severity

Rules = tuple[RuleText, ...]
Outcome = tuple[bool | None, bool | None]  # under the strict text, under the lenient one

FLIPS, BOTH, NEITHER = (True, False), (True, True), (False, False)


class StrictnessComposer:
    """Families from rated conversations. `scales`: those with enough of them, and their weights."""

    def __init__(
        self,
        corpus: Corpus,
        categorised: CategorisedComposer,
        pairs: Collection[Pair] | None = None,
        scales: Mapping[str, Scale] | None = None,
    ) -> None:
        """pairs: the kept ones, None for those in the package; scales: None for the package's."""
        self.categorised = categorised
        self.pairs = load_pairs() if pairs is None else frozenset(pairs)
        self.known = load_scales() if scales is None else scales
        rows: dict[str, list[Severity]] = {}
        for row in corpus.rated:
            if row.scale in self.known:
                rows.setdefault(row.scale, []).append(row)
        self.by_outcome: dict[tuple[str, int, int], dict[Outcome, list[Severity]]] = {}
        for name in sorted(rows):
            self._sort(self.known[name], rows[name])
        # Square root: large scales lead without drowning the small ones.
        self.scales = {
            name: len(rows[name]) ** 0.5
            for name in sorted(rows)
            if any(scale == name for scale, _, _ in self.by_outcome)
        }

    def _sort(self, scale: Scale, rows: Sequence[Severity]) -> None:
        """Files `rows` by what they do under each two guidelines, if some tell the two apart."""
        labels = {
            k: [violates(guideline(scale, 0, k), row) for row in rows]
            for k in range(1, scale.strictest + 1)
        }
        for strict in labels:
            for lenient in range(1, strict):
                found: dict[Outcome, list[Severity]] = {}
                for row, a, b in zip(rows, labels[strict], labels[lenient], strict=True):
                    found.setdefault((a, b), []).append(row)
                if FLIPS in found:
                    self.by_outcome[scale.name, strict, lenient] = found

    def family(self, rng: random.Random, size: int, breadth: float = 1.0) -> Family:
        """About `size` examples under two configs that differ in one guideline.

        Half of the settled examples violate, under each of the two configs as over both, where the
        scale has the conversations.
        """
        scale = rng.choices(list(self.scales), list(self.scales.values()))[0]
        candidates = [key for key in self.by_outcome if key[0] == scale]
        _, strict, lenient = key = rng.choice(candidates)
        style = rng.randrange(len(STYLES))
        guides = [guideline(self.known[scale], style, k) for k in (strict, lenient)]
        found = self.by_outcome[key]
        configs = self.configs(rng, found[FLIPS][0].harm, guides, breadth)
        is_kept = (scale, style, strict, lenient) in self.pairs
        family = Family()
        # A conversation that flips gives two examples; as many again have one label under both.
        for row in sample(rng, found[FLIPS], max(1, size // 4)):
            places = [
                family.add(Example(rules, row.conversation, target))
                for rules, target in zip(configs, (0.0, 1.0), strict=True)
            ]
            if is_kept:
                family.pairs.append((places[1], places[0]))
        n_flips = len(family.examples) // 2
        n_same = min(n_flips, *(len(found.get(outcome, ())) for outcome in (BOTH, NEITHER)))
        # Both violate under the lenient text, neither under the strict one: each config then has
        # as many of either label.
        for outcome, rules, target in ((BOTH, configs[1], 0.0), (NEITHER, configs[0], 1.0)):
            for row in sample(rng, found.get(outcome, []), n_same):
                family.add(Example(rules, row.conversation, target))
        if is_kept:
            self.add_open(rng, family, found, configs, size // 8)
        return family

    def add_open(
        self,
        rng: random.Random,
        family: Family,
        found: Mapping[Outcome, Sequence[Severity]],
        configs: tuple[Rules, Rules],
        n: int,
    ) -> None:
        """Pairs of at most `n` rows that the ratings leave open under one text: an order only."""
        unsettled: Sequence[Outcome] = ((True, None), (None, False), (None, None))
        rows = [row for outcome in unsettled for row in found.get(outcome, ())]
        for row in sample(rng, rows, n):
            worse, better = (
                family.add(Example(rules, row.conversation, 0.5, weight=0.0)) for rules in configs
            )
            family.pairs.append((better, worse))

    def configs(
        self, rng: random.Random, harm: str, guides: Sequence[Guideline], breadth: float
    ) -> tuple[Rules, Rules]:
        """One composed config with either guideline at the same place.

        The rest of it speaks of nothing that a conversation about `harm` could break: neither
        `harm`, its parts and their combinations, nor a neighbour of theirs.
        """
        labels, wording = self.categorised.labels, self.categorised.wording
        parts = labels.parts(harm)
        around = {n for part in parts for n in labels.neighbours(part)} | set(parts)
        others = [category for category in wording.categories if category not in around]
        n_forbidden = min(len(others), draw_count(rng, (0, 1, 2, 4, 6), breadth))
        forbidden = set(rng.sample(others, n_forbidden))
        rest = [c for c in others if c not in forbidden]
        allowed = set(rng.sample(rest, min(len(rest), draw_count(rng, (0, 0, 1, 2), breadth))))
        n_fillers = draw_count(rng, (0, 0, 1, 2, 4), breadth)
        rules = self.categorised.word(rng, forbidden, allowed, False, n_fillers)
        rules = tuple(rule for rule in rules if rule[1] not in wording.allow_rest)
        place = rng.randint(0, len(rules))
        strict, lenient = ((*rules[:place], guide.rule, *rules[place:]) for guide in guides)
        return strict, lenient
