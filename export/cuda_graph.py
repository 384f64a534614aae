"""The encoder as a graph for NVIDIA GPUs: fp16 states, csrm's own operators where they are faster.

What it is: csrm.export.graph for ONNX Runtime's CUDA provider. Matrix products are standard MatMul
in fp16, which the provider gives to cuBLAS; attention is one csrm.PrefixAttention, a sum and its
norm one csrm.AddNorm, the end one csrm.RewardHead, which compute in fp32 from fp16 and are in
libcsrm_cuda.so. prefix_key and prefix_value are fp16, key, value, reward and compliance fp32. The
stored weights are those of the portable graph, byte for byte (csrm.export.shared_weights); the
engine unfolds and rounds them to fp16 at load. Not: for a CPU, and no decoder.

Every node runs on the GPU and no shape is computed from data, so that a run can be captured in a
CUDA graph. That is why the last layer computes all tokens instead of the judged ones (one launch
either way) and the head reads them by itself: a GatherND copies its sizes from memory of the host
that is gone when a captured graph is replayed.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from csrm.export.fused_graph import FusedEncoderGraph
from csrm.export.onnx_builder import Attribute
from csrm.export.signature_graph import Array, Storage
from csrm.export.storage import quantise
from csrm.train.calibration.platt import Calibration
from csrm.train.model import Encoder

FLOAT = int(TensorProto.FLOAT)
FLOAT16 = int(TensorProto.FLOAT16)


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
        self.write_all_keys_values(states)
        self.write_head(self.onnx.node("Add", [attended, down]))
        return self.close(self.operators())

    def token_embeddings(self) -> str:
        """Rows of the token table at input_ids: fp16 [B, T, hidden]."""
        if self.storage == "fp32":
            return self.rows_at("tokens.weight", "input_ids")
        stored = quantise(self.weights["tokens.weight"])
        values = self.onnx.constant("tokens.weight", stored.values)
        scale = self.onnx.constant("tokens.scale", stored.scale)
        table = self.unfolded(values, scale, axis=0)
        return self.onnx.node("Gather", [self.half(table), "input_ids"])

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
        matrices, biases = [], []
        for stack, group in ((f"{name}.query", parts[:1]), (f"{name}.key_value", parts[1:])):
            stored = self.stored_weight(stack, [weight for weight, _ in group])
            matrices.append(self.unfolded(*stored, axis=1))
            biases.append(self.stored_bias(stack, [bias for _, bias in group]))
        matrix = self.onnx.node("Concat", matrices, attributes={"axis": 1})
        product = self.onnx.node("MatMul", [hidden, self.half(matrix)])
        bias = self.half(self.onnx.node("Concat", biases, attributes={"axis": 0}))
        return self.onnx.node("Add", [product, bias])

    def attention_of(self, layer: int, states: str) -> str:
        """Context [B, T, hidden] of the stacked query, key and value `states` of a layer."""
        width = self.shape.hidden
        return self.prefix_attention(layer, states, states, "visible", (0, width, 2 * width))

    def linear(self, name: str, states: str, parts: list[tuple[Array, Array]]) -> str:
        """states @ W + b in fp16."""
        product = self.product(name, states, [weight for weight, _ in parts])
        bias = self.half(self.stored_bias(name, [bias for _, bias in parts]))
        return self.onnx.node("Add", [product, bias])

    def linear_gelu(self, name: str, states: str, parts: list[tuple[Array, Array]]) -> str:
        """GELU of that; the engine joins it with the sum."""
        return self.onnx.node("Gelu", [self.linear(name, states, parts)])

    def product(self, name: str, states: str, parts: list[Array]) -> str:
        """states @ W in fp16 for the stacked weights `parts` ([out, in] each)."""
        weight = self.unfolded(*self.stored_weight(name, parts), axis=1)
        return self.onnx.node("MatMul", [states, self.half(weight)])

    def write_all_keys_values(self, states: list[str]) -> None:
        """key and value [B, L, heads, T, D] of each layer's query, key and value [B, T, 3 hidden].

        For all layers at once: these nodes run for every score, because the engine always runs a
        whole graph.
        """
        onnx_ = self.onnx
        heads, head_dim = self.shape.heads, self.shape.head_dim
        layers = [onnx_.node("Unsqueeze", [one, onnx_.ints(1)]) for one in states]
        joined = onnx_.node("Concat", layers, attributes={"axis": 1})  # [B, L, T, 3 hidden]
        sizes = (0, 0, 0, 3, heads, head_dim)
        parts = self.reshaped(joined, *sizes, axes=[3, 0, 1, 4, 2, 5])
        for part, name in ((1, "key"), (2, "value")):
            one = onnx_.node("Gather", [parts, onnx_.ints(part)], attributes={"axis": 0})
            one = onnx_.node("Squeeze", [one, onnx_.ints(0)])
            onnx_.node("Cast", [one], output=name, attributes={"to": FLOAT})

    def write_head(self, residual: str) -> None:
        """reward and compliance [B, J] in one csrm.RewardHead over `residual` [B, T, hidden]."""
        self.reward_head(residual, "pooled_at")

    # Pieces.

    def rows_at(self, name: str, index: str) -> str:
        """Rows of a small table at `index`, fp16."""
        return self.onnx.node("Gather", [self.half(self.weight(name)), index])

    def half(self, name: str) -> str:
        """A constant as fp16; the engine rounds it once, at load."""
        return self.onnx.node("Cast", [name], attributes={"to": FLOAT16})

    def unfolded(self, values: str, scale: str, *, axis: int) -> str:
        """A stored matrix as fp32; the engine unfolds it once, at load."""
        if not scale:
            return values
        attributes: dict[str, Attribute] = {"axis": axis}
        return self.onnx.node("DequantizeLinear", [values, scale], attributes=attributes)


def build_cuda_graph(
    model: Encoder, calibration: Calibration, *, storage: Storage = "int8"
) -> onnx.ModelProto:
    """`model` as a self-contained ONNX model (no external data) that needs libcsrm_cuda.so.

    storage: see csrm.export.storage.
    """
    return CudaEncoderGraph(model, calibration, storage).build()
