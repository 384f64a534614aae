"""Guidelines of rising strictness over a severity scale, and what a rated conversation does there.

What it is: for a scale with the levels s_0 < ... < s_n, guideline d_k (k = 1..n) forbids the k most
severe levels and explicitly allows the others; the larger k, the stricter. The texts are ours
(severity_levels.yaml), the level numbers those of the data folder's severity_scales.json. Not: the
choice of pairs (csrm.train.augment.dominance) or of configs (csrm.train.augment.strictness).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

import yaml

from csrm.errors import BadArgument
from csrm.train.batch import RuleText
from csrm.train.records import Severity
from csrm.train.wording import WordingError

# Share of raters that settles a label, and how far the mean must lie from the line, as a part of
# the gap between the two levels at the line. What is between is left open.
SETTLED = 0.6
MARGIN = 0.1

# (whether the topic is the rule's name, text)
STYLES = (
    (False, "Forbidden: {forbidden}. Explicitly allowed: {allowed}."),
    (True, "Should not: {forbidden}. Can: {allowed}."),
    (
        False,
        "{topic}: our house draws a line here. What crosses it: {forbidden}."
        " What stays inside it, and is never to be objected to: {allowed}.",
    ),
    (
        True,
        "We accept {allowed}. That is on purpose and not an oversight."
        " What we do not accept: {forbidden}.",
    ),
    (
        False,
        "On the subject of {topic_lower}, the moderator removes the following: {forbidden}."
        " The moderator leaves standing: {allowed}.",
    ),
)


@dataclass(frozen=True, slots=True)
class Scale:
    """A severity scale; `levels` rise from the harmless one to the worst: (number, our text)."""

    name: str
    topic: str
    levels: tuple[tuple[float, str], ...]

    @property
    def strictest(self) -> int:
        """The largest k: everything but the harmless level is forbidden."""
        return len(self.levels) - 1


@dataclass(frozen=True, slots=True)
class Guideline:
    """d_k of a scale in one style: `rule` forbids from `forbidden_from` up and allows the rest."""

    scale: str
    style: int
    k: int
    rule: RuleText
    allowed_to: float
    forbidden_from: float


@functools.cache
def load_scales() -> Mapping[str, Scale]:
    """The scales with wording by name, read from the package once; do not modify the result.

    Errors: WordingError (the file contradicts itself). Thread-safe.
    """
    file = resources.files(__package__).joinpath("severity_levels.yaml")
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    scales = {}
    for name, entry in content.items():
        levels = tuple((float(level), str(text)) for level, text in entry["levels"].items())
        if len(levels) < 3 or levels != tuple(sorted(levels)) or levels[0][0] != 0:
            raise WordingError(f"levels of {name} must rise from 0 and be three at least")
        scales[name] = Scale(name, entry["topic"], levels)
    return scales


def check_scales(
    scales: Mapping[str, Scale], published: Mapping[str, tuple[tuple[float, str], ...]]
) -> None:
    """Errors: BadArgument when the levels differ from those of the data folder."""
    for name, scale in scales.items():
        if [level for level, _ in scale.levels] != [level for level, _ in published.get(name, ())]:
            raise BadArgument(f"the levels of scale {name!r} differ from the data folder's")


def guideline(scale: Scale, style: int, k: int) -> Guideline:
    """d_k of `scale` in words. Errors: BadArgument for a style or k that does not exist."""
    if not 0 <= style < len(STYLES) or not 1 <= k <= scale.strictest:
        raise BadArgument(f"no guideline {k} in style {style} for a scale of {len(scale.levels)}")
    line = len(scale.levels) - k
    is_named, text = STYLES[style]
    worded = text.format(
        topic=scale.topic,
        topic_lower=scale.topic.lower(),
        forbidden="; ".join(text for _, text in reversed(scale.levels[line:])),
        allowed="; ".join(text for _, text in reversed(scale.levels[:line])),
    )
    rule = (scale.topic if is_named else "", worded)
    return Guideline(scale.name, style, k, rule, scale.levels[line - 1][0], scale.levels[line][0])


def violates(guide: Guideline, row: Severity) -> bool | None:
    """Whether `row` breaks `guide` by its ratings; None where they do not settle it.

    Both the share of raters beyond the line and the mean of the ratings must be clear of it. A row
    that breaks a guideline breaks every stricter one of the scale.
    """
    line = (guide.allowed_to + guide.forbidden_from) / 2
    margin = MARGIN * (guide.forbidden_from - guide.allowed_to)
    beyond = beyond_line(row, line)
    if beyond >= SETTLED and row.severity >= line + margin:
        return True
    if beyond <= 1 - SETTLED and row.severity <= line - margin:
        return False
    return None


def beyond_line(row: Severity, line: float) -> float:
    """The share of raters who rate `row` beyond `line`."""
    ratings = row.raters or (row.severity,)
    return sum(rating > line for rating in ratings) / len(ratings)
