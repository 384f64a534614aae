"""Low-rank adaptation of a decoder: small trained matrices beside frozen ones, merged when saved.

What it is: `base(x) + alpha / rank * up(down(x))` on every projection of attention and of the MLP.
The rest of the model is frozen but for the verbalizer rows, which are the score itself. Not: a
format of its own; a checkpoint always holds merged weights, so that nothing behind training knows
of adapters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from csrm.train.decoder import Decoder, decoder_of

PROJECTIONS = ("query", "key", "value", "attended", "gate", "up", "down")


class LoraLinear(nn.Module):
    """A frozen linear layer and its low-rank correction, which is zero at the start."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        self.lora_down = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        correction = nn.functional.linear(nn.functional.linear(x, self.lora_down), self.lora_up)
        output: Tensor = self.base(x) + self.scale * correction
        return output


def add_lora(model: Decoder, rank: int, alpha: float) -> None:
    """Puts adapters on every projection of `model`, in place, and freezes everything else but the
    verbalizer rows."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("verbalizers."))
    for layer in model.layers:
        for projection in PROJECTIONS:
            setattr(layer, projection, LoraLinear(getattr(layer, projection), rank, alpha))


@torch.no_grad()
def merged(model: Decoder, weights: Mapping[str, Tensor]) -> Decoder:
    """A plain Decoder that computes what `model` does with `weights`, its whole state_dict."""
    state: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if not name.rpartition(".")[2].startswith("lora_"):
            state[name.replace(".base.", ".")] = tensor
    for name, adapter in model.named_modules():
        if isinstance(adapter, LoraLinear):
            correction = weights[f"{name}.lora_up"] @ weights[f"{name}.lora_down"]
            state[f"{name}.weight"] = weights[f"{name}.base.weight"] + adapter.scale * correction
    return decoder_of(model.shape, state)


def trained_state(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of `weights` those that training changes: with the backbone they are the model."""
    return {name: weights[name] for name, p in model.named_parameters() if p.requires_grad}
