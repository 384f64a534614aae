"""The same weights in PyTorch eager mode, fp32: csrm.train.model without its prefix.

Weights come out of the artifact's model.onnx (the names are csrm.export.graph's), so rewards agree
with the ONNX baselines up to rounding. Uses torch's process-wide thread count.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from csrm.bench.baselines.interface import Rewards, Rows
from csrm.bench.baselines.onnx_weights import fp32_weights
from csrm.errors import BadArtifact
from csrm.train.model import Encoded, Encoder, ModelShape
from csrm.train.model import Rows as EncoderRows

Weights = dict[str, NDArray[np.float32]]


class PytorchEager:
    """See the module. `artifact` is the folder."""

    def __init__(self, artifact: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model: Callable[[EncoderRows], Encoded] = encoder_of(artifact)
        self._rows: EncoderRows | None = None

    def prepare(self, rows: Rows) -> Rows:
        """See `Baseline.prepare`."""
        self._rows = EncoderRows(**{name: torch.from_numpy(array) for name, array in rows.items()})
        return rows

    def run(self) -> Rewards:
        """See `Baseline.run`."""
        if self._rows is None:
            raise RuntimeError("run() before prepare()")
        with torch.inference_mode():
            reward = self._model(self._rows).reward
        return np.asarray(reward[:, 0].numpy(), np.float64)

    def close(self) -> None:
        """See `Baseline.close`."""


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
