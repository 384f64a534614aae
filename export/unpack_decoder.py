"""Decoder artifact -> the PyTorch model in it, so that a variant can be added without a checkpoint.

What it is: csrm.export.decoder_graph read backwards, as csrm.export.unpack reads an encoder's. The
weights are those the artifact computes with. Not: the start of a training run, for which the
rotation's base would have to be known: the graph holds its frequencies alone, which are enough to
compute with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from csrm.errors import BadArtifact
from csrm.export.artifact import PORTABLE
from csrm.export.unpack import Array, Stored, dense, plain
from csrm.train.decoder import Decoder, DecoderShape, decoder_of

QUERY_KEY_VALUE = ("query", "key", "value")
NORMS = ("attention_norm", "mlp_norm", "query_norm", "key_norm")


def decoder_from(described: dict[str, Any], stored: Stored) -> Decoder:
    """The Decoder of a csrm.export.unpack.stored_model, in eval mode.

    Its shape's rope_theta and rope_scaling are the defaults, whatever its frequencies are. Errors:
    BadArtifact when a tensor is missing or has another shape, or the model is no decoder.
    Thread-safe.
    """
    if described["backbone"] != "decoder":
        raise BadArtifact("the artifact's backbone is no decoder")
    try:
        shape = shape_of(described, stored)
        found = weights_of(stored, shape)
        model = decoder_of(shape, {name: torch.from_numpy(w) for name, w in found.items()})
        model.frequencies = torch.from_numpy(plain(stored, "frequencies"))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BadArtifact(
            f"{PORTABLE} does not hold the model of its manifest: {type(error).__name__}"
        ) from error
    return model.eval()


def shape_of(described: dict[str, Any], stored: Stored) -> DecoderShape:
    """The sizes of the decoder, from the manifest and the tensors."""
    layers, head_dim = int(described["layers"]), int(described["head_dim"])
    vocab_size, hidden = stored["tokens.weight"].shape
    return DecoderShape(
        vocab_size=vocab_size,
        hidden=hidden,
        layers=layers,
        heads=stored[f"layers.{layers - 1}.query.weight"].shape[1] // head_dim,
        kv_heads=int(described["kv_heads"]),
        head_dim=head_dim,
        intermediate=stored["layers.0.gate_up.weight"].shape[1] // 2,
        max_positions=int(described["max_positions"]),
        n_safe=int(described["verbalizers"]["safe"]),
        n_unsafe=int(described["verbalizers"]["unsafe"]),
        norm_epsilon=float(plain(stored, "norm_epsilon").item()),
        has_qkv_bias=f"layers.{layers - 1}.query.bias" in stored,
        has_output_bias="layers.0.attended.bias" in stored,
        has_mlp_bias="layers.0.gate_up.bias" in stored,
        has_qk_norm=f"layers.{layers - 1}.query_norm.weight" in stored,
    )


def weights_of(stored: Stored, shape: DecoderShape) -> dict[str, Array]:
    """Every parameter of the Decoder."""
    found = {
        "output_norm.weight": plain(stored, "output_norm.weight"),
        "verbalizers.weight": plain(stored, "verbalizers.rows").T.copy(),
        "tokens.weight": table(stored),
    }
    own = shape.kv_heads * shape.head_dim
    widths = (shape.heads * shape.head_dim, own, own)
    for index in range(shape.layers):
        layer = f"layers.{index}"
        stacks: list[tuple[str, tuple[str, ...], tuple[int, ...]]] = [
            ("attended", ("attended",), (shape.hidden,)),
            ("gate_up", ("gate", "up"), (shape.intermediate, shape.intermediate)),
            ("down", ("down",), (shape.hidden,)),
        ]
        if index + 1 < shape.layers:
            stacks.append(("query_key_value", QUERY_KEY_VALUE, widths))
        else:  # the graph has queries of the judged tokens alone there
            stacks.append(("query", QUERY_KEY_VALUE[:1], widths[:1]))
            stacks.append(("key_value", QUERY_KEY_VALUE[1:], widths[1:]))
        for stack, parts, columns in stacks:
            found.update(split(stored, layer, stack, parts, columns))
        for norm in NORMS:
            name = f"{layer}.{norm}.weight"
            if name in stored:
                found[name] = plain(stored, name)
    return found


def table(stored: Stored) -> Array:
    """The token table: of int8 storage each row has a scale."""
    rows = plain(stored, "tokens.weight")
    return rows * plain(stored, "tokens.scale") if "tokens.scale" in stored else rows


def split(
    stored: Stored, layer: str, stack: str, parts: tuple[str, ...], columns: tuple[int, ...]
) -> dict[str, Array]:
    """Weights, and biases where they are, of the linear layers `parts` stored as one `stack`."""
    matrix = dense(stored, f"{layer}.{stack}")
    if matrix.shape[1] != sum(columns):
        raise ValueError(stack)
    ends = np.cumsum(columns)[:-1]
    found = {
        f"{layer}.{part}.weight": weight.T.copy()
        for part, weight in zip(parts, np.split(matrix, ends, axis=1), strict=True)
    }
    if f"{layer}.{stack}.bias" in stored:
        biases = np.split(plain(stored, f"{layer}.{stack}.bias"), ends)
        found |= {
            f"{layer}.{part}.bias": bias.copy() for part, bias in zip(parts, biases, strict=True)
        }
    return found
