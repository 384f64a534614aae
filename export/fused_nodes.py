"""csrm's own operators (csrm.kernels) as nodes of a graph.

What it is: what the fused graphs of encoders and decoders (csrm.export.fused_graph,
csrm.export.fused_decoder_graph) are written with. Not: standard operators (attention_nodes,
decoder_nodes), or weights. Names of tensors go in and come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from csrm.export.onnx_builder import Attribute, OnnxBuilder
from csrm.train.calibration.platt import Calibration

OPERATOR_DOMAIN = "csrm"
OPERATOR_VERSION = 1

Activation = Literal["none", "gelu"]


@dataclass(frozen=True)
class AttentionLayout:
    """Where queries, keys and values lie in their tensors, as csrm.PrefixAttention reads them."""

    heads: int
    kv_heads: int
    head_dim: int
    layer: int
    query_offset: int
    key_offset: int
    value_offset: int

    @classmethod
    def of(
        cls, heads: int, kv_heads: int, head_dim: int, layer: int, *, is_stacked: bool
    ) -> AttentionLayout:
        """Queries, keys and values in one tensor if `is_stacked`, else queries on their own."""
        key_offset = heads * head_dim if is_stacked else 0
        value_offset = key_offset + kv_heads * head_dim
        return cls(heads, kv_heads, head_dim, layer, 0, key_offset, value_offset)


def own_node(
    onnx_: OnnxBuilder,
    operator: str,
    inputs: Sequence[str],
    attributes: dict[str, Attribute],
    n_outputs: int = 1,
) -> list[str]:
    """A node of csrm's domain; an input "" is left out."""
    given = list(inputs)
    while given[-1] == "":
        given.pop()
    return onnx_.nodes_with_outputs(operator, given, [""] * n_outputs, OPERATOR_DOMAIN, attributes)


def linear(
    onnx_: OnnxBuilder, states: str, weight: tuple[str, str], bias: str, activation: Activation
) -> str:
    """activation(states @ W + b); weight: its values and scale ("" of fp32); bias may be ""."""
    inputs = [states, *weight, bias]
    return own_node(onnx_, "Linear", inputs, {"activation": activation})[0]


def prefix_attention(
    onnx_: OnnxBuilder, query: str, key_value: str, visible: str, layout: AttentionLayout
) -> str:
    """Context [B, Q, heads * D] of queries [B, Q, ..] over the prefix and their row [B, T, ..]."""
    inputs = [query, key_value, "prefix_key", "prefix_value", visible]
    attributes: dict[str, Attribute] = {**asdict(layout), "scale": layout.head_dim**-0.5}
    return own_node(onnx_, "PrefixAttention", inputs, attributes)[0]


def keys_values(onnx_: OnnxBuilder, states: str, layout: AttentionLayout) -> tuple[str, str]:
    """Key and value [B, 1, T, kv_heads, D] of a row's projections [B, T, ..]."""
    n, head_dim = layout.kv_heads, layout.head_dim
    heads = onnx_.node("Reshape", [states, onnx_.ints(0, 0, -1, head_dim)])

    def part(offset: int) -> str:
        first = offset // head_dim
        places = [onnx_.ints(first), onnx_.ints(first + n), onnx_.ints(2)]
        taken = onnx_.node("Slice", [heads, *places])
        return onnx_.node("Reshape", [taken, onnx_.ints(0, 1, -1, n, head_dim)])

    return part(layout.key_offset), part(layout.value_offset)


def write_keys_values(onnx_: OnnxBuilder, keys: list[str], values: list[str]) -> None:
    """The outputs key and value [B, L, heads, T, D] of one [B, 1, T, heads, D] per layer."""
    for name, layers in (("key", keys), ("value", values)):
        joined = onnx_.node("Concat", layers, attributes={"axis": 1})
        onnx_.node("Transpose", [joined], output=name, attributes={"perm": [0, 1, 3, 2, 4]})


def judged_places(onnx_: OnnxBuilder) -> str:
    """The place [B, J] of each judged block in states [B, J, hidden], one for each; -1 = none."""
    n_judged = onnx_.node("Gather", [onnx_.node("Shape", ["pooled_at"]), onnx_.int_scalar(1)])
    places = onnx_.node("Range", [onnx_.int_scalar(0), n_judged, onnx_.int_scalar(1)])
    absent = onnx_.node("Less", ["pooled_at", onnx_.int_scalar(0)])
    return onnx_.node("Where", [absent, onnx_.int_scalar(-1), places])


def reward_head(
    onnx_: OnnxBuilder,
    read: tuple[str, str],
    norm: tuple[str, str],
    rows: tuple[str, str],
    calibration: Calibration,
    attributes: dict[str, Attribute],
) -> None:
    """The outputs reward and compliance [B, J].

    read: states [B, N, hidden] and the places [B, J] that are read. norm, rows: weight and bias of
    the final norm and of the verbalizers; a bias may be "". attributes: n_safe, epsilon and, of
    RMSNorm, kind.
    """
    ab = np.array([calibration.a, calibration.b], dtype=np.float32)
    onnx_.nodes_with_outputs(
        "RewardHead",
        [*read, *norm, *rows, onnx_.constant("calibration", ab)],
        ["reward", "compliance"],
        OPERATOR_DOMAIN,
        attributes,
    )
