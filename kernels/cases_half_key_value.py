"""One table of cases for HalfKeyValue: tests/python/test_half_key_value.py checks each against the
NumPy definition to the bit, csrm.bench.kernels_attention times those marked. Inputs are random but
fixed by the case's name.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class HalfKeyValueCase:
    """Sizes of one case; `n_before` columns are nobody's and come first."""

    name: str
    batch: int
    tokens: int
    kv_heads: int
    head_dim: int
    n_before: int = 0
    is_timed: bool = False

    @property
    def attributes(self) -> dict[str, int | float]:
        """The operator's attributes, without `isa`."""
        return {
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "key_offset": self.n_before,
            "value_offset": self.n_before + self.kv_heads * self.head_dim,
        }

    def states(self) -> NDArray[np.float32]:
        """The input [B, T, ..], the same on every call: numbers of every size half precision has,
        and some below and above."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        width = self.n_before + 2 * self.kv_heads * self.head_dim
        shape = (self.batch, self.tokens, width)
        size = np.exp2(rng.uniform(-27, 17, shape))
        states: NDArray[np.float64] = size * rng.choice([-1.0, 1.0], shape)
        return states.astype(np.float32)


HALF_KEY_VALUE_CASES: tuple[HalfKeyValueCase, ...] = (
    HalfKeyValueCase("smallest", 1, 1, 1, 1),
    HalfKeyValueCase("one_token", 3, 1, 2, 32),
    HalfKeyValueCase("one_past_task", 2, 17, 2, 32, n_before=64),
    HalfKeyValueCase("odd_head", 2, 37, 3, 7, n_before=5),
    HalfKeyValueCase("no_rows", 0, 5, 2, 8),
    HalfKeyValueCase("no_tokens", 2, 0, 2, 8),
    HalfKeyValueCase("minilm_1x128", 1, 128, 12, 32, n_before=384, is_timed=True),
    HalfKeyValueCase("minilm_8x128", 8, 128, 12, 32, n_before=384, is_timed=True),
)
