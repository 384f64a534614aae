"""Times the cases of csrm.kernels.cases_linear marked so, beside the engine's own operators.

A model of several layers runs in ONNX Runtime, each with weights of its own and together
larger than a cache, so that weights come from memory as in a model. The row "engine" is the same
in ONNX's MatMul, Add and Gelu with every optimisation of the engine. Not: RewardHead
(csrm.bench.kernels).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as engine_errors

from csrm.bench.timing import interleaved
from csrm.kernels import LinearCase
from csrm.kernels.one_node import ISAS, linear_model, session

N_WEIGHTS = 10_000_000  # of all layers of a model, as many as MiniLM-L6 has: 10 MB as int8
ROUNDS = 20
ENGINE = "engine"

Action = Callable[[], object]


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
    actions: dict[str, Action] = {}
    for isa in ISAS:
        model = linear_model(inputs, case.activation, isa, n_copies)
        try:
            opened = session(model, library, n_threads=threads)
        except engine_errors.InvalidArgument:  # a version this CPU lacks
            continue
        actions[isa] = partial(opened.run, ["y"], {"x": inputs.x})
    model = linear_model(inputs, case.activation, "", n_copies, engine=True)
    actions[ENGINE] = partial(engine_session(model, threads).run, ["y"], {"x": inputs.x})
    seconds = interleaved(actions, rounds=rounds, warmup=2)
    n_flops = 2 * case.n_rows * case.n_in * case.n_out
    rows = []
    for isa, own in seconds.items():
        one = float(np.median(own)) / n_copies
        rows.append(
            {
                "kernel": "Linear",
                "case": case.name,
                "isa": isa,
                "threads": threads,
                "us": round(one * 1e6, 3),
                "gflop_s": round(n_flops / one / 1e9, 2),
                "of_peak": round(n_flops / one / peak, 3),
                "faster": round(float(np.median(seconds[ENGINE] / own)), 3),
                "rounds": rounds,
            }
        )
    return rows


def engine_session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """A CPU session with the engine's default optimisations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
