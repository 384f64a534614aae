"""How equal the rewards of one input stay: over cache states, batch sizes and neighbours.

Not: a speed measurement. Every condition is compared with the same conversation scored alone under
a cold cache; the largest difference and the share of bit-equal rewards are reported.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import csrm
from csrm.bench.texts import CaseTexts, case_texts, open_renderer
from csrm.paths import default_artifact

CASES = ("24+12", "64+40", "128+97", "256+128", "384+300", "64+900")
TURNS_PER_CASE = 4
BATCHES = (1, 2, 7, 32)


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


def run(artifact: str | None = None, json_path: str | None = None) -> list[InvarianceRow]:
    """Rows for warm and refilled caches and batches 1, 2, 7 and 32 among random neighbours.

    artifact: a model folder, None = the shipped one. Errors: those of csrm.load.
    """
    folder = default_artifact() if artifact is None else Path(artifact)
    renderer = open_renderer(folder)
    groups = [inputs_of(case_texts(renderer, case, seed=i)) for i, case in enumerate(CASES)]
    everything = Inputs(groups[-1].config, [c for group in groups for c in group.conversations])
    groups.append(everything)
    scorer = csrm.load(folder)
    cold = [cold_rewards(scorer, group) for group in groups]
    rows = [row("warm cache", cold, [single_rewards(scorer, group) for group in groups])]
    # Room for one config only: each group evicts the one before it.
    small = csrm.load(folder, cache_tokens=900)
    for _ in range(2):
        refilled = [single_rewards(small, group) for group in groups]
    rows.append(row("evicted and refilled cache", cold, refilled))
    for size in BATCHES:
        batched = [list(batch_rewards(scorer, group, size)) for group in groups]
        rows.append(row(f"batch {size}, random neighbours", cold, batched))
    if json_path is not None:
        Path(json_path).write_text(json.dumps([asdict(item) for item in rows], indent=1) + "\n")
    return rows


def inputs_of(texts: CaseTexts) -> Inputs:
    """The config of `texts` and several conversations of different lengths under it."""
    rng = random.Random(0)
    conversations = []
    for i in range(TURNS_PER_CASE):
        words = texts.permuted(rng).split()
        kept = words[: max(1, len(words) * (i + 1) // TURNS_PER_CASE)]
        conversations.append([{"role": "assistant", "content": " ".join(kept)}])
    return Inputs(csrm.SafetyConfig.from_rules(list(texts.rules)), conversations)


def cold_rewards(scorer: csrm.Scorer, inputs: Inputs) -> list[float]:
    """Each conversation alone, the cache emptied before it."""
    rewards = []
    for conversation in inputs.conversations:
        scorer.clear_cache()
        rewards.append(scorer.score(inputs.config, conversation).reward)
    return rewards


def single_rewards(scorer: csrm.Scorer, inputs: Inputs) -> list[float]:
    """Each conversation alone with whatever the cache holds."""
    return [scorer.score(inputs.config, item).reward for item in inputs.conversations]


def batch_rewards(scorer: csrm.Scorer, inputs: Inputs, size: int) -> Iterator[float]:
    """Each conversation in a batch of `size` with random neighbours, at a random place."""
    rng = random.Random(size)
    for conversation in inputs.conversations:
        batch = [rng.choice(inputs.conversations) for _ in range(size - 1)]
        place = rng.randrange(size)
        batch.insert(place, conversation)
        yield scorer.score_batch(inputs.config, batch)[place].reward


def row(condition: str, expected: list[list[float]], found: list[list[float]]) -> InvarianceRow:
    """The differences between two lists of lists of rewards."""
    pairs = [
        (a, b)
        for first, second in zip(expected, found, strict=True)
        for a, b in zip(first, second, strict=True)
    ]
    largest = max(abs(a - b) for a, b in pairs)
    return InvarianceRow(condition, len(pairs), largest, sum(a == b for a, b in pairs) / len(pairs))
