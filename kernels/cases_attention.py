"""One table of cases for PrefixAttention: tests/python/test_attention.py checks each against the
NumPy definition, csrm.bench.kernels_attention times those marked. Inputs are random but fixed by
the case's name. Tolerances are data, each with its reason.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

KEY_SPREAD = np.float32(0.1)  # of keys that are near to one another


@dataclass(frozen=True)
class AttentionInputs:
    """The operator's input tensors, in its input order."""

    query: NDArray[np.float32]  # [B, Q, ..]
    key_value: NDArray[np.float32]  # [B, T, ..]
    prefix_key: NDArray[np.float32] | NDArray[np.float16]  # [L, kv_heads, P, D]
    prefix_value: NDArray[np.float32] | NDArray[np.float16]  # [L, kv_heads, P, D]
    visible: NDArray[np.int64]  # [B, Q]


@dataclass(frozen=True)
class AttentionCase:
    """Sizes, who sees whom, and tolerance of one case."""

    name: str
    batch: int
    tokens: int
    prefix: int
    heads: int
    head_dim: int
    kv_heads: int = 0  # 0: as many as heads
    pooled: int = 0  # queries of a last layer, apart from the keys; 0: every token is one
    layers: int = 1
    layer: int = 0
    sight: Literal["all", "causal", "turns", "random", "none"] = "all"
    loudness: float = 1.0  # of the queries
    # Where the scores of a row lie: all of them far above 0, far below, or any of it by turns.
    scores: Literal["about_0", "high", "low", "mixed"] = "about_0"
    tolerance: float = 3e-6  # absolute
    reason: str = (
        "an average of values of about 1: a weight is off by the rounding of its score, 1e-6 "
        "at scores of 10, and the sums by a few ulp"
    )
    is_timed: bool = False
    is_half: bool = False  # the prefix is float16
    is_bf16: bool = False  # products may be those of bfloat16

    @property
    def queries(self) -> int:
        """Q."""
        return self.pooled or self.tokens

    @property
    def attributes(self) -> dict[str, int | float | str]:
        """The operator's attributes, without `isa`."""
        kv_heads = self.kv_heads or self.heads
        key_offset = 0 if self.pooled else self.heads * self.head_dim
        products = {"products": "bf16"} if self.is_bf16 else {}
        return {
            "heads": self.heads,
            "kv_heads": kv_heads,
            "head_dim": self.head_dim,
            "layer": self.layer,
            "query_offset": 0,
            "key_offset": key_offset,
            "value_offset": key_offset + kv_heads * self.head_dim,
            "scale": self.head_dim**-0.5,
            **products,
        }

    def inputs(self) -> AttentionInputs:
        """The same tensors on every call."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))

        def normal(*shape: int) -> NDArray[np.float32]:
            return rng.standard_normal(shape).astype(np.float32)

        kv_heads = self.kv_heads or self.heads
        width, own_width = self.heads * self.head_dim, 2 * kv_heads * self.head_dim
        prefix = (self.layers, kv_heads, self.prefix, self.head_dim)
        query = normal(self.batch, self.queries, width)
        key_value = normal(self.batch, self.tokens, own_width)
        key, value = normal(*prefix), normal(*prefix)
        if self.scores != "about_0":
            query = self._aligned_queries(query)
            key_value[..., : own_width // 2] = 1 + KEY_SPREAD * key_value[..., : own_width // 2]
            key = 1 + KEY_SPREAD * key
        query = query * np.float32(self.loudness)
        if not self.pooled:
            query = key_value = np.concatenate([query, key_value], -1)
        visible = self._visible(rng)
        if self.is_half:
            halves = key.astype(np.float16), value.astype(np.float16)
            return AttentionInputs(query, key_value, *halves, visible)
        return AttentionInputs(query, key_value, key, value, visible)

    def _aligned_queries(self, noise: NDArray[np.float32]) -> NDArray[np.float32]:
        """Near to 1 in every column, or to -1 or a small number, as the keys are near to 1."""
        sizes = {"high": [1.0], "low": [-1.0], "mixed": [1.0, 0.01, -1.0, 0.1, -0.02]}[self.scores]
        size = np.resize(np.array(sizes, np.float32), self.queries)[:, None]
        return size * (1 + KEY_SPREAD * noise)

    def _visible(self, rng: np.random.Generator) -> NDArray[np.int64]:
        shape = (self.batch, self.queries)
        place = np.arange(self.queries)
        if self.sight == "none":
            return np.zeros(shape, np.int64)
        if self.sight == "random":
            return rng.integers(0, self.tokens + 1, shape)
        if self.sight == "causal":
            place = place + 1
        if self.sight == "all":
            place = np.full(self.queries, self.tokens)
        if self.sight == "turns":  # of 21 tokens; the last five tokens of a row are padding
            place = np.where(place < self.tokens - 5, (place // 21 + 1) * 21, 0)
        return np.minimum(place, self.tokens)[None].repeat(self.batch, 0).astype(np.int64)


def _minilm(
    batch: int,
    tokens: int,
    prefix: int,
    pooled: int = 0,
    is_half: bool = False,
    is_bf16: bool = False,
) -> AttentionCase:
    """One layer of MiniLM-L6."""
    kind = f"pooled_{pooled}_of" if pooled else "minilm"
    name = f"{kind}_{batch}x{tokens}_over_{prefix}"
    case = AttentionCase(name, batch, tokens, prefix, 12, 32, pooled=pooled, is_timed=True)
    if is_half:
        case = replace(case, name=f"{name}_half", is_half=True)
    return _bf16(replace(case, name=f"{name}_bf16")) if is_bf16 else case


def _bf16(case: AttentionCase) -> AttentionCase:
    """The case with products of bfloat16; a version without them is that of fp32."""
    return replace(
        case,
        is_bf16=True,
        tolerance=1e-2,
        reason="a weight beside the middle of two is rounded the other way, which is up to 8e-3 of "
        "it, and so is a query, which moves its score",
    )


def _out_of_range() -> tuple[AttentionCase, ...]:
    """Cases whose weights 2^score, or their sums, leave the numbers that there are."""

    def case(name: str, loudness: float, **changed: Any) -> AttentionCase:
        usual = AttentionCase(
            f"bf16_{name}", 2, 70, 90, 2, 32, sight="random", loudness=loudness, scores="mixed"
        )
        return _bf16(replace(usual, **changed))

    return (
        case("sums_about_2_40", 4.3, scores="high"),
        case("sums_past_2_40", 6.0, scores="high"),
        case("scores_of_hundreds", 60.0, scores="high"),
        case("sums_below_2_minus_40", 6.0, scores="low"),
        case("scores_far_below", 60.0, scores="low"),
        case("mixed_scores", 60.0),
        case("mixed_scores_in_blocks", 40.0, tokens=60, prefix=840, head_dim=64),
        case("mixed_scores_own", 60.0, batch=1, tokens=800, prefix=0, sight="causal"),
        case("mixed_scores_grouped", 60.0, heads=6, kv_heads=2),
        case("mixed_scores_half", 60.0, is_half=True),
        case("loud_scores", 100.0, scores="about_0"),
    )


ATTENTION_CASES: tuple[AttentionCase, ...] = (
    AttentionCase("smallest", 1, 1, 0, 1, 1),
    AttentionCase("one_token", 2, 1, 70, 2, 32),
    AttentionCase("no_prefix", 2, 37, 0, 2, 32),
    AttentionCase("no_prefix_causal", 1, 150, 0, 2, 64, sight="causal"),
    AttentionCase("turns", 2, 90, 100, 2, 32, sight="turns"),
    AttentionCase("turns_alone", 2, 90, 0, 3, 32, sight="turns"),
    AttentionCase("any_sight", 3, 61, 67, 2, 64, layers=3, layer=1, sight="random"),
    AttentionCase("odd_head", 2, 33, 65, 3, 65, sight="random"),
    AttentionCase("odd_small_head", 2, 9, 3, 2, 7, sight="random"),
    AttentionCase("grouped", 2, 29, 80, 6, 32, kv_heads=2, sight="causal"),
    AttentionCase("grouped_pooled", 2, 40, 64, 4, 64, kv_heads=1, pooled=3, sight="random"),
    AttentionCase("wide_head", 1, 20, 130, 2, 128),
    AttentionCase("many_short_rows", 40, 5, 128, 2, 32, sight="random"),
    AttentionCase("prefix_alone", 2, 6, 128, 2, 32, sight="none"),
    AttentionCase("nothing_seen", 2, 6, 0, 2, 32, sight="none"),
    AttentionCase("no_rows", 0, 6, 10, 2, 32),
    AttentionCase("no_tokens", 2, 0, 10, 2, 32),
    AttentionCase(
        "loud_scores",
        2,
        50,
        100,
        2,
        32,
        loudness=30.0,
        tolerance=3e-4,
        reason="scores near 100 have an ulp of 8e-6 and come from sums of 32 such terms",
    ),
    AttentionCase("half_any_sight", 3, 61, 67, 2, 64, layers=3, sight="random", is_half=True),
    AttentionCase("half_no_prefix", 2, 37, 0, 2, 32, is_half=True),
    AttentionCase("half_turns", 2, 90, 100, 2, 32, sight="turns", is_half=True),
    AttentionCase("half_odd_head", 2, 33, 65, 3, 65, sight="random", is_half=True),
    AttentionCase("half_grouped", 2, 40, 64, 4, 64, kv_heads=1, pooled=3, is_half=True),
    AttentionCase("half_many_short_rows", 40, 5, 128, 2, 32, sight="random", is_half=True),
    _bf16(AttentionCase("bf16_one_token", 2, 1, 70, 2, 32)),
    _bf16(AttentionCase("bf16_no_prefix", 2, 37, 0, 2, 32)),
    _bf16(AttentionCase("bf16_turns", 2, 90, 100, 2, 32, sight="turns")),
    _bf16(AttentionCase("bf16_any_sight", 3, 61, 67, 2, 64, layers=3, layer=1, sight="random")),
    _bf16(AttentionCase("bf16_grouped", 2, 29, 80, 6, 32, kv_heads=2, sight="causal")),
    _bf16(AttentionCase("bf16_grouped_pooled", 2, 40, 64, 4, 64, kv_heads=1, pooled=3)),
    _bf16(AttentionCase("bf16_wide_head", 1, 20, 130, 2, 128)),
    _bf16(AttentionCase("bf16_many_short_rows", 40, 5, 128, 2, 32, sight="random")),
    _bf16(AttentionCase("bf16_three_blocks", 3, 75, 720, 2, 32, sight="random")),
    _bf16(AttentionCase("bf16_own_blocks", 1, 800, 0, 1, 64, sight="causal")),
    _bf16(AttentionCase("bf16_nothing_seen", 2, 6, 0, 2, 32, sight="none")),
    _bf16(AttentionCase("bf16_half_no_prefix", 2, 37, 0, 2, 32, is_half=True)),
    _bf16(AttentionCase("bf16_half_turns", 2, 90, 100, 2, 32, sight="turns", is_half=True)),
    *_out_of_range(),
    AttentionCase("bf16_of_an_odd_head", 2, 33, 65, 3, 65, is_bf16=True),
    _minilm(1, 128, 256),
    _minilm(1, 64, 64),
    _minilm(8, 128, 256),
    _minilm(1, 128, 0),
    _minilm(1, 128, 256, 1),
    _minilm(1, 128, 4096),
    _minilm(1, 128, 256, is_half=True),
    _minilm(8, 128, 256, is_half=True),
    _minilm(1, 128, 256, 1, is_half=True),
    _minilm(1, 128, 4096, is_half=True),
    _minilm(1, 128, 256, is_bf16=True),
    _minilm(1, 64, 64, is_bf16=True),
    _minilm(8, 128, 256, is_bf16=True),
    _minilm(1, 128, 0, is_bf16=True),
    _minilm(1, 128, 256, 1, is_bf16=True),
    _minilm(1, 128, 1024, is_bf16=True),
)
