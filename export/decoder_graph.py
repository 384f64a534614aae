"""The decoder as an ONNX graph with the signature of docs/datapath.md.

What it is: csrm.train.decoder written once more in standard operators (opset 20): RMSNorm, RoPE,
grouped-query attention without a copied key or prefix, SwiGLU, and of the LM head the verbalizer
rows alone. The last layer computes only the tokens that the head reads. `segment_ids` is an input
that nothing reads: roles are tokens here. Not: files (csrm.export.artifact) or int8 rounding
(csrm.export.storage).
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from csrm.export.attention_nodes import Attended
from csrm.export.onnx_builder import FLOAT
from csrm.export.signature_graph import Array, SignatureGraph, Storage
from csrm.train.calibration.platt import Calibration
from csrm.train.decoder import Decoder, DecoderShape


@dataclass(frozen=True)
class _Queries:
    """The tokens that a layer computes: all of them, or in the last layer the pooled ones."""

    states: str  # [B, Q, hidden]
    cosine: str  # [B, Q, 1, D / 2]
    sine: str  # [B, Q, 1, D / 2]
    bias: str  # [B, 1, G * Q, T]


class DecoderGraph(SignatureGraph):
    """Writes one Decoder as a graph. Use `build_decoder_graph`."""

    def __init__(self, model: Decoder, calibration: Calibration, storage: Storage) -> None:
        super().__init__(model, model.shape, calibration, storage)
        self.shape: DecoderShape = model.shape
        self.n_group = model.shape.heads // model.shape.kv_heads
        self.frequencies: Array = model.frequencies.cpu().numpy()

    def build(self) -> onnx.ModelProto:
        """The whole graph."""
        onnx_ = self.onnx
        cosine, sine = self.rotations()
        hidden = self.token_embeddings()
        own_bias = self.own_bias()
        index = onnx_.node("Unsqueeze", [self.clamped_pooled_at(), onnx_.ints(-1)])  # [B, J, 1]
        bias = self.grouped_bias(own_bias)
        keys, values = [], []
        for layer in range(self.shape.layers):
            is_last = layer == self.shape.layers - 1
            normed = self.norm(f"layers.{layer}.attention_norm", hidden)
            key, value = self.keys_values(layer, normed, cosine, sine)
            keys.append(onnx_.node("Unsqueeze", [key, onnx_.ints(1)]))
            values.append(onnx_.node("Unsqueeze", [value, onnx_.ints(1)]))
            queries = _Queries(hidden, cosine, sine, bias)
            if is_last:
                queries = _Queries(
                    self.taken(hidden, index),
                    self.taken(cosine, index),
                    self.taken(sine, index),
                    self.grouped_bias(self.taken(own_bias, index)),
                )
                normed = self.taken(normed, index)
            seen = Attended(
                key,
                value,
                self.layer_of("prefix_key", layer),
                self.layer_of("prefix_value", layer),
                queries.bias,
            )
            hidden = self.layer(layer, normed, queries, seen)
        self.write_keys_values(keys, values)
        states = self.norm("output_norm", hidden)
        rows = onnx_.constant("verbalizers.rows", self.weights["verbalizers.weight"].T)
        self.write_scores(onnx_.node("MatMul", [states, rows]))
        return self.close({})

    # The stages, in order.

    def rotations(self) -> tuple[str, str]:
        """Cosine and sine of every position and frequency: [B, T, 1, D / 2]."""
        onnx_ = self.onnx
        positions = onnx_.node("Cast", ["position_ids"], attributes={"to": FLOAT})
        positions = onnx_.node("Unsqueeze", [positions, onnx_.ints(2, 3)])
        frequencies = onnx_.constant("frequencies", self.frequencies)
        angles = onnx_.node("Mul", [positions, frequencies])
        return onnx_.node("Cos", [angles]), onnx_.node("Sin", [angles])

    def grouped_bias(self, bias: str) -> str:
        """[B, Q, T] -> [B, 1, G * Q, T]: once per query head of a group."""
        repeated = self.onnx.node("Concat", [bias] * self.n_group, attributes={"axis": 1})
        return self.onnx.node("Unsqueeze", [repeated, self.onnx.ints(1)])

    def keys_values(self, layer: int, normed: str, cosine: str, sine: str) -> tuple[str, str]:
        """Rotated key and value [B, kv_heads, T, D] of one layer."""
        shape = self.shape
        width = shape.kv_heads * shape.head_dim
        names = [f"layers.{layer}.key", f"layers.{layer}.value"]
        both = self.projection(f"layers.{layer}.key_value", normed, names)
        key, value = self.split(both, [width, width])
        key = self.reshaped(key, 0, 0, shape.kv_heads, shape.head_dim)
        if shape.has_qk_norm:
            key = self.norm(f"layers.{layer}.key_norm", key)
        heads_first = [0, 2, 1, 3]
        key = self.onnx.node(
            "Transpose", [self.rotated(key, cosine, sine)], attributes={"perm": heads_first}
        )
        return key, self.reshaped(value, 0, 0, shape.kv_heads, shape.head_dim, axes=heads_first)

    def layer(self, layer: int, normed: str, queries: _Queries, seen: Attended) -> str:
        """New states [B, Q, hidden] of the queries."""
        onnx_ = self.onnx
        name = f"layers.{layer}"
        context = self.attention(self.grouped_queries(layer, normed, queries), seen)
        shape = self.shape
        # [B, kv_heads, G * Q, D] -> [B, Q, kv_heads * G * D]
        context = self.reshaped(
            context, 0, shape.kv_heads, self.n_group, -1, shape.head_dim, axes=[0, 3, 1, 2, 4]
        )
        context = self.reshaped(context, 0, 0, shape.heads * shape.head_dim)
        attended = self.projection(f"{name}.attended", context, [f"{name}.attended"])
        hidden = onnx_.node("Add", [queries.states, attended])
        normed = self.norm(f"{name}.mlp_norm", hidden)
        both = self.projection(f"{name}.gate_up", normed, [f"{name}.gate", f"{name}.up"])
        gate, up = self.split(both, [shape.intermediate, shape.intermediate])
        gate = onnx_.node("Mul", [gate, onnx_.node("Sigmoid", [gate])])
        down = onnx_.node("Mul", [gate, up])
        down = self.projection(f"{name}.down", down, [f"{name}.down"])
        return onnx_.node("Add", [hidden, down])

    def grouped_queries(self, layer: int, normed: str, queries: _Queries) -> str:
        """Rotated queries, those of a group one after another: [B, kv_heads, G * Q, D]."""
        shape = self.shape
        name = f"layers.{layer}.query"
        query = self.projection(name, normed, [name])
        query = self.reshaped(query, 0, 0, shape.heads, shape.head_dim)
        if shape.has_qk_norm:
            query = self.norm(f"{name}_norm", query)
        query = self.rotated(query, queries.cosine, queries.sine)
        query = self.reshaped(
            query, 0, 0, shape.kv_heads, self.n_group, shape.head_dim, axes=[0, 2, 3, 1, 4]
        )
        return self.reshaped(query, 0, shape.kv_heads, -1, shape.head_dim)

    # Pieces.

    def norm(self, name: str, states: str) -> str:
        """RMSNorm over the last axis."""
        onnx_ = self.onnx
        square = onnx_.node("Mul", [states, states])
        mean = onnx_.node("ReduceMean", [square, onnx_.ints(-1)], attributes={"keepdims": 1})
        epsilon = onnx_.float_scalar("norm_epsilon", self.shape.norm_epsilon)
        rms = onnx_.node("Sqrt", [onnx_.node("Add", [mean, epsilon])])
        return onnx_.node("Mul", [onnx_.node("Div", [states, rms]), self.weight(f"{name}.weight")])

    def rotated(self, heads: str, cosine: str, sine: str) -> str:
        """RoPE on [B, Q, heads, D]."""
        onnx_ = self.onnx
        half = self.shape.head_dim // 2
        first, second = self.split(heads, [half, half])

        def product(left: str, right: str) -> str:
            return onnx_.node("Mul", [left, right])

        turned = [
            onnx_.node("Sub", [product(first, cosine), product(second, sine)]),
            onnx_.node("Add", [product(second, cosine), product(first, sine)]),
        ]
        return onnx_.node("Concat", turned, attributes={"axis": -1})

    def projection(self, name: str, states: str, names: list[str]) -> str:
        """One product for the stacked linear layers `names`, with their biases where they have."""
        weights = [self.weights[f"{part}.weight"] for part in names]
        if f"{names[0]}.bias" not in self.weights:
            return self.product(name, states, weights)
        biases = [self.weights[f"{part}.bias"] for part in names]
        return self.linear(name, states, list(zip(weights, biases, strict=True)))


def build_decoder_graph(
    model: Decoder, calibration: Calibration, *, storage: Storage = "int8"
) -> onnx.ModelProto:
    """`model` as a self-contained ONNX model; storage: see csrm.export.storage."""
    return DecoderGraph(model, calibration, storage).build()
