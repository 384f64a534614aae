"""Is it the same model? A baseline's rewards beside csrm's, before any of its times is taken.

Rows of one rule and one turn with csrm's own attention are answered by csrm and by the baseline. An
engine that answers other rows (a plain BERT, a server's own tokens) is compared with ONNX Runtime
in fp32 on those rows, which is itself compared with csrm.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

import csrm
from csrm.bench.baselines.interface import Baseline, Rewards, Rows, block_rows
from csrm.bench.baselines.onnxruntime_fp32 import OnnxruntimeFp32
from csrm.bench.engines import FP32
from csrm.bench.texts import RULE_TOKENS, case_texts, open_renderer, turn_ids
from csrm.errors import EngineFailed

_TURN_TOKENS = 50
_SEEDS = range(4)
_TURNS = 3


class Agreement:
    """csrm's rewards of a few rows, and the comparison with them. Not thread-safe."""

    def __init__(self, artifact: Path, scorer: csrm.Scorer) -> None:
        renderer = open_renderer(artifact)
        self._batches: list[tuple[Rows, Rewards]] = []
        for seed in _SEEDS:
            texts = case_texts(renderer, f"{RULE_TOKENS}+{_TURN_TOKENS}", seed=seed)
            rng = random.Random(seed)
            turns = [texts.permuted(rng) for _ in range(_TURNS)]
            rows = block_rows(texts.config_ids, [turn_ids(renderer, turn) for turn in turns])
            scores = [
                scorer.score(list(texts.rules), [{"role": "assistant", "content": turn}])
                for turn in turns
            ]
            self._batches.append((rows, np.array([score.reward for score in scores])))
        self._reference = OnnxruntimeFp32(artifact, 1)
        self.check("onnxruntime-fp32", self._reference, FP32)

    def check(self, name: str, baseline: Baseline, tolerance: float) -> float:
        """Root mean square difference from csrm's rewards, log-odds.

        Errors: EngineFailed when it exceeds `tolerance` or is not finite.
        """
        differences = []
        for rows, expected in self._batches:
            taken = baseline.prepare(rows)
            if any(not np.array_equal(taken[part], rows[part]) for part in rows):
                self._reference.prepare(taken)
                expected = self._reference.run()
            differences.append(baseline.run() - expected)
        rms = float(np.sqrt(np.mean(np.square(differences))))
        if not rms <= tolerance:
            raise EngineFailed(
                f"{name} answers with rewards {rms:.2g} from csrm's (limit {tolerance:g}): it runs"
                " another model, and its time would mean nothing"
            )
        return rms
