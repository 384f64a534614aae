"""The decoder as a graph of csrm's own operators (csrm.kernels).

What it is: csrm.export.decoder_graph with its pieces replaced: every projection is one csrm.Linear;
one csrm.Rope turns queries and keys where the projection left them, their norms with it; attention
is one csrm.PrefixAttention over grouped heads; a sum and its RMSNorm are one csrm.AddNorm, which
gives both; SwiGLU is one csrm.SwiGlu; the end is one csrm.RewardHead. The stored weights are those
of the portable graph, byte for byte, so that both files can share them
(csrm.export.shared_weights). Not: other values or another function.
"""

from __future__ import annotations

import numpy as np
import onnx

from csrm.export import fused_nodes
from csrm.export.decoder_graph import DecoderGraph
from csrm.export.fused_nodes import AttentionLayout, own_node
from csrm.export.onnx_builder import Attribute
from csrm.export.signature_graph import Storage
from csrm.train.calibration.platt import Calibration
from csrm.train.decoder import Decoder


class FusedDecoderGraph(DecoderGraph):
    """Writes one Decoder in csrm's operators. Use `build_fused_decoder_graph`."""

    def places(self) -> tuple[str, ...]:
        """The position of each token and how many of its row it sees: int64 [B, T] both."""
        return "position_ids", "visible"

    def attend(
        self,
        layer: int,
        normed: str,
        queries: str,
        places: tuple[str, ...],
        queries_at: tuple[str, ...],
    ) -> tuple[str, str, str]:
        """As DecoderGraph's, but key and value are [B, 1, T, kv_heads, D]."""
        shape = self.shape
        parts = ["query", "key", "value"]
        if queries != normed:
            query = self.turned_projection(layer, queries, parts[:1], queries_at[0])
            states = self.turned_projection(layer, normed, parts[1:], places[0])
        else:
            query = states = self.turned_projection(layer, normed, parts, places[0])
        layout = AttentionLayout.of(
            shape.heads, shape.kv_heads, shape.head_dim, layer, is_stacked=query == states
        )
        context = fused_nodes.prefix_attention(self.onnx, query, states, queries_at[1], layout)
        return context, *self.keys_values(states, layout)

    def keys_values(self, states: str, layout: AttentionLayout) -> tuple[str, str]:
        """Key and value of a row's projections, as `write_keys_values` takes them."""
        return fused_nodes.keys_values(self.onnx, states, layout)

    def turned_projection(self, layer: int, states: str, parts: list[str], positions: str) -> str:
        """The stacked projections `parts` of states, queries and keys among them rotated."""
        shape = self.shape
        stack = f"layers.{layer}.{'_'.join(parts)}"
        projected = self.projection(stack, states, [f"layers.{layer}.{part}" for part in parts])
        n_heads = {"query": shape.heads, "key": shape.kv_heads}
        turned = [part for part in parts if part in n_heads]
        weight = ""
        if shape.has_qk_norm:
            weights = [
                np.tile(self.weights[f"layers.{layer}.{part}_norm.weight"], n_heads[part])
                for part in turned
            ]
            weight = self.onnx.constant(f"{stack}_norm.weight", np.concatenate(weights))
        frequencies = self.onnx.constant("frequencies", self.frequencies)
        attributes: dict[str, Attribute] = {
            "heads": sum(n_heads[part] for part in turned),
            "head_dim": shape.head_dim,
            "epsilon": shape.norm_epsilon,
        }
        inputs = [projected, positions, frequencies, weight]
        return own_node(self.onnx, "Rope", inputs, attributes)[0]

    def projection(self, name: str, states: str, names: list[str]) -> str:
        """One csrm.Linear of the stacked linear layers `names`."""
        weight = self.stored_weight(name, [self.weights[f"{part}.weight"] for part in names])
        bias = ""
        if f"{names[0]}.bias" in self.weights:
            bias = self.stored_bias(name, [self.weights[f"{part}.bias"] for part in names])
        return fused_nodes.linear(self.onnx, states, weight, bias, "none")

    def norm(self, name: str, states: str) -> str:
        """RMSNorm in one csrm.AddNorm that adds nothing."""
        inputs = [states, "", self.weight(f"{name}.weight")]
        return own_node(self.onnx, "AddNorm", inputs, self.norm_attributes())[0]

    def add_norm(self, name: str, states: str, residual: str) -> tuple[str, str]:
        """states + residual and its RMSNorm, in one csrm.AddNorm."""
        inputs = [states, residual, self.weight(f"{name}.weight")]
        normed, total = own_node(self.onnx, "AddNorm", inputs, self.norm_attributes(), 2)
        return total, normed

    def norm_attributes(self) -> dict[str, Attribute]:
        """Of every norm."""
        return {"kind": "rms", "epsilon": self.shape.norm_epsilon}

    def swiglu(self, gate_up: str) -> str:
        """silu(gate) * up in one csrm.SwiGlu."""
        return own_node(self.onnx, "SwiGlu", [gate_up], {})[0]

    def write_keys_values(self, keys: list[str], values: list[str]) -> None:
        """The outputs key and value of one [B, 1, T, kv_heads, D] per layer."""
        fused_nodes.write_keys_values(self.onnx, keys, values)

    def write_head(self, residual: str) -> None:
        """reward and compliance [B, J] in one csrm.RewardHead, whose rows have no bias.

        `residual` [B, J, hidden] holds one state per judged turn already.
        """
        self.reward_head(residual, fused_nodes.judged_places(self.onnx))

    def reward_head(self, states: str, index: str) -> None:
        """The outputs of one csrm.RewardHead over `states` [B, N, hidden] at `index` [B, J]."""
        fused_nodes.reward_head(
            self.onnx,
            (states, index),
            (self.weight("output_norm.weight"), ""),
            (self.weight("verbalizers.weight"), ""),
            self.calibration,
            {"n_safe": self.shape.n_safe, **self.norm_attributes()},
        )

    def operators(self) -> dict[str, int]:
        """csrm's domain."""
        return {fused_nodes.OPERATOR_DOMAIN: fused_nodes.OPERATOR_VERSION}


def build_fused_decoder_graph(
    model: Decoder, calibration: Calibration, *, storage: Storage = "int8"
) -> onnx.ModelProto:
    """`model` as a self-contained ONNX model (no external data) that needs csrm's library.

    storage: see csrm.export.storage.
    """
    return FusedDecoderGraph(model, calibration, storage).build()
