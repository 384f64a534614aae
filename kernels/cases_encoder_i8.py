"""One table of cases for EncoderI8: tests/python/test_encoder_i8.py checks each against the NumPy
definition and, to the bit, against a chain of separate operators, which csrm.bench.kernels_encoder
times those marked beside. Inputs are random but fixed by the case's name. Tolerances are data, each
with its reason.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csrm.kernels.cases_linear_i8 import BYTE_LEVELS, WORD_LEVELS


@dataclass(frozen=True)
class EncoderI8Inputs:
    """The operator's input tensors, in its input order."""

    input_ids: NDArray[np.int64]  # [B, T]
    position_ids: NDArray[np.int64]  # [B, T]
    segment_ids: NDArray[np.int64]  # [B, T]
    visible: NDArray[np.int64]  # [B, T]
    pooled_at: NDArray[np.int64]  # [B, J]
    prefix_key: NDArray[np.float32]  # [L, heads, P, D]
    prefix_value: NDArray[np.float32]  # [L, heads, P, D]
    weights: tuple[NDArray[Any], ...]  # as csrm.kernels.reference.encoder_i8 has them

    @property
    def tensors(self) -> dict[str, NDArray[Any]]:
        """All but the weights, which are initialisers of a model."""
        return {name: value for name, value in vars(self).items() if name != "weights"}


@dataclass(frozen=True)
class EncoderI8Case:
    """Sizes, products and tolerance of one case."""

    name: str
    layers: int
    heads: int
    head_dim: int
    inner: int
    batch: int
    tokens: int
    prefix: int
    pooled: int = 1
    levels: int = BYTE_LEVELS
    is_bf16: bool = False  # products of attention may be those of bfloat16
    steps: int = 8  # of the rounding of a number, that key, value or pooled may be off by
    reason: str = (
        "beside the middle of two integers the kernel's fp32 rounds the other way, in each layer "
        "after the first, and what follows is rounded anew"
    )
    is_timed: bool = False

    n_ids = 50
    n_positions = 300
    n_segments = 5

    @property
    def hidden(self) -> int:
        """Columns of a state."""
        return self.heads * self.head_dim

    @property
    def step(self) -> float:
        """From one rounded number to the next, in a row whose largest is 4."""
        return 4 / self.levels

    @property
    def attributes(self) -> dict[str, int | float | str]:
        """The operator's attributes, without `isa`."""
        return {
            "layers": self.layers,
            "heads": self.heads,
            "head_dim": self.head_dim,
            "scale": self.head_dim**-0.5,
            "epsilon": 1e-12,
            "levels": self.levels,
            "products": "bf16" if self.is_bf16 else "fp32",
        }

    def inputs(self) -> EncoderI8Inputs:
        """The same tensors on every call."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        rows = self.batch, self.tokens
        prefix = self.layers, self.heads, self.prefix, self.head_dim
        pooled_at = rng.integers(0, max(self.tokens, 1), (self.batch, self.pooled))
        if self.pooled > 1:
            pooled_at[rng.random(pooled_at.shape) < 0.3] = -1
        return EncoderI8Inputs(
            input_ids=rng.integers(0, self.n_ids, rows),
            position_ids=rng.integers(0, self.n_positions, rows),
            segment_ids=rng.integers(0, self.n_segments, rows),
            visible=rng.integers(0, self.tokens + 1, rows),
            pooled_at=pooled_at,
            prefix_key=rng.standard_normal(prefix).astype(np.float32),
            prefix_value=rng.standard_normal(prefix).astype(np.float32),
            weights=tuple(self._weights(rng)),
        )

    def _weights(self, rng: np.random.Generator) -> Iterator[NDArray[Any]]:
        def integers(*shape: int) -> NDArray[np.int8]:
            return rng.integers(-127, 128, shape).astype(np.int8)

        def near(middle: float, *shape: int) -> NDArray[np.float32]:
            return (middle + 0.1 * rng.standard_normal(shape)).astype(np.float32)

        def norm() -> Iterator[NDArray[Any]]:
            yield near(1, self.hidden)
            yield near(0, self.hidden)

        def linear(n_in: int, n_out: int) -> Iterator[NDArray[Any]]:  # gives numbers of about 1
            yield integers(n_in, n_out)
            yield near(1, n_out) / np.float32(73 * n_in**0.5)
            yield near(0, n_out)

        yield integers(self.n_ids, self.hidden)
        yield near(1, self.n_ids, 1) / np.float32(73)
        for n in (self.n_positions, self.n_segments):
            yield rng.standard_normal((n, self.hidden)).astype(np.float32)
        yield from norm()
        for layer in range(self.layers):
            is_last = layer == self.layers - 1
            for n_parts in [1, 2] if is_last else [3]:  # of query, key and value
                yield from linear(self.hidden, n_parts * self.hidden)
            yield from linear(self.hidden, self.hidden)
            yield from norm()
            yield from linear(self.hidden, self.inner)
            yield from linear(self.inner, self.hidden)
            if not is_last:
                yield from norm()


_Case = EncoderI8Case

ENCODER_I8_CASES: tuple[EncoderI8Case, ...] = (
    _Case("smallest", 1, 1, 1, 1, 1, 1, 0),
    _Case("one_token", 2, 2, 32, 96, 3, 1, 64, levels=WORD_LEVELS, is_bf16=True),
    _Case("one_token_alone", 2, 1, 16, 40, 1, 1, 0),
    _Case("below_a_tile", 2, 1, 16, 40, 1, 15, 5, 3, levels=WORD_LEVELS),
    _Case("a_tile", 3, 2, 32, 64, 1, 16, 0, 2, is_bf16=True),
    _Case("one_layer", 1, 2, 32, 96, 2, 17, 5, 2, levels=WORD_LEVELS),
    _Case("odd_head", 3, 3, 7, 29, 2, 17, 64, 2, levels=WORD_LEVELS, is_bf16=True),
    _Case("few_rows", 2, 2, 32, 96, 5, 15, 5, 3, levels=WORD_LEVELS, is_bf16=True),
    _Case("one_row_of_tiles", 3, 2, 32, 96, 1, 130, 64, 2),
    _Case("many_rows", 2, 2, 32, 96, 5, 70, 300, 3, levels=WORD_LEVELS, is_bf16=True),
    _Case("many_rows_fp32", 2, 3, 7, 33, 4, 70, 5, 3, levels=WORD_LEVELS),
    _Case("long_row", 2, 1, 16, 40, 1, 300, 64, levels=WORD_LEVELS),
    _Case("long_rows_alone", 2, 1, 32, 40, 3, 300, 0, 2, is_bf16=True),
    _Case("read_more_than_there_is", 2, 2, 32, 96, 4, 3, 5, 90, is_bf16=True),
    _Case("minilm_heads", 2, 12, 32, 200, 2, 130, 300, 2, levels=WORD_LEVELS, is_bf16=True),
    _Case(
        "minilm_1x128_over_256",
        *(6, 12, 32, 1536),
        *(1, 128, 256),
        levels=WORD_LEVELS,
        is_bf16=True,
        is_timed=True,
    ),
)
