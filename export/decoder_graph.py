"""The decoder as an ONNX graph with the signature of docs/datapath.md, in standard operators.

What it is: csrm.train.decoder written once more in ONNX operators (opset 20): RMSNorm, RoPE,
grouped-query attention without a copied key or prefix, SwiGLU, and of the LM head the verbalizer
rows alone. The last layer computes only the tokens that the head reads. `segment_ids` is an input
that nothing reads: roles are tokens here. Not: csrm's own operators
(csrm.export.fused_decoder_graph), files (csrm.export.artifact) or int8 rounding
(csrm.export.storage).
"""

from __future__ import annotations

import onnx

from csrm.export.attention_nodes import Attended
from csrm.export.decoder_nodes import rms_norm, rotated, rotations, swiglu
from csrm.export.signature_graph import Array, SignatureGraph, Storage
from csrm.train.calibration.platt import Calibration
from csrm.train.decoder import Decoder, DecoderShape


class DecoderGraph(SignatureGraph):
    """Writes one Decoder as a graph. Use `build_decoder_graph`."""

    def __init__(self, model: Decoder, calibration: Calibration, storage: Storage) -> None:
        super().__init__(model, model.shape, calibration, storage)
        self.shape: DecoderShape = model.shape
        self.n_group = model.shape.heads // model.shape.kv_heads
        self.frequencies: Array = model.frequencies.cpu().numpy()

    def build(self) -> onnx.ModelProto:
        """The whole graph."""
        hidden = self.token_embeddings()
        places = queries_at = self.places()
        normed = self.norm("layers.0.attention_norm", hidden)
        keys, values = [], []
        for layer in range(self.shape.layers):
            name = f"layers.{layer}"
            is_last = layer == self.shape.layers - 1
            queries = normed
            if is_last:
                hidden, queries, *at = self.judged(hidden, normed, *places)
                queries_at = tuple(at)
            context, key, value = self.attend(layer, normed, queries, places, queries_at)
            keys.append(key)
            values.append(value)
            attended = self.projection(f"{name}.attended", context, [f"{name}.attended"])
            hidden, normed = self.add_norm(f"{name}.mlp_norm", attended, hidden)
            both = self.projection(f"{name}.gate_up", normed, [f"{name}.gate", f"{name}.up"])
            down = self.projection(f"{name}.down", self.swiglu(both), [f"{name}.down"])
            if is_last:
                hidden = self.total(hidden, down)
            else:
                next_norm = f"layers.{layer + 1}.attention_norm"
                hidden, normed = self.add_norm(next_norm, down, hidden)
        self.write_keys_values(keys, values)
        self.write_head(hidden)
        return self.close(self.operators())

    # The stages, in order. A subclass may do each in another way.

    def places(self) -> tuple[str, ...]:
        """What `attend` must know of each token: tensors [B, T, ...].

        Here cosine and sine [B, T, 1, D / 2], and [B, T, G, T]: what a token sees of its row, once
        per query head of a group.
        """
        onnx_ = self.onnx
        frequencies = onnx_.constant("frequencies", self.frequencies)
        cosine, sine = rotations(onnx_, "position_ids", frequencies)
        bias = onnx_.node("Unsqueeze", [self.own_bias(), onnx_.ints(2)])
        grouped = onnx_.node("Concat", [bias] * self.n_group, attributes={"axis": 2})
        return cosine, sine, grouped

    def judged(self, *states: str) -> list[str]:
        """Of each of `states` [B, T, ...] the tokens that the head reads: [B, J, ...]."""
        index = self.onnx.node("Unsqueeze", [self.clamped_pooled_at(), self.onnx.ints(-1)])
        return [self.taken(one, index) for one in states]  # index [B, J, 1]

    def attend(
        self,
        layer: int,
        normed: str,
        queries: str,
        places: tuple[str, ...],
        queries_at: tuple[str, ...],
    ) -> tuple[str, str, str]:
        """Context [B, Q, heads * D] of `queries` over prefix and row; key and value of the row.

        normed [B, T, hidden], of which queries [B, Q, hidden] are all or some; places, queries_at:
        `places` of both. Key and value are [B, 1, kv_heads, T, D], as `write_keys_values` takes
        them.
        """
        onnx_, shape = self.onnx, self.shape
        heads_first = [0, 2, 1, 3]
        name = f"layers.{layer}"
        query, key, value = self.project(layer, normed, queries)
        query = self.turned(f"{name}.query_norm", query, shape.heads, queries_at)
        key = self.turned(f"{name}.key_norm", key, shape.kv_heads, places)
        key = onnx_.node("Transpose", [key], attributes={"perm": heads_first})
        value = self.reshaped(value, 0, 0, shape.kv_heads, shape.head_dim, axes=heads_first)
        seen = Attended(
            key,
            value,
            self.layer_of("prefix_key", layer),
            self.layer_of("prefix_value", layer),
            self.reshaped(queries_at[2], 0, 1, -1, 0),
        )
        # The queries of a group stand one after another: [B, kv_heads, Q * G, D].
        query = self.reshaped(
            query, 0, 0, shape.kv_heads, self.n_group, shape.head_dim, axes=[0, 2, 1, 3, 4]
        )
        query = self.reshaped(query, 0, 0, -1, shape.head_dim)
        context = self.attention(query, seen)
        width = self.n_group * shape.head_dim
        context = self.reshaped(context, 0, 0, -1, width, axes=heads_first)
        context = self.reshaped(context, 0, 0, shape.heads * shape.head_dim)
        key, value = (onnx_.node("Unsqueeze", [part, onnx_.ints(1)]) for part in (key, value))
        return context, key, value

    def project(self, layer: int, normed: str, queries: str) -> tuple[str, str, str]:
        """Query [B, Q, heads * D], key and value [B, T, kv_heads * D] of one layer."""
        shape = self.shape
        name = f"layers.{layer}"
        widths = [n * shape.head_dim for n in (shape.heads, shape.kv_heads, shape.kv_heads)]
        parts = [f"{name}.{part}" for part in ("query", "key", "value")]
        if queries != normed:
            query = self.projection(f"{name}.query", queries, parts[:1])
            both = self.projection(f"{name}.key_value", normed, parts[1:])
            key, value = self.split(both, widths[1:])
        else:
            all_three = self.projection(f"{name}.query_key_value", normed, parts)
            query, key, value = self.split(all_three, widths)
        return query, key, value

    def add_norm(self, name: str, states: str, residual: str) -> tuple[str, str]:
        """states + residual, and its RMSNorm."""
        total = self.onnx.node("Add", [residual, states])
        return total, self.norm(name, total)

    def total(self, residual: str, states: str) -> str:
        """residual + states, of which no norm is needed."""
        return self.onnx.node("Add", [residual, states])

    def swiglu(self, gate_up: str) -> str:
        """silu(gate) * up [.., intermediate] of gate_up [.., 2 * intermediate]."""
        return swiglu(self.onnx, gate_up, self.shape.intermediate)

    def write_head(self, residual: str) -> None:
        """Final norm, verbalizer rows, log-odds, calibration: reward and compliance [B, J]."""
        onnx_ = self.onnx
        states = self.norm("output_norm", residual)
        rows = onnx_.constant("verbalizers.rows", self.weights["verbalizers.weight"].T)
        self.write_scores(onnx_.node("MatMul", [states, rows]))

    def operators(self) -> dict[str, int]:
        """Domains of operators beside ONNX's own, with their versions."""
        return {}

    # Pieces.

    def norm(self, name: str, states: str) -> str:
        """RMSNorm over the last axis."""
        return rms_norm(self.onnx, states, self.weight(f"{name}.weight"), self.shape.norm_epsilon)

    def turned(self, name: str, states: str, n_heads: int, places: tuple[str, ...]) -> str:
        """Rotated heads [B, Q, n_heads, D] of states [B, Q, n_heads * D], normed where they are."""
        heads = self.reshaped(states, 0, 0, n_heads, self.shape.head_dim)
        if self.shape.has_qk_norm:
            heads = self.norm(name, heads)
        return rotated(self.onnx, heads, places[0], places[1], self.shape.head_dim)

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
    """`model` as a self-contained ONNX model (no external data) of standard operators.

    storage: see csrm.export.storage.
    """
    return DecoderGraph(model, calibration, storage).build()
