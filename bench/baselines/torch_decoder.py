"""The artifact's decoder for PyTorch inference: a Llama whose keys may begin with a prefix.

See torch_layers.py for what is meant by inference, pytorch_engine.py for who runs it. A layer gets
its predecessor's states and what is to be added to them, so that a compiler can join the sum with
the norm. Attention is PyTorch's fused causal one; over a cache it is the flash kernel, whose causal
mask ends at the lower right, where that gives what a written mask gives, and else the latter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from csrm.bench.baselines.artifact_weights import ArtifactWeights
from csrm.bench.baselines.interface import Rows
from csrm.bench.baselines.torch_layers import (
    Cache,
    Inputs,
    attention,
    joined_heads,
    log_odds,
    on_device,
    split_heads,
    written,
)

_FLASH_ERROR = 0.05  # of numbers of about 1 in bf16; another mask makes it 1

Rotation = tuple[Tensor, Tensor]  # cosine and sine [B, 1, T, D / 2]


class Linear(NamedTuple):
    """Weight [out, in] and, where there is one, bias [out]."""

    weight: Tensor
    bias: Tensor | None


class Layer(NamedTuple):
    """One pre-norm layer; norms of queries and keys where the model has them."""

    attention_norm: Tensor
    query_key_value: Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
    attended: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


class Numbers(NamedTuple):
    """What a layer must know besides its weights."""

    heads: int
    kv_heads: int
    width: int  # of a head
    epsilon: float


class TorchDecoder:
    """A TorchModel. Errors: BadArtifact."""

    def __init__(self, weights: ArtifactWeights) -> None:
        self._device = weights.device
        self._n_safe = weights.n_safe
        model = weights.model
        n_layers, width = int(model["layers"]), int(model["head_dim"])
        heads = weights.shape(f"layers.{n_layers - 1}.query.weight")[1] // width
        self._numbers = Numbers(heads, int(model["kv_heads"]), width, weights.norm_epsilon())
        self._table = weights.table("tokens")
        self._frequencies = weights.exact("frequencies")
        self._layers = [_layer(weights, i) for i in range(n_layers)]
        self._norm = weights.plain("output_norm.weight")
        self._rows = weights.exact("verbalizers.rows")
        self._has_flash = has_flash(weights.device, weights.dtype, width)
        self._masks: dict[tuple[int, int], Tensor] = {}
        self.notes = {"attention over a cache": "flash" if self._has_flash else "masked"}
        self._embed: Callable[..., tuple[Tensor, Tensor, Tensor]] = embed
        self._step: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]] = step
        self._last_step: Callable[..., Tensor] = last_step

    def inputs(self, rows: Rows) -> Inputs:
        """See TorchModel."""
        return on_device(rows, self._device, is_causal=True)

    def reward(self, inputs: Inputs, cache: Cache | None) -> Tensor:
        """See TorchModel."""
        hidden, *rotation = self._embed(
            inputs.ids, inputs.positions, self._table, self._frequencies
        )
        places: list[tuple[Tensor | None, Tensor | None]] = [(None, None)] * len(self._layers)
        sees = None
        if cache is not None:
            places = list(cache)
            sees = self._mask(inputs.ids.shape[1], cache[0][0].shape[2])
        added = None
        for layer, place in zip(self._layers[:-1], places[:-1], strict=True):
            hidden, added, _, _ = self._step(
                hidden, added, layer, tuple(rotation), *place, sees, self._numbers
            )
        return self._last_step(
            hidden,
            added,
            self._layers[-1],
            tuple(rotation),
            *places[-1],
            (self._norm, self._rows, self._n_safe),
            self._numbers,
        )

    def keys_values(self, inputs: Inputs) -> Cache:
        """See TorchModel."""
        hidden, cosine, sine = embed(inputs.ids, inputs.positions, self._table, self._frequencies)
        found: Cache = []
        added = None
        for layer in self._layers:
            hidden, added, key, value = step(
                hidden, added, layer, (cosine, sine), None, None, None, self._numbers
            )
            found.append((key, value))
        return found

    def compile(self, compiled: Callable[[Any], Any]) -> None:
        """See TorchModel."""
        self._embed, self._step = compiled(embed), compiled(step)
        self._last_step = compiled(last_step)

    def _mask(self, n_queries: int, n_keys: int) -> Tensor | None:
        """What `step` takes; written once for each size, so that no run has to."""
        if self._has_flash:
            return None
        size = (n_queries, n_keys)
        if size not in self._masks:
            self._masks[size] = lower_right(*size).to(self._device)
        return self._masks[size]


def embed(
    ids: Tensor, positions: Tensor, table: Tensor, frequencies: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """States [B, T, H], and cosine and sine of their positions in the states' precision."""
    angles = (positions.float()[:, :, None] * frequencies)[:, None]
    hidden = functional.embedding(ids, table)
    return hidden, angles.cos().to(hidden.dtype), angles.sin().to(hidden.dtype)


