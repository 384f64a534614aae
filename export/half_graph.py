"""model.half.onnx: the fused graph with keys and values in half precision, half the cache's size.

What it is: model.fused.onnx whose prefix, key and value are float16. Attention rounds a row's own
keys and values to what a cache keeps of them, so a score is the same from the cache and without it;
csrm.HalfKeyValue writes what is kept. The weights are the same tensors in model.onnx, byte for
byte. Not: arithmetic in half precision, which is fp32 as before, nor the measurement of what the
rounding changes (csrm.export.variant_parity), without which the runtime takes this variant only
when it is asked for.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from csrm.errors import BadArtifact

OPERATOR_DOMAIN = "csrm"
KEPT = ("key", "value")
HALF = {"prefix_key", "prefix_value", *KEPT}
SHARED_ATTRIBUTES = ("kv_heads", "head_dim", "key_offset", "value_offset")


def half_graph(fused: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `fused` with keys and values in half precision.

    Errors: BadArtifact when it has no csrm.PrefixAttention in each layer, or is such a copy itself.
    """
    result = onnx.ModelProto()
    result.CopyFrom(fused)
    graph = result.graph
    tensors = [t for t in (*graph.input, *graph.output) if t.name in HALF]
    types = {t.type.tensor_type.elem_type for t in tensors}
    if len(tensors) != len(HALF) or types != {TensorProto.FLOAT}:
        raise BadArtifact("the graph's keys and values are not floats; give a model.fused.onnx")
    n_layers = tensors[0].type.tensor_type.shape.dim[0].dim_value  # of an input, prefix_key
    nodes: list[onnx.NodeProto] = []
    layers = []
    for node in graph.node:
        if set(node.output) & set(KEPT):
            continue
        if node.op_type == "PrefixAttention":
            layers.append(helper.get_node_attr_value(node, "layer"))
            nodes.append(half_key_value(layers[-1], node))
        nodes.append(node)
    if sorted(layers) != list(range(n_layers)):
        raise BadArtifact("a layer has no csrm.PrefixAttention; give a model.fused.onnx")
    for name in KEPT:
        parts = [f"{name}_{layer}" for layer in range(n_layers)]
        nodes.append(helper.make_node("Concat", parts, [name], name=f"Concat_{name}", axis=1))
    for tensor in tensors:
        tensor.type.tensor_type.elem_type = TensorProto.FLOAT16
    keep(graph, nodes)
    return result


def half_key_value(layer: int, attention: onnx.NodeProto) -> onnx.NodeProto:
    """The node that writes what a cache keeps of the keys and values which `attention` reads."""
    node = helper.make_node(
        "HalfKeyValue",
        [attention.input[1]],
        [f"{name}_{layer}" for name in KEPT],
        name=f"HalfKeyValue_{layer}",
        domain=OPERATOR_DOMAIN,
    )
    node.attribute.extend(a for a in attention.attribute if a.name in SHARED_ATTRIBUTES)
    return node


def keep(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Makes `nodes` those of `graph`, without nodes and initialisers that no output needs."""
    needed = {output.name for output in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    del graph.node[:]
    graph.node.extend(copies)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in needed]:
        graph.initializer.remove(tensor)
