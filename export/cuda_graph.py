"""The encoder as a graph for NVIDIA GPUs: fp16 states, csrm's own operators where they are faster.

What it is: csrm.export.graph for ONNX Runtime's CUDA provider. Matrix products are standard MatMul
in fp16 (csrm.export.cuda_nodes); attention is one csrm.PrefixAttention, a sum and its norm one
csrm.AddNorm, all layers' keys and values one csrm.KeysValues, the end one csrm.RewardHead, which
compute in fp32 from fp16 and are in libcsrm_cuda.so. prefix_key and prefix_value are fp16, key,
value, reward and compliance fp32. The stored weights are those of the portable graph, byte for byte
(csrm.export.shared_weights); the engine unfolds and rounds them to fp16 at load. Not: for a CPU,
and not a decoder (csrm.export.cuda_decoder_graph).

Every node runs on the GPU and no shape is computed from data, so that a run can be captured in a
CUDA graph. That is why the last layer computes all tokens instead of the judged ones (one launch
either way) and the head reads them by itself: a GatherND copies its sizes from memory of the host
that is gone when a captured graph is replayed.
"""

from __future__ import annotations

import onnx

from csrm.export import cuda_nodes, fused_nodes
from csrm.export.cuda_nodes import Stack
from csrm.export.fused_graph import FusedEncoderGraph
from csrm.export.fused_nodes import AttentionLayout
from csrm.export.onnx_builder import FLOAT16
from csrm.export.signature_graph import Array, Storage
from csrm.export.storage import quantise
from csrm.train.calibration.platt import Calibration
from csrm.train.model import Encoder


class CudaEncoderGraph(FusedEncoderGraph):
    """Writes one Encoder for a GPU. Use `build_cuda_graph`."""

    prefix_type = FLOAT16

    def build(self) -> onnx.ModelProto:
        """The whole graph."""
        hidden = self.embed()
        states = []
        for layer in range(self.shape.layers):
            states.append(self.stacked_projections(layer, hidden))
            context = self.attention_of(layer, states[-1])
            attended, down = self.transform(layer, hidden, context)
            if layer + 1 < self.shape.layers:
                hidden = self.add_norm(f"layers.{layer}.output_norm", attended, down)
        cuda_nodes.write_keys_values(self.onnx, states, self.layout(0))
        self.write_head(self.onnx.node("Add", [attended, down]))
        return self.close(self.operators())

    def token_embeddings(self) -> str:
        """Rows of the token table at input_ids: fp16 [B, T, hidden]."""
        if self.storage == "fp32":
            return self.rows_at("tokens.weight", "input_ids")
        stored = quantise(self.weights["tokens.weight"])
        values = self.onnx.constant("tokens.weight", stored.values)
        scale = self.onnx.constant("tokens.scale", stored.scale)
        table = cuda_nodes.unfolded(self.onnx, values, scale, axis=0)
        return self.onnx.node("Gather", [cuda_nodes.half(self.onnx, table), "input_ids"])

    def embed(self) -> str:
        """Token + position + segment embeddings, normalised: fp16 [B, T, hidden]."""
        position = self.rows_at("positions.weight", "position_ids")
        segment = self.rows_at("segments.weight", "segment_ids")
        states = self.onnx.node("Add", [self.token_embeddings(), position])
        return self.add_norm("embedding_norm", states, segment)

    def stacked_projections(self, layer: int, hidden: str) -> str:
        """Query, key and value [B, T, 3 hidden] of one layer.

        The portable graph stores the last layer's query apart; the engine stacks them at load.
        """
        name, parts = f"layers.{layer}", self.projections(layer)
        if layer + 1 < self.shape.layers:
            return self.linear(f"{name}.query_key_value", hidden, parts)
        apart = [stack(f"{name}.query", parts[:1]), stack(f"{name}.key_value", parts[1:])]
        return cuda_nodes.linear(self, hidden, apart)

    def layout(self, layer: int) -> AttentionLayout:
        """Where a layer's query, key and value lie."""
        shape = self.shape
        return AttentionLayout.of(
            shape.heads, shape.kv_heads, shape.head_dim, layer, is_stacked=True
        )

    def attention_of(self, layer: int, states: str) -> str:
        """Context [B, T, hidden] of the stacked query, key and value `states` of a layer."""
        layout = self.layout(layer)
        return fused_nodes.prefix_attention(self.onnx, states, states, "visible", layout)

    def linear(self, name: str, states: str, parts: list[tuple[Array, Array]]) -> str:
        """states @ W + b in fp16."""
        return cuda_nodes.linear(self, states, [stack(name, parts)])

    def linear_gelu(self, name: str, states: str, parts: list[tuple[Array, Array]]) -> str:
        """GELU of that; the engine joins it with the sum."""
        return self.onnx.node("Gelu", [self.linear(name, states, parts)])

    def write_head(self, residual: str) -> None:
        """reward and compliance [B, J] in one csrm.RewardHead over `residual` [B, T, hidden]."""
        self.reward_head(residual, "pooled_at")

    # Pieces.

    def rows_at(self, name: str, index: str) -> str:
        """Rows of a small table at `index`, fp16."""
        rows = cuda_nodes.half(self.onnx, self.weight(name))
        return self.onnx.node("Gather", [rows, index])


def stack(name: str, parts: list[tuple[Array, Array]]) -> Stack:
    """Linear layers (weight, bias) as csrm.export.cuda_nodes takes them."""
    return Stack(name, [weight for weight, _ in parts], [bias for _, bias in parts])


def build_cuda_graph(
    model: Encoder, calibration: Calibration, *, storage: Storage = "int8"
) -> onnx.ModelProto:
    """`model` as a self-contained ONNX model (no external data) that needs libcsrm_cuda.so.

    storage: see csrm.export.storage. Errors: BadArtifact (a weight that fp16 does not hold).
    """
    cuda_nodes.check_range(model)
    return CudaEncoderGraph(model, calibration, storage).build()
