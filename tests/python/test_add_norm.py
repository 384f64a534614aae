"""AddNorm through ONNX Runtime against its NumPy definition: every case, every version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_engine import ENGINE_ERRORS
from numpy.typing import NDArray

from csrm.kernels import ADD_NORM_CASES, AddNormCase, AddNormInputs, add_norm
from csrm.kernels.one_node import operator_model, present, session

BY_NAME = {case.name: case for case in ADD_NORM_CASES}


def run(
    inputs: AddNormInputs,
    library: Path,
    isa: str = "",
    epsilon: float = 1e-12,
    threads: int = 1,
    kind: str = "layer",
) -> NDArray[np.float32]:
    attributes = {"epsilon": epsilon, "kind": kind}
    model = operator_model("AddNorm", vars(inputs), attributes, isa)
    (y,) = session(model, library, n_threads=threads).run(None, present(vars(inputs)))
    assert y.dtype == np.float32
    return np.asarray(y)


@pytest.mark.parametrize("case", ADD_NORM_CASES, ids=lambda case: case.name)
def test_add_norm_case_matches_definition(case: AddNormCase, isa: str, library: Path) -> None:
    inputs = case.inputs()
    y = run(inputs, library, isa, case.epsilon, kind=case.kind)
    expected, _ = add_norm(**vars(inputs), epsilon=case.epsilon, kind=case.kind)
    assert y.shape == inputs.x.shape
    np.testing.assert_allclose(y, expected, rtol=0, atol=case.tolerance, err_msg=case.reason)


@pytest.mark.parametrize("name", ["mpnet", "many_rows", "rms_wide", "rms_three_axes"])
def test_add_norm_sum_is_that_of_fp32_and_changes_no_bit(
    name: str, isa: str, library: Path
) -> None:
    case = BY_NAME[name]
    inputs = case.inputs()
    attributes = {"epsilon": case.epsilon, "kind": case.kind}
    model = operator_model("AddNorm", vars(inputs), attributes, isa, outputs=("y", "sum"))
    y, total = session(model, library, n_threads=2).run(None, present(vars(inputs)))
    np.testing.assert_array_equal(total, inputs.x + inputs.residual)
    np.testing.assert_array_equal(y, run(inputs, library, isa, case.epsilon, kind=case.kind))


@pytest.mark.parametrize(
    "name",
    ["many_rows", "wide", "one_past_lanes", "mpnet", "rms_many_rows", "rms_wide"],
)
def test_add_norm_any_batch_or_threads_gives_equal_bits(name: str, isa: str, library: Path) -> None:
    case = BY_NAME[name]
    inputs = case.inputs()
    assert inputs.residual is not None
    whole = run(inputs, library, isa, kind=case.kind)
    for _ in range(3):
        np.testing.assert_array_equal(run(inputs, library, isa, threads=2, kind=case.kind), whole)
    rng = np.random.default_rng(1)
    for n_rows in (1, 2, 5, 400):
        rows = rng.integers(0, len(whole), n_rows)
        some = replace(inputs, x=inputs.x[rows], residual=inputs.residual[rows])
        np.testing.assert_array_equal(run(some, library, isa, kind=case.kind), whole[rows])


def test_add_norm_vector_versions_agree_to_the_bit(library: Path) -> None:
    inputs = BY_NAME["wide"].inputs()
    try:
        wide = run(inputs, library, "avx512")
    except ENGINE_ERRORS:
        pytest.skip("this CPU has no avx512")
    np.testing.assert_array_equal(wide, run(inputs, library, "avx2"))


def test_add_norm_non_finite_row_stays_non_finite_alone(isa: str, library: Path) -> None:
    inputs = BY_NAME["mpnet"].inputs()
    clean = run(inputs, library, isa)
    inputs.x[4, 700] = np.nan
    inputs.residual[7, 3] = np.inf
    y = run(inputs, library, isa)
    assert np.isnan(y[[4, 7]]).all()
    others = [row for row in range(len(y)) if row not in (4, 7)]
    np.testing.assert_array_equal(y[others], clean[others])


def test_add_norm_minus_zero_rows_give_the_bias(isa: str, library: Path) -> None:
    inputs = BY_NAME["three_axes"].inputs()
    zero = np.full_like(inputs.x, -0.0)
    y = run(replace(inputs, x=zero, residual=zero), library, isa)
    np.testing.assert_array_equal(y, np.broadcast_to(inputs.bias, y.shape))


ROW = np.ones((9, 767), np.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"residual": ROW}, "input residual has 767 along axis 1; x is 768"),
        ({"residual": ROW[0]}, "input residual has rank 1; that of x is 2"),
        ({"weight": ROW[0]}, "input weight has 767 along axis 0; N is 768"),
        ({"bias": ROW}, "input bias has rank 2; it must have 1"),
        ({"bias": None}, "LayerNorm needs a bias"),
    ],
)
def test_add_norm_wrong_shape_is_engine_error(
    changed: dict[str, Any], message: str, library: Path
) -> None:
    with pytest.raises(ENGINE_ERRORS, match=f"AddNorm: {message}"):
        run(replace(BY_NAME["mpnet"].inputs(), **changed), library)


def test_add_norm_rms_with_a_bias_is_engine_error(library: Path) -> None:
    with pytest.raises(ENGINE_ERRORS, match="AddNorm: LayerNorm needs a bias and RMSNorm has none"):
        run(BY_NAME["mpnet"].inputs(), library, kind="rms")


def test_add_norm_sum_of_nothing_added_is_engine_error(library: Path) -> None:
    tensors = vars(BY_NAME["rms_nothing_added"].inputs())
    attributes = {"epsilon": 1e-5, "kind": "rms"}
    model = operator_model("AddNorm", tensors, attributes, outputs=("y", "sum"))
    with pytest.raises(ENGINE_ERRORS, match="AddNorm: nothing is added"):
        session(model, library).run(None, present(tensors))


def test_add_norm_unknown_kind_is_engine_error(library: Path) -> None:
    with pytest.raises(ENGINE_ERRORS, match="AddNorm: attribute kind is none of layer, rms"):
        run(BY_NAME["mpnet"].inputs(), library, kind="group")


def test_add_norm_empty_rows_are_engine_error(library: Path) -> None:
    empty, none = np.ones((2, 0), np.float32), np.ones(0, np.float32)
    with pytest.raises(ENGINE_ERRORS, match="AddNorm: x has 2 rows of 0"):
        run(AddNormInputs(empty, empty, none, none), library)


@pytest.mark.parametrize(
    ("epsilon", "isa", "message"), [(-1.0, "", "epsilon is -1"), (0.0, "sse9", "attribute isa")]
)
def test_add_norm_bad_attribute_is_engine_error(
    epsilon: float, isa: str, message: str, library: Path
) -> None:
    with pytest.raises(ENGINE_ERRORS, match=f"AddNorm: {message}"):
        run(BY_NAME["smallest"].inputs(), library, isa, epsilon)
