"""Algorithm 1 (arXiv 2605.30487, 1.6): which guideline of a scale is stricter than which.

What it is: candidates (strict, lenient) from the order of the severity levels, and the test that
keeps or drops each: of the conversations unsafe under the lenient text, nearly all must be unsafe
under the strict one too. Input: rated conversations and a Judge. Output: a Report. Not: training
families (csrm.train.augment.strictness).
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TypeAlias

from csrm.errors import BadArgument
from csrm.train.augment.clopper_pearson import lower_bound
from csrm.train.augment.judges import Judge
from csrm.train.augment.severity import STYLES, Scale, guideline, violates
from csrm.train.records import Severity

ALPHA = 0.05
BOUND = 0.95
POOL = 200  # conversations of a scale
PAIRS_FILE = "strictness_pairs.json"

Pair: TypeAlias = tuple[str, int, int, int]  # scale, style, strict k, lenient k


@dataclass(frozen=True, slots=True)
class Candidate:
    """A (strict, lenient) pair of guidelines of one scale and style, and the counts of its test."""

    scale: str
    style: int
    strict: int  # k of the stricter guideline
    lenient: int
    n: int  # conversations unsafe under the lenient guideline
    n_both: int  # of those, unsafe under the strict one
    bound: float  # lower bound of n_both / n
    strict_rate: float  # share of the pool that is unsafe
    lenient_rate: float
    is_kept: bool

    @property
    def is_adjacent(self) -> bool:
        """Whether no guideline lies between the two."""
        return self.strict == self.lenient + 1

    @property
    def rises(self) -> bool:
        """Whether the strict guideline makes more of the pool unsafe."""
        return self.strict_rate > self.lenient_rate


@dataclass(frozen=True, slots=True)
class Report:
    """All candidates, with the size of each scale's pool."""

    candidates: tuple[Candidate, ...]
    pools: Mapping[str, int]

    @property
    def kept(self) -> tuple[Candidate, ...]:
        """The candidates that passed."""
        return tuple(c for c in self.candidates if c.is_kept)


def monotonicity(candidates: Iterable[Candidate]) -> tuple[int, int]:
    """(adjacent pairs whose unsafe rate rises with strictness, adjacent pairs)."""
    adjacent = [c for c in candidates if c.is_adjacent]
    return sum(c.rises for c in adjacent), len(adjacent)


def dominance(
    strict: Sequence[bool | None], lenient: Sequence[bool | None], alpha: float = ALPHA
) -> tuple[int, int, float]:
    """(n, n_both, lower bound): unsafe under the lenient text, under both, the bound of the share.

    Conversations that are open under either text are left out.
    """
    unsafe = [a for a, b in zip(strict, lenient, strict=True) if b and a is not None]
    return len(unsafe), sum(unsafe), lower_bound(sum(unsafe), len(unsafe), alpha)


def find_pairs(
    rows: Sequence[Severity],
    scales: Mapping[str, Scale],
    judge: Judge,
    pool: int = POOL,
    alpha: float = ALPHA,
    bound: float = BOUND,
) -> Report:
    """Tests every candidate of every scale and style that has rows.

    pool: conversations per scale, all unsafe under the strictest guideline by their ratings, drawn
    evenly over the levels and the same in every process. Errors: BadArgument for a bad number,
    and those of the judge.
    """
    if pool < 1 or not 0 < alpha < 1 or not 0 < bound < 1:
        raise BadArgument("the pool needs a row at least, alpha and the bound lie between 0 and 1")
    candidates: list[Candidate] = []
    pools = {}
    for name in sorted(scales):
        chosen = draw_pool([row for row in rows if row.scale == name], scales[name], pool)
        if chosen:
            pools[name] = len(chosen)
            for style in range(len(STYLES)):
                candidates += _candidates(scales[name], style, chosen, judge, alpha, bound)
    return Report(tuple(candidates), pools)


def draw_pool(rows: Sequence[Severity], scale: Scale, size: int) -> list[Severity]:
    """At most `size` rows that break the strictest guideline, as even over the levels as can be."""
    strictest = guideline(scale, 0, scale.strictest)
    by_level: dict[float, list[Severity]] = {}
    for row in sorted(rows, key=lambda row: row.origin.id):
        if violates(strictest, row):
            nearest = min(scale.levels, key=lambda level: abs(level[0] - row.severity))[0]
            by_level.setdefault(nearest, []).append(row)
    rng = random.Random(scale.name)  # seeding with a text does not depend on the hash seed
    queues = [rng.sample(by_level[level], len(by_level[level])) for level in sorted(by_level)]
    chosen: list[Severity] = []
    while len(chosen) < size and any(queues):
        for queue in queues:
            if queue and len(chosen) < size:
                chosen.append(queue.pop())
    return chosen


def _candidates(
    scale: Scale, style: int, pool: Sequence[Severity], judge: Judge, alpha: float, bound: float
) -> list[Candidate]:
    labels = {
        k: judge.unsafe(guideline(scale, style, k), pool) for k in range(1, scale.strictest + 1)
    }
    candidates = []
    for strict in labels:
        for lenient in range(1, strict):
            n, n_both, low = dominance(labels[strict], labels[lenient], alpha)
            candidates.append(
                Candidate(
                    scale.name,
                    style,
                    strict,
                    lenient,
                    n,
                    n_both,
                    low,
                    sum(label is True for label in labels[strict]) / len(pool),
                    sum(label is True for label in labels[lenient]) / len(pool),
                    low > bound,
                )
            )
    return candidates


def write_report(report: Report, folder: Path) -> None:
    """`strictness.json`, `strictness.md` and the kept pairs in `folder`, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    before, after = monotonicity(report.candidates), monotonicity(report.kept)
    content = {
        "pools": dict(report.pools),
        "adjacent_rising_before": before,
        "adjacent_rising_after": after,
        "candidates": [asdict(c) for c in report.candidates],
    }
    (folder / "strictness.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    pairs = [json.dumps([c.scale, c.style, c.strict, c.lenient]) for c in report.kept]
    text = "[\n" + ",\n".join(pairs) + "\n]\n"
    (folder / PAIRS_FILE).write_text(text, encoding="utf-8")
    (folder / "strictness.md").write_text(markdown(report), encoding="utf-8")


def markdown(report: Report) -> str:
    """The report as a table by scale; the styles of a scale are counted together."""
    lines = [
        "| scale | pool | candidates | kept | adjacent rising before | after |",
        "|---|---|---|---|---|---|",
    ]
    for scale, size in [*report.pools.items(), ("all", sum(report.pools.values()))]:
        tested = [c for c in report.candidates if scale in ("all", c.scale)]
        kept = [c for c in tested if c.is_kept]
        before, after = monotonicity(tested), monotonicity(kept)
        lines.append(
            f"| {scale} | {size} | {len(tested)} | {len(kept)} |"
            f" {before[0]} of {before[1]} | {after[0]} of {after[1]} |"
        )
    return "\n".join(lines) + "\n"


@functools.cache
def load_pairs() -> frozenset[Pair]:
    """The pairs shipped in the package: those the ratings keep on the permissive sources.

    Thread-safe; read once.
    """
    text = resources.files(__package__).joinpath(PAIRS_FILE).read_text(encoding="utf-8")
    return frozenset((scale, style, strict, low) for scale, style, strict, low in json.loads(text))
