"""What the PyTorch baselines' two models share: inputs on a device, caches of keys and values.

What it is: plain inference as a careful user of PyTorch would write it: stacked projections, fused
attention and norms of torch.nn.functional, all sizes static, no masks where none is needed. The
last layer computes the judged token alone, as csrm does. Not: csrm's training models, which take
padded batches and gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from csrm.bench.baselines.interface import CachedRows, Rows
from csrm.errors import Unsupported

# Of a layer: keys and values [B, heads, P + T, D]. The first P are the prefix's; a run writes the
# rest.
Cache = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Inputs:
    """Rows of equal length on a device."""

    ids: Tensor  # [B, T]
    positions: Tensor  # [B, T]
    segments: Tensor  # [B, T]
    pooled_at: Tensor  # [B]
    sees: Tensor | None  # bool [B, 1, T, T]; None = what the model's kind sees anyway


class TorchModel(Protocol):
    """A model on a device. Not thread-safe."""

    notes: dict[str, str]  # what a report should say of it

    def inputs(self, rows: Rows) -> Inputs:
        """`rows` on the device. Errors: Unsupported, rows that this kind of model cannot read."""
        ...

    def reward(self, inputs: Inputs, cache: Cache | None) -> Tensor:
        """Rewards [B] in fp32, log-odds; over the cache's prefix if there is one."""
        ...

    def keys_values(self, inputs: Inputs) -> Cache:
        """Keys and values [B, heads, T, D] of every layer, without a prefix."""
        ...

    def compile(self, compiled: Callable[[Any], Any]) -> None:
        """Passes each function that a run is made of through `compiled`."""
        ...


def on_device(rows: Rows, device: str, *, is_causal: bool) -> Inputs:
    """The Inputs of `rows`. is_causal: the model's kind sees no later token by itself.

    Errors: Unsupported, rows with padding, several judged tokens, or (causal) another attention.
    """
    visible, length = rows["visible"], rows["input_ids"].shape[1]
    usual = 1 + np.arange(length) if is_causal else np.full(length, length)
    is_usual = bool((visible == usual).all())
    if rows["pooled_at"].shape[1] != 1 or (visible < 1).any() or (is_causal and not is_usual):
        raise Unsupported("this baseline reads rows without padding and with one judged token")
    sees = None
    if not is_usual:
        sees = torch.from_numpy(np.arange(length) < visible[:, None, :, None]).to(device)

    def moved(name: str) -> Tensor:
        return torch.from_numpy(rows[name]).to(device)

    return Inputs(
        moved("input_ids"),
        moved("position_ids"),
        moved("segment_ids"),
        moved("pooled_at")[:, 0],
        sees,
    )


def filled_cache(model: TorchModel, rows: CachedRows) -> Cache:
    """A cache for the turns of `rows` that holds the keys and values of its blocks.

    Every row of the batch has its own, as static caches do: nothing is copied in a run.
    """
    parts = [model.keys_values(model.inputs(block)) for block in rows.blocks]
    batch, length = rows.turns["input_ids"].shape
    cache: Cache = []
    for layer in range(len(parts[0])):
        joined = []
        for side in (0, 1):
            prefix = torch.cat([part[layer][side] for part in parts], dim=2)
            _, heads, n_prefix, width = prefix.shape
            whole = prefix.new_zeros(batch, heads, n_prefix + length, width)
            whole[:, :, :n_prefix] = prefix
            joined.append(whole)
        cache.append((joined[0], joined[1]))
    return cache


def log_odds(logits: Tensor, n_safe: int) -> Tensor:
    """Rewards [B] of verbalizer logits [B, safe + unsafe]."""
    return logits[:, :n_safe].logsumexp(-1) - logits[:, n_safe:].logsumexp(-1)


def written(new: Tensor, cache: Tensor | None) -> Tensor:
    """Keys or values [B, heads, T, D] in the last places of their cache, which is returned."""
    if cache is None:
        return new
    cache[:, :, cache.shape[2] - new.shape[2] :] = new
    return cache


def split_heads(states: Tensor, width: int) -> Tensor:
    """[B, T, heads * D] -> [B, heads, T, D]."""
    return states.view(*states.shape[:-1], -1, width).transpose(1, 2)


def joined_heads(context: Tensor) -> Tensor:
    """[B, heads, T, D] -> [B, T, heads * D]."""
    return context.transpose(1, 2).flatten(2)


def rows_at(states: Tensor, at: Tensor) -> Tensor:
    """Of states [B, T, H] the ones at [B]: [B, 1, H]."""
    return states.gather(1, at[:, None, None].expand(-1, 1, states.shape[-1]))


def attention(query: Tensor, key: Tensor, value: Tensor, sees: Tensor | None) -> Tensor:
    """Full attention, [B, heads, Q, D]; `sees`: where a query may look, None = everywhere."""
    is_grouped = query.shape[1] != key.shape[1]
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=sees, enable_gqa=is_grouped
    )
