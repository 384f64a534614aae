"""Families from rule-labelled statements: a statement with its rule in and out of the config.

What it is: configs of 1 to 15 rules drawn from one rulebook. Config A holds the rules that some
statements break and lacks (or withdraws) those that others break; config B is the reverse. A rule
left out takes its whole heading and similarly worded rules with it, since one statement often
breaks several. Without this toggling the labels of PolyGuard can be guessed from the statement
alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from csrm.train.batch import Example, Family, RuleText
from csrm.train.compose import draw_count, sample
from csrm.train.corpus import Corpus, Labelled
from csrm.train.records import BookRule, Ruled

# Two rules of one book that share this much of their words may both apply to one statement.
SIMILAR = 0.3
STOPWORDS = frozenset(
    (
        *("a", "all", "an", "and", "any", "are", "as", "at", "be", "by", "do", "for", "from"),
        *("in", "is", "it", "must", "not", "of", "on", "or", "other", "that", "the", "their"),
        *("this", "to", "use", "users", "with", "your", "you"),
    )
)
WITHDRAWN = (
    'The following rule is withdrawn and not enforced here: "{rule}"',
    'Exception: "{rule}" does not apply to this service.',
    "We do not enforce this one, so posts that break it are acceptable: {rule}",
    'Allowed, contrary to the usual policy: anything covered by "{rule}"',
)


class RuledComposer:
    """Families from the statements and rulebooks of PolyGuard's shape."""

    def __init__(
        self,
        corpus: Corpus,
        rulebooks: Mapping[str, Sequence[BookRule]],
        harmless: Sequence[Labelled],
    ) -> None:
        self.books = rulebooks
        self.harmless = harmless
        self.by_body: dict[str, dict[str, list[Ruled]]] = {}
        for row in corpus.ruled:
            if row.body in rulebooks:
                headings = self.by_body.setdefault(row.body, {})
                headings.setdefault(row.rule_category, []).append(row)
        self.bodies = sorted(body for body, rows in self.by_body.items() if len(rows) >= 2)
        counts = [sum(len(rows) for rows in self.by_body[body].values()) for body in self.bodies]
        self.body_weights = [count**0.5 for count in counts]
        self._words = {
            rule.text: content_words(rule.text) for rules in rulebooks.values() for rule in rules
        }

    def family(self, rng: random.Random, size: int, breadth: float = 1.0) -> Family:
        """About `size` examples of one rulebook under configs A and B."""
        n_rules = 1 + draw_count(rng, (0, 1, 2, 3), breadth)
        body = rng.choices(self.bodies, self.body_weights)[0]
        headings = sorted(self.by_body[body])
        first = rng.choice(headings)
        second = rng.choice([heading for heading in headings if heading != first])
        rows = {
            heading: self.draw(rng, body, heading, size // 4, n_rules)
            for heading in (first, second)
        }
        configs = (
            self.config(rng, body, rows[first], rows[second], breadth),
            self.config(rng, body, rows[second], rows[first], breadth),
        )
        family = Family()
        for heading in (first, second):
            for row in rows[heading]:
                self.add(family, rng, row, configs)
        for other in sample(rng, self.harmless, size // 10):
            # Not written under these rules, so the label is a little less sure.
            family.add(Example(rng.choice(configs)[0], other.turns, 1.0, weight=0.5))
        return family

    def draw(
        self, rng: random.Random, body: str, heading: str, n: int, n_rules: int
    ) -> list[Ruled]:
        """Statements of `heading` that concern at most `n_rules` rules, two thirds violating."""
        rows = self.by_body[body][heading]
        rules = sorted({row.rule for row in rows})
        chosen = set(sample(rng, rules, n_rules))
        violating = [row for row in rows if row.rule in chosen and row.violates]
        twins = [row for row in rows if row.rule in chosen and not row.violates]
        return sample(rng, violating, n * 2 // 3) + sample(rng, twins, n - n * 2 // 3)

    def config(
        self,
        rng: random.Random,
        body: str,
        inside: Sequence[Ruled],
        outside: Sequence[Ruled],
        breadth: float,
    ) -> tuple[tuple[RuleText, ...], frozenset[str], frozenset[str]]:
        """(rules in words, rule texts in force, headings that are out) of one config."""
        required = {row.rule for row in inside}
        out_rules = {row.rule for row in outside}
        out_headings = {row.rule_category for row in outside}
        spare = [
            rule.text
            for rule in self.books[body]
            if rule.category not in out_headings
            and rule.text not in required
            and not any(self.similar(rule.text, other) for other in out_rules)
        ]
        n_rules = 1 + draw_count(rng, range(15), breadth * rng.random())
        texts = sorted(required) + sample(rng, spare, max(0, n_rules - len(required)))
        in_force = frozenset(texts)
        if rng.random() < 0.25:
            for rule in sample(rng, sorted(out_rules), 2):
                texts.append(rng.choice(WITHDRAWN).format(rule=rule))
        headings = {rule.text: rule.category for rule in self.books[body]}
        named = rng.random() < 0.35
        rules = [(headings.get(text, "") if named else "", text) for text in texts]
        rng.shuffle(rules)
        return tuple(rules), in_force, frozenset(out_headings)

    def similar(self, first: str, second: str) -> bool:
        """Whether two rules share so many words that a statement may break both."""
        a = self._words.get(first) or content_words(first)
        b = self._words.get(second) or content_words(second)
        return len(a & b) >= SIMILAR * len(a | b)

    def add(
        self,
        family: Family,
        rng: random.Random,
        row: Ruled,
        configs: Sequence[tuple[tuple[RuleText, ...], frozenset[str], frozenset[str]]],
    ) -> None:
        """A violating statement under both configs, its harmless twin under one."""
        if not row.violates:
            family.add(Example(rng.choice(configs)[0], row.conversation, 1.0))
            return
        placed: dict[bool, int] = {}
        for rules, in_force, out_headings in configs:
            if row.rule in in_force:
                placed[True] = family.add(Example(rules, row.conversation, 0.0))
            elif row.rule_category in out_headings and not any(
                self.similar(row.rule, rule) for rule in in_force
            ):
                placed[False] = family.add(Example(rules, row.conversation, 1.0))
        if len(placed) == 2:
            family.pairs.append((placed[False], placed[True]))


def content_words(text: str) -> frozenset[str]:
    """Lower-case words of `text` without the commonest ones, endings trimmed."""
    words = re.findall(r"[a-z]{3,}", text.lower())
    return frozenset(word.rstrip("s") for word in words if word not in STOPWORDS)
