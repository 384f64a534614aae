"""One table of cases for RewardHead: tests/python/test_kernels.py checks each against the NumPy
definition, csrm.bench.kernels times each. Inputs are random but fixed by the case's name.
Tolerances are data, each with its reason.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ROUNDING = "fp32 sums of H unit terms: a few ulp of the largest partial sum"


@dataclass(frozen=True)
class RewardHeadInputs:
    """The operator's input tensors, in its input order."""

    hidden: NDArray[np.float32]  # [B, T, H]
    pooled_at: NDArray[np.int64]  # [B, J]
    norm_weight: NDArray[np.float32]  # [H]
    norm_bias: NDArray[np.float32] | None  # [H]; None of kind rms
    rows: NDArray[np.float32]  # [V, H]
    row_bias: NDArray[np.float32] | None  # [V]; None of kind rms
    calibration: NDArray[np.float32]  # [2]


@dataclass(frozen=True)
class RewardHeadCase:
    """Sizes, kind of data and tolerance of one case."""

    name: str
    batch: int
    tokens: int
    pooled: int
    hidden: int
    verbalizers: int
    n_safe: int
    data: Literal["normal", "zero", "huge", "offset"] = "normal"
    pooling: Literal["random", "none", "mixed", "repeated"] = "random"
    kind: Literal["layer", "rms"] = "layer"
    logit_scale: float = 1.0
    epsilon: float = 1e-12
    tolerance: float = 5e-6  # absolute, of the reward; |a| <= 2 makes it hold for compliance too
    reason: str = ROUNDING

    def inputs(self) -> RewardHeadInputs:
        """The same tensors on every call."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))

        def normal(*shape: int) -> NDArray[np.float32]:
            return rng.standard_normal(shape).astype(np.float32)

        rows = normal(self.verbalizers, self.hidden) * (self.logit_scale / self.hidden**0.5)
        return RewardHeadInputs(
            hidden=self._hidden_states(normal(self.batch, self.tokens, self.hidden)),
            pooled_at=self._pooled_at(rng),
            norm_weight=1 + 0.1 * normal(self.hidden),
            norm_bias=0.1 * normal(self.hidden) if self.kind == "layer" else None,
            rows=rows.astype(np.float32),
            row_bias=normal(self.verbalizers) if self.kind == "layer" else None,
            calibration=np.array([1.25, -0.5], np.float32),
        )

    def _hidden_states(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.data == "zero":
            return np.zeros_like(states)
        if self.data == "huge":
            return states * np.float32(1e15)
        if self.data == "offset":
            return states + np.float32(100)
        return states

    def _pooled_at(self, rng: np.random.Generator) -> NDArray[np.int64]:
        shape = (self.batch, self.pooled)
        if self.pooling == "none":
            return np.full(shape, -1, np.int64)
        index = rng.integers(0, self.tokens, shape)
        if self.pooling == "repeated":
            index[:] = self.tokens - 1
        if self.pooling == "mixed":
            index[rng.random(shape) < 0.5] = -1
            index.flat[0] = 0
        return index


CASES: tuple[RewardHeadCase, ...] = (
    RewardHeadCase("smallest", 1, 1, 1, 1, 2, 1, epsilon=1e-5),
    RewardHeadCase("odd_7", 3, 5, 2, 7, 3, 1),
    RewardHeadCase("small_64", 2, 9, 3, 64, 4, 2),
    RewardHeadCase("minilm_one", 1, 128, 1, 384, 2, 1),
    RewardHeadCase("minilm_batch", 32, 128, 1, 384, 2, 1),
    RewardHeadCase("minilm_agent", 8, 256, 16, 384, 2, 1, pooling="mixed"),
    RewardHeadCase("paper_verbalizers", 8, 128, 4, 384, 12, 6),
    RewardHeadCase("uneven_verbalizers", 4, 16, 2, 385, 7, 5),
    RewardHeadCase("one_past_vector", 4, 16, 2, 385, 5, 1, pooling="repeated"),
    RewardHeadCase("mpnet", 8, 128, 1, 768, 2, 1),
    RewardHeadCase("wide", 8, 64, 2, 2048, 12, 4),
    RewardHeadCase("none_pooled", 2, 4, 3, 384, 2, 1, pooling="none"),
    RewardHeadCase("no_rows", 0, 4, 1, 384, 2, 1),
    RewardHeadCase("nothing_asked", 2, 4, 0, 384, 2, 1),
    RewardHeadCase(
        "zero_rows",
        2,
        3,
        2,
        384,
        4,
        2,
        data="zero",
        reason="variance 0: the state is norm_bias, scaled by 1/sqrt(epsilon) times exact zeros; "
        + ROUNDING,
    ),
    RewardHeadCase(
        "huge_states",
        2,
        8,
        2,
        384,
        2,
        1,
        data="huge",
        reason="squares reach 1e31, inside fp32; the norm takes the scale out; " + ROUNDING,
    ),
    RewardHeadCase(
        "offset_states",
        2,
        8,
        2,
        768,
        4,
        2,
        data="offset",
        tolerance=2e-4,
        reason="a mean of 100 is known to about 1e-5 of the deviation, so each y is off by that",
    ),
    RewardHeadCase(
        "loud_logits",
        4,
        8,
        2,
        384,
        12,
        6,
        logit_scale=1000.0,
        tolerance=5e-3,
        reason="logits near 1000 have an ulp of 6e-5; exp() would overflow without its maximum",
    ),
    RewardHeadCase("rms_smallest", 1, 1, 1, 1, 2, 1, kind="rms", epsilon=1e-5),
    RewardHeadCase("rms_odd", 3, 5, 2, 67, 7, 3, kind="rms", pooling="mixed"),
    RewardHeadCase("rms_decoder", 4, 16, 3, 576, 6, 3, kind="rms", data="offset", epsilon=1e-5),
)
