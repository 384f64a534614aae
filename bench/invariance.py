"""How equal the rewards of one input stay: over cache states, batch sizes, neighbours and threads.

Not: a speed measurement. Every condition is compared with the same conversation scored alone under
a cold cache; the largest difference and the share of bit-equal rewards are reported.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import csrm
from csrm.bench.texts import CaseTexts, case_texts, open_renderer
from csrm.errors import BadArgument
from csrm.paths import default_artifact
from csrm.progress_bar import Advance, progress_bar

CASES = ("24+12", "64+40", "128+97", "256+128", "384+300", "64+900")
BATCHES = (1, 2, 3, 7, 8, 16, 32, 64)
N_REFILLS = 2


@dataclass(frozen=True)
class InvarianceRow:
    """One condition against the cold single score, over `n` rewards."""

    condition: str
    n: int
    max_difference: float  # log-odds
    bit_equal: float  # share of rewards, 0 to 1


@dataclass(frozen=True)
class Inputs:
    """One config and conversations of several lengths under it."""

    config: csrm.SafetyConfig
    conversations: list[list[dict[str, str]]]


def run(
    artifact: str | None = None,
    json_path: str | None = None,
    *,
    per_case: int = 4,
    threads: Sequence[int] = (1, 2),
    progress: bool = True,
) -> list[InvarianceRow]:
    """Rows for warm and refilled caches and for batches among random neighbours, by threads.

    artifact: a model folder, None = the shipped one. per_case: conversations of each case; every
    one is measured among those of its case and among all. Everything is compared with the first
    number of threads. progress: a bar on stderr if that is a terminal. Errors: BadArgument, those
    of csrm.load.
    """
    if per_case < 1 or not threads:
        raise BadArgument("per_case must be at least 1, and threads must name a number")
    folder = default_artifact() if artifact is None else Path(artifact)
    renderer = open_renderer(folder)
    groups = [
        inputs_of(case_texts(renderer, case, seed=i), per_case) for i, case in enumerate(CASES)
    ]
    everything = Inputs(groups[-1].config, [c for group in groups for c in group.conversations])
    groups.append(everything)
    rows: list[InvarianceRow] = []
    cold: list[list[float]] = []
    total = len(threads) * sum(n_scorings(len(group.conversations)) for group in groups)
    with progress_bar("invariance", total, is_shown=progress) as advance:
        for n_threads in threads:
            scorer = csrm.load(folder, n_threads=n_threads)
            alone = [cold_rewards(scorer, group, advance) for group in groups]
            if cold:
                rows.append(row(f"cold cache, {n_threads} threads", cold, alone))
            cold = cold or alone
            for condition, rewards in conditions(folder, scorer, n_threads, groups, advance):
                rows.append(row(f"{condition}, {n_threads} threads", cold, rewards))
    if json_path is not None:
        Path(json_path).write_text(json.dumps([asdict(item) for item in rows], indent=1) + "\n")
    return rows


def n_scorings(n: int) -> int:
    """How many conversations are scored for the rows of a group of `n`, on one number of threads.

    Each alone in a cold, a warm and the refilled caches, and in whole batches of every size.
    """
    return n * (2 + N_REFILLS) + sum(n + -n % size for size in BATCHES)


def conditions(
    folder: Path,
    scorer: csrm.Scorer,
    n_threads: int,
    groups: Sequence[Inputs],
    advance: Advance,
) -> Iterator[tuple[str, list[list[float]]]]:
    """Every condition by name, with the rewards of all groups under it."""
    yield "warm cache", [single_rewards(scorer, group, advance) for group in groups]
    # Room for one config only: each group evicts the one before it.
    small = csrm.load(folder, cache_tokens=900, n_threads=n_threads)
    for _ in range(N_REFILLS):
        refilled = [single_rewards(small, group, advance) for group in groups]
    yield "evicted and refilled cache", refilled
    for size in BATCHES:
        yield f"batch {size}", [batch_rewards(scorer, group, size, advance) for group in groups]


def inputs_of(texts: CaseTexts, n: int) -> Inputs:
    """The config of `texts` and `n` conversations of different lengths under it."""
    rng = random.Random(0)
    conversations = []
    for i in range(n):
        words = texts.permuted(rng).split()
        kept = words[: max(1, len(words) * (i + 1) // n)]
        conversations.append([{"role": "assistant", "content": " ".join(kept)}])
    return Inputs(csrm.SafetyConfig.from_rules(list(texts.rules)), conversations)


def cold_rewards(scorer: csrm.Scorer, inputs: Inputs, advance: Advance) -> list[float]:
    """Each conversation alone, the cache emptied before it."""
    rewards = []
    for conversation in inputs.conversations:
        scorer.clear_cache()
        rewards.append(scorer.score(inputs.config, conversation).reward)
        advance(1)
    return rewards


def single_rewards(scorer: csrm.Scorer, inputs: Inputs, advance: Advance) -> list[float]:
    """Each conversation alone with whatever the cache holds."""
    rewards = []
    for conversation in inputs.conversations:
        rewards.append(scorer.score(inputs.config, conversation).reward)
        advance(1)
    return rewards


def batch_rewards(scorer: csrm.Scorer, inputs: Inputs, size: int, advance: Advance) -> list[float]:
    """Every conversation in a batch of `size` with random neighbours, at a random place."""
    rng = random.Random(size)
    n = len(inputs.conversations)
    order = rng.sample(range(n), n)
    order += rng.choices(range(n), k=-n % size)  # the last batch is whole too
    rewards = [0.0] * n
    for start in range(0, len(order), size):
        places = order[start : start + size]
        batch = [inputs.conversations[i] for i in places]
        for i, score in zip(places, scorer.score_batch(inputs.config, batch), strict=True):
            rewards[i] = score.reward
        advance(size)
    return rewards


def row(condition: str, expected: list[list[float]], found: list[list[float]]) -> InvarianceRow:
    """The differences between two lists of lists of rewards."""
    pairs = [
        (a, b)
        for first, second in zip(expected, found, strict=True)
        for a, b in zip(first, second, strict=True)
    ]
    largest = max(abs(a - b) for a, b in pairs)
    return InvarianceRow(condition, len(pairs), largest, sum(a == b for a, b in pairs) / len(pairs))
