"""model.int8.onnx: the fused graph's encoder in one csrm.EncoderI8, in exact integers.

What it is: model.fused.onnx with one node for the embeddings and all layers; the weights are the
same int8 tensors in model.onnx, byte for byte, and only activations are rounded, each row by a
scale of its own. Attention may multiply in bfloat16, which happens on a CPU with AMX. Not: the
measurement of what that changes (csrm.export.variant_parity), without which the runtime takes this
variant only when it is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import onnx
from onnx import TensorProto, helper

from csrm.errors import BadArtifact
from csrm.export.fused_nodes import OPERATOR_DOMAIN
from csrm.export.half_graph import keep

LEVELS = 2047
"""The largest integer of a rounded activation. 127, multiplied twice as fast by VNNI and AMX, moves
compliance by more than a variant may (docs/log.md)."""

INPUTS = (
    "input_ids",
    "position_ids",
    "segment_ids",
    "visible",
    "pooled_at",
    "prefix_key",
    "prefix_value",
)
TOKENS = ("tokens.weight", "tokens.scale")
TABLES = (*TOKENS, "positions.weight", "segments.weight")

OF_ATTENTION = ("heads", "head_dim", "scale")

LAYER = ("Linear", "PrefixAttention", "Linear", "AddNorm", "Linear", "Linear", "AddNorm")
"""csrm's nodes of a layer. The last one has a Linear more in front, of the queries, and leaves its
norm to csrm.RewardHead."""


def int8_graph(fused: onnx.ModelProto, levels: int = LEVELS) -> onnx.ModelProto:
    """A copy of `fused` whose embeddings and layers are one csrm.EncoderI8.

    Errors: BadArtifact when it is no encoder's fused graph or a weight is not int8.
    """
    result = onnx.ModelProto()
    result.CopyFrom(fused)
    graph = result.graph
    int8s = {t.name for t in graph.initializer if t.data_type == TensorProto.INT8}
    own = [node for node in graph.node if node.domain == OPERATOR_DOMAIN]
    attentions = [node for node in own if node.op_type == "PrefixAttention"]
    layers = list(split_layers(own, len(attentions)))
    linear = [node for layer in layers for node in layer if node.op_type == "Linear"]
    if not all(name in int8s for name in [TOKENS[0], *(node.input[1] for node in linear)]):
        raise BadArtifact("the int8 variant needs weights stored as int8; export with them")
    head = own[-1]
    node = helper.make_node(
        "EncoderI8",
        [*INPUTS, *TABLES, *own[0].input[2:]],
        ["key", "value", head.input[0]],
        name="EncoderI8",
        domain=OPERATOR_DOMAIN,
        layers=len(layers),
        levels=levels,
        products="bf16",
        epsilon=helper.get_node_attr_value(own[0], "epsilon"),
        **{name: helper.get_node_attr_value(attentions[0], name) for name in OF_ATTENTION},
    )
    node.input.extend(name for layer in layers for name in weights_of(layer))
    replaced = {*node.output}
    nodes = []
    for old in graph.node:
        if old is head:
            nodes.append(node)
        if not replaced & set(old.output):
            nodes.append(old)
    keep(graph, nodes)
    return result


def split_layers(own: list[onnx.NodeProto], n_layers: int) -> Iterator[list[onnx.NodeProto]]:
    """csrm's nodes of each layer, of `own` in the order of the graph.

    In front of them stands the norm of the embeddings, behind them the head. Errors: BadArtifact.
    """
    left = deque(own)
    first = left.popleft() if left else None
    for layer in range(n_layers):
        is_last = layer == n_layers - 1
        expected = ("Linear", *LAYER[:-1]) if is_last else LAYER
        nodes = [left.popleft() for _ in expected if left]
        if tuple(node.op_type for node in nodes) != expected:
            break
        yield nodes
    if first is None or first.op_type != "AddNorm" or [n.op_type for n in left] != ["RewardHead"]:
        raise BadArtifact("the layers are not those of an encoder; give a model.fused.onnx of one")


def weights_of(layer: list[onnx.NodeProto]) -> list[str]:
    """The initialisers of a layer's nodes, in their order."""
    inputs = {"Linear": 1, "AddNorm": 2, "PrefixAttention": 5}
    return [name for node in layer for name in node.input[inputs[node.op_type] :]]
