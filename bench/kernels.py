"""Times every case of `csrm.kernels.cases` in every version of the kernel this CPU can run, and
those of the tables beside it (csrm.bench.kernels_linear, kernels_attention, kernels_decoder,
kernels_encoder).

A model of many copies of one operator runs in ONNX Runtime, so the time of one is that of a node in
a real graph: kernel plus the engine's dispatch (the case "smallest" is nearly dispatch alone).
Beside each time: the fraction of one thread's measured fp32 peak, and bytes read per second as a
fraction of the measured memory bandwidth (inputs sit in cache here, so it may exceed 1).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import csrm
from csrm.bench.kernel_versions import versions
from csrm.bench.kernels_attention import time_add_norm, time_attention, time_half_key_value
from csrm.bench.kernels_decoder import time_rope, time_swiglu
from csrm.bench.kernels_encoder import time_encoder_i8
from csrm.bench.kernels_linear import int8_peaks, time_linear, time_linear_i8
from csrm.bench.machine import environment, fp32_peak, memory_bandwidth
from csrm.bench.timing import interleaved
from csrm.kernels import (
    ADD_NORM_CASES,
    ATTENTION_CASES,
    CASES,
    ENCODER_I8_CASES,
    HALF_KEY_VALUE_CASES,
    LINEAR_CASES,
    LINEAR_I8_CASES,
    ROPE_CASES,
    SWIGLU_CASES,
    RewardHeadCase,
)
from csrm.kernels.one_node import feeds, reward_head_model

N_COPIES = 64
ROUNDS = 50


@dataclass(frozen=True)
class Peaks:
    """Measured limits of one thread."""

    flops: float  # fp32 FLOP/s
    bandwidth: float  # bytes/s read


def run(json_path: str | None) -> list[dict[str, Any]]:
    """One row per case and version; also printed as JSON lines.

    Row of RewardHead: kernel, case, isa, us (median of one operator), gb_s, of_bandwidth, gflop_s,
    of_peak, rounds. Of the others: see time_linear, time_linear_i8, time_attention,
    time_half_key_value, time_add_norm, time_rope, time_swiglu, time_encoder_i8, peak_rows. With
    `json_path` the rows and the environment are written there.
    """
    library = Path(csrm.get_library())
    peaks = Peaks(fp32_peak(1), memory_bandwidth())
    rows: list[dict[str, Any]] = []
    for case in CASES:
        if n_read(case) > 0:
            rows += printed(time_case(case, library, peaks))
    for threads in sorted({1, min(2, os.cpu_count() or 1)}):
        peak = fp32_peak(threads)
        for linear in LINEAR_CASES:
            if linear.is_timed:
                rows += printed(time_linear(linear, library, threads, peak))
        peaks_i8 = {
            levels: int8_peaks(levels, threads)
            for levels in sorted({case.levels for case in LINEAR_I8_CASES})
        }
        rows += printed(peak_rows(peaks_i8, threads))
        for linear_i8 in LINEAR_I8_CASES:
            if linear_i8.is_timed:
                peaks_of = peaks_i8[linear_i8.levels]
                rows += printed(time_linear_i8(linear_i8, library, threads, peaks_of))
        for attention in ATTENTION_CASES:
            if attention.is_timed:
                rows += printed(time_attention(attention, library, threads, peak))
        for half_key_value in HALF_KEY_VALUE_CASES:
            if half_key_value.is_timed:
                rows += printed(time_half_key_value(half_key_value, library, threads))
        for add_norm in ADD_NORM_CASES:
            if add_norm.is_timed:
                rows += printed(time_add_norm(add_norm, library, threads))
        for rope in ROPE_CASES:
            if rope.is_timed:
                rows += printed(time_rope(rope, library, threads))
        for swiglu in SWIGLU_CASES:
            if swiglu.is_timed:
                rows += printed(time_swiglu(swiglu, library, threads))
        for encoder_i8 in ENCODER_I8_CASES:
            if encoder_i8.is_timed:
                rows += printed(time_encoder_i8(encoder_i8, library, threads))
    if json_path is not None:
        report = {"env": environment(), "peaks": vars(peaks), "rows": rows}
        Path(json_path).write_text(json.dumps(report, indent=1) + "\n")
    return rows


def peak_rows(peaks: Mapping[int, Mapping[str, float]], threads: int) -> list[dict[str, Any]]:
    """What LinearI8's rows are fractions of. Row: kernel ("int8 peak"), levels, isa, threads,
    gop_s."""
    return [
        {
            "kernel": "int8 peak",
            "levels": levels,
            "isa": isa,
            "threads": threads,
            "gop_s": round(peak / 1e9, 1),
        }
        for levels, by_isa in peaks.items()
        for isa, peak in by_isa.items()
    ]


def printed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`rows`, each also a JSON line on stdout."""
    for row in rows:
        sys.stdout.write(json.dumps(row) + "\n")
    return rows


def time_case(case: RewardHeadCase, library: Path, peaks: Peaks) -> list[dict[str, Any]]:
    """Rows of one case: every version in one interleaved run."""

    def model_of(isa: str) -> bytes:
        return reward_head_model(case.n_safe, case.epsilon, isa, N_COPIES, case.kind)

    actions = versions(model_of, feeds(case), library, 1, "reward")
    rows = []
    for isa, seconds in interleaved(actions, rounds=ROUNDS).items():
        one = float(np.median(seconds)) / N_COPIES
        rows.append(
            {
                "kernel": "RewardHead",
                "case": case.name,
                "isa": isa,
                "us": round(one * 1e6, 3),
                "gb_s": round(n_bytes(case) / one / 1e9, 2),
                "of_bandwidth": round(n_bytes(case) / one / peaks.bandwidth, 3),
                "gflop_s": round(n_flops(case) / one / 1e9, 2),
                "of_peak": round(n_flops(case) / one / peaks.flops, 3),
                "rounds": ROUNDS,
            }
        )
    return rows


def n_read(case: RewardHeadCase) -> int:
    """Pooled tokens the kernel reads."""
    return int((case.inputs().pooled_at >= 0).sum())


def n_bytes(case: RewardHeadCase) -> int:
    """Bytes read: each pooled state, and the weights once."""
    return 4 * case.hidden * (n_read(case) + case.verbalizers + 2)


def n_flops(case: RewardHeadCase) -> int:
    """Per pooled element: 1 for the mean, 3 for the variance, 4 for y, 2 per verbalizer."""
    return n_read(case) * case.hidden * (8 + 2 * case.verbalizers)