def step(
    hidden: Tensor,
    added: Tensor | None,
    layer: Layer,
    rotation: Rotation,
    key_cache: Tensor | None,
    value_cache: Tensor | None,
    sees: Tensor | None,
    numbers: Numbers,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States [B, T, H], what is to be added to them, and the keys and values that were seen.

    sees: over a cache, `lower_right`, or None for the flash kernel.
    """
    if added is not None:
        hidden = hidden + added
    normed = _normed(hidden, layer.attention_norm, numbers.epsilon)
    heads, kv_heads, width, _ = numbers
    stacked = functional.linear(normed, *layer.query_key_value)
    parts = torch.split(stacked, [heads * width, kv_heads * width, kv_heads * width], -1)
    query, key, value = (split_heads(part, width) for part in parts)
    query = rotated(query, layer.query_norm, rotation, numbers.epsilon)
    key = written(rotated(key, layer.key_norm, rotation, numbers.epsilon), key_cache)
    value = written(value, value_cache)
    hidden, added = _rest(hidden, layer, causal_attention(query, key, value, sees), numbers.epsilon)
    return hidden, added, key, value


def last_step(
    hidden: Tensor,
    added: Tensor | None,
    layer: Layer,
    rotation: Rotation,
    key_cache: Tensor | None,
    value_cache: Tensor | None,
    head: tuple[Tensor, Tensor, int],
    numbers: Numbers,
) -> Tensor:
    """Rewards [B]: the last layer at the last token, which sees all, and the head."""
    if added is not None:
        hidden = hidden + added
    normed = _normed(hidden, layer.attention_norm, numbers.epsilon)
    heads, _, width, epsilon = numbers
    size = heads * width
    weight, bias = layer.query_key_value
    biases = (None, None) if bias is None else (bias[:size], bias[size:])
    query = split_heads(functional.linear(normed[:, -1:], weight[:size], biases[0]), width)
    stacked = functional.linear(normed, weight[size:], biases[1])
    key, value = (split_heads(part, width) for part in stacked.chunk(2, -1))
    last = (rotation[0][:, :, -1:], rotation[1][:, :, -1:])
    query = rotated(query, layer.query_norm, last, epsilon)
    key = written(rotated(key, layer.key_norm, rotation, epsilon), key_cache)
    value = written(value, value_cache)
    context = attention(query, key, value, None)
    hidden, added = _rest(hidden[:, -1:], layer, context, epsilon)
    norm, rows, n_safe = head
    state = _normed((hidden + added)[:, 0].float(), norm.float(), epsilon)
    return log_odds(state @ rows, n_safe)


def causal_attention(query: Tensor, key: Tensor, value: Tensor, sees: Tensor | None) -> Tensor:
    """Attention of the last tokens of a sequence, [B, heads, T, D], each to those before it."""
    if query.shape[2] == key.shape[2]:
        return functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=query.shape[1] != key.shape[1]
        )
    if sees is not None:
        return attention(query, key, value, sees)
    context: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(
        query, key, value, 0.0, True
    )[0]
    return context


def lower_right(n_queries: int, n_keys: int) -> Tensor:
    """bool [Q, K]: where the last Q of K tokens may look."""
    return torch.ones(n_queries, n_keys, dtype=torch.bool).tril(n_keys - n_queries)


def has_flash(device: str, dtype: torch.dtype, width: int) -> bool:
    """Whether the flash kernel of this GPU gives what the written mask gives."""
    if device != "cuda":
        return False
    sizes = ((1, 4, 16, width), (1, 2, 48, width), (1, 2, 48, width))
    query, key, value = (torch.randn(size, device=device, dtype=dtype) for size in sizes)
    try:
        context = causal_attention(query, key, value, None)
    except RuntimeError:
        return False
    expected = attention(query, key, value, lower_right(16, 48).to(device))
    return bool((context - expected).abs().max() < _FLASH_ERROR)


def rotated(heads: Tensor, norm: Tensor | None, rotation: Rotation, epsilon: float) -> Tensor:
    """RoPE on heads [B, heads, T, D], normed first where the model does."""
    if norm is not None:
        heads = _normed(heads, norm, epsilon)
    first, second = heads.chunk(2, -1)
    cosine, sine = rotation
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


def _rest(hidden: Tensor, layer: Layer, context: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """States after attention, and what the MLP adds to them."""
    hidden = hidden + functional.linear(joined_heads(context), *layer.attended)
    normed = _normed(hidden, layer.mlp_norm, epsilon)
    gate, up = functional.linear(normed, *layer.gate_up).chunk(2, -1)
    return hidden, functional.linear(functional.silu(gate) * up, *layer.down)


def _normed(states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return functional.rms_norm(states, weight.shape, weight, epsilon)


def _layer(weights: ArtifactWeights, index: int) -> Layer:
    name = f"layers.{index}"

    def linear(part: str) -> Linear:
        return Linear(weights.matrix(f"{name}.{part}"), weights.bias(f"{name}.{part}"))

    def norm(part: str) -> Tensor | None:
        stored = f"{name}.{part}.weight"
        return weights.plain(stored) if stored in weights else None

    if f"{name}.query.weight" in weights:  # the last one is stored in two parts
        first, second = linear("query"), linear("key_value")
        bias = None
        if first.bias is not None and second.bias is not None:
            bias = torch.cat([first.bias, second.bias])
        stacked = Linear(torch.cat([first.weight, second.weight]), bias)
    else:
        stacked = linear("query_key_value")
    return Layer(
        attention_norm=weights.plain(f"{name}.attention_norm.weight"),
        query_key_value=stacked,
        query_norm=norm("query_norm"),
        key_norm=norm("key_norm"),
        attended=linear("attended"),
        mlp_norm=weights.plain(f"{name}.mlp_norm.weight"),
        gate_up=linear("gate_up"),
        down=linear("down"),
    )
