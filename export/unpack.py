"""Artifact folder -> the PyTorch model in it, so that a shipped model can be trained further.

What it is: csrm.export.graph read backwards. The weights are those the artifact computes with: its
int8 storage has rounded them already (csrm.export.storage), which training soon forgets. Not: the
calibration, which a new run fits anew, nor decoders (csrm.export.unpack_decoder).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from csrm.errors import BadArtifact
from csrm.export.artifact import PORTABLE
from csrm.train.model import Encoder, ModelShape

Array = NDArray[np.float32]
Stored = dict[str, NDArray[np.generic]]
MATRICES = ("attended", "up", "down")


def encoder_of(artifact: str | Path) -> Encoder:
    """The Encoder whose weights lie in the folder `artifact`, in eval mode.

    Errors: BadArtifact when a file cannot be read, a tensor is missing or has another shape, or
    the model is no encoder. Thread-safe.
    """
    return encoder_from(*stored_model(Path(artifact)))


def encoder_from(described: dict[str, Any], stored: Stored) -> Encoder:
    """The Encoder of a `stored_model`. Errors: BadArtifact, as `encoder_of`."""
    if described["backbone"] != "encoder":
        raise BadArtifact("the artifact's backbone is no encoder; only encoders are unpacked")
    try:
        encoder = Encoder(shape_of(described, stored))
        weights = {name: torch.from_numpy(w) for name, w in unpacked(stored, described["layers"])}
        encoder.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BadArtifact(
            f"{PORTABLE} does not hold the model of its manifest: {type(error).__name__}"
        ) from error
    return encoder.eval()


def stored_model(folder: Path) -> tuple[dict[str, Any], Stored]:
    """The manifest's "model" object and the tensors of the portable graph, by name; "norm_epsilon"
    is what its norms add under the root.

    Errors: BadArtifact when a file cannot be read.
    """
    try:
        described = json.loads((folder / "manifest.json").read_bytes())["model"]
        str(described["backbone"])
        model = onnx.load(folder / PORTABLE)
        stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        for node in model.graph.node:  # a decoder's graph holds it as a tensor
            if node.op_type == "LayerNormalization":
                epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
                stored.setdefault("norm_epsilon", np.array(epsilon, np.float32))
        return described, stored
    except Exception as error:  # protobuf's DecodeError has no public base
        raise BadArtifact(f"artifact folder cannot be read: {type(error).__name__}") from error


def shape_of(described: dict[str, object], stored: Stored) -> ModelShape:
    """The sizes of the encoder, from the manifest and the tensors."""
    verbalizers = described["verbalizers"]
    if not isinstance(verbalizers, dict):
        raise TypeError("verbalizers")
    return ModelShape(
        vocab_size=stored["tokens.weight"].shape[0],
        hidden=stored["tokens.weight"].shape[1],
        layers=int(str(described["layers"])),
        heads=int(str(described["kv_heads"])),
        intermediate=stored["layers.0.up.bias"].shape[0],
        max_block_tokens=stored["positions.weight"].shape[0],
        n_turn_indices=stored["segments.weight"].shape[0] - 1,
        n_safe=int(verbalizers["safe"]),
        n_unsafe=int(verbalizers["unsafe"]),
        norm_epsilon=float(plain(stored, "norm_epsilon").item()),
    )


def unpacked(stored: Stored, n_layers: int) -> list[tuple[str, Array]]:
    """(parameter name, value) of every parameter of the Encoder."""
    found = [("tokens.weight", dense(stored, "tokens"))]
    for index in range(n_layers):
        layer = f"layers.{index}"
        found += projections(stored, layer)
        for part in MATRICES:
            found.append((f"{layer}.{part}.weight", dense(stored, f"{layer}.{part}").T.copy()))
            found.append((f"{layer}.{part}.bias", plain(stored, f"{layer}.{part}.bias")))
    norms = [
        f"layers.{i}.{part}" for i in range(n_layers) for part in ("attention_norm", "output_norm")
    ]
    for norm in ("embedding_norm", *norms):
        found += [
            (f"{norm}.{kind}", plain(stored, f"{norm}.{kind}")) for kind in ("weight", "bias")
        ]
    for name in ("positions.weight", "segments.weight", "verbalizers.bias"):
        found.append((name, plain(stored, name)))
    found.append(("verbalizers.weight", plain(stored, "verbalizers.rows").T.copy()))
    return found


def projections(stored: Stored, layer: str) -> list[tuple[str, Array]]:
    """Query, key and value of a layer, which the graph stacks (csrm.export.graph)."""
    stacks: list[tuple[str, tuple[str, ...]]] = [("query_key_value", ("query", "key", "value"))]
    if f"{layer}.query_key_value.bias" not in stored:
        stacks = [("query", ("query",)), ("key_value", ("key", "value"))]
    found: list[tuple[str, Array]] = []
    for stack, parts in stacks:
        weight = np.split(dense(stored, f"{layer}.{stack}"), len(parts), axis=1)
        bias = np.split(plain(stored, f"{layer}.{stack}.bias"), len(parts))
        for part, w, b in zip(parts, weight, bias, strict=True):
            found += [(f"{layer}.{part}.weight", w.T.copy()), (f"{layer}.{part}.bias", b.copy())]
    return found


def dense(stored: Stored, name: str) -> Array:
    """A matrix as the graph stores it, unfolded to fp32 if it is stored as int8."""
    matrix = plain(stored, f"{name}.weight")
    return matrix * plain(stored, f"{name}.scale") if f"{name}.scale" in stored else matrix


def plain(stored: Stored, name: str) -> Array:
    """A tensor as fp32, writable."""
    return np.array(stored[name], dtype=np.float32)
