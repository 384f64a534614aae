"""One table of cases for KeysValues, which CUDA alone has: tests/cpp/cuda checks each against plain
loops, tests/python/test_cuda_decoder_graph.py through ONNX Runtime against the NumPy definition.
Inputs are random but fixed by the case's name. Results are equal to the bit: nothing is computed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class KeysValuesCase:
    """Sizes of one case. States hold `heads` heads of queries, then keys, then values."""

    name: str
    layers: int
    batch: int
    tokens: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def attributes(self) -> dict[str, int]:
        """The operator's."""
        key_offset = self.heads * self.head_dim
        return {
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "key_offset": key_offset,
            "value_offset": key_offset + self.kv_heads * self.head_dim,
        }

    def inputs(self) -> list[NDArray[np.float16]]:
        """States [B, T, ..] of each layer, the same on every call."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        width = (self.heads + 2 * self.kv_heads) * self.head_dim
        shape = (self.batch, self.tokens, width)
        return [rng.standard_normal(shape).astype(np.float16) for _ in range(self.layers)]


KEYS_VALUES_CASES: tuple[KeysValuesCase, ...] = (
    KeysValuesCase("smallest", 1, 1, 1, 1, 1, 1),
    KeysValuesCase("odd", 3, 2, 5, 2, 1, 7),
    KeysValuesCase("minilm", 6, 2, 9, 12, 12, 32),
    KeysValuesCase("smollm2", 30, 1, 5, 9, 3, 64),
    KeysValuesCase("more_than_a_block", 2, 3, 40, 4, 2, 64),
    KeysValuesCase("no_tokens", 2, 2, 0, 4, 2, 8),
    KeysValuesCase("most_layers", 256, 1, 2, 2, 1, 8),
)
