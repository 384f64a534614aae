"""Is it the same model? A baseline's rewards beside csrm's, before any of its times is taken.

Rows of one rule and one turn with csrm's own attention are answered by csrm and by the baseline, by
one that can be given a prefix in both ways. An engine that answers other rows (a plain BERT, a
server's own tokens) is compared with ONNX Runtime in fp32 on those rows, which is itself compared
with csrm.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import csrm
from csrm.bench.baselines.interface import Baseline, CachedRows, CachingBaseline, Rewards, Rows
from csrm.bench.baselines.onnxruntime_fp32 import OnnxruntimeFp32
from csrm.bench.engines import FP32
from csrm.bench.prompts import BlockPrompts, open_prompts
from csrm.errors import EngineFailed

_SEEDS = range(4)
_TURNS = 3


@dataclass(frozen=True)
class _Batch:
    rules: tuple[str, ...]
    turns: list[str]
    rows: Rows
    cached: CachedRows
    rewards: Rewards


class Agreement:
    """csrm's rewards of a few rows, and the comparison with them. Not thread-safe."""

    def __init__(self, artifact: Path, scorer: csrm.Scorer) -> None:
        prompts = open_prompts(artifact)
        self._batches: list[_Batch] = []
        for seed in _SEEDS:
            texts = prompts.case(prompts.agreement_case, seed=seed)
            rng = random.Random(seed)
            turns = [texts.permuted(rng) for _ in range(_TURNS)]
            rows, cached = prompts.exact_rows(texts, turns), prompts.cached_rows(texts, turns)
            rewards = rewards_of(scorer, texts.rules, turns)
            self._batches.append(_Batch(texts.rules, turns, rows, cached, rewards))
        self._reference: OnnxruntimeFp32 | None = None  # engines read a decoder's rows as they are
        if isinstance(prompts, BlockPrompts):
            self._reference = OnnxruntimeFp32(artifact, 1)
            self.check("onnxruntime-fp32", self._reference, FP32)

    def check(self, name: str, baseline: Baseline, tolerance: float) -> float:
        """Root mean square difference from csrm's rewards, log-odds.

        Errors: EngineFailed when it exceeds `tolerance` or is not finite.
        """
        differences = []
        for batch in self._batches:
            expected = batch.rewards
            taken = baseline.prepare(batch.rows)
            if any(not np.array_equal(taken[part], batch.rows[part]) for part in taken):
                if self._reference is None:
                    raise EngineFailed(f"{name} reads other rows than it was given")
                self._reference.prepare(taken)
                expected = self._reference.run()
            differences.append(baseline.run() - expected)
        return checked(name, np.concatenate(differences), tolerance)

    def check_cached(self, name: str, baseline: CachingBaseline, tolerance: float) -> float:
        """The same of a baseline that is given the config's keys and values."""
        differences = []
        for batch in self._batches:
            baseline.prepare_cached(batch.cached)
            differences.append(baseline.run_cached() - batch.rewards)
        return checked(name, np.concatenate(differences), tolerance)

    def check_scorer(self, name: str, scorer: csrm.Scorer, tolerance: float) -> float:
        """The same of another variant of csrm."""
        differences = [
            rewards_of(scorer, batch.rules, batch.turns) - batch.rewards for batch in self._batches
        ]
        return checked(name, np.concatenate(differences), tolerance)

    @property
    def spread(self) -> float:
        """Standard deviation of csrm's rewards: what a difference is to be compared with."""
        return float(np.std([batch.rewards for batch in self._batches]))


def rewards_of(scorer: csrm.Scorer, rules: Sequence[str], turns: Sequence[str]) -> Rewards:
    """csrm's rewards [B] of assistant turns under a config of `rules`."""
    conversations = [[{"role": "assistant", "content": turn}] for turn in turns]
    return np.array([score.reward for score in scorer.score_batch(list(rules), conversations)])


def checked(name: str, differences: Rewards, tolerance: float) -> float:
    """Root mean square of differences. Errors: EngineFailed, as `Agreement.check`."""
    rms = float(np.sqrt(np.mean(np.square(differences))))
    if not rms <= tolerance:
        raise EngineFailed(
            f"{name} answers with rewards {rms:.2g} from csrm's (limit {tolerance:g}): it runs"
            " another model, and its time would mean nothing"
        )
    return rms
