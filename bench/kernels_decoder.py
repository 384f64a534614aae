"""Times the cases of csrm.kernels.cases_rope and cases_swiglu marked so, beside the engine's own
operators.

The row "engine" is the same computation in the nodes that csrm.export writes for the portable
decoder, with every optimisation of the engine. Not: a decoder's other operators
(csrm.bench.kernels_linear, csrm.bench.kernels_attention).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from csrm.bench.kernel_versions import ENGINE, in_engine, timed
from csrm.bench.kernels_attention import operator_versions
from csrm.export.decoder_nodes import rms_norm, rotated, rotations, swiglu
from csrm.export.onnx_builder import FLOAT, INT64, OnnxBuilder
from csrm.kernels import RopeCase, SwiGluCase
from csrm.kernels.one_node import present

ROUNDS = 50
N_COPIES = 16  # of Rope in one model: one takes little more than a call of the engine


def time_rope(
    case: RopeCase, library: Path, threads: int, *, rounds: int = ROUNDS
) -> list[dict[str, Any]]:
    """Rows of one case [1, T]: every version this CPU has and the engine, in one interleaved run.

    The engine computes cosines and sines once for all copies, as in a portable model. Row: kernel,
    case, isa, threads, us (median of one of 16 operators), faster, rounds.
    """
    inputs = vars(case.inputs())
    actions = operator_versions("Rope", inputs, case.attributes, library, threads, N_COPIES)
    actions[ENGINE] = in_engine(rope_in_engine(case), present(inputs), threads)
    return timed("Rope", case.name, actions, threads, rounds, N_COPIES)


def time_swiglu(
    case: SwiGluCase, library: Path, threads: int, *, rounds: int = ROUNDS
) -> list[dict[str, Any]]:
    """Rows of one case: every version this CPU has and the engine, in one interleaved run.

    Row: kernel, case, isa, threads, us (median of a model of one operator, with the call of the
    engine), faster, rounds.
    """
    inputs = vars(case.inputs())
    actions = operator_versions("SwiGlu", inputs, {}, library, threads, 1)
    actions[ENGINE] = in_engine(swiglu_in_engine(case), inputs, threads)
    return timed("SwiGlu", case.name, actions, threads, rounds, 1)


def rope_in_engine(case: RopeCase) -> bytes:
    """A chain of Rope in ONNX's operators; each takes the one before it as x."""
    onnx_ = OnnxBuilder()
    cosine, sine = rotations(onnx_, "positions", "frequencies")
    width = case.heads * case.head_dim
    y = "x"
    for i in range(N_COPIES):
        turned, rest = onnx_.split(y, [width, case.rest])
        turned = onnx_.node("Reshape", [turned, onnx_.ints(0, 0, case.heads, case.head_dim)])
        if case.has_norm:
            weight = onnx_.node("Reshape", ["weight", onnx_.ints(case.heads, case.head_dim)])
            turned = rms_norm(onnx_, turned, weight, case.epsilon)
        turned = rotated(onnx_, turned, cosine, sine, case.head_dim)
        turned = onnx_.node("Reshape", [turned, onnx_.ints(0, 0, width)])
        output = "y" if i == N_COPIES - 1 else ""
        y = onnx_.node("Concat", [turned, rest], output=output, attributes={"axis": -1})
    infos: dict[str, tuple[int, list[str | int]]] = {
        "x": (FLOAT, ["B", "T", width + case.rest]),
        "positions": (INT64, ["B", "T"]),
        "frequencies": (FLOAT, [case.head_dim // 2]),
    }
    if case.has_norm:
        infos["weight"] = (FLOAT, [width])
    return bytes(onnx_.model(infos, {"y": infos["x"]}, {"": 20}, {}).SerializeToString())


def swiglu_in_engine(case: SwiGluCase) -> bytes:
    """SwiGlu in ONNX's operators."""
    onnx_ = OnnxBuilder()
    swiglu(onnx_, "x", case.columns, output="y")
    rows: list[str | int] = [f"axis_{axis}" for axis in range(len(case.rows))]
    model = onnx_.model(
        {"x": (FLOAT, [*rows, 2 * case.columns])},
        {"y": (FLOAT, [*rows, case.columns])},
        {"": 20},
        {},
    )
    return bytes(model.SerializeToString())
