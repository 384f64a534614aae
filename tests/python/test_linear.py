"""Linear through ONNX Runtime against its NumPy definition: every case, every version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from kernel_engine import ENGINE_ERRORS
from numpy.typing import NDArray

from csrm.kernels import LINEAR_CASES, LinearCase, LinearInputs, linear
from csrm.kernels.one_node import linear_model, session

BY_NAME = {case.name: case for case in LINEAR_CASES}


def run(
    inputs: LinearInputs, library: Path, activation: str = "none", isa: str = "", n_threads: int = 1
) -> NDArray[np.float32]:
    model = linear_model(inputs, activation, isa)
    (y,) = session(model, library, n_threads=n_threads).run(None, {"x": inputs.x})
    assert y.dtype == np.float32
    return np.asarray(y)


@pytest.mark.parametrize("case", LINEAR_CASES, ids=lambda case: case.name)
def test_linear_case_matches_definition(case: LinearCase, isa: str, library: Path) -> None:
    inputs = case.inputs()
    y = run(inputs, library, case.activation, isa)
    expected = linear(**vars(inputs), activation=case.activation)
    assert y.shape == (*case.rows, case.n_out)
    np.testing.assert_allclose(y, expected, rtol=0, atol=case.tolerance, err_msg=case.reason)


@pytest.mark.parametrize("name", ["depth_in_parts", "many_rows", "one_past_panel"])
def test_linear_any_batch_tile_or_threads_gives_equal_bits(
    name: str, isa: str, library: Path
) -> None:
    """A row alone, among others in another order, and on two threads agrees to the bit."""
    case = BY_NAME[name]
    inputs = case.inputs()
    model = linear_model(inputs, case.activation, isa)
    one, two = (session(model, library, n_threads=n) for n in (1, 2))
    whole = one.run(None, {"x": inputs.x})[0]
    for _ in range(3):
        np.testing.assert_array_equal(two.run(None, {"x": inputs.x})[0], whole)
    rng = np.random.default_rng(1)
    for n_rows in (1, 2, 3, 4, 5, 6, 7, 8, 11, 64, 200):
        rows = rng.integers(0, len(whole), n_rows)
        for engine in (one, two):
            found = engine.run(None, {"x": inputs.x[rows]})[0]
            np.testing.assert_array_equal(found, whole[rows])


def test_linear_stored_as_floats_gives_the_same_result(isa: str, library: Path) -> None:
    case = BY_NAME["three_axes"]
    inputs = case.inputs()
    assert inputs.scale is not None
    dense = inputs.weight.astype(np.float32) * inputs.scale
    floats = replace(inputs, weight=dense, scale=None)
    # Int8 weights are summed up first and scaled once: other roundings.
    np.testing.assert_allclose(
        run(floats, library, case.activation, isa),
        run(inputs, library, case.activation, isa),
        rtol=0,
        atol=case.tolerance,
    )


def test_linear_gelu_is_accurate_everywhere(isa: str, library: Path) -> None:
    """Against float64; 2 ulp of the largest values of the range."""
    x = np.concatenate(
        [np.linspace(-9, 9, 40001), np.geomspace(1e-30, 1e30, 2001), -np.geomspace(1e-30, 1e30, 99)]
    ).astype(np.float32)[:, None]
    one, zero = np.ones((1, 20), np.float32), np.zeros(20, np.float32)
    y = run(LinearInputs(x, one, None, zero), library, "gelu", isa)
    expected = linear(x, one, None, zero, activation="gelu")
    np.testing.assert_allclose(y, expected, rtol=2.4e-7, atol=1e-6)
    negative = x[:, 0] < -6
    assert (y[negative] == 0).all()


@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_linear_non_finite_row_stays_non_finite_alone(
    activation: str, isa: str, library: Path
) -> None:
    inputs = BY_NAME["depth_in_parts"].inputs()
    clean = run(inputs, library, activation, isa)
    inputs.x[4, 700] = np.nan
    inputs.x[9, 3] = np.inf
    y = run(inputs, library, activation, isa)
    assert np.isnan(y[4]).all()
    assert not np.isfinite(y[9]).any()
    others = [row for row in range(len(y)) if row not in (4, 9)]
    np.testing.assert_array_equal(y[others], clean[others])


SMALL = BY_NAME["float_weight"].inputs()  # [7, 96] x [96, 100]
INT8 = SMALL.weight.astype(np.int8)
ONES = np.ones(100, np.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": np.ones((7, 95), np.float32)}, "input x has 95 along axis 1; K is 96"),
        ({"x": np.ones((2, 7, 1), np.float32)}, "input x has 1 along axis 2; K is 96"),
        ({"bias": np.ones(99, np.float32)}, "input bias has 99 along axis 0; N is 100"),
        ({"bias": np.ones((1, 100), np.float32)}, "input bias has rank 2; it must have 1"),
        ({"weight": INT8, "scale": ONES[1:]}, "input scale has 99 along axis 0; N is 100"),
        ({"weight": INT8}, "input scale must be an initialiser"),
        ({"scale": ONES}, "a float weight has no scale"),
        ({"weight": INT8.astype(np.int32)}, "input weight must be int8 or float"),
        ({"weight": INT8[:, :0], "scale": ONES[:0], "bias": ONES[:0]}, "the weight is 96 x 0"),
    ],
)
def test_linear_bad_input_is_engine_error(
    changed: dict[str, Any], message: str, library: Path
) -> None:
    with pytest.raises(ENGINE_ERRORS, match=f"Linear: {message}"):
        run(replace(SMALL, **changed), library)


@pytest.mark.parametrize(("activation", "isa"), [("relu", ""), ("none", "sse9"), ("g" * 99, "")])
def test_linear_unknown_attribute_is_engine_error(activation: str, isa: str, library: Path) -> None:
    with pytest.raises(ENGINE_ERRORS, match=r"Linear: attribute (activation|isa)"):
        run(SMALL, library, activation, isa)


def test_linear_bias_that_is_no_initialiser_is_engine_error(library: Path) -> None:
    """It is packed when the kernel is made, so it must not be taken for one that is left out."""
    model = onnx.load_from_string(linear_model(SMALL, "none"))
    [bias] = [tensor for tensor in model.graph.initializer if tensor.name.startswith("bias")]
    model.graph.initializer.remove(bias)
    model.graph.input.append(
        onnx.helper.make_tensor_value_info(bias.name, onnx.TensorProto.FLOAT, bias.dims)
    )
    with pytest.raises(ENGINE_ERRORS, match="Linear: input bias must be an initialiser"):
        session(model.SerializeToString(), library)
