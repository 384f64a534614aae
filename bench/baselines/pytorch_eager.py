"""The same weights in PyTorch eager mode on the CPU, fp32; and the artifact's encoder as csrm's.

See pytorch_engine.py for what is timed. `encoder_of` is csrm.train.model's Encoder of the artifact,
which the baselines that need another library's folder are made from (bert_folder.py). Weights come
out of the artifact's model.onnx (the names are csrm.export.graph's), so rewards agree with the ONNX
baselines up to rounding.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from csrm.bench.baselines.onnx_weights import fp32_weights
from csrm.bench.baselines.pytorch_engine import PytorchEngine
from csrm.errors import BadArtifact
from csrm.train.model import Encoder, ModelShape

Weights = dict[str, NDArray[np.float32]]


class PytorchEager(PytorchEngine):
    """See the module. `artifact` is the folder."""


def encoder_of(artifact: Path) -> Encoder:
    """The artifact's model as an Encoder in eval mode. Errors: BadArtifact."""
    try:
        manifest = json.loads((artifact / "manifest.json").read_text())
        model = onnx.load(artifact / manifest["variants"]["portable"])
        weights = fp32_weights(model)
        encoder = Encoder(shape_of(manifest["model"], weights, norm_epsilon(model)))
        state = state_of(weights, encoder.shape.layers)
        encoder.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BadArtifact(
            f"the artifact is not an encoder that PyTorch can run: {type(error).__name__}"
        ) from error
    return encoder.eval()


def shape_of(
    description: dict[str, int | dict[str, int]], weights: Weights, epsilon: float
) -> ModelShape:
    """The sizes in the weights, completed by the manifest's "model" object."""
    heads, layers, verbalizers = (
        description["kv_heads"],
        description["layers"],
        description["verbalizers"],
    )
    if not (isinstance(heads, int) and isinstance(layers, int) and isinstance(verbalizers, dict)):
        raise ValueError("ill-typed model description")
    return ModelShape(
        vocab_size=len(weights["tokens.weight"]),
        hidden=weights["tokens.weight"].shape[1],
        layers=layers,
        heads=heads,
        intermediate=len(weights["layers.0.up.bias"]),
        max_block_tokens=len(weights["positions.weight"]),
        n_turn_indices=len(weights["segments.weight"]) - 1,
        n_safe=verbalizers["safe"],
        n_unsafe=verbalizers["unsafe"],
        norm_epsilon=epsilon,
    )


def norm_epsilon(model: onnx.ModelProto) -> float:
    """The epsilon of the graph's first LayerNormalization."""
    for node in model.graph.node:
        if node.op_type == "LayerNormalization":
            return float(next(a.f for a in node.attribute if a.name == "epsilon"))
    raise ValueError("the graph has no LayerNormalization")


def state_of(weights: Weights, layers: int) -> Weights:
    """The Encoder's state: stacked projections split, matrices back to [out, in]."""
    state = {n: a for n, a in weights.items() if n.endswith("_norm.weight") or "norm.bias" in n}
    for name in ("tokens", "positions", "segments"):
        state[f"{name}.weight"] = weights[f"{name}.weight"]
    state["verbalizers.weight"] = weights["verbalizers.rows"].T
    state["verbalizers.bias"] = weights["verbalizers.bias"]
    for layer in range(layers):
        stem = f"layers.{layer}"
        is_last = layer == layers - 1
        stacks = ["query", "key_value"] if is_last else ["query_key_value"]
        for stack in [*stacks, "attended", "up", "down"]:
            parts = stack.split("_")
            matrices = np.split(weights[f"{stem}.{stack}.weight"].T, len(parts))
            biases = np.split(weights[f"{stem}.{stack}.bias"], len(parts))
            for part, matrix, bias in zip(parts, matrices, biases, strict=True):
                state[f"{stem}.{part}.weight"] = matrix
                state[f"{stem}.{part}.bias"] = bias
    return state
