"""One table of cases for AddNorm: tests/python/test_add_norm.py checks each against the NumPy
definition, csrm.bench.kernels_attention times those marked. Inputs are random but fixed by the
case's name. Tolerances are data, each with its reason.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AddNormInputs:
    """The operator's input tensors, in its input order."""

    x: NDArray[np.float32]  # [..., N]
    residual: NDArray[np.float32] | None  # [..., N]; None: nothing is added
    weight: NDArray[np.float32]  # [N]
    bias: NDArray[np.float32] | None  # [N]; None of kind rms


@dataclass(frozen=True)
class AddNormCase:
    """Sizes, data and tolerance of one case."""

    name: str
    rows: tuple[int, ...]  # all axes but the last
    columns: int
    kind: Literal["layer", "rms"] = "layer"
    adds: bool = True  # whether there is a residual
    size: float = 1.0  # of the elements
    offset: float = 0.0  # of all elements
    epsilon: float = 1e-12
    tolerance: float = 5e-6  # absolute
    reason: str = "results of about 1 from two sums of N terms: a few ulp"
    is_timed: bool = False

    def inputs(self) -> AddNormInputs:
        """The same tensors on every call."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))

        def normal(*shape: int) -> NDArray[np.float32]:
            return rng.standard_normal(shape).astype(np.float32)

        shape = (*self.rows, self.columns)
        return AddNormInputs(
            normal(*shape) * np.float32(self.size) + np.float32(self.offset),
            normal(*shape) * np.float32(self.size) if self.adds else None,
            1 + 0.1 * normal(self.columns),
            0.1 * normal(self.columns) if self.kind == "layer" else None,
        )


ADD_NORM_CASES: tuple[AddNormCase, ...] = (
    AddNormCase("smallest", (1,), 1, epsilon=1e-5),
    AddNormCase("vector", (), 7),
    AddNormCase("three_axes", (2, 3), 65),
    AddNormCase("one_before_lanes", (5,), 31),
    AddNormCase("one_past_lanes", (5,), 33),
    AddNormCase("no_rows", (0,), 32),
    AddNormCase("mpnet", (9,), 768),
    AddNormCase("many_rows", (700,), 48),
    AddNormCase("wide", (3,), 2047),
    AddNormCase("zero", (2,), 384, size=0.0, reason="variance 0: exact zeros times 1 / epsilon"),
    AddNormCase("huge", (4,), 384, size=1e15, reason="squares reach 1e31, inside fp32; a few ulp"),
    AddNormCase(
        "offset",
        (4,),
        768,
        offset=100.0,
        tolerance=2e-4,
        reason="a mean of 100 is known to about 1e-5 of the deviation, so each y is off by that",
    ),
    AddNormCase("minilm_1", (1,), 384, is_timed=True),
    AddNormCase("minilm_128", (1, 128), 384, is_timed=True),
    AddNormCase("minilm_1024", (8, 128), 384, is_timed=True),
    AddNormCase("nothing_added", (2, 3), 65, adds=False),
    AddNormCase("rms_smallest", (1,), 1, "rms", epsilon=1e-5),
    AddNormCase("rms_three_axes", (2, 3), 65, "rms"),
    AddNormCase("rms_nothing_added", (5,), 33, "rms", adds=False),
    AddNormCase("rms_many_rows", (700,), 48, "rms"),
    AddNormCase("rms_wide", (3,), 2047, "rms", offset=100.0),
    AddNormCase("rms_zero", (2,), 576, "rms", size=0.0, reason="zeros times 1 / sqrt(epsilon)"),
    AddNormCase("rms_huge", (4,), 576, "rms", size=1e15, reason="squares reach 1e31; a few ulp"),
    AddNormCase("smollm2_1", (1,), 576, "rms", epsilon=1e-5, is_timed=True),
    AddNormCase("smollm2_128", (1, 128), 576, "rms", epsilon=1e-5, is_timed=True),
)
