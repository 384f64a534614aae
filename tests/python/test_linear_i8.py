"""LinearI8 through ONNX Runtime against its NumPy definition: every case, every version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_engine import ENGINE_ERRORS
from numpy.typing import NDArray

from csrm.kernels import LINEAR_I8_CASES, LinearI8Case, LinearInputs, linear_i8
from csrm.kernels.one_node import linear_model, session

BY_NAME = {case.name: case for case in LINEAR_I8_CASES}


def run(
    inputs: LinearInputs,
    library: Path,
    isa: str = "",
    *,
    activation: str = "none",
    levels: int = 127,
    n_threads: int = 1,
) -> NDArray[np.float32]:
    model = linear_model(inputs, activation, isa, levels=levels)
    (y,) = session(model, library, n_threads=n_threads).run(None, {"x": inputs.x})
    assert y.dtype == np.float32
    return np.asarray(y)


@pytest.fixture(scope="module", params=["", "portable", "avx2", "avx512", "amx"])
def isa(request: pytest.FixtureRequest, library: Path) -> str:
    """As conftest's, but of this operator: its AVX-512 version needs VNNI."""
    try:
        run(BY_NAME["smallest"].inputs(), library, request.param)
    except ENGINE_ERRORS:
        if request.param in ("", "portable"):
            raise
        pytest.skip(f"this CPU has no {request.param} of LinearI8")
    return str(request.param)


@pytest.mark.parametrize("case", LINEAR_I8_CASES, ids=lambda case: case.name)
def test_linear_i8_case_matches_definition(case: LinearI8Case, isa: str, library: Path) -> None:
    inputs = case.inputs()
    y = run(inputs, library, isa, activation=case.activation, levels=case.levels)
    expected = linear_i8(**vars(inputs), levels=case.levels, activation=case.activation)
    assert y.shape == (*case.rows, case.n_out)
    atol = 0.0 if case.activation == "none" else case.tolerance
    np.testing.assert_allclose(y, expected, rtol=0, atol=atol, err_msg=case.reason)


@pytest.mark.parametrize("name", ["three_axes", "one_past_panel", "many_rows", "mpnet_up", "loud"])
def test_linear_i8_versions_agree_to_the_bit(name: str, isa: str, library: Path) -> None:
    """GELU included, which the definition fixes only up to rounding."""
    case = BY_NAME[name]
    for levels in (127, 2047):
        options: dict[str, Any] = {"activation": case.activation, "levels": levels}
        portable = run(case.inputs(), library, "portable", **options)
        np.testing.assert_array_equal(run(case.inputs(), library, isa, **options), portable)


@pytest.mark.parametrize("name", ["odd_depth", "many_rows", "one_past_panel"])
def test_linear_i8_any_batch_tile_or_threads_gives_equal_bits(
    name: str, isa: str, library: Path
) -> None:
    """A row alone, among others in another order, and on two threads agrees to the bit."""
    case = BY_NAME[name]
    inputs = case.inputs()
    model = linear_model(inputs, case.activation, isa, levels=case.levels)
    one, two = (session(model, library, n_threads=n) for n in (1, 2))
    whole = one.run(None, {"x": inputs.x})[0]
    rng = np.random.default_rng(1)
    for n_rows in (1, 2, 3, 4, 5, 6, 7, 8, 11, 64, 200):
        rows = rng.integers(0, len(whole), n_rows)
        for engine in (one, two):
            found = engine.run(None, {"x": inputs.x[rows]})[0]
            np.testing.assert_array_equal(found, whole[rows])


@pytest.mark.parametrize("levels", [127, 2047])
def test_linear_i8_rounds_ties_to_even(levels: int, isa: str, library: Path) -> None:
    """The step is 1 here, so y is the rounded x itself."""
    halves = np.arange(-40, 40, dtype=np.float32) + np.float32(0.5)
    x = np.concatenate([[levels], halves]).astype(np.float32)[None]
    weight = np.eye(x.shape[1], dtype=np.int8)
    ones = np.ones(x.shape[1], np.float32)
    y = run(LinearInputs(x, weight, ones, 0 * ones), library, isa, levels=levels)
    np.testing.assert_array_equal(y[0, 1:], np.rint(halves))


def test_linear_i8_largest_values_do_not_saturate(isa: str, library: Path) -> None:
    for levels in (127, 2047):
        x = np.tile(np.float32([3.0, -3.0]), (8192, 1)).T
        weight = np.tile(np.int8([-128, 127]), (8192, 1))
        ones = np.ones(2, np.float32)
        inputs = LinearInputs(np.ascontiguousarray(x), weight, ones, 0 * ones)
        expected = linear_i8(**vars(inputs), levels=levels)
        np.testing.assert_array_equal(run(inputs, library, isa, levels=levels), expected)


def test_linear_i8_non_finite_row_stays_non_finite_alone(isa: str, library: Path) -> None:
    inputs = BY_NAME["odd_depth"].inputs()
    clean = run(inputs, library, isa)
    inputs.x[4, 700] = np.nan
    inputs.x[9, 998] = -np.inf
    y = run(inputs, library, isa)
    assert np.isnan(y[[4, 9]]).all()
    others = [row for row in range(len(y)) if row not in (4, 9)]
    np.testing.assert_array_equal(y[others], clean[others])


@pytest.mark.parametrize("size", [0.0, 9e-31, 3e38])
def test_linear_i8_extreme_rows_stay_finite(size: float, isa: str, library: Path) -> None:
    inputs = BY_NAME["one_before_panel"].inputs()
    assert inputs.scale is not None
    inputs.x[:] = np.sign(inputs.x) * np.float32(size)
    small = replace(inputs, scale=inputs.scale / 1024)
    y = run(small, library, isa)
    np.testing.assert_array_equal(y, linear_i8(**vars(small), levels=127))
    if size < 1e-30:
        np.testing.assert_array_equal(y, np.tile(inputs.bias, (len(y), 1)))


SMALL = BY_NAME["one_before_panel"].inputs()  # [2, 31] x [31, 63]
ONES = np.ones(63, np.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": np.ones((7, 95), np.float32)}, "input x has 95 along axis 1; K is 31"),
        ({"bias": ONES[1:]}, "input bias has 62 along axis 0; N is 63"),
        ({"scale": ONES[1:]}, "input scale has 62 along axis 0; N is 63"),
        ({"weight": np.ones((8193, 63), np.int8)}, "the weight is 8193 x 63; both sizes"),
    ],
)
def test_linear_i8_bad_input_is_engine_error(
    changed: dict[str, Any], message: str, library: Path
) -> None:
    with pytest.raises(ENGINE_ERRORS, match=f"LinearI8: {message}"):
        run(replace(SMALL, **changed), library)


@pytest.mark.parametrize("options", [{"levels": 128}, {"activation": "relu"}])
def test_linear_i8_unknown_attribute_is_engine_error(
    options: dict[str, Any], library: Path
) -> None:
    with pytest.raises(ENGINE_ERRORS, match=r"LinearI8: (levels is 128|attribute activation)"):
        run(SMALL, library, **options)
