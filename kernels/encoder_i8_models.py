"""ONNX models of one EncoderI8 and of the chain of operators that it stands for, with the same
weights, for tests and benches. Not used at run time: csrm.export.int8_graph writes the model that
is. Needs `onnx`; the operators come from the csrm library (csrm.kernels.one_node.session).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from csrm.kernels.cases_encoder_i8 import EncoderI8Inputs
from csrm.kernels.one_node import DOMAIN

Attribute = int | float | str
OUTPUTS = ("key", "value", "pooled")


def encoder_i8_model(
    inputs: EncoderI8Inputs, attributes: Mapping[str, Attribute], isa: str = ""
) -> bytes:
    """A serialised model of one EncoderI8 node; its outputs are OUTPUTS."""
    graph = _Graph(isa)
    weights = [graph.weight(value) for value in inputs.weights]
    graph.own("EncoderI8", [*inputs.tensors, *weights], attributes, OUTPUTS)
    return graph.model(inputs)


def encoder_chain_model(
    inputs: EncoderI8Inputs, attributes: Mapping[str, Any], isa: str = ""
) -> bytes:
    """The same in LinearI8, PrefixAttention and AddNorm, one of each at a time, and standard
    operators between them."""
    return _Chain(inputs, attributes, isa).model(inputs)


class _Graph:
    """A graph that grows node by node; methods take and give names of tensors."""

    def __init__(self, isa: str) -> None:
        self.isa = {"isa": isa} if isa else {}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def weight(self, value: NDArray[Any]) -> str:
        name = f"weight_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        attributes: Mapping[str, Any] | None = None,
        outputs: Sequence[str] = (),
        domain: str = "",
    ) -> str:
        made = outputs or [f"{operator}_{len(self.nodes)}"]
        node = helper.make_node(operator, inputs, made, domain=domain, **(attributes or {}))
        self.nodes.append(node)
        return made[0]

    def own(
        self,
        operator: str,
        inputs: Sequence[str],
        attributes: Mapping[str, Any],
        outputs: Sequence[str] = (),
    ) -> str:
        return self.node(operator, inputs, {**attributes, **self.isa}, outputs, DOMAIN)

    def model(self, inputs: EncoderI8Inputs) -> bytes:
        infos = [
            helper.make_tensor_value_info(
                name,
                helper.np_dtype_to_tensor_dtype(value.dtype),
                [f"{name}_{axis}" for axis in range(value.ndim)],
            )
            for name, value in inputs.tensors.items()
        ]
        made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in OUTPUTS]
        graph = helper.make_graph(self.nodes, "encoder_i8", infos, made, self.initializers)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        return bytes(model.SerializeToString())


class _Chain(_Graph):
    """The encoder in separate operators, written in full when it is made."""

    def __init__(self, inputs: EncoderI8Inputs, attributes: Mapping[str, Any], isa: str) -> None:
        super().__init__(isa)
        self.attributes = attributes
        self.left = iter(inputs.weights)
        layers = attributes["layers"]
        hidden = self.embeddings()
        kept = []
        for layer in range(layers - 1):
            projected = self.linear(hidden)
            kept.append(self.keys_values(projected, 3))
            context = self.attention(layer, projected, projected, "visible")
            hidden = self.norm(*self.transform(hidden, context))
        self.last_layer(hidden, kept)

    def next_weights(self, n: int) -> list[str]:
        return [self.weight(next(self.left)) for _ in range(n)]

    def ints(self, *values: int) -> str:
        return self.weight(np.array(values, np.int64))

    def linear(self, x: str, activation: str = "none") -> str:
        attributes = {"levels": self.attributes["levels"], "activation": activation}
        return self.own("LinearI8", [x, *self.next_weights(3)], attributes)

    def norm(self, x: str, residual: str) -> str:
        attributes = {"epsilon": self.attributes["epsilon"]}
        return self.own("AddNorm", [x, residual, *self.next_weights(2)], attributes)

    def embeddings(self) -> str:
        tokens, scale, positions, segments = self.next_weights(4)
        rows = self.node("Cast", [self.node("Gather", [tokens, "input_ids"])], {"to": 1})
        token = self.node("Mul", [rows, self.node("Gather", [scale, "input_ids"])])
        position = self.node("Gather", [positions, "position_ids"])
        segment = self.node("Gather", [segments, "segment_ids"])
        return self.norm(self.node("Add", [token, position]), segment)

    def attention(self, layer: int, query: str, key_value: str, visible: str) -> str:
        heads, head_dim = self.attributes["heads"], self.attributes["head_dim"]
        key_offset = heads * head_dim if query == key_value else 0
        attributes = {
            **{name: self.attributes[name] for name in ("heads", "head_dim", "scale", "products")},
            "kv_heads": heads,
            "layer": layer,
            "query_offset": 0,
            "key_offset": key_offset,
            "value_offset": key_offset + heads * head_dim,
        }
        tensors = [query, key_value, "prefix_key", "prefix_value", visible]
        return self.own("PrefixAttention", tensors, attributes)

    def keys_values(self, projected: str, n_parts: int) -> tuple[str, str]:
        """Key and value [B, 1, heads, T, D] of a layer; they are the last two of its parts."""
        shape = self.ints(0, 0, n_parts, self.attributes["heads"], self.attributes["head_dim"])
        parts = self.node("Reshape", [projected, shape])
        taken = (self.node("Gather", [parts, self.ints(i)], {"axis": 2}) for i in (-2, -1))
        key, value = (self.node("Transpose", [one], {"perm": [0, 2, 3, 1, 4]}) for one in taken)
        return key, value

    def transform(self, states: str, context: str) -> tuple[str, str]:
        """Two tensors, whose sum is a layer's before its last norm."""
        states = self.norm(states, self.linear(context))
        return states, self.linear(self.linear(states, "gelu"))

    def last_layer(self, hidden: str, kept: list[tuple[str, str]]) -> None:
        zero = self.weight(np.array(0, np.int64))
        at = self.node("Unsqueeze", [self.node("Max", ["pooled_at", zero]), self.ints(-1)])
        states, sees = (
            self.node("GatherND", [tensor, at], {"batch_dims": 1}) for tensor in (hidden, "visible")
        )
        query = self.linear(states)
        projected = self.linear(hidden)
        kept.append(self.keys_values(projected, 2))
        context = self.attention(len(kept) - 1, query, projected, sees)
        self.node("Add", self.transform(states, context), outputs=["pooled"])
        for name, layers in zip(("key", "value"), zip(*kept, strict=True), strict=True):
            self.node("Concat", layers, {"axis": 1}, [name])
