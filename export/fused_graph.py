"""The encoder as a graph of csrm's own operators (csrm.kernels), where they are faster.

What it is: csrm.export.graph with some of its pieces replaced: every linear layer is one
csrm.Linear, with its GELU where it has one; attention is one csrm.PrefixAttention that reads
query, key and value where the linear layer left them; a sum and its norm are one csrm.AddNorm; the
end is one csrm.RewardHead. The stored weights are those of the portable graph, byte for byte, so
that both files can share them (csrm.export.shared_weights). Not: other values or another function;
csrm.export.parity measures how far the two differ.
"""

from __future__ import annotations

import onnx

from csrm.export import fused_nodes
from csrm.export.fused_nodes import Activation, AttentionLayout
from csrm.export.graph import EncoderGraph
from csrm.export.signature_graph import Array, Storage
from csrm.train.calibration.platt import Calibration
from csrm.train.model import Encoder


class FusedEncoderGraph(EncoderGraph):
    """Writes one Encoder in csrm's operators. Use `build_fused_graph`."""

    def linear(self, name: str, states: str, parts: list[tuple[Array, Array]]) -> str:
        """states @ W + b in one csrm.Linear."""
        return self.fused_linear(name, states, parts, "none")

    def linear_gelu(self, name: str, states: str, parts: list[tuple[Array, Array]]) -> str:
        """GELU of that, in the same operator."""
        return self.fused_linear(name, states, parts, "gelu")

    def fused_linear(
        self, name: str, states: str, parts: list[tuple[Array, Array]], activation: Activation
    ) -> str:
        """One csrm.Linear of the stacked `parts` (weight [out, in], bias [out])."""
        weight = self.stored_weight(name, [weight for weight, _ in parts])
        bias = self.stored_bias(name, [bias for _, bias in parts])
        return fused_nodes.linear(self.onnx, states, weight, bias, activation)

    def visibility(self) -> str:
        """How many tokens of its row each token sees: int64 [B, T]."""
        return "visible"

    def attend(self, layer: int, hidden: str, queries: str, sees: str) -> tuple[str, str, str]:
        """As EncoderGraph's, but key and value are [B, 1, T, heads, D]."""
        parts = self.projections(layer)
        if queries != hidden:
            query = self.linear(f"layers.{layer}.query", queries, [parts[0]])
            states = self.linear(f"layers.{layer}.key_value", hidden, parts[1:])
        else:
            query = states = self.linear(f"layers.{layer}.query_key_value", hidden, parts)
        shape = self.shape
        layout = AttentionLayout.of(
            shape.heads, shape.kv_heads, shape.head_dim, layer, is_stacked=query == states
        )
        context = fused_nodes.prefix_attention(self.onnx, query, states, sees, layout)
        return context, *fused_nodes.keys_values(self.onnx, states, layout)

    def write_keys_values(self, keys: list[str], values: list[str]) -> None:
        """The outputs key and value [B, L, heads, T, D] of one [B, 1, T, heads, D] per layer."""
        fused_nodes.write_keys_values(self.onnx, keys, values)

    def add_norm(self, name: str, states: str, residual: str) -> str:
        """LayerNorm of a sum in one csrm.AddNorm."""
        inputs = [states, residual, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        epsilon = self.shape.norm_epsilon
        return fused_nodes.own_node(self.onnx, "AddNorm", inputs, {"epsilon": epsilon})[0]

    def write_head(self, residual: str) -> None:
        """reward and compliance [B, J] in one csrm.RewardHead.

        `residual` [B, J, hidden] holds one state per judged block already.
        """
        self.reward_head(residual, fused_nodes.judged_places(self.onnx))

    def reward_head(self, states: str, index: str) -> None:
        """The outputs of one csrm.RewardHead over `states` [B, N, hidden] at `index` [B, J]."""
        norm = self.final_norm()
        fused_nodes.reward_head(
            self.onnx,
            (states, index),
            (self.weight(f"{norm}.weight"), self.weight(f"{norm}.bias")),
            (self.weight("verbalizers.weight"), self.weight("verbalizers.bias")),
            self.calibration,
            {"n_safe": self.shape.n_safe, "epsilon": self.shape.norm_epsilon},
        )

    def operators(self) -> dict[str, int]:
        """csrm's domain."""
        return {fused_nodes.OPERATOR_DOMAIN: fused_nodes.OPERATOR_VERSION}


def build_fused_graph(
    model: Encoder, calibration: Calibration, *, storage: Storage = "int8"
) -> onnx.ModelProto:
    """`model` as a self-contained ONNX model (no external data) that needs csrm's library.

    storage: see csrm.export.storage.
    """
    return FusedEncoderGraph(model, calibration, storage).build()
