"""HalfKeyValue through ONNX Runtime against its NumPy definition, to the bit, in every version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kernel_engine import ENGINE_ERRORS
from numpy.typing import NDArray

from csrm.kernels import HALF_KEY_VALUE_CASES, HalfKeyValueCase, half_key_value
from csrm.kernels.one_node import half_key_value_model, session

BY_NAME = {case.name: case for case in HALF_KEY_VALUE_CASES}
Attributes = dict[str, int | float]


def run(
    states: NDArray[np.float32],
    attributes: Attributes,
    library: Path,
    isa: str = "",
    threads: int = 1,
) -> list[NDArray[np.float16]]:
    model = half_key_value_model(attributes, isa)
    outputs: list[NDArray[np.float16]] = session(model, library, n_threads=threads).run(
        None, {"states": states}
    )
    return outputs


def assert_same_bits(actual: NDArray[np.float16], expected: NDArray[np.float16]) -> None:
    """NaN, of which the definition does not fix the bits, only where NaN is expected."""
    assert actual.dtype == np.float16
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(actual[known].view(np.uint16), expected[known].view(np.uint16))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", HALF_KEY_VALUE_CASES, ids=lambda case: case.name)
def test_half_key_value_case_matches_definition_to_the_bit(
    case: HalfKeyValueCase, threads: int, isa: str, library: Path
) -> None:
    states = case.states()
    found = run(states, case.attributes, library, isa, threads)
    expected = half_key_value(states, **case.attributes)  # type: ignore[arg-type]
    for actual, wanted in zip(found, expected, strict=True):
        assert actual.shape == (case.batch, 1, case.kv_heads, case.tokens, case.head_dim)
        assert_same_bits(actual, wanted)


def test_half_key_value_too_large_is_nan_and_never_infinite(isa: str, library: Path) -> None:
    case = BY_NAME["odd_head"]
    states = case.states()
    for place, number in enumerate([65519.0, 65520.0, -65520.0, 1e30, np.inf, -np.inf, np.nan]):
        states[0, 0, case.n_before + place] = number
    key, _ = run(states, case.attributes, library, isa)
    assert key[0, 0, 0, 0, 0] == 65504.0
    assert np.isnan(key[0, 0, 0, 0, 1:]).all()
    assert not any(np.isinf(part).any() for part in (key, _))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"key_offset": -1}, "key_offset is -1 and 21 columns are read; states has 47"),
        ({"value_offset": 27}, "value_offset is 27 and 21 columns"),
        ({"head_dim": 0}, "heads of 0"),
    ],
)
def test_half_key_value_bad_attribute_is_engine_error(
    changed: Attributes, message: str, library: Path
) -> None:
    case = BY_NAME["odd_head"]
    with pytest.raises(ENGINE_ERRORS, match=f"HalfKeyValue: .*{message}"):
        run(case.states(), {**case.attributes, **changed}, library)
