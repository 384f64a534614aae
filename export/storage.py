"""How weights are stored in an artifact: int8 with one fp32 scale per channel, or plain fp32.

Storage, not arithmetic: the engine unfolds the weights to fp32 at load and computes in fp32. The
values an artifact computes with are `rounded(model)`'s, so parity with PyTorch is exact up to
arithmetic, and the cost of rounding is measured apart (csrm.export.parity).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from csrm.train.decoder import Decoder
from csrm.train.model import Encoder

# Fractions of the largest weight tried as the clipping point of a channel; the one with the least
# squared error is taken.
CLIP_FRACTIONS = (1.0, 0.97, 0.94, 0.9, 0.85, 0.8)


@dataclass(frozen=True)
class Int8Weight:
    """`values * scale` is the weight; one scale per row."""

    values: NDArray[np.int8]  # [rows, columns]
    scale: NDArray[np.float32]  # [rows]

    def dense(self) -> NDArray[np.float32]:
        """The fp32 weight [rows, columns]."""
        return self.values.astype(np.float32) * self.scale[:, None]


def quantise(weight: NDArray[np.float32] | Int8Weight) -> Int8Weight:
    """Symmetric int8 rounding of `weight` [rows, columns], the best clipping point per row.

    What is rounded already is returned as it is.
    """
    if isinstance(weight, Int8Weight):
        return weight
    largest = np.abs(weight).max(axis=1)
    best_error = np.full(len(weight), np.inf, dtype=np.float32)
    best_scale = np.ones(len(weight), dtype=np.float32)
    for fraction in CLIP_FRACTIONS:
        scale = np.where(largest > 0, largest * fraction / 127, 1.0).astype(np.float32)
        rounded_weight = np.clip(np.rint(weight / scale[:, None]), -127, 127) * scale[:, None]
        error = np.square(rounded_weight - weight).sum(axis=1)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best_scale = np.where(better, scale, best_scale)
    values = np.clip(np.rint(weight / best_scale[:, None]), -127, 127).astype(np.int8)
    return Int8Weight(values, best_scale.astype(np.float32))


Model = TypeVar("Model", Encoder, Decoder)


def is_stored_as_int8(name: str) -> bool:
    """Whether the parameter `name` of a model is a large matrix, stored as int8."""
    attention = ("query.weight", "key.weight", "value.weight", "attended.weight")
    mlp = ("gate.weight", "up.weight", "down.weight")
    return name.endswith(attention + mlp) or name == "tokens.weight"


def rounded(model: Model) -> Model:
    """A copy of `model` with the weights an int8-stored artifact computes with."""
    result = copy.deepcopy(model).eval()
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            if is_stored_as_int8(name):
                dense = quantise(parameter.detach().float().cpu().numpy()).dense()
                parameter.copy_(torch.from_numpy(dense))
    return result
