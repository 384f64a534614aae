"""Times the cases of csrm.kernels.cases_linear and cases_linear_i8 marked so: Linear beside the
engine's own operators, LinearI8 beside Linear.

A model of several layers runs in ONNX Runtime, each with weights of its own and together
larger than a cache, so that weights come from memory as in a model. The row "engine" is the same
in ONNX's MatMul, Add and Gelu with every optimisation of the engine. Not: RewardHead
(csrm.bench.kernels).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from csrm.bench.kernel_versions import ENGINE, add_rates, in_engine, timed, versions
from csrm.bench.machine import int8_peak
from csrm.bench.timing import interleaved
from csrm.errors import Unsupported
from csrm.kernels import LinearCase, LinearI8Case
from csrm.kernels.one_node import ISAS, linear_model, session

N_WEIGHTS = 10_000_000  # of all layers of a model, as many as MiniLM-L6 has: 10 MB as int8
ROUNDS = 20


def time_linear(
    case: LinearCase, library: Path, threads: int, peak: float, *, rounds: int = ROUNDS
) -> list[dict[str, Any]]:
    """Rows of one case: every version this CPU has and the engine, in one interleaved run.

    peak: FLOP/s measured on as many threads. Row: kernel, case, isa, threads, us (median of one
    layer), gflop_s, of_peak, faster (median over rounds of the engine's time over this one's),
    rounds.
    """
    inputs = case.inputs()
    n_copies = max(2, N_WEIGHTS // (case.n_in * case.n_out))
    tensors = {"x": inputs.x}

    def model_of(isa: str) -> bytes:
        return linear_model(inputs, case.activation, isa, n_copies)

    actions = versions(model_of, tensors, library, threads, "y")
    model = linear_model(inputs, case.activation, "", n_copies, engine=True)
    actions[ENGINE] = in_engine(model, tensors, threads)
    rows = timed("Linear", case.name, actions, threads, rounds, n_copies)
    add_rates(rows, 2 * case.n_rows * case.n_in * case.n_out, peak)
    return rows


def int8_peaks(levels: int, threads: int) -> dict[str, float]:
    """OP/s in registers (csrm.bench.machine) of every version that this CPU has, by its name."""
    peaks = {}
    for isa in ISAS:
        try:
            peaks[isa] = int8_peak(isa, levels, threads)
        except Unsupported:
            continue
    return peaks


def time_linear_i8(
    case: LinearI8Case,
    library: Path,
    threads: int,
    peaks: Mapping[str, float],
    *,
    rounds: int = ROUNDS,
) -> list[dict[str, Any]]:
    """Rows of one case: every version this CPU has and csrm's Linear, in one interleaved run.

    peaks: of `int8_peaks` for the case's levels and as many threads. Row: kernel, case, isa
    (Linear: "fp32"), threads, us (median of one layer: rounding its rows, products, GELU, and the
    engine's calls), gop_s (2 for each weight and row), of_peak (of the version's own peak; None
    where there is none), faster (median over rounds of Linear's time over this one's), rounds.
    """
    inputs = case.inputs()
    n_copies = max(2, N_WEIGHTS // (case.n_in * case.n_out))
    tensors = {"x": inputs.x}

    def model_of(isa: str) -> bytes:
        return linear_model(inputs, case.activation, isa, n_copies, levels=case.levels)

    actions = versions(model_of, tensors, library, threads, "y")
    fp32 = session(linear_model(inputs, case.activation, "", n_copies), library, n_threads=threads)
    actions["fp32"] = partial(fp32.run, ["y"], tensors)
    seconds = interleaved(actions, rounds=rounds, warmup=2)
    rows = []
    for isa, own in seconds.items():
        us = float(np.median(own)) / n_copies * 1e6
        gop_s = 2 * case.n_rows * case.n_in * case.n_out / us / 1e3
        rows.append(
            {
                "kernel": "LinearI8",
                "case": case.name,
                "isa": isa,
                "threads": threads,
                "us": round(us, 3),
                "gop_s": round(gop_s, 2),
                "of_peak": round(gop_s * 1e9 / peaks[isa], 3) if isa in peaks else None,
                "faster": round(float(np.median(seconds["fp32"] / own)), 3),
                "rounds": rounds,
            }
        )
    return rows
