"""SwiGlu through ONNX Runtime against its NumPy definition: every case, every version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kernel_engine import ENGINE_ERRORS
from numpy.typing import NDArray

from csrm.kernels import SWIGLU_CASES, SwiGluCase, swiglu
from csrm.kernels.one_node import operator_model, session

BY_NAME = {case.name: case for case in SWIGLU_CASES}


def run(
    x: NDArray[np.float32], library: Path, isa: str = "", threads: int = 1
) -> NDArray[np.float32]:
    model = operator_model("SwiGlu", {"x": x}, {}, isa)
    (y,) = session(model, library, n_threads=threads).run(None, {"x": x})
    assert y.dtype == np.float32
    return np.asarray(y)


@pytest.mark.parametrize("case", SWIGLU_CASES, ids=lambda case: case.name)
def test_swiglu_case_matches_definition(case: SwiGluCase, isa: str, library: Path) -> None:
    x = case.inputs().x
    y = run(x, library, isa)
    assert y.shape == (*x.shape[:-1], case.columns)
    np.testing.assert_allclose(y, swiglu(x), rtol=0, atol=case.tolerance, err_msg=case.reason)


@pytest.mark.parametrize("name", ["many_rows", "one_past_vector", "loud"])
def test_swiglu_any_batch_or_threads_gives_equal_bits(name: str, isa: str, library: Path) -> None:
    x = BY_NAME[name].inputs().x
    whole = run(x, library, isa)
    for _ in range(3):
        np.testing.assert_array_equal(run(x, library, isa, threads=2), whole)
    rng = np.random.default_rng(1)
    for n_rows in (1, 2, 5, 400):
        rows = rng.integers(0, len(whole), n_rows)
        np.testing.assert_array_equal(run(x[rows], library, isa), whole[rows])


def test_swiglu_gates_keep_their_relative_accuracy(isa: str, library: Path) -> None:
    """From where exp(-|g|) leaves fp32's normal numbers to where it is all of the result."""
    gate = np.linspace(-85, 85, 1001).astype(np.float32)
    x = np.concatenate([gate, np.ones_like(gate)])[None]
    # exp's argument, of up to 85 / ln 2, has an ulp of 8e-6.
    np.testing.assert_allclose(run(x, library, isa), swiglu(x), rtol=1e-5, atol=0)


def test_swiglu_non_finite_gate_gives_what_the_definition_gives(isa: str, library: Path) -> None:
    gate = np.array([np.inf, -np.inf, np.nan, 1, -200, 200], np.float32)
    y = run(np.concatenate([gate, np.ones_like(gate)])[None], library, isa)[0]
    assert y[0] == np.inf
    assert np.isnan(y[1:3]).all()
    np.testing.assert_allclose(y[3:], [0.7310586, 0, 200], rtol=1e-6, atol=1e-37)


def test_swiglu_odd_columns_are_engine_error(library: Path) -> None:
    with pytest.raises(ENGINE_ERRORS, match="SwiGlu: input x has 7 along its last axis"):
        run(np.ones((2, 7), np.float32), library)


def test_swiglu_empty_rows_are_engine_error(library: Path) -> None:
    with pytest.raises(ENGINE_ERRORS, match="SwiGlu: y has 2 rows of 0"):
        run(np.ones((2, 0), np.float32), library)


def test_swiglu_unknown_isa_is_engine_error(library: Path) -> None:
    with pytest.raises(ENGINE_ERRORS, match="SwiGlu: attribute isa"):
        run(np.ones((2, 2), np.float32), library, "sse9")
