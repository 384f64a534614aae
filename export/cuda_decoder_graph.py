"""The decoder as a graph for NVIDIA GPUs: fp16 layers on an fp32 residual stream.

What it is: csrm.export.fused_decoder_graph for ONNX Runtime's CUDA provider. Matrix products are
standard MatMul in fp16 (csrm.export.cuda_nodes); RoPE, attention, norms with their sums, SwiGLU,
all layers' keys and values and the head are csrm's operators in libcsrm_cuda.so. prefix_key and
prefix_value are fp16, key, value, reward and compliance fp32. The stored weights are those of the
portable graph, byte for byte (csrm.export.shared_weights). Not: for a CPU, and not an encoder
(csrm.export.cuda_graph, which says what a captured graph may hold).

What is fp32: the residual stream, which grows from layer to layer and leaves fp16 in known models,
from the embeddings to the head; every norm's sums, angles, softmax and the head itself. What is
fp16: what a norm gives, and what products give, which csrm.AddNorm adds to the stream. A product
that fp16 cannot hold is infinite there, and the next norm, or csrm.Rope for a key or query, makes
NaN of it: an error of the engine (NonFinite) and never a score.
"""

from __future__ import annotations

import onnx

from csrm.errors import Unsupported
from csrm.export import cuda_nodes
from csrm.export.cuda_nodes import Stack
from csrm.export.fused_decoder_graph import FusedDecoderGraph
from csrm.export.fused_nodes import AttentionLayout
from csrm.export.onnx_builder import FLOAT, FLOAT16
from csrm.export.signature_graph import Storage
from csrm.train.calibration.platt import Calibration
from csrm.train.decoder import Decoder, DecoderShape

# Limits of the kernels (kernels/cuda/*.h); "heads": queries' and keys', which are turned together.
MOST = {"head_dim": 256, "hidden": 16384, "heads": 1024, "layers": 256}


class CudaDecoderGraph(FusedDecoderGraph):
    """Writes one Decoder for a GPU. Use `build_cuda_decoder_graph`."""

    prefix_type = FLOAT16

    def judged(self, *states: str) -> list[str]:
        """All tokens: the head finds the judged ones by itself."""
        return list(states)

    def projection(self, name: str, states: str, names: list[str]) -> str:
        """The stacked linear layers `names` in one product, fp16."""
        groups = {name: names}
        if name == f"layers.{self.shape.layers - 1}.query_key_value":
            # Stored apart, for the graphs whose last layer has queries of judged tokens alone.
            layer = name.removesuffix("query_key_value")
            groups = {f"{layer}query": names[:1], f"{layer}key_value": names[1:]}
        stacks = [self.stack(stored, group) for stored, group in groups.items()]
        return cuda_nodes.linear(self, states, stacks)

    def stack(self, name: str, names: list[str]) -> Stack:
        """The linear layers `names` as they are stored under `name`."""
        biases = [f"{part}.bias" for part in names]
        return Stack(
            name,
            [self.weights[f"{part}.weight"] for part in names],
            [self.weights[bias] for bias in biases if bias in self.weights],
        )

    def norm(self, name: str, states: str) -> str:
        """RMSNorm of the stream alone, fp16."""
        return cuda_nodes.half(self.onnx, super().norm(name, states))

    def total(self, residual: str, states: str) -> str:
        """residual + states, fp32."""
        wide = self.onnx.node("Cast", [states], attributes={"to": FLOAT})
        return self.onnx.node("Add", [residual, wide])

    def keys_values(self, states: str, layout: AttentionLayout) -> tuple[str, str]:
        """The projections themselves: `write_keys_values` takes keys and values out of them."""
        return states, states

    def write_keys_values(self, keys: list[str], values: list[str]) -> None:
        """The outputs key and value of each layer's projections."""
        shape = self.shape
        layout = AttentionLayout.of(shape.heads, shape.kv_heads, shape.head_dim, 0, is_stacked=True)
        cuda_nodes.write_keys_values(self.onnx, keys, layout)

    def write_head(self, residual: str) -> None:
        """reward and compliance [B, J] in one csrm.RewardHead over `residual` [B, T, hidden]."""
        self.reward_head(residual, "pooled_at")


def check_sizes(shape: DecoderShape) -> None:
    """Errors: Unsupported when csrm's operators for CUDA do not take the sizes of the model."""
    sizes = {
        "head_dim": shape.head_dim,
        "hidden": shape.hidden,
        "heads": shape.heads + shape.kv_heads,
        "layers": shape.layers,
    }
    for name, size in sizes.items():
        if size > MOST[name]:
            raise Unsupported(
                f"the model's {name} is {size}; operators for CUDA take up to {MOST[name]}: run "
                "the portable graph there"
            )


def build_cuda_decoder_graph(
    model: Decoder, calibration: Calibration, *, storage: Storage = "int8"
) -> onnx.ModelProto:
    """`model` as a self-contained ONNX model (no external data) that needs libcsrm_cuda.so.

    storage: see csrm.export.storage. Errors: Unsupported (a size that the operators do not take),
    BadArtifact (a weight that fp16 does not hold).
    """
    check_sizes(model.shape)
    cuda_nodes.check_range(model)
    return CudaDecoderGraph(model, calibration, storage).build()
