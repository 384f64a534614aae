"""csrm.bench.kernels*: every operator's bench gives a row for each version this CPU has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from csrm import errors
from csrm.bench.kernels import Peaks, peak_rows, time_case
from csrm.bench.kernels_attention import time_add_norm, time_attention, time_half_key_value
from csrm.bench.kernels_decoder import time_rope, time_swiglu
from csrm.bench.kernels_encoder import time_encoder_i8
from csrm.bench.kernels_linear import int8_peaks, time_linear, time_linear_i8
from csrm.bench.machine import int8_peak
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
)

PEAK = 1e11
Rows = list[dict[str, Any]]


def reward_head(library: Path) -> Rows:
    return time_case(CASES[0], library, Peaks(PEAK, PEAK))


def linear(library: Path) -> Rows:
    timed = next(case for case in LINEAR_CASES if case.is_timed)
    return time_linear(replace(timed, n_in=1600, n_out=1600), library, 1, PEAK, rounds=1)


def linear_i8(library: Path) -> Rows:
    timed = next(case for case in LINEAR_I8_CASES if case.is_timed)
    case = replace(timed, n_in=1600, n_out=1600)
    return time_linear_i8(case, library, 1, {"portable": PEAK}, rounds=1)


def attention(library: Path) -> Rows:
    timed = next(case for case in ATTENTION_CASES if case.is_timed)
    return time_attention(timed, library, 1, PEAK, rounds=1)


def half_attention(library: Path) -> Rows:
    timed = next(case for case in ATTENTION_CASES if case.is_timed and case.is_half)
    return time_attention(timed, library, 1, PEAK, rounds=1)


def half_key_value(library: Path) -> Rows:
    timed = next(case for case in HALF_KEY_VALUE_CASES if case.is_timed)
    return time_half_key_value(timed, library, 1, rounds=1)


def add_norm(library: Path) -> Rows:
    timed = next(case for case in ADD_NORM_CASES if case.is_timed)
    return time_add_norm(timed, library, 1, rounds=1)


def rms_norm(library: Path) -> Rows:
    timed = next(case for case in ADD_NORM_CASES if case.is_timed and case.kind == "rms")
    return time_add_norm(timed, library, 1, rounds=1)


def rope(library: Path) -> Rows:
    timed = next(case for case in ROPE_CASES if case.is_timed)
    return time_rope(replace(timed, has_norm=True), library, 1, rounds=1)


def swiglu(library: Path) -> Rows:
    timed = next(case for case in SWIGLU_CASES if case.is_timed)
    return time_swiglu(timed, library, 1, rounds=1)


def encoder_i8(library: Path) -> Rows:
    timed = next(case for case in ENCODER_I8_CASES if case.is_timed)
    return time_encoder_i8(replace(timed, layers=2), library, 1, rounds=1)


BENCHES = (
    reward_head, linear, linear_i8, attention, half_attention, half_key_value, add_norm, rms_norm,
    rope, swiglu, encoder_i8,
)  # fmt: skip


@pytest.mark.parametrize("bench", BENCHES)
def test_kernel_bench_skips_versions_this_cpu_lacks(
    bench: Callable[[Path], Rows], library: Path
) -> None:
    rows = bench(library)
    versions = [row["isa"] for row in rows]
    assert versions[0] == "portable"
    assert len(set(versions)) == len(versions)
    assert all(row["us"] > 0 for row in rows)
    if bench is not reward_head:
        assert versions[-1] == {linear_i8: "fp32", encoder_i8: "chain"}.get(bench, "engine")
        assert rows[-1]["faster"] == 1


def test_int8_peaks_of_bytes_exceed_those_of_12_bits() -> None:
    """Where a version has one instruction for either, as AVX2 has, they are alike."""
    peaks = {levels: peak_rows({levels: int8_peaks(levels, 1)}, 1) for levels in (127, 2047)}
    for bytes_row, words_row in zip(*peaks.values(), strict=True):
        assert bytes_row["isa"] == words_row["isa"] != "portable"
        if bytes_row["isa"] != "avx2":  # twice, on a machine that does nothing else
            assert bytes_row["gop_s"] > 1.2 * words_row["gop_s"] > 0


@pytest.mark.parametrize(
    ("isa", "levels", "error"),
    [
        ("portable", 127, errors.Unsupported),
        ("sse9", 127, errors.BadArgument),
        ("", 128, errors.BadArgument),
    ],
)
def test_int8_peak_of_nothing_known_is_refused(
    isa: str, levels: int, error: type[errors.Error]
) -> None:
    with pytest.raises(error, match="int8_peak"):
        int8_peak(isa, levels, 1, seconds=0.001)
