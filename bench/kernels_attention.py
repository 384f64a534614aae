"""Times the cases of csrm.kernels.cases_attention, cases_half_key_value and cases_add_norm marked
so, beside the engine's own operators.

The row "engine" is the same computation in ONNX's operators with every optimisation of the engine:
of attention, the nodes that csrm.export writes for the portable model. Not: RewardHead
(csrm.bench.kernels) and Linear (csrm.bench.kernels_linear).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csrm.bench.kernel_versions import (
    ENGINE,
    Action,
    Tensors,
    add_rates,
    in_engine,
    timed,
    versions,
)
from csrm.export.attention_nodes import Attended, attention, layer_of, own_bias
from csrm.export.decoder_nodes import rms_norm
from csrm.export.onnx_builder import FLOAT, FLOAT16, INT64, OnnxBuilder
from csrm.kernels import AddNormCase, AttentionCase, HalfKeyValueCase
from csrm.kernels.one_node import half_key_value_model, operator_model, present

ROUNDS = 50
N_NORMS = 16  # in one model: one takes little more than a call of the engine
MASKED = -1e9


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
    actions = operator_versions("PrefixAttention", tensors, case.attributes, library, threads, 1)
    # The engine's row keeps its prefix in fp32 whatever the case: it attends in nothing smaller.
    floats = {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in tensors.items()}
    actions[ENGINE] = in_engine(attention_in_engine(case), floats, threads)
    rows = timed("PrefixAttention", case.name, actions, threads, rounds, 1)
    n_seen = case.prefix * case.batch * case.queries + int(inputs.visible.sum())
    add_rates(rows, 4 * n_seen * case.heads * case.head_dim, peak)
    return rows


def time_add_norm(
    case: AddNormCase, library: Path, threads: int, *, rounds: int = ROUNDS
) -> list[dict[str, Any]]:
    """Rows of one case: every version this CPU has and the engine, in one interleaved run.

    Row: kernel, case, isa, threads, us (median of one of 16 operators), faster, rounds.
    """
    inputs = vars(case.inputs())
    attributes = {"epsilon": case.epsilon, "kind": case.kind}
    actions = operator_versions("AddNorm", inputs, attributes, library, threads, N_NORMS)
    tensors = present(inputs)
    actions[ENGINE] = in_engine(add_norm_in_engine(case, tensors), tensors, threads)
    return timed("AddNorm", case.name, actions, threads, rounds, N_NORMS)


def time_half_key_value(
    case: HalfKeyValueCase, library: Path, threads: int, *, rounds: int = ROUNDS
) -> list[dict[str, Any]]:
    """Rows of one case: every version this CPU has and the engine, in one interleaved run.

    Row: kernel, case, isa, threads, us (median of a model of one operator, with the call of the
    engine), faster, rounds.
    """
    tensors = {"states": case.states()}

    def model_of(isa: str) -> bytes:
        return half_key_value_model(case.attributes, isa)

    actions = versions(model_of, tensors, library, threads, "key")
    actions[ENGINE] = in_engine(half_key_value_in_engine(case), tensors, threads)
    return timed("HalfKeyValue", case.name, actions, threads, rounds, 1)


def operator_versions(
    operator: str,
    inputs: Mapping[str, NDArray[np.generic] | None],
    attributes: Mapping[str, int | float | str],
    library: Path,
    threads: int,
    n_copies: int,
) -> dict[str, Action]:
    """One run of `n_copies` of the operator in each version this CPU has."""

    def model_of(isa: str) -> bytes:
        return operator_model(operator, inputs, attributes, isa, n_copies)

    return versions(model_of, present(inputs), library, threads, "y")


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

    seen = Attended(
        keys,
        values,
        layer_of(onnx_, "prefix_key", case.layer),
        layer_of(onnx_, "prefix_value", case.layer),
        onnx_.node("Unsqueeze", [own_bias(onnx_, "key_value", MASKED), onnx_.ints(1)]),
    )
    summed = attention(onnx_, queries, seen, case.head_dim)
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
        output = "y" if i == N_NORMS - 1 else ""
        if case.kind == "rms":
            y = rms_norm(onnx_, total, "weight", case.epsilon, output=output)
            continue
        y = onnx_.node(
            "LayerNormalization",
            [total, "weight", "bias"],
            output=output,
            attributes={"axis": -1, "epsilon": case.epsilon},
        )
    infos: dict[str, tuple[int, list[str | int]]] = {
        name: (FLOAT, list(tensor.shape)) for name, tensor in tensors.items()
    }
    model = onnx_.model(infos, {"y": infos["x"]}, {"": 20}, {})
    return bytes(model.SerializeToString())


def half_key_value_in_engine(case: HalfKeyValueCase) -> bytes:
    """HalfKeyValue in ONNX's operators; y is its value."""
    onnx_ = OnnxBuilder()
    width = case.kv_heads * case.head_dim
    sizes = onnx_.ints(case.n_before, width, width)
    split = onnx_.nodes_with_outputs("Split", ["states", sizes], [""] * 3, "", {"axis": -1})
    for part, name in zip(split[1:], ("key", "y"), strict=True):
        shaped = onnx_.node("Reshape", [part, onnx_.ints(0, 0, case.kv_heads, case.head_dim)])
        moved = onnx_.node("Transpose", [shaped], attributes={"perm": [0, 2, 1, 3]})
        onnx_.node("Cast", [moved], output=name, attributes={"to": FLOAT16})
    infos: dict[str, tuple[int, list[str | int]]] = {
        "states": (FLOAT, ["B", "T", case.n_before + 2 * width])
    }
    kept: list[str | int] = ["B", case.kv_heads, "T", case.head_dim]
    outputs = dict.fromkeys(("key", "y"), (FLOAT16, kept))
    return bytes(onnx_.model(infos, outputs, {"": 20}, {}).SerializeToString())
