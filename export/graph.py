"""The encoder as an ONNX graph with the signature of docs/datapath.md.

What it is: csrm.train.model written once more in ONNX operators, fast by construction: no expanded
prefix, no concatenated keys, one matrix product for query, key and value, and in the last layer
only the tokens that the head reads. `fused` puts csrm's own RewardHead operator at the end;
everything else is standard (opset 20). Not: files (csrm.export.artifact) or int8 rounding
(csrm.export.storage).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx

from csrm.export.signature_graph import Array, Attended, SignatureGraph, Storage
from csrm.train.calibration.platt import Calibration
from csrm.train.model import Encoder, ModelShape

OPERATOR_DOMAIN = "csrm"
OPERATOR_VERSION = 1

Head = Literal["portable", "fused"]


class EncoderGraph(SignatureGraph):
    """Writes one Encoder as a graph. Use `build_graph`."""

    def __init__(self, model: Encoder, calibration: Calibration, storage: Storage) -> None:
        super().__init__(model, model.shape, calibration, storage)
        self.shape: ModelShape = model.shape

    def build(self, head: Head) -> onnx.ModelProto:
        """The whole graph."""
        onnx_ = self.onnx
        hidden = self.embed()
        bias = self.own_bias()
        index = onnx_.node("Unsqueeze", [self.clamped_pooled_at(), onnx_.ints(-1)])  # [B, J, 1]
        keys, values = [], []
        for layer in range(self.shape.layers):
            is_last = layer == self.shape.layers - 1
            queries = hidden
            if is_last:
                queries = self.taken(hidden, index)
                bias = self.taken(bias, index)  # [B, J, T]
            query, key, value = self.project(layer, hidden, queries, is_last)
            seen = Attended(
                key,
                value,
                self.layer_of("prefix_key", layer),
                self.layer_of("prefix_value", layer),
                onnx_.node("Unsqueeze", [bias, onnx_.ints(1)]),
            )
            keys.append(onnx_.node("Unsqueeze", [key, onnx_.ints(1)]))
            values.append(onnx_.node("Unsqueeze", [value, onnx_.ints(1)]))
            residual = self.transform(layer, queries, self.attend(query, seen))
            if not is_last:
                hidden = self.norm(f"layers.{layer}.output_norm", residual)
        self.write_keys_values(keys, values)
        if head == "fused":
            self.fused_head(residual)
        else:
            self.portable_head(residual)
        return self.close({OPERATOR_DOMAIN: OPERATOR_VERSION} if head == "fused" else {})

    # The stages, in order.

    def embed(self) -> str:
        """Token + position + segment embeddings, normalised: [B, T, hidden]."""
        onnx_ = self.onnx
        token = self.token_embeddings()
        position = onnx_.node("Gather", [self.weight("positions.weight"), "position_ids"])
        segment = onnx_.node("Gather", [self.weight("segments.weight"), "segment_ids"])
        total = onnx_.node("Add", [onnx_.node("Add", [token, position]), segment])
        return self.norm("embedding_norm", total)

    def project(self, layer: int, hidden: str, queries: str, is_last: bool) -> tuple[str, str, str]:
        """Query [B, heads, Q, D], key and value [B, heads, T, D] of one layer."""
        parts = self.projections(layer)
        width = self.shape.hidden
        if is_last:
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

    def attend(self, query: str, seen: Attended) -> str:
        """Context [B, Q, hidden] of `query` over the prefix and the row itself."""
        onnx_ = self.onnx
        context = self.attention(query, seen)
        context = onnx_.node("Transpose", [context], attributes={"perm": [0, 2, 1, 3]})
        return onnx_.node("Reshape", [context, onnx_.ints(0, 0, self.shape.hidden)])

    def transform(self, layer: int, queries: str, context: str) -> str:
        """The rest of a layer, before its last norm: [B, Q, hidden]."""
        onnx_ = self.onnx
        name = f"layers.{layer}"
        attended = self.linear(f"{name}.attended", context, [self.parameters(f"{name}.attended")])
        hidden = self.norm(f"{name}.attention_norm", onnx_.node("Add", [queries, attended]))
        up = self.linear(f"{name}.up", hidden, [self.parameters(f"{name}.up")])
        down = self.linear(
            f"{name}.down", onnx_.node("Gelu", [up]), [self.parameters(f"{name}.down")]
        )
        return onnx_.node("Add", [hidden, down])

    def portable_head(self, residual: str) -> None:
        """Final norm, verbalizer rows, log-odds, calibration: reward and compliance [B, J]."""
        onnx_ = self.onnx
        states = self.norm(self.final_norm(), residual)
        rows = onnx_.constant("verbalizers.rows", self.weights["verbalizers.weight"].T)
        logits = onnx_.node("MatMul", [states, rows])
        logits = onnx_.node("Add", [logits, self.weight("verbalizers.bias")])
        self.write_scores(logits)

    def fused_head(self, residual: str) -> None:
        """The same in one csrm.RewardHead; `residual` holds one state per judged block already."""
        onnx_ = self.onnx
        n_judged = onnx_.node("Gather", [onnx_.node("Shape", ["pooled_at"]), onnx_.int_scalar(1)])
        places = onnx_.node("Range", [onnx_.int_scalar(0), n_judged, onnx_.int_scalar(1)])
        absent = onnx_.node("Less", ["pooled_at", onnx_.int_scalar(0)])
        index = onnx_.node("Where", [absent, onnx_.int_scalar(-1), places])
        calibration = np.array([self.calibration.a, self.calibration.b], dtype=np.float32)
        norm = self.final_norm()
        onnx_.nodes_with_outputs(
            "RewardHead",
            [
                residual,
                index,
                self.weight(f"{norm}.weight"),
                self.weight(f"{norm}.bias"),
                self.weight("verbalizers.weight"),
                self.weight("verbalizers.bias"),
                onnx_.constant("calibration", calibration),
            ],
            ["reward", "compliance"],
            OPERATOR_DOMAIN,
            {"n_safe": self.shape.n_safe, "epsilon": self.shape.norm_epsilon},
        )

    # Pieces.

    def norm(self, name: str, states: str) -> str:
        """LayerNorm over the last axis."""
        inputs = [states, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        attributes: dict[str, int | float | str] = {
            "axis": -1,
            "epsilon": self.shape.norm_epsilon,
        }
        return self.onnx.node("LayerNormalization", inputs, attributes=dict(attributes))

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
    model: Encoder, calibration: Calibration, *, head: Head, storage: Storage = "int8"
) -> onnx.ModelProto:
    """`model` as a self-contained ONNX model (no external data).

    head: "portable" uses standard operators only; "fused" ends in csrm.RewardHead. storage: see
    csrm.export.storage.
    """
    return EncoderGraph(model, calibration, storage).build(head)
