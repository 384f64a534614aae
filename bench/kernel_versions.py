"""What the benches of single operators share: one action per version of a kernel, and their rows.

Not: any operator's models or figures (csrm.bench.kernels, kernels_linear,
kernels_attention, kernels_decoder, kernels_encoder).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as engine_errors

from csrm.bench.timing import interleaved
from csrm.kernels.one_node import ISAS, session

# Of a call; of a kernel that is refused while the session is made, the last.
LACKING = (engine_errors.InvalidArgument, engine_errors.Fail, engine_errors.RuntimeException)
ENGINE = "engine"  # the row of ONNX Runtime's own operators

Action = Callable[[], object]
Tensors = Mapping[str, NDArray[np.generic]]


def versions(
    model_of: Callable[[str], bytes], tensors: Tensors, library: Path, threads: int, output: str
) -> dict[str, Action]:
    """One run, up to `output`, of the model of each version that this CPU has.

    model_of: the model of a version (one of ISAS).
    """
    actions: dict[str, Action] = {}
    for isa in ISAS:
        try:
            opened = session(model_of(isa), library, n_threads=threads)
            action = partial(opened.run, [output], tensors)
            action()
        except LACKING:  # a version this CPU lacks
            continue
        actions[isa] = action
    return actions


def in_engine(model: bytes, tensors: Tensors, threads: int) -> Action:
    """One run, up to the output y, of a model of standard operators with every optimisation."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    opened = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return partial(opened.run, ["y"], tensors)


def timed(
    kernel: str,
    case: str,
    actions: dict[str, Action],
    threads: int,
    rounds: int,
    n_copies: int,
    base: str = ENGINE,
) -> list[dict[str, Any]]:
    """A row for each action, in one interleaved run; one of them is `base`.

    Row: kernel, case, isa, threads, us (median of one of `n_copies` operators), faster (median over
    rounds of the base's time over this one's), rounds.
    """
    seconds = interleaved(actions, rounds=rounds, warmup=2)
    return [
        {
            "kernel": kernel,
            "case": case,
            "isa": isa,
            "threads": threads,
            "us": round(float(np.median(own)) / n_copies * 1e6, 3),
            "faster": round(float(np.median(seconds[base] / own)), 3),
            "rounds": rounds,
        }
        for isa, own in seconds.items()
    ]


def add_rates(rows: list[dict[str, Any]], n_flops: int, peak: float) -> None:
    """gflop_s and of_peak (of `peak` FLOP/s) into rows of an operator of `n_flops`."""
    for row in rows:
        gflop_s = n_flops / row["us"] / 1e3
        row.update(gflop_s=round(gflop_s, 2), of_peak=round(gflop_s * 1e9 / peak, 3))
