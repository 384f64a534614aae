"""Pieces of a decoder layer in ONNX's operators: RMSNorm, RoPE, SwiGLU.

What it is: the nodes of the portable graph (csrm.export.decoder_graph), here on their own so that
csrm.bench times the same ones. Not: csrm's own operators (csrm.export.fused_nodes).
"""

from __future__ import annotations

from csrm.export.onnx_builder import FLOAT, OnnxBuilder


def rms_norm(
    onnx_: OnnxBuilder, states: str, weight: str, epsilon: float, *, output: str = ""
) -> str:
    """states / rms(states) * weight over the last axis."""
    square = onnx_.node("Mul", [states, states])
    mean = onnx_.node("ReduceMean", [square, onnx_.ints(-1)], attributes={"keepdims": 1})
    added = onnx_.float_scalar("norm_epsilon", epsilon)
    rms = onnx_.node("Sqrt", [onnx_.node("Add", [mean, added])])
    return onnx_.node("Mul", [onnx_.node("Div", [states, rms]), weight], output=output)


def rotations(onnx_: OnnxBuilder, positions: str, frequencies: str) -> tuple[str, str]:
    """Cosine and sine [B, T, 1, D / 2] of positions [B, T] and frequencies [D / 2]."""
    turns = onnx_.node("Cast", [positions], attributes={"to": FLOAT})
    turns = onnx_.node("Unsqueeze", [turns, onnx_.ints(2, 3)])
    angles = onnx_.node("Mul", [turns, frequencies])
    return onnx_.node("Cos", [angles]), onnx_.node("Sin", [angles])


def rotated(onnx_: OnnxBuilder, heads: str, cosine: str, sine: str, head_dim: int) -> str:
    """RoPE on heads [B, T, heads, D]; cosine, sine: `rotations`."""
    half = [head_dim // 2] * 2
    first, second = onnx_.split(heads, half)

    def product(left: str, right: str) -> str:
        return onnx_.node("Mul", [left, right])

    turned = [
        onnx_.node("Sub", [product(first, cosine), product(second, sine)]),
        onnx_.node("Add", [product(second, cosine), product(first, sine)]),
    ]
    return onnx_.node("Concat", turned, attributes={"axis": -1})


def swiglu(onnx_: OnnxBuilder, gate_up: str, intermediate: int, *, output: str = "") -> str:
    """silu(gate) * up [..., intermediate] of gate_up [..., 2 * intermediate]."""
    gate, up = onnx_.split(gate_up, [intermediate, intermediate])
    gate = onnx_.node("Mul", [gate, onnx_.node("Sigmoid", [gate])])
    return onnx_.node("Mul", [gate, up], output=output)
