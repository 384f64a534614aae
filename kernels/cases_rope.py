"""One table of cases for Rope: tests/python/test_rope.py checks each against the NumPy definition,
csrm.bench.kernels_decoder times those marked. Inputs are random but fixed by the case's name.
Tolerances are data, each with its reason.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RopeInputs:
    """The operator's input tensors, in its input order."""

    x: NDArray[np.float32]  # [..., N]
    positions: NDArray[np.int64]  # [...]
    frequencies: NDArray[np.float32]  # [head_dim / 2]
    weight: NDArray[np.float32] | None  # [heads * head_dim]


@dataclass(frozen=True)
class RopeCase:
    """Sizes and tolerance of one case."""

    name: str
    rows: tuple[int, ...]  # all axes of x but the last
    heads: int
    head_dim: int
    rest: int = 0  # columns behind the heads
    has_norm: bool = False
    most: int = 2000  # of the positions
    epsilon: float = 1e-6
    tolerance: float = 3e-6  # absolute
    reason: str = "two products of numbers up to 5 with one ulp each; cosines to one ulp"
    is_timed: bool = False

    @property
    def attributes(self) -> dict[str, int | float]:
        """The operator's."""
        return {"heads": self.heads, "head_dim": self.head_dim, "epsilon": self.epsilon}

    def inputs(self) -> RopeInputs:
        """The same tensors on every call."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        width = self.heads * self.head_dim
        exponents = np.arange(0, self.head_dim, 2) / self.head_dim
        weight = 1 + 0.1 * rng.standard_normal(width)
        return RopeInputs(
            rng.standard_normal((*self.rows, width + self.rest)).astype(np.float32),
            rng.integers(0, self.most + 1, self.rows).astype(np.int64),
            (10000.0**-exponents).astype(np.float32),
            weight.astype(np.float32) if self.has_norm else None,
        )


ROPE_CASES: tuple[RopeCase, ...] = (
    RopeCase("smallest", (1,), 1, 2),
    RopeCase("narrow", (3,), 2, 8, rest=3),
    RopeCase("three_axes", (2, 3), 3, 16, rest=48),
    RopeCase("odd_half", (5,), 2, 42, rest=1),
    RopeCase("no_rows", (0,), 2, 8),
    RopeCase("no_turn", (2, 4), 2, 64, rest=64, most=0),
    RopeCase("far", (40,), 2, 64, most=130_000),
    RopeCase("norm_smallest", (1,), 1, 2, has_norm=True),
    RopeCase("norm_odd_half", (2, 5), 3, 30, rest=7, has_norm=True),
    RopeCase("norm_qwen3", (1, 9), 24, 128, rest=1024, has_norm=True),
    RopeCase("many_rows", (700,), 3, 16, rest=16),
    RopeCase("widest", (2,), 1, 1024, has_norm=True),
    RopeCase("smollm2_1", (1, 1), 12, 64, rest=192, is_timed=True),
    RopeCase("smollm2_128", (1, 128), 12, 64, rest=192, is_timed=True),
    RopeCase("qwen3_128", (1, 128), 24, 128, rest=1024, has_norm=True, is_timed=True),
)
