"""The encoder as a graph of csrm's own operators (csrm.kernels), where they are faster.

What it is: csrm.export.graph with some of its pieces replaced: every linear layer is one
csrm.Linear, with its GELU where it has one; attention is one csrm.PrefixAttention that reads
query, key and value where the linear layer left them; a sum and its norm are one csrm.AddNorm; the
end is one csrm.RewardHead. The stored weights are those of the portable graph, byte for byte, so
that both files can share them (csrm.export.shared_weights). Not: other values or another function;
csrm.export.parity measures how far the two differ.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx

from csrm.export.graph import EncoderGraph
from csrm.export.signature_graph import Array, Storage
from csrm.train.calibration.platt import Calibration
from csrm.train.model import Encoder

OPERATOR_DOMAIN = "csrm"
OPERATOR_VERSION = 1


class FusedEncoderGraph(EncoderGraph):
    """Writes one Encoder in csrm's operators. Use `build_fused_graph`."""

    def linear(self, name: str, states: str, parts: list[tuple[Array, Array]]) -> str:
        """states @ W + b in one csrm.Linear."""
        return self.fused_linear(name, states, parts, "none")

    def linear_gelu(self, name: str, states: str, parts: list[tuple[Array, Array]]) -> str:
        """GELU of that, in the same operator."""
        return self.fused_linear(name, states, parts, "gelu")

    def fused_linear(
        self,
        name: str,
        states: str,
        parts: list[tuple[Array, Array]],
        activation: Literal["none", "gelu"],
    ) -> str:
        """One csrm.Linear of the stacked `parts` (weight [out, in], bias [out])."""
        weight, scale = self.stored_weight(name, [weight for weight, _ in parts])
        bias = self.stored_bias(name, [bias for _, bias in parts])
        return self.onnx.node(
            "Linear",
            [states, weight, scale, bias],
            domain=OPERATOR_DOMAIN,
            attributes={"activation": activation},
        )

    def visibility(self) -> str:
        """How many tokens of its row each token sees: int64 [B, T]."""
        return "visible"

    def attend(self, layer: int, hidden: str, queries: str, sees: str) -> tuple[str, str, str]:
        """As EncoderGraph's, but key and value are [B, 1, T, heads, D]."""
        parts = self.projections(layer)
        width = self.shape.hidden
        if queries != hidden:
            query = self.linear(f"layers.{layer}.query", queries, [parts[0]])
            states = self.linear(f"layers.{layer}.key_value", hidden, parts[1:])
        else:
            query = states = self.linear(f"layers.{layer}.query_key_value", hidden, parts)
        n_before = 1 if query == states else 0  # widths in front of the key's
        offsets = (0, n_before * width, (n_before + 1) * width)
        context = self.prefix_attention(layer, query, states, sees, offsets)
        heads, head_dim = self.shape.heads, self.shape.head_dim
        split = self.reshaped(states, 0, 0, n_before + 2, heads, head_dim)
        key, value = (
            self.onnx.node("Gather", [split, self.onnx.ints(part)], attributes={"axis": 2})
            for part in (n_before, n_before + 1)
        )
        sizes = (0, 1, -1, heads, head_dim)
        return context, self.reshaped(key, *sizes), self.reshaped(value, *sizes)

    def prefix_attention(
        self, layer: int, query: str, states: str, sees: str, offsets: tuple[int, int, int]
    ) -> str:
        """Context of one csrm.PrefixAttention; offsets: columns of query, key and value."""
        return self.onnx.node(
            "PrefixAttention",
            [query, states, "prefix_key", "prefix_value", sees],
            domain=OPERATOR_DOMAIN,
            attributes={
                "heads": self.shape.heads,
                "kv_heads": self.shape.kv_heads,
                "head_dim": self.shape.head_dim,
                "layer": layer,
                "query_offset": offsets[0],
                "key_offset": offsets[1],
                "value_offset": offsets[2],
                "scale": self.shape.head_dim**-0.5,
            },
        )

    def write_keys_values(self, keys: list[str], values: list[str]) -> None:
        """The outputs key and value [B, L, heads, T, D] of one [B, 1, T, heads, D] per layer."""
        for name, layers in (("key", keys), ("value", values)):
            joined = self.onnx.node("Concat", layers, attributes={"axis": 1})
            self.onnx.node("Transpose", [joined], output=name, attributes={"perm": [0, 1, 3, 2, 4]})

    def add_norm(self, name: str, states: str, residual: str) -> str:
        """LayerNorm of a sum in one csrm.AddNorm."""
        return self.onnx.node(
            "AddNorm",
            [states, residual, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")],
            domain=OPERATOR_DOMAIN,
            attributes={"epsilon": self.shape.norm_epsilon},
        )

    def write_head(self, residual: str) -> None:
        """reward and compliance [B, J] in one csrm.RewardHead.

        `residual` [B, J, hidden] holds one state per judged block already.
        """
        onnx_ = self.onnx
        n_judged = onnx_.node("Gather", [onnx_.node("Shape", ["pooled_at"]), onnx_.int_scalar(1)])
        places = onnx_.node("Range", [onnx_.int_scalar(0), n_judged, onnx_.int_scalar(1)])
        absent = onnx_.node("Less", ["pooled_at", onnx_.int_scalar(0)])
        self.reward_head(residual, onnx_.node("Where", [absent, onnx_.int_scalar(-1), places]))

    def reward_head(self, states: str, index: str) -> None:
        """The outputs of one csrm.RewardHead over `states` [B, N, hidden] at `index` [B, J]."""
        onnx_ = self.onnx
        calibration = np.array([self.calibration.a, self.calibration.b], dtype=np.float32)
        norm = self.final_norm()
        onnx_.nodes_with_outputs(
            "RewardHead",
            [
                states,
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

    def operators(self) -> dict[str, int]:
        """csrm's domain."""
        return {OPERATOR_DOMAIN: OPERATOR_VERSION}


def build_fused_graph(
    model: Encoder, calibration: Calibration, *, storage: Storage = "int8"
) -> onnx.ModelProto:
    """`model` as a self-contained ONNX model (no external data) that needs csrm's library.

    storage: see csrm.export.storage.
    """
    return FusedEncoderGraph(model, calibration, storage).build()
