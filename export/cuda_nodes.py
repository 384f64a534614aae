"""What graphs for NVIDIA GPUs are written with, whatever the model: fp16 products, keys and values.

What it is: nodes that csrm.export.cuda_graph (encoders) and csrm.export.cuda_decoder_graph share.
A linear layer is a standard MatMul in fp16, which ONNX Runtime's CUDA provider gives to cuBLAS; its
weights are stored as those of the portable graph, and the engine unfolds and rounds them at load.
Not: csrm's operators that a CPU has too (csrm.export.fused_nodes). Names of tensors go in and out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from csrm.errors import BadArtifact
from csrm.export import fused_nodes
from csrm.export.fused_nodes import AttentionLayout
from csrm.export.onnx_builder import FLOAT16, Attribute, OnnxBuilder
from csrm.export.signature_graph import Array, SignatureGraph

LARGEST = 65520.0  # from here on fp16 rounds to infinity


@dataclass(frozen=True)
class Stack:
    """Linear layers that are stored as one matrix: weights [out, in] and biases [out] of each."""

    name: str
    weights: list[Array]
    biases: list[Array]  # none, or one for each


def check_range(model: nn.Module) -> None:
    """Errors: BadArtifact for a parameter with a number that fp16 cannot hold."""
    for name, parameter in model.state_dict().items():
        if not parameter.abs().max() < LARGEST:
            raise BadArtifact(f"a number of {name} is larger than fp16 holds")


def linear(graph: SignatureGraph, states: str, stacks: Sequence[Stack]) -> str:
    """One product in fp16, states @ W + b, with the columns of all `stacks`.

    What the portable graph stores apart is stacked here by the engine, at load.
    """
    onnx_ = graph.onnx
    matrices = [
        unfolded(onnx_, *graph.stored_weight(stack.name, stack.weights), axis=1) for stack in stacks
    ]
    product = onnx_.node("MatMul", [states, half(onnx_, joined(onnx_, matrices, axis=1))])
    biases = [graph.stored_bias(stack.name, stack.biases) for stack in stacks if stack.biases]
    if not biases:
        return product
    return onnx_.node("Add", [product, half(onnx_, joined(onnx_, biases, axis=0))])


def joined(onnx_: OnnxBuilder, parts: Sequence[str], *, axis: int) -> str:
    """`parts` side by side."""
    if len(parts) == 1:
        return parts[0]
    return onnx_.node("Concat", parts, attributes={"axis": axis})


def half(onnx_: OnnxBuilder, name: str) -> str:
    """A tensor as fp16; of a constant the engine rounds it once, at load."""
    return onnx_.node("Cast", [name], attributes={"to": FLOAT16})


def unfolded(onnx_: OnnxBuilder, values: str, scale: str, *, axis: int) -> str:
    """A stored matrix as fp32; the engine unfolds it once, at load."""
    if not scale:
        return values
    attributes: dict[str, Attribute] = {"axis": axis}
    return onnx_.node("DequantizeLinear", [values, scale], attributes=attributes)


def write_keys_values(onnx_: OnnxBuilder, states: Sequence[str], layout: AttentionLayout) -> None:
    """The outputs key and value [B, L, kv_heads, T, D], fp32, of each layer's projections
    [B, T, ..]: one csrm.KeysValues for all layers.

    It runs for every score, because the engine always runs a whole graph.
    """
    attributes: dict[str, Attribute] = {
        "kv_heads": layout.kv_heads,
        "head_dim": layout.head_dim,
        "key_offset": layout.key_offset,
        "value_offset": layout.value_offset,
    }
    onnx_.nodes_with_outputs(
        "KeysValues", states, ["key", "value"], fused_nodes.OPERATOR_DOMAIN, attributes
    )
