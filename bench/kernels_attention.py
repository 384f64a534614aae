"""Times the cases of csrm.kernels.cases_attention and cases_add_norm marked so, beside the engine's
own operators.

The row "engine" is the same computation in ONNX's operators with every optimisation of the engine:
of attention, the nodes that csrm.export writes for the portable model. Not: RewardHead
(csrm.bench.kernels) and Linear (csrm.bench.kernels_linear).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as engine_errors

from csrm.bench.kernels_linear import ENGINE, engine_session
from csrm.bench.timing import interleaved
from csrm.export.onnx_builder import FLOAT, INT64, OnnxBuilder
from csrm.kernels import AddNormCase, AttentionCase
from csrm.kernels.one_node import ISAS, operator_model, session

ROUNDS = 50
N_NORMS = 16  # in one model: one takes little more than a call of the engine
MASKED = -1e9

Action = Callable[[], object]
Tensors = Mapping[str, NDArray[np.generic]]


def time_attention(
    case: AttentionCase, library: Path, threads: int, peak: float, *, rounds: int = ROUNDS
) -> list[dict[str, Any]]:
    """Rows of one case: every version this CPU has and the engine, in one interleaved run.

    peak: FLOP/s measured on as many threads. Row: kernel, case, isa, threads, us (median of a model
    of one operator, with the call of the engine), gflop_s, of_peak (of the two products with keys
    and values that are seen), faster (median over rounds of the engine's time over this one's),
    rounds.
    """
    inputs = case.inputs()
    tensors = vars(inputs)
    actions = versions("PrefixAttention", tensors, case.attributes, library, threads, 1)
    model = attention_in_engine(case)
    actions[ENGINE] = partial(engine_session(model, threads).run, ["y"], tensors)
    n_seen = case.prefix * case.batch * case.queries + int(inputs.visible.sum())
    n_flops = 4 * n_seen * case.heads * case.head_dim
    rows = timed("PrefixAttention", case.name, actions, threads, rounds, 1)
    for row in rows:
        gflop_s = n_flops / row["us"] / 1e3
        row.update(gflop_s=round(gflop_s, 2), of_peak=round(gflop_s * 1e9 / peak, 3))
    return rows


def time_add_norm(
    case: AddNormCase, library: Path, threads: int, *, rounds: int = ROUNDS
) -> list[dict[str, Any]]:
    """Rows of one case: every version this CPU has and the engine, in one interleaved run.

    Row: kernel, case, isa, threads, us (median of one of 16 operators), faster, rounds.
    """
    tensors = vars(case.inputs())
    attributes = {"epsilon": case.epsilon}
    actions = versions("AddNorm", tensors, attributes, library, threads, N_NORMS)
    model = add_norm_in_engine(case, tensors)
    actions[ENGINE] = partial(engine_session(model, threads).run, ["y"], tensors)
    return timed("AddNorm", case.name, actions, threads, rounds, N_NORMS)


def versions(
    operator: str,
    tensors: Tensors,
    attributes: Mapping[str, int | float],
    library: Path,
    threads: int,
    n_copies: int,
) -> dict[str, Action]:
    """One run of the operator in each version this CPU has."""
    actions: dict[str, Action] = {}
    for isa in ISAS:
        model = operator_model(operator, tensors, attributes, isa, n_copies)
        action = partial(session(model, library, n_threads=threads).run, ["y"], tensors)
        try:
            action()
        except (engine_errors.InvalidArgument, engine_errors.Fail):  # a version this CPU lacks
            continue
        actions[isa] = action
    return actions


def timed(
    kernel: str, case: str, actions: dict[str, Action], threads: int, rounds: int, n_copies: int
) -> list[dict[str, Any]]:
    """A row for each action."""
    seconds = interleaved(actions, rounds=rounds, warmup=2)
    return [
        {
            "kernel": kernel,
            "case": case,
            "isa": isa,
            "threads": threads,
            "us": round(float(np.median(own)) / n_copies * 1e6, 3),
            "faster": round(float(np.median(seconds[ENGINE] / own)), 3),
            "rounds": rounds,
        }
        for isa, own in seconds.items()
    ]


def attention_in_engine(case: AttentionCase) -> bytes:
    """PrefixAttention in ONNX's operators, as csrm.export writes it; heads and keys alike only."""
    onnx_ = OnnxBuilder()
    width = case.heads * case.head_dim

    def heads_of(part: str) -> str:
        shaped = onnx_.node("Reshape", [part, onnx_.ints(0, 0, case.heads, case.head_dim)])
        return onnx_.node("Transpose", [shaped], attributes={"perm": [0, 2, 1, 3]})

    n_parts = 2 if case.pooled else 3
    split = onnx_.nodes_with_outputs(
        "Split", ["key_value", onnx_.ints(*[width] * n_parts)], [""] * n_parts, "", {"axis": -1}
    )
    query = "query" if case.pooled else split[0]
    queries, keys, values = (heads_of(part) for part in (query, *split[-2:]))

    length = onnx_.node("Gather", [onnx_.node("Shape", ["key_value"]), onnx_.int_scalar(1)])
    columns = onnx_.node("Range", [onnx_.int_scalar(0), length, onnx_.int_scalar(1)])
    sees = onnx_.node("Less", [columns, onnx_.node("Unsqueeze", ["visible", onnx_.ints(2)])])
    zero, masked = onnx_.float_scalar("zero", 0.0), onnx_.float_scalar("masked", MASKED)
    bias = onnx_.node("Unsqueeze", [onnx_.node("Where", [sees, zero, masked]), onnx_.ints(1)])

    prefix_keys, prefix_values = (
        onnx_.node("Gather", [name, onnx_.int_scalar(case.layer)], attributes={"axis": 0})
        for name in ("prefix_key", "prefix_value")
    )
    swap: list[tuple[str, list[int]]] = [(keys, [0, 1, 3, 2]), (prefix_keys, [0, 2, 1])]
    own_swapped, prefix_swapped = (
        onnx_.node("Transpose", [name], attributes={"perm": perm}) for name, perm in swap
    )
    scale = onnx_.float_scalar("scale", case.head_dim**-0.5)
    queries = onnx_.node("Mul", [queries, scale])
    own = onnx_.node("Add", [onnx_.node("MatMul", [queries, own_swapped]), bias])
    over_prefix = onnx_.node("MatMul", [queries, prefix_swapped])
    weights = onnx_.node("Concat", [over_prefix, own], attributes={"axis": -1})
    weights = onnx_.node("Softmax", [weights], attributes={"axis": -1})
    n_prefix = onnx_.node("Shape", ["prefix_key"], attributes={"start": 2, "end": 3})
    last = onnx_.ints(-1)
    far = onnx_.ints(np.iinfo(np.int64).max)
    of_prefix = onnx_.node("Slice", [weights, onnx_.ints(0), n_prefix, last])
    of_own = onnx_.node("Slice", [weights, n_prefix, far, last])
    summed = onnx_.node(
        "Add",
        [
            onnx_.node("MatMul", [of_prefix, prefix_values]),
            onnx_.node("MatMul", [of_own, values]),
        ],
    )
    context = onnx_.node("Transpose", [summed], attributes={"perm": [0, 2, 1, 3]})
    onnx_.node("Reshape", [context, onnx_.ints(0, 0, width)], output="y")
    prefix: list[str | int] = ["L", case.heads, "P", case.head_dim]
    infos: dict[str, tuple[int, list[str | int]]] = {
        "query": (FLOAT, ["B", "Q", "X"]),
        "key_value": (FLOAT, ["B", "T", n_parts * width]),
        "prefix_key": (FLOAT, prefix),
        "prefix_value": (FLOAT, prefix),
        "visible": (INT64, ["B", "Q"]),
    }
    outputs: dict[str, tuple[int, list[str | int]]] = {"y": (FLOAT, ["B", "Q", width])}
    return bytes(onnx_.model(infos, outputs, {"": 20}, {}).SerializeToString())


def add_norm_in_engine(case: AddNormCase, tensors: Tensors) -> bytes:
    """A chain of AddNorm in ONNX's operators; each takes the one before it as x."""
    onnx_ = OnnxBuilder()
    y = "x"
    for i in range(N_NORMS):
        total = onnx_.node("Add", [y, "residual"])
        y = onnx_.node(
            "LayerNormalization",
            [total, "weight", "bias"],
            output="y" if i == N_NORMS - 1 else "",
            attributes={"axis": -1, "epsilon": case.epsilon},
        )
    infos: dict[str, tuple[int, list[str | int]]] = {
        name: (FLOAT, list(tensor.shape)) for name, tensor in tensors.items()
    }
    model = onnx_.model(infos, {"y": infos["x"]}, {"": 20}, {})
    return bytes(model.SerializeToString())
