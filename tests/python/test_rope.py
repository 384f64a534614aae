"""Rope through ONNX Runtime against its NumPy definition: every case, every version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_engine import ENGINE_ERRORS
from numpy.typing import NDArray

from csrm.kernels import ROPE_CASES, RopeCase, RopeInputs, rope
from csrm.kernels.one_node import operator_model, present, session

BY_NAME = {case.name: case for case in ROPE_CASES}


def run(
    inputs: RopeInputs,
    attributes: Mapping[str, int | float],
    library: Path,
    isa: str = "",
    threads: int = 1,
) -> NDArray[np.float32]:
    model = operator_model("Rope", vars(inputs), attributes, isa)
    (y,) = session(model, library, n_threads=threads).run(None, present(vars(inputs)))
    assert y.dtype == np.float32
    return np.asarray(y)


@pytest.mark.parametrize("case", ROPE_CASES, ids=lambda case: case.name)
def test_rope_case_matches_definition(case: RopeCase, isa: str, library: Path) -> None:
    inputs = case.inputs()
    y = run(inputs, case.attributes, library, isa)
    expected = rope(**vars(inputs), **case.attributes)
    assert y.shape == inputs.x.shape
    np.testing.assert_allclose(y, expected, rtol=0, atol=case.tolerance, err_msg=case.reason)
    width = case.heads * case.head_dim
    np.testing.assert_array_equal(y[..., width:], inputs.x[..., width:])


@pytest.mark.parametrize("name", ["many_rows", "far", "odd_half"])
def test_rope_any_batch_or_threads_gives_equal_bits(name: str, isa: str, library: Path) -> None:
    case = BY_NAME[name]
    for has_norm in (False, True):
        inputs = replace(case, has_norm=has_norm).inputs()
        whole = run(inputs, case.attributes, library, isa)
        for _ in range(3):
            again = run(inputs, case.attributes, library, isa, threads=2)
            np.testing.assert_array_equal(again, whole)
        rng = np.random.default_rng(1)
        for n_rows in (1, 2, 5, 400):
            rows = rng.integers(0, len(whole), n_rows)
            some = replace(inputs, x=inputs.x[rows], positions=inputs.positions[rows])
            np.testing.assert_array_equal(run(some, case.attributes, library, isa), whole[rows])


def test_rope_products_of_queries_and_keys_depend_on_distance_alone(
    isa: str, library: Path
) -> None:
    """What rotary embedding is for: both turned by as much again leave their product."""
    case = BY_NAME["smollm2_1"]
    rng = np.random.default_rng(2)
    pair = rng.standard_normal((2, 64)).astype(np.float32)
    frequencies = case.inputs().frequencies
    attributes = {"heads": 1, "head_dim": 64, "epsilon": 1e-5}
    products = []
    for shift in (0, 5, 400):
        inputs = RopeInputs(pair, np.array([shift, shift + 9]), frequencies, None)
        query, key = run(inputs, attributes, library, isa).astype(np.float64)
        products.append(query @ key)
    # A sum of 64 products; angles of up to 409 have an ulp of 3e-5.
    np.testing.assert_allclose(products, products[0], rtol=0, atol=1e-3)
    assert abs(products[0] - pair[0].astype(np.float64) @ pair[1]) > 0.1


def test_rope_non_finite_row_leaves_the_others(isa: str, library: Path) -> None:
    case = BY_NAME["norm_qwen3"]
    inputs = case.inputs()
    clean = run(inputs, case.attributes, library, isa)
    inputs.x[0, 4, 130] = np.nan
    y = run(inputs, case.attributes, library, isa)
    assert np.isnan(y[0, 4, 128:256]).all()
    others = [row for row in range(9) if row != 4]
    np.testing.assert_array_equal(y[0, others], clean[0, others])


X = np.ones((5, 85), np.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"positions": np.ones(4, np.int64)}, "input positions has 4 along axis 0; x is 5"),
        ({"positions": np.ones((5, 1), np.int64)}, "input positions has rank 2; x has 2"),
        ({"frequencies": X[0, :20]}, "input frequencies has 20 along axis 0; head_dim / 2 is 21"),
        ({"weight": X[0, :42]}, "input weight has 42 along axis 0; heads . head_dim is 84"),
        ({"x": X[:, :83]}, "x has 5 rows of 83; they must hold 2 heads of 42"),
    ],
)
def test_rope_wrong_shape_is_engine_error(
    changed: dict[str, Any], message: str, library: Path
) -> None:
    case = BY_NAME["odd_half"]
    with pytest.raises(ENGINE_ERRORS, match=f"Rope: {message}"):
        run(replace(case.inputs(), **changed), case.attributes, library)


@pytest.mark.parametrize(
    ("changed", "isa", "message"),
    [
        ({"head_dim": 7}, "", "head_dim is 7"),
        ({"head_dim": 2048}, "", "head_dim is 2048"),
        ({"heads": 0}, "", "at least one"),
        ({"epsilon": -1.0}, "", "epsilon is -1"),
        ({}, "sse9", "attribute isa"),
    ],
)
def test_rope_bad_attribute_is_engine_error(
    changed: dict[str, int | float], isa: str, message: str, library: Path
) -> None:
    attributes = {"heads": 1, "head_dim": 2, "epsilon": 1e-5, **changed}
    half = np.ones(int(attributes["head_dim"]) // 2, np.float32)
    inputs = RopeInputs(np.ones((1, 4), np.float32), np.ones(1, np.int64), half, None)
    with pytest.raises(ENGINE_ERRORS, match=f"Rope: .*{message}"):
        run(inputs, attributes, library, isa)
