"""The artifact's encoder for PyTorch inference: a BERT whose keys may begin with a prefix.

See torch_layers.py for what is meant by inference, pytorch_engine.py for who runs it.
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
    rows_at,
    split_heads,
    written,
)


class Affine(NamedTuple):
    """Weight [out, in] and bias [out] of a linear layer, or both [width] of a norm."""

    weight: Tensor
    bias: Tensor


class Layer(NamedTuple):
    """One post-norm layer."""

    query_key_value: Affine
    attended: Affine
    attention_norm: Affine
    up: Affine
    down: Affine
    output_norm: Affine


class TorchEncoder:
    """A TorchModel. Errors: BadArtifact."""

    def __init__(self, weights: ArtifactWeights) -> None:
        self._device = weights.device
        self._n_safe = weights.n_safe
        self._epsilon = weights.norm_epsilon()
        self._width = int(weights.model["head_dim"])
        self._tables = (
            weights.table("tokens"),
            weights.plain("positions.weight"),
            weights.plain("segments.weight"),
        )
        self._embedding_norm = _norm(weights, "embedding_norm")
        self._layers = [_layer(weights, i) for i in range(int(weights.model["layers"]))]
        self._rows = weights.exact("verbalizers.rows")
        self._bias = weights.exact("verbalizers.bias")
        self.notes: dict[str, str] = {}
        self._embed: Callable[..., Tensor] = embed
        self._step: Callable[..., tuple[Tensor, Tensor, Tensor]] = step
        self._last_step: Callable[..., Tensor] = last_step

    def inputs(self, rows: Rows) -> Inputs:
        """See TorchModel."""
        return on_device(rows, self._device, is_causal=False)

    def reward(self, inputs: Inputs, cache: Cache | None) -> Tensor:
        """See TorchModel."""
        hidden = self._embedded(inputs)
        places: list[tuple[Tensor | None, Tensor | None]] = [(None, None)] * len(self._layers)
        if cache is not None:
            places = list(cache)
        for layer, place in zip(self._layers[:-1], places[:-1], strict=True):
            hidden, _, _ = self._step(
                hidden, layer, inputs.sees, *place, self._width, self._epsilon
            )
        return self._last_step(
            hidden,
            self._layers[-1],
            inputs.pooled_at,
            inputs.sees,
            *places[-1],
            (self._rows, self._bias, self._n_safe),
            self._width,
            self._epsilon,
        )

    def keys_values(self, inputs: Inputs) -> Cache:
        """See TorchModel."""
        hidden = self._embedded(inputs)
        found: Cache = []
        for layer in self._layers:
            hidden, key, value = step(
                hidden, layer, inputs.sees, None, None, self._width, self._epsilon
            )
            found.append((key, value))
        return found

    def compile(self, compiled: Callable[[Any], Any]) -> None:
        """See TorchModel."""
        self._embed, self._step = compiled(embed), compiled(step)
        self._last_step = compiled(last_step)

    def _embedded(self, inputs: Inputs) -> Tensor:
        places = (inputs.ids, inputs.positions, inputs.segments)
        return self._embed(places, self._tables, self._embedding_norm, self._epsilon)


def embed(
    places: tuple[Tensor, Tensor, Tensor],
    tables: tuple[Tensor, Tensor, Tensor],
    norm: Affine,
    epsilon: float,
) -> Tensor:
    """Normalised sums of the rows of three tables: [B, T, H]."""
    total = sum(functional.embedding(at, table) for at, table in zip(places, tables, strict=True))
    assert isinstance(total, Tensor)
    return _normed(total, norm, epsilon)


def step(
    hidden: Tensor,
    layer: Layer,
    sees: Tensor | None,
    key_cache: Tensor | None,
    value_cache: Tensor | None,
    width: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """New states [B, T, H], and the keys and values that they have seen."""
    stacked = functional.linear(hidden, *layer.query_key_value)
    query, key, value = (split_heads(part, width) for part in stacked.chunk(3, -1))
    key, value = written(key, key_cache), written(value, value_cache)
    return _rest(hidden, layer, attention(query, key, value, sees), epsilon), key, value


def last_step(
    hidden: Tensor,
    layer: Layer,
    pooled_at: Tensor,
    sees: Tensor | None,
    key_cache: Tensor | None,
    value_cache: Tensor | None,
    head: tuple[Tensor, Tensor, int],
    width: int,
    epsilon: float,
) -> Tensor:
    """Rewards [B]: the last layer at the judged tokens, and the head."""
    taken = rows_at(hidden, pooled_at)
    size = hidden.shape[-1]
    weight, bias = layer.query_key_value
    query = split_heads(functional.linear(taken, weight[:size], bias[:size]), width)
    stacked = functional.linear(hidden, weight[size:], bias[size:])
    key, value = (split_heads(part, width) for part in stacked.chunk(2, -1))
    key, value = written(key, key_cache), written(value, value_cache)
    if sees is not None:
        at = pooled_at[:, None, None, None].expand(-1, 1, 1, sees.shape[-1])
        sees = sees.gather(2, at)
    state = _rest(taken, layer, attention(query, key, value, sees), epsilon)[:, 0].float()
    rows, offset, n_safe = head
    return log_odds(torch.addmm(offset, state, rows), n_safe)


def _rest(hidden: Tensor, layer: Layer, context: Tensor, epsilon: float) -> Tensor:
    """The layer after attention."""
    attended = functional.linear(joined_heads(context), *layer.attended)
    hidden = _normed(hidden + attended, layer.attention_norm, epsilon)
    down = functional.linear(functional.gelu(functional.linear(hidden, *layer.up)), *layer.down)
    return _normed(hidden + down, layer.output_norm, epsilon)


def _normed(states: Tensor, norm: Affine, epsilon: float) -> Tensor:
    return functional.layer_norm(states, states.shape[-1:], norm.weight, norm.bias, epsilon)


def _layer(weights: ArtifactWeights, index: int) -> Layer:
    name = f"layers.{index}"
    if f"{name}.query.weight" in weights:  # the last one is stored in two parts
        parts = [_linear(weights, f"{name}.{part}") for part in ("query", "key_value")]
        stacked = Affine(
            torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
        )
    else:
        stacked = _linear(weights, f"{name}.query_key_value")
    linear = {part: _linear(weights, f"{name}.{part}") for part in ("attended", "up", "down")}
    norms = {part: _norm(weights, f"{name}.{part}") for part in ("attention_norm", "output_norm")}
    return Layer(query_key_value=stacked, **linear, **norms)


def _linear(weights: ArtifactWeights, name: str) -> Affine:
    return Affine(weights.matrix(name), weights.plain(f"{name}.bias"))


def _norm(weights: ArtifactWeights, name: str) -> Affine:
    return Affine(weights.plain(f"{name}.weight"), weights.plain(f"{name}.bias"))
