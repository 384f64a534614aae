"""Attention over a prefix and the own row in ONNX's operators, the prefix never copied.

What it is: the nodes of each layer of every portable csrm graph (csrm.export.signature_graph), here
on their own so that csrm.bench times the same ones. Not: projections, or csrm's own operator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from csrm.export.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Attended:
    """Tensor names of one layer's keys and values and what queries see of them."""

    key: str  # [B, heads, T, D]
    value: str  # [B, heads, T, D]
    prefix_key: str  # [heads, P, D]
    prefix_value: str  # [heads, P, D]
    bias: str  # [B, 1, Q, T]


def own_bias(onnx_: OnnxBuilder, row: str, masked: float) -> str:
    """[B, Q, T]: 0 where a query of `visible` [B, Q] may look in its row, `masked` elsewhere.

    row: a tensor [B, T, ...], of which only T is read.
    """
    length = onnx_.node("Gather", [onnx_.node("Shape", [row]), onnx_.int_scalar(1)])
    columns = onnx_.node("Range", [onnx_.int_scalar(0), length, onnx_.int_scalar(1)])
    sees = onnx_.node("Less", [columns, onnx_.node("Unsqueeze", ["visible", onnx_.ints(2)])])
    zero = onnx_.float_scalar("zero", 0.0)
    return onnx_.node("Where", [sees, zero, onnx_.float_scalar("masked", masked)])


def layer_of(onnx_: OnnxBuilder, name: str, layer: int) -> str:
    """prefix_key or prefix_value of one layer: [heads, P, D]."""
    return onnx_.node("Gather", [name, onnx_.int_scalar(layer)], attributes={"axis": 0})


def attention(onnx_: OnnxBuilder, query: str, seen: Attended, head_dim: int) -> str:
    """Context [B, heads, Q, D] of `query` [B, heads, Q, D] over the prefix and the row."""
    swap: dict[str, list[int]] = {"own": [0, 1, 3, 2], "prefix": [0, 2, 1]}
    own_keys = onnx_.node("Transpose", [seen.key], attributes={"perm": swap["own"]})
    prefix_keys = onnx_.node("Transpose", [seen.prefix_key], attributes={"perm": swap["prefix"]})
    scale = onnx_.float_scalar("query_scale", head_dim**-0.5)
    query = onnx_.node("Mul", [query, scale])
    own = onnx_.node("Add", [onnx_.node("MatMul", [query, own_keys]), seen.bias])
    over_prefix = onnx_.node("MatMul", [query, prefix_keys])  # [B, heads, Q, P]
    weights = onnx_.node("Concat", [over_prefix, own], attributes={"axis": -1})
    weights = onnx_.node("Softmax", [weights], attributes={"axis": -1})
    n_prefix = onnx_.node("Shape", ["prefix_key"], attributes={"start": 2, "end": 3})
    far = onnx_.ints(np.iinfo(np.int64).max)
    last = onnx_.ints(-1)
    prefix_weights = onnx_.node("Slice", [weights, onnx_.ints(0), n_prefix, last])
    own_weights = onnx_.node("Slice", [weights, n_prefix, far, last])
    return onnx_.node(
        "Add",
        [
            onnx_.node("MatMul", [prefix_weights, seen.prefix_value]),
            onnx_.node("MatMul", [own_weights, seen.value]),
        ],
    )
