"""The definition of every csrm operator, in NumPy float64. Not fast and not used at run time:
kernels are tested against it (tests/python/test_kernels.py, test_linear.py, test_linear_i8.py,
test_attention.py, test_half_key_value.py, test_add_norm.py, test_rope.py, test_swiglu.py and
test_encoder_i8.py; cases in csrm.kernels.cases and cases_*).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64] | NDArray[np.float32] | NDArray[np.float16]


def reward_head(
    hidden: Floats,
    pooled_at: NDArray[np.int64],
    norm_weight: Floats,
    norm_bias: Floats | None,
    rows: Floats,
    row_bias: Floats | None,
    calibration: Floats,
    *,
    n_safe: int,
    epsilon: float,
    kind: str = "layer",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reward and compliance, both float64 [B, J], of the pooled tokens; NaN where `pooled_at` < 0.

    hidden [B, T, H]; pooled_at [B, J]; norm_weight, norm_bias [H]; rows [V, H], the first `n_safe`
    of them the safe verbalizers; row_bias [V] or None; calibration [2] (a, b); kind as in
    `add_norm`. The reward is logsumexp(safe logits) - logsumexp(unsafe logits) (arXiv 2605.30487,
    section 3).
    Errors: IndexError when an index is not below T.
    """
    batch = np.arange(hidden.shape[0])[:, None]
    x = hidden.astype(np.float64)[batch, np.maximum(pooled_at, 0)]  # [B, J, H]
    y = _norm(x, norm_weight, norm_bias, epsilon, kind)
    logits = y @ rows.astype(np.float64).T  # [B, J, V]
    if row_bias is not None:
        logits = logits + row_bias
    reward = np.logaddexp.reduce(logits[..., :n_safe], axis=-1)
    reward = reward - np.logaddexp.reduce(logits[..., n_safe:], axis=-1)
    reward = np.where(pooled_at < 0, np.nan, reward)
    margin = calibration[0] * reward + calibration[1]
    compliance = 0.5 * (1.0 + np.tanh(0.5 * margin))  # a sigmoid that cannot overflow
    return reward, compliance


def linear(
    x: Floats,
    weight: NDArray[np.int8] | Floats,
    scale: Floats | None,
    bias: Floats | None,
    *,
    activation: str = "none",
) -> NDArray[np.float64]:
    """f(x W + bias), float64 [..., N], of x [..., K].

    weight [K, N]: int8 with scale [N], one per output channel, or floats with scale None; bias [N]
    or None. f is the identity ("none") or GELU by the error function ("gelu"). Errors: KeyError.
    """
    dense = weight.astype(np.float64)
    if scale is not None:
        # In fp32, as every engine unfolds it.
        dense = (weight.astype(np.float32) * scale.astype(np.float32)).astype(np.float64)
    result: NDArray[np.float64] = x.astype(np.float64) @ dense
    if bias is not None:
        result = result + bias
    return {"none": _identity, "gelu": _gelu}[activation](result)


def linear_i8(
    x: Floats,
    weight: NDArray[np.int8],
    scale: Floats,
    bias: Floats,
    *,
    levels: int,
    activation: str = "none",
) -> NDArray[np.float64]:
    """f(x W + bias) with each row of x rounded to integers, float64 [..., N], of x [..., K].

    weight [K, N] int8; scale, bias [N]; levels: the largest integer of a row. The numbers in front
    of f are those of fp32 with one rounding per operation, so every bit of them is defined. A row
    of values below 1e-30 counts as zeros; one with a value that is not finite gives NaN.
    """
    rows = x.astype(np.float32)
    most = np.abs(rows).max(-1, keepdims=True)
    is_sound = (most >= np.float32(1e-30)) & np.isfinite(most)
    safe = np.where(is_sound, most, np.float32(1))
    rounded = np.where(is_sound, np.rint(rows * (np.float32(levels) / safe)), 0)
    step = np.where(is_sound, most / np.float32(levels), np.where(np.isfinite(most), 0, np.nan))
    # Sums of products below 2^53 are exact in float64.
    sums = (rounded.astype(np.float64) @ weight.astype(np.float64)).astype(np.float32)
    result = sums * (step.astype(np.float32) * scale.astype(np.float32)) + bias.astype(np.float32)
    return {"none": _identity, "gelu": _gelu}[activation](result.astype(np.float64))


