"""The encoder as an ONNX graph with the signature of docs/datapath.md, in standard operators.

What it is: csrm.train.model written once more in ONNX operators (opset 20), fast by construction:
no expanded prefix, no concatenated keys, one matrix product for query, key and value, and in the
last layer only the tokens that the head reads. Not: csrm's own operators
(csrm.export.fused_graph), files (csrm.export.artifact) or int8 rounding (csrm.export.storage).
"""

from __future__ import annotations

import onnx

from csrm.export.attention_nodes import Attended
from csrm.export.signature_graph import Array, SignatureGraph, Storage
from csrm.train.calibration.platt import Calibration
from csrm.train.model import Encoder, ModelShape


class EncoderGraph(SignatureGraph):
    """Writes one Encoder as a graph. Use `build_graph`."""

    def __init__(self, model: Encoder, calibration: Calibration, storage: Storage) -> None:
        super().__init__(model, model.shape, calibration, storage)
        self.shape: ModelShape = model.shape

    def build(self) -> onnx.ModelProto:
        """The whole graph."""
        onnx_ = self.onnx
        hidden = self.embed()
        sees = self.visibility()
        index = onnx_.node("Unsqueeze", [self.clamped_pooled_at(), onnx_.ints(-1)])  # [B, J, 1]
        keys, values = [], []
        for layer in range(self.shape.layers):
            is_last = layer == self.shape.layers - 1
            queries = hidden
            if is_last:
                queries, sees = self.taken(hidden, index), self.taken(sees, index)
            context, key, value = self.attend(layer, hidden, queries, sees)
            keys.append(key)
            values.append(value)
            attended, down = self.transform(layer, queries, context)
            if not is_last:
                hidden = self.add_norm(f"layers.{layer}.output_norm", attended, down)
        self.write_keys_values(keys, values)
        self.write_head(onnx_.node("Add", [attended, down]))
        return self.close(self.operators())

    # The stages, in order.

    def embed(self) -> str:
        """Token + position + segment embeddings, normalised: [B, T, hidden]."""
        onnx_ = self.onnx
        token = self.token_embeddings()
        position = onnx_.node("Gather", [self.weight("positions.weight"), "position_ids"])
        segment = onnx_.node("Gather", [self.weight("segments.weight"), "segment_ids"])
        return self.add_norm("embedding_norm", onnx_.node("Add", [token, position]), segment)

    def visibility(self) -> str:
        """What `attend` takes as `sees`: its first two axes are the tokens [B, T]."""
        return self.own_bias()

    def attend(self, layer: int, hidden: str, queries: str, sees: str) -> tuple[str, str, str]:
        """Context [B, Q, hidden] of `queries` over the prefix and the row; key, value of the row.

        hidden [B, T, hidden], of which queries [B, Q, hidden] are all or some; sees: `visibility`
        of the queries. Key and value are [B, 1, heads, T, D], as `write_keys_values` takes them.
        """
        onnx_ = self.onnx
        query, key, value = self.project(layer, hidden, queries)
        seen = Attended(
            key,
            value,
            self.layer_of("prefix_key", layer),
            self.layer_of("prefix_value", layer),
            onnx_.node("Unsqueeze", [sees, onnx_.ints(1)]),
        )
        context = self.attention(query, seen)
        context = onnx_.node("Transpose", [context], attributes={"perm": [0, 2, 1, 3]})
        context = onnx_.node("Reshape", [context, onnx_.ints(0, 0, self.shape.hidden)])
        key, value = (onnx_.node("Unsqueeze", [part, onnx_.ints(1)]) for part in (key, value))
        return context, key, value

    def project(self, layer: int, hidden: str, queries: str) -> tuple[str, str, str]:
        """Query [B, heads, Q, D], key and value [B, heads, T, D] of one layer."""
        parts = self.projections(layer)
        width = self.shape.hidden
        if queries != hidden:
            query = self.linear(f"layers.{layer}.query", queries, [parts[0]])
            both = self.linear(f"layers.{layer}.key_value", hidden, parts[1:])
            key, value = self.split(both, [width, width])
        else:
            all_three = self.linear(f"layers.{layer}.query_key_value", hidden, parts)
            query, key, value = self.split(all_three, [width, width, width])
        return self.heads(query), self.heads(key), self.heads(value)

    def projections(self, layer: int) -> list[tuple[Array, Array]]:
        """(weight [out, in], bias [out]) of query, key, value."""
        names = [f"layers.{layer}.{part}" for part in ("query", "key", "value")]
        return [(self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]) for name in names]

    def transform(self, layer: int, queries: str, context: str) -> tuple[str, str]:
        """The rest of a layer: two [B, Q, hidden] whose sum its last norm takes."""
        name = f"layers.{layer}"
        attended = self.linear(f"{name}.attended", context, [self.parameters(f"{name}.attended")])
        hidden = self.add_norm(f"{name}.attention_norm", queries, attended)
        up = self.linear_gelu(f"{name}.up", hidden, [self.parameters(f"{name}.up")])
        return hidden, self.linear(f"{name}.down", up, [self.parameters(f"{name}.down")])

    def write_head(self, residual: str) -> None:
        """Final norm, verbalizer rows, log-odds, calibration: reward and compliance [B, J]."""
        onnx_ = self.onnx
        states = self.norm(self.final_norm(), residual)
        rows = onnx_.constant("verbalizers.rows", self.weights["verbalizers.weight"].T)
        logits = onnx_.node("MatMul", [states, rows])
        logits = onnx_.node("Add", [logits, self.weight("verbalizers.bias")])
        self.write_scores(logits)

    def operators(self) -> dict[str, int]:
        """Domains of operators beside ONNX's own, with their versions."""
        return {}

    # Pieces.

    def norm(self, name: str, states: str) -> str:
        """LayerNorm over the last axis."""
        inputs = [states, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        attributes: dict[str, int | float | str] = {
            "axis": -1,
            "epsilon": self.shape.norm_epsilon,
        }
        return self.onnx.node("LayerNormalization", inputs, attributes=dict(attributes))

    def add_norm(self, name: str, states: str, residual: str) -> str:
        """LayerNorm of a sum."""
        return self.norm(name, self.onnx.node("Add", [states, residual]))

    def linear_gelu(self, name: str, states: str, parts: list[tuple[Array, Array]]) -> str:
        """GELU of `linear`."""
        return self.onnx.node("Gelu", [self.linear(name, states, parts)])

    def heads(self, states: str) -> str:
        """[B, N, hidden] -> [B, heads, N, D]."""
        sizes = self.onnx.ints(0, 0, self.shape.heads, self.shape.head_dim)
        split = self.onnx.node("Reshape", [states, sizes])
        return self.onnx.node("Transpose", [split], attributes={"perm": [0, 2, 1, 3]})

    def parameters(self, name: str) -> tuple[Array, Array]:
        """(weight, bias) of a linear layer."""
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def final_norm(self) -> str:
        """The last layer's norm, which belongs to the head."""
        return f"layers.{self.shape.layers - 1}.output_norm"


def build_graph(
    model: Encoder, calibration: Calibration, *, storage: Storage = "int8"
) -> onnx.ModelProto:
    """`model` as a self-contained ONNX model (no external data) of standard operators.

    storage: see csrm.export.storage.
    """
    return EncoderGraph(model, calibration, storage).build()
