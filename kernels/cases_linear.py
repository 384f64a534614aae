"""One table of cases for Linear: tests/python/test_linear.py checks each against the NumPy
definition, csrm.bench.kernels_linear times those marked. Inputs are random but fixed by the case's
name. Tolerances are data, each with its reason.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Activation = Literal["none", "gelu"]


@dataclass(frozen=True)
class LinearInputs:
    """The operator's input tensors, in its input order."""

    x: NDArray[np.float32]  # [..., K]
    weight: NDArray[np.int8] | NDArray[np.float32]  # [K, N]
    scale: NDArray[np.float32] | None  # [N], of an int8 weight
    bias: NDArray[np.float32] | None  # [N]


@dataclass(frozen=True)
class LinearCase:
    """Sizes, storage, activation and tolerance of one case."""

    name: str
    rows: tuple[int, ...]  # all axes of x but the last
    n_in: int
    n_out: int
    activation: Activation = "none"
    storage: Literal["int8", "fp32"] = "int8"
    has_bias: bool = True
    scale_of_x: float = 1.0
    tolerance: float = 1e-5  # absolute
    reason: str = "K fp32 additions of terms that sum up to about 1: a few ulp of partial sums"
    is_timed: bool = False

    @property
    def n_rows(self) -> int:
        """M, the rows of x taken as a matrix."""
        return int(np.prod(self.rows))

    def inputs(self) -> LinearInputs:
        """The same tensors on every call."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        x = (rng.standard_normal((*self.rows, self.n_in)) * self.scale_of_x).astype(np.float32)
        drawn = rng.standard_normal(self.n_out).astype(np.float32)
        bias = drawn if self.has_bias else None
        values = rng.integers(-127, 128, (self.n_in, self.n_out)).astype(np.int8)
        scale = rng.uniform(0.5, 1.5, self.n_out) / (73 * self.n_in**0.5)
        scale = scale.astype(np.float32)
        if self.storage == "int8":
            return LinearInputs(x, values, scale, bias)
        return LinearInputs(x, values.astype(np.float32) * scale, None, bias)


def _minilm() -> tuple[LinearCase, ...]:
    """Every linear layer of MiniLM-L6 at several numbers of rows."""
    layers: tuple[tuple[str, int, int, Activation], ...] = (
        ("query_key_value", 384, 1152, "none"),
        ("attended", 384, 384, "none"),
        ("up", 384, 1536, "gelu"),
        ("down", 1536, 384, "none"),
    )
    return tuple(
        LinearCase(f"{name}_{rows}", (rows,), n_in, n_out, activation, is_timed=True)
        for name, n_in, n_out, activation in layers
        for rows in (1, 8, 32, 128, 384)
    )


def _smollm2() -> tuple[LinearCase, ...]:
    """Every linear layer of SmolLM2-135M, a decoder, at some numbers of rows."""
    layers = (
        ("smollm2_query_key_value", 576, 960),
        ("smollm2_attended", 576, 576),
        ("smollm2_gate_up", 576, 3072),
        ("smollm2_down", 1536, 576),
    )
    return tuple(
        LinearCase(f"{name}_{rows}", (rows,), n_in, n_out, has_bias=False, is_timed=True)
        for name, n_in, n_out in layers
        for rows in (1, 128)
    )


LINEAR_CASES: tuple[LinearCase, ...] = (
    LinearCase("smallest", (1,), 1, 1),
    LinearCase("vector", (), 7, 5),
    LinearCase("three_axes", (2, 3), 65, 40, "gelu"),
    LinearCase("no_rows", (0,), 16, 48),
    LinearCase("no_rows_in_the_middle", (3, 0), 16, 48, "gelu"),
    LinearCase("narrow_output", (5,), 100, 3, "gelu"),
    LinearCase("one_past_panel", (9,), 33, 65, "gelu"),
    LinearCase("one_before_panel", (2,), 31, 63),
    LinearCase("depth_in_parts", (13,), 1000, 33, "gelu"),
    LinearCase("many_rows", (1111,), 48, 80),
    LinearCase("float_weight", (7,), 96, 100, "gelu", "fp32"),
    LinearCase("no_bias", (7,), 65, 100, has_bias=False),
    LinearCase("float_weight_no_bias", (2, 3), 65, 40, "gelu", "fp32", has_bias=False),
    LinearCase("mpnet_up", (16,), 768, 3072, "gelu"),
    LinearCase(
        "loud",
        (8,),
        384,
        96,
        "gelu",
        scale_of_x=1000.0,
        tolerance=1e-2,
        reason="values near 1000 have an ulp of 6e-5 and come from sums of 384 such terms",
    ),
    *_minilm(),
    *_smollm2(),
)