def prefix_attention(
    query: Floats,
    key_value: Floats,
    prefix_key: Floats,
    prefix_value: Floats,
    visible: NDArray[np.int64],
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    layer: int,
    query_offset: int,
    key_offset: int,
    value_offset: int,
    scale: float,
    products: str = "fp32",
) -> NDArray[np.float64]:
    """Context, float64 [B, Q, heads * head_dim], of queries over a prefix and their own row.

    query [B, Q, ..] and key_value [B, T, ..] hold one head after another from the given columns on;
    prefix_key, prefix_value [L, kv_heads, P, head_dim], read at `layer`; visible [B, Q]: how many
    tokens of its row a query sees. Query head h reads head h * kv_heads // heads of the keys. Each
    query's weights are softmax(scale * products) over the prefix, then its row; a query that sees
    nothing gives zeros. Over a float16 prefix the row's own keys and values are those of `halves`.
    With `products` "bf16" what is multiplied (queries times scale and log2(e), keys, weights
    2^score, values) is that of `bfloats`, and weights are divided by the sum of the rounded. Their
    digits are those of 2^score, which is lowered by an integer so that it has a number.
    """
    if products not in ("fp32", "bf16"):
        raise KeyError(products)
    rounded_to = bfloats if products == "bf16" else _identity
    if prefix_key.dtype == np.float16:
        rounded = halves(key_value[..., min(key_offset, value_offset) :])
        key_value = np.concatenate(
            [key_value[..., : min(key_offset, value_offset)], rounded.astype(np.float32)], -1
        )
    batch, n_queries = visible.shape
    columns = kv_heads * head_dim

    def split(tensor: Floats, offset: int, width: int) -> NDArray[np.float64]:
        part = tensor[:, :, offset : offset + width].astype(np.float64)
        return part.reshape(*part.shape[:2], width // head_dim, head_dim)

    # In units of log2, as kernels have them.
    scaled = split(query, query_offset, heads * head_dim) * (scale * math.log2(math.e))
    queries = rounded_to(scaled)
    keys = split(key_value, key_offset, columns)
    values = split(key_value, value_offset, columns)
    context = np.zeros((batch, n_queries, heads, head_dim))
    for b, q, h in np.ndindex(batch, n_queries, heads):
        own = h * kv_heads // heads
        seen = int(visible[b, q])
        key = np.concatenate([prefix_key[layer, own].astype(np.float64), keys[b, :seen, own]])
        value = np.concatenate([prefix_value[layer, own].astype(np.float64), values[b, :seen, own]])
        if len(key) > 0:
            score = rounded_to(key) @ queries[b, q, h]
            weight = rounded_to(np.exp2(score - np.ceil(score.max())))
            context[b, q, h] = weight @ rounded_to(value) / weight.sum()
    return context.reshape(batch, n_queries, heads * head_dim)


def halves(x: Floats) -> NDArray[np.float16]:
    """Each number to the nearest of half precision, ties to even; NaN for what is too large."""
    with np.errstate(over="ignore"):
        rounded = x.astype(np.float16)
    return np.where(np.isinf(rounded), np.float16(np.nan), rounded)


def bfloats(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each number, as it is in fp32, to the nearest of bfloat16, ties to even."""
    bits = x.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    result: NDArray[np.float64] = rounded.view(np.float32).astype(np.float64)
    return np.where(np.isnan(x), np.nan, result)


def half_key_value(
    states: Floats, *, kv_heads: int, head_dim: int, key_offset: int, value_offset: int
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Key and value, float16 [B, 1, kv_heads, T, head_dim]: `halves` of what `states` hold.

    states [B, T, ..]: one head after another from the given columns on.
    """
    batch, tokens, _ = states.shape
    found = []
    for offset in (key_offset, value_offset):
        part = halves(states[:, :, offset : offset + kv_heads * head_dim])
        split = part.reshape(batch, tokens, kv_heads, head_dim)
        found.append(split.transpose(0, 2, 1, 3)[:, None])
    return found[0], found[1]


def keys_values(
    states: Sequence[NDArray[np.generic]],
    *,
    kv_heads: int,
    head_dim: int,
    key_offset: int,
    value_offset: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Key and value, float32 [B, L, kv_heads, T, head_dim], of each layer's states [B, T, ..]:
    one head after another from the given columns on.
    """
    batch, tokens, _ = states[0].shape
    found = []
    for offset in (key_offset, value_offset):
        layers = [one[:, :, offset : offset + kv_heads * head_dim] for one in states]
        split = np.stack(layers, 1).reshape(batch, len(states), tokens, kv_heads, head_dim)
        found.append(split.transpose(0, 1, 3, 2, 4).astype(np.float32))
    return found[0], found[1]


def add_norm(
    x: Floats,
    residual: Floats | None,
    weight: Floats,
    bias: Floats | None,
    *,
    epsilon: float,
    kind: str = "layer",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """norm(x + residual) and the sum x + residual, both float64 [..., N].

    x, residual [..., N], the latter 0 if None; weight, bias [N]. kind "layer": LayerNorm with the
    biased variance, times weight, plus bias. kind "rms": z / sqrt(mean(z^2) + epsilon) * weight,
    without bias. The sum is that of fp32. Errors: KeyError.
    """
    z = x.astype(np.float32)
    if residual is not None:
        z = z + residual.astype(np.float32)
    total = z.astype(np.float64)
    return _norm(total, weight, bias, epsilon, kind), total


def encoder_i8(
    input_ids: NDArray[np.int64],
    position_ids: NDArray[np.int64],
    segment_ids: NDArray[np.int64],
    visible: NDArray[np.int64],
    pooled_at: NDArray[np.int64],
    prefix_key: Floats,
    prefix_value: Floats,
    weights: Sequence[NDArray[Any]],
    *,
    layers: int,
    heads: int,
    head_dim: int,
    scale: float,
    epsilon: float,
    levels: int,
    products: str = "fp32",
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Key and value, float32 [B, L, heads, T, head_dim], and pooled, float32 [B, J, hidden]: what
    the last layer's norm takes of the tokens at `pooled_at`, of which a negative one is token 0.

    input_ids, position_ids, segment_ids, visible [B, T]; pooled_at [B, J]; prefix_key, prefix_value
    [L, heads, P, head_dim]; hidden = heads * head_dim. weights, in this order: tokens int8
    [.., hidden], their scale [.., 1], positions and segments [.., hidden], the norm of their sum;
    then of each layer query, key, value as one linear layer, attended, its norm, up, down, its
    norm. The last layer has its query in front, apart from key, value, and no norm at its end. A
    linear layer is weight, scale, bias of `linear_i8`; a norm weight, bias of `add_norm`.
    """
    left = iter(weights)

    def linear_layer(x: Floats, activation: str = "none") -> NDArray[np.float64]:
        taken = next(left), next(left), next(left)
        return linear_i8(x, *taken, levels=levels, activation=activation)

    def norm(x: Floats, residual: Floats) -> NDArray[np.float64]:
        return add_norm(x, residual, next(left), next(left), epsilon=epsilon)[0]

    tokens, token_scale, positions, segments = (next(left) for _ in range(4))
    embedded = tokens[input_ids].astype(np.float32) * token_scale[input_ids]
    hidden = norm(embedded + positions[position_ids], segments[segment_ids])
    width = heads * head_dim
    read = np.arange(len(pooled_at))[:, None], np.maximum(pooled_at, 0)
    kept = []
    for layer in range(layers):
        is_last = layer == layers - 1
        states, sees = (hidden[read], visible[read]) if is_last else (hidden, visible)
        query = linear_layer(states) if is_last else None
        projected = linear_layer(hidden)
        kept.append(projected[..., -2 * width :])
        context = prefix_attention(
            projected if query is None else query,
            kept[-1],
            prefix_key,
            prefix_value,
            sees,
            heads=heads,
            kv_heads=heads,
            head_dim=head_dim,
            layer=layer,
            query_offset=0,
            key_offset=0,
            value_offset=width,
            scale=scale,
            products=products,
        )
        states = norm(states, linear_layer(context))
        down = linear_layer(linear_layer(states, "gelu"))
        if not is_last:
            hidden = norm(states, down)
    key, value = keys_values(
        kept, kv_heads=heads, head_dim=head_dim, key_offset=0, value_offset=width
    )
    return key, value, states.astype(np.float32) + down.astype(np.float32)


def rope(
    x: Floats,
    positions: NDArray[np.int64],
    frequencies: Floats,
    weight: Floats | None,
    *,
    heads: int,
    head_dim: int,
    epsilon: float,
) -> NDArray[np.float64]:
    """x, float64 [..., N], with its first heads * head_dim columns turned by their row's position.

    positions [...]; frequencies [head_dim / 2]; weight [heads * head_dim] of an RMSNorm over each
    head before that, or None. Element i of a head's first half and element i of its second one are
    turned together by the angle position * frequencies[i], which is that of fp32.
    """
    width = heads * head_dim
    parts = x[..., :width].astype(np.float64).reshape(*x.shape[:-1], heads, head_dim)
    if weight is not None:
        parts = _norm(parts, weight.reshape(heads, head_dim), None, epsilon, "rms")
    angle = positions.astype(np.float32)[..., None] * frequencies.astype(np.float32)
    cosine, sine = (f(angle.astype(np.float64))[..., None, :] for f in (np.cos, np.sin))
    first, second = parts[..., : head_dim // 2], parts[..., head_dim // 2 :]
    turned = np.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    )
    rest = x[..., width:].astype(np.float64)
    return np.concatenate([turned.reshape(*x.shape[:-1], width), rest], axis=-1)


def swiglu(x: Floats) -> NDArray[np.float64]:
    """silu(gate) * up, float64 [..., N], of x [..., 2 * N], which holds gate, then up."""
    gate, up = np.split(x.astype(np.float64), 2, axis=-1)
    result: NDArray[np.float64] = gate * np.exp(-np.logaddexp(0, -gate)) * up
    return result


def _norm(
    z: NDArray[np.float64], weight: Floats, bias: Floats | None, epsilon: float, kind: str
) -> NDArray[np.float64]:
    mean = {"layer": z.mean(-1, keepdims=True), "rms": 0.0}[kind]
    square = ((z - mean) ** 2).mean(-1, keepdims=True)
    result: NDArray[np.float64] = (z - mean) / np.sqrt(square + epsilon) * weight
    return result if bias is None else result + bias


def _identity(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x


def _gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    erf = np.vectorize(math.erf, otypes=[np.float64])
    result: NDArray[np.float64] = x * (0.5 + 0.5 * erf(x / math.sqrt(2)))
    return result
