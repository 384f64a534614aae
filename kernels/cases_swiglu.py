"""One table of cases for SwiGlu: tests/python/test_swiglu.py checks each against the NumPy
definition, csrm.bench.kernels_decoder times those marked. Inputs are random but fixed by the case's
name. Tolerances are data, each with its reason.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SwiGluInputs:
    """The operator's input tensor."""

    x: NDArray[np.float32]  # [..., 2 * N]


@dataclass(frozen=True)
class SwiGluCase:
    """Sizes, data and tolerance of one case."""

    name: str
    rows: tuple[int, ...]  # all axes but the last
    columns: int  # of the result
    size: float = 1.0  # of the elements
    tolerance: float = 5e-6  # absolute
    reason: str = "products of up to about 20 with some ulp each"
    is_timed: bool = False

    def inputs(self) -> SwiGluInputs:
        """The same tensor on every call."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        values = rng.standard_normal((*self.rows, 2 * self.columns)) * self.size
        return SwiGluInputs(values.astype(np.float32))


SWIGLU_CASES: tuple[SwiGluCase, ...] = (
    SwiGluCase("smallest", (1,), 1),
    SwiGluCase("vector", (), 7),
    SwiGluCase("three_axes", (2, 3), 65),
    SwiGluCase("one_before_vector", (5,), 31),
    SwiGluCase("one_past_vector", (5,), 33),
    SwiGluCase("no_rows", (0,), 32),
    SwiGluCase("many_rows", (700,), 48),
    SwiGluCase("zero", (2,), 100, size=0.0, tolerance=0.0, reason="zeros, exactly"),
    SwiGluCase(
        "loud",
        (4,),
        300,
        size=100.0,
        tolerance=1e-2,
        reason="products reach 1e5, whose ulp is 8e-3; exponentials go below the smallest float",
    ),
    SwiGluCase("smollm2_1", (1,), 1536, is_timed=True),
    SwiGluCase("smollm2_128", (1, 128), 1536, is_timed=True),
)
