"""One table of cases for LinearI8: tests/python/test_linear_i8.py checks each against the NumPy
definition, csrm.bench.kernels_linear times those marked. Inputs are random but fixed by the case's
name. Without an activation every bit is defined, so only cases with GELU have a tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass

from csrm.kernels.cases_linear import LINEAR_CASES, LinearCase

BYTE_LEVELS, WORD_LEVELS = 127, 2047


@dataclass(frozen=True)
class LinearI8Case(LinearCase):
    """A case of Linear with the largest integer an activation is rounded to."""

    levels: int = BYTE_LEVELS
    tolerance: float = 1e-6  # of GELU, absolute
    reason: str = "GELU of fp32: 2 ulp of values near 5"


def _minilm() -> tuple[LinearI8Case, ...]:
    """Linear's timed cases in both widths."""
    return tuple(
        LinearI8Case(
            f"{case.name}_of_{levels}",
            case.rows,
            case.n_in,
            case.n_out,
            case.activation,
            is_timed=True,
            levels=levels,
        )
        for case in LINEAR_CASES
        if case.is_timed
        for levels in (BYTE_LEVELS, WORD_LEVELS)
    )


LINEAR_I8_CASES: tuple[LinearI8Case, ...] = (
    LinearI8Case("smallest", (1,), 1, 1),
    LinearI8Case("vector", (), 7, 5, levels=WORD_LEVELS),
    LinearI8Case("three_axes", (2, 3), 65, 40, "gelu"),
    LinearI8Case("no_rows", (0,), 16, 48),
    LinearI8Case("no_rows_in_the_middle", (3, 0), 16, 48, "gelu"),
    LinearI8Case("narrow_output", (5,), 100, 3, "gelu", levels=WORD_LEVELS),
    LinearI8Case("one_past_panel", (9,), 33, 65, "gelu", levels=WORD_LEVELS),
    LinearI8Case("one_before_panel", (2,), 31, 63),
    LinearI8Case("odd_depth", (13,), 999, 33, levels=WORD_LEVELS),
    LinearI8Case("many_rows", (1111,), 48, 80),
    LinearI8Case("deepest", (3,), 8192, 34, levels=WORD_LEVELS),
    LinearI8Case("mpnet_up", (16,), 768, 3072, "gelu"),
    LinearI8Case(
        "loud",
        (8,),
        384,
        96,
        "gelu",
        scale_of_x=1000.0,
        levels=WORD_LEVELS,
        tolerance=1e-3,
        reason="values near 1000 have an ulp of 6e-5",
    ),
    *_minilm(),
)
