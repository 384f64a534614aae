"""PrefixAttention through ONNX Runtime against its NumPy definition: every case, every version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_engine import ENGINE_ERRORS
from numpy.typing import NDArray

from csrm.kernels import ATTENTION_CASES, AttentionCase, AttentionInputs, prefix_attention
from csrm.kernels.one_node import operator_model, session
from csrm.kernels.reference import halves

BY_NAME = {case.name: case for case in ATTENTION_CASES}
Attributes = dict[str, int | float | str]


def run(
    inputs: AttentionInputs, attributes: Attributes, library: Path, isa: str = "", threads: int = 1
) -> NDArray[np.float32]:
    model = operator_model("PrefixAttention", vars(inputs), attributes, isa)
    (y,) = session(model, library, n_threads=threads).run(None, vars(inputs))
    assert y.dtype == np.float32
    return np.asarray(y)


def definition(
    case: AttentionCase, inputs: AttentionInputs, y: NDArray[np.float32], library: Path, isa: str
) -> NDArray[np.float64]:
    """With the products of the version that gave y, which are those of fp32 if y is."""
    attributes: Any = dict(case.attributes)
    if case.is_bf16:
        fp32 = {**attributes, "products": "fp32"}
        if (bits(y) == bits(run(inputs, fp32, library, isa))).all():
            attributes = fp32
    return prefix_attention(**vars(inputs), **attributes)


def bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Compared instead of floats, so that -0 differs from 0."""
    return np.ascontiguousarray(values).view(np.uint32)


@pytest.mark.parametrize("case", ATTENTION_CASES, ids=lambda case: case.name)
def test_attention_case_matches_definition(case: AttentionCase, isa: str, library: Path) -> None:
    inputs = case.inputs()
    y = run(inputs, case.attributes, library, isa)
    expected = definition(case, inputs, y, library, isa)
    assert y.shape == (case.batch, case.queries, case.heads * case.head_dim)
    np.testing.assert_allclose(y, expected, rtol=0, atol=case.tolerance, err_msg=case.reason)
    if y.size > 0:  # few weights are rounded the other way
        assert np.abs(y - expected).mean() <= max(0.01 * case.tolerance, 1e-6)


@pytest.mark.parametrize("name", ["turns_alone", "bf16_nothing_seen"])
def test_attention_nothing_seen_gives_zeros_only_there(name: str, isa: str, library: Path) -> None:
    case = BY_NAME[name]
    inputs = case.inputs()
    y = run(inputs, case.attributes, library, isa)
    assert (inputs.visible == 0).any()
    np.testing.assert_array_equal((bits(y) == 0).all(-1), inputs.visible == 0)


@pytest.mark.parametrize(
    "name",
    [
        *("any_sight", "turns", "odd_head", "grouped", "many_short_rows"),
        *("half_any_sight", "half_turns", "half_odd_head", "half_many_short_rows"),
        *("bf16_any_sight", "bf16_turns", "bf16_grouped", "bf16_many_short_rows"),
        *("bf16_three_blocks", "bf16_half_turns", "bf16_sums_about_2_40", "bf16_mixed_scores"),
        *("bf16_mixed_scores_in_blocks", "bf16_mixed_scores_grouped", "bf16_mixed_scores_half"),
    ],
)
def test_attention_any_batch_padding_or_threads_gives_equal_bits(
    name: str, isa: str, library: Path
) -> None:
    """A row alone, elsewhere in a batch, among other rows and padded agrees to the bit."""
    case = BY_NAME[name]
    inputs = case.inputs()
    whole = run(inputs, case.attributes, library, isa)
    for _ in range(3):
        two = run(inputs, case.attributes, library, isa, threads=2)
        np.testing.assert_array_equal(bits(two), bits(whole))
    rng = np.random.default_rng(1)
    for row in range(min(case.batch, 3)):
        token = inputs.query[row : row + 1]
        seen = inputs.visible[row : row + 1]
        alone = replace(inputs, query=token, key_value=token, visible=seen)
        y = run(alone, case.attributes, library, isa)
        np.testing.assert_array_equal(bits(y[0]), bits(whole[row]))

        padded = np.full((4, case.tokens + 13, token.shape[-1]), np.nan, np.float32)
        padded[:, : case.tokens] = rng.standard_normal((4, *token.shape[1:])) * 10
        padded[2, : case.tokens] = token
        visible = rng.integers(0, case.tokens + 1, padded.shape[:2])
        visible[2] = 0
        visible[2, : case.tokens] = seen
        batch = replace(inputs, query=padded, key_value=padded, visible=visible)
        y = run(batch, case.attributes, library, isa)
        np.testing.assert_array_equal(bits(y[2, : case.tokens]), bits(whole[row]))


@pytest.mark.parametrize(
    "name",
    ["any_sight", "bf16_any_sight", "bf16_three_blocks", "bf16_mixed_scores_in_blocks"],
)
def test_attention_a_query_alone_gives_equal_bits(name: str, isa: str, library: Path) -> None:
    """As in a last layer: the queries apart from the keys, any of them, in any order."""
    case = BY_NAME[name]
    inputs = case.inputs()
    whole = run(inputs, case.attributes, library, isa)
    rng = np.random.default_rng(2)
    for n in (1, 2, 7, 9, 25, 50):
        index = rng.integers(0, case.tokens, n)
        some = replace(inputs, query=inputs.query[:, index], visible=inputs.visible[:, index])
        y = run(some, case.attributes, library, isa)
        np.testing.assert_array_equal(bits(y), bits(whole[:, index]))


@pytest.mark.parametrize(
    "name",
    [
        *("no_prefix", "odd_head", "grouped", "any_sight"),
        *("half_no_prefix", "half_odd_head", "half_any_sight"),
        *("bf16_no_prefix", "bf16_grouped", "bf16_own_blocks", "bf16_half_no_prefix"),
        *("bf16_mixed_scores_own", "bf16_mixed_scores_half"),
    ],
)
def test_attention_any_cut_into_prefix_and_row_gives_equal_bits(
    name: str, isa: str, library: Path
) -> None:
    """What makes a cached prefix exact: the first tokens of a row may as well be its prefix.

    Of half precision too, because a row's own keys are rounded as those of a cache are.
    """
    case = BY_NAME[name]
    inputs = case.inputs()
    attributes = case.attributes
    layer, kv_heads = case.layer, case.kv_heads or case.heads
    expected = run(inputs, attributes, library, isa)[0]
    key_offset, value_offset = int(attributes["key_offset"]), int(attributes["value_offset"])

    def first_own(offset: int, n: int) -> NDArray[np.float32] | NDArray[np.float16]:
        part = inputs.key_value[0, :n, offset : offset + kv_heads * case.head_dim]
        split = part.reshape(n, kv_heads, case.head_dim).transpose(1, 0, 2)
        return halves(split) if case.is_half else split

    for n in (1, 5, case.tokens // 2, case.tokens - 1):
        key = np.concatenate([inputs.prefix_key[layer], first_own(key_offset, n)], 1)
        value = np.concatenate([inputs.prefix_value[layer], first_own(value_offset, n)], 1)
        cut = AttentionInputs(
            inputs.query[:1],
            inputs.key_value[:1, n:],
            np.ascontiguousarray(key)[None],
            np.ascontiguousarray(value)[None],
            np.maximum(inputs.visible[:1] - n, 0),
        )
        y = run(cut, {**attributes, "layer": 0}, library, isa)[0]
        sees_all_of_it = inputs.visible[0] >= n  # of what became the prefix
        assert sees_all_of_it.any()
        np.testing.assert_array_equal(bits(y[sees_all_of_it]), bits(expected[sees_all_of_it]))


@pytest.mark.parametrize("name", ["bf16_turns", "bf16_any_sight", "bf16_of_an_odd_head"])
def test_attention_without_tiles_of_bfloat16_is_that_of_fp32(
    name: str, isa: str, library: Path
) -> None:
    case = BY_NAME[name]
    inputs = case.inputs()
    fp32 = {key: value for key, value in case.attributes.items() if key != "products"}
    y, exact = (run(inputs, attributes, library, isa) for attributes in (case.attributes, fp32))
    if isa in ("", "amx") and case.head_dim % 32 == 0:  # bfloat16 if this CPU has it
        np.testing.assert_allclose(y, exact, rtol=0, atol=2e-2)
    else:
        np.testing.assert_array_equal(bits(y), bits(exact))


@pytest.mark.parametrize("name", ["bf16_three_blocks", "bf16_wide_head", "bf16_loud_scores"])
def test_attention_products_of_bfloat16_are_nearer_to_their_definition(
    name: str, isa: str, library: Path
) -> None:
    case = BY_NAME[name]
    inputs = case.inputs()
    attributes: Any = case.attributes
    fp32 = run(inputs, {**attributes, "products": "fp32"}, library, isa)
    y = run(inputs, attributes, library, isa)
    if (bits(y) == bits(fp32)).all():
        pytest.skip("this version has no products of bfloat16")
    own, other = (
        np.abs(y - prefix_attention(**vars(inputs), **{**attributes, "products": products})).mean()
        for products in ("bf16", "fp32")
    )
    assert own < 0.25 * other


def test_attention_vector_versions_agree_to_the_bit(library: Path) -> None:
    case = BY_NAME["any_sight"]
    try:
        wide = run(case.inputs(), case.attributes, library, "avx512")
    except ENGINE_ERRORS:
        pytest.skip("this CPU has no avx512")
    np.testing.assert_array_equal(
        bits(wide), bits(run(case.inputs(), case.attributes, library, "avx2"))
    )


@pytest.mark.parametrize("name", ["turns", "bf16_turns"])
def test_attention_non_finite_key_reaches_only_queries_that_see_it(
    name: str, isa: str, library: Path
) -> None:
    """Not even through a weight of 0: what a query does not see is not computed with."""
    case = BY_NAME[name]
    inputs = case.inputs()
    clean = run(inputs, case.attributes, library, isa)
    key_offset, value_offset = (int(case.attributes[k]) for k in ("key_offset", "value_offset"))
    for offset in (key_offset, value_offset):
        for poison in (np.nan, np.inf):
            key_value = inputs.key_value.copy()
            key_value[0, 30, offset : offset + 2 * case.head_dim] = poison
            poisoned = replace(inputs, query=inputs.query.copy(), key_value=key_value)
            y = run(poisoned, case.attributes, library, isa)
            sees = np.zeros(inputs.visible.shape, bool)
            sees[0] = inputs.visible[0] > 30
            assert (~np.isfinite(y[sees])).any(-1).all()
            np.testing.assert_array_equal(bits(y[~sees]), bits(clean[~sees]))


@pytest.mark.parametrize("name", ["half_turns", "bf16_half_turns"])
@pytest.mark.parametrize("number", [65520.0, -65520.0, 1e30, -np.inf])
def test_attention_own_number_too_large_for_half_is_not_finite(
    name: str, number: float, isa: str, library: Path
) -> None:
    """A key of -inf would hide its token; an error is what a query that sees it must become."""
    case = BY_NAME[name]
    inputs = case.inputs()
    clean = run(inputs, case.attributes, library, isa)
    for offset in (int(case.attributes[k]) for k in ("key_offset", "value_offset")):
        key_value = inputs.key_value.copy()
        key_value[0, 30, offset : offset + 2 * case.head_dim] = number
        large = replace(inputs, query=inputs.query.copy(), key_value=key_value)
        y = run(large, case.attributes, library, isa)
        sees = np.zeros(inputs.visible.shape, bool)
        sees[0] = inputs.visible[0] > 30
        assert (~np.isfinite(y[sees])).any(-1).all()
        np.testing.assert_array_equal(bits(y[~sees]), bits(clean[~sees]))


@pytest.mark.parametrize("which", ["prefix_key", "prefix_value"])
def test_attention_prefix_of_two_types_is_engine_error(which: str, library: Path) -> None:
    inputs = SMALL.inputs()
    changed = {which: getattr(inputs, which).astype(np.float16)}
    with pytest.raises(ENGINE_ERRORS, match="both be float or both float16"):
        run(replace(inputs, **changed), SMALL.attributes, library)


@pytest.mark.parametrize("name", ["no_prefix", "bf16_no_prefix"])
def test_attention_non_finite_query_stays_alone(name: str, isa: str, library: Path) -> None:
    case = BY_NAME[name]
    inputs = case.inputs()
    clean = run(inputs, case.attributes, library, isa)
    query = inputs.query.copy()
    query[1, 3, 5] = np.nan
    y = run(replace(inputs, query=query), case.attributes, library, isa)
    assert np.isnan(y[1, 3, : case.head_dim]).all()
    y[1, 3, : case.head_dim] = clean[1, 3, : case.head_dim]
    np.testing.assert_array_equal(bits(y), bits(clean))


def test_attention_one_infinite_number_of_a_key_is_not_finite_with_bfloat16(library: Path) -> None:
    """In fp32 a key whose score is -inf counts for nothing; here it makes an error."""
    case = BY_NAME["bf16_turns"]
    inputs = case.inputs()
    fp32 = run(inputs, {**case.attributes, "products": "fp32"}, library, "")
    if (bits(run(inputs, case.attributes, library, "")) == bits(fp32)).all():
        pytest.skip("this CPU has no products of bfloat16")
    prefix = inputs.prefix_key.copy()
    prefix[0, 1, 7, 3] = -np.inf
    y = run(replace(inputs, prefix_key=prefix), case.attributes, library)
    assert np.isnan(y[..., case.head_dim :]).all()
    assert np.isfinite(y[..., : case.head_dim]).all()


@pytest.mark.parametrize("name", ["no_prefix", "bf16_no_prefix", "bf16_mixed_scores"])
def test_attention_huge_scores_pick_the_highest_key(name: str, isa: str, library: Path) -> None:
    """Scores of 1e30: without their highest every exponential would overflow."""
    case = BY_NAME[name]
    inputs = case.inputs()
    huge = replace(inputs, query=inputs.query * np.float32(1e30))
    y = run(huge, case.attributes, library, isa)
    expected = definition(case, huge, y, library, isa)
    np.testing.assert_array_equal(y, expected.astype(np.float32))


def test_attention_zeros_of_either_sign_average_the_values(isa: str, library: Path) -> None:
    case = BY_NAME["no_prefix"]
    inputs = case.inputs()
    zero = replace(inputs, query=np.full_like(inputs.query, -0.0))
    y = run(zero, case.attributes, library, isa)
    values = inputs.key_value[:, :, int(case.attributes["value_offset"]) :]
    average = values.astype(np.float64).mean(1, keepdims=True)
    np.testing.assert_allclose(y, average.repeat(case.tokens, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", [-1, 38, np.iinfo(np.int64).max, np.iinfo(np.int64).min])
def test_attention_visible_beyond_row_is_engine_error(number: int, library: Path) -> None:
    case = BY_NAME["no_prefix"]
    inputs = case.inputs()
    inputs.visible[1, 2] = number
    with pytest.raises(ENGINE_ERRORS, match=rf"visible\[1, 2\] is {number}; rows have 37 tokens"):
        run(inputs, case.attributes, library)


SMALL = BY_NAME["any_sight"]  # [3, 61] over 67, 2 heads of 64, 3 layers
PREFIX = SMALL.inputs().prefix_key


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"visible": np.zeros((3, 60), np.int64)}, "input visible has 60 along axis 1; Q is 61"),
        ({"visible": np.zeros((2, 61), np.int64)}, "input visible has 2 along axis 0; B is 3"),
        ({"key_value": np.zeros((2, 61, 384), np.float32)}, "input key_value has 2 along axis 0"),
        ({"key_value": np.zeros((3, 61, 383), np.float32)}, "value_offset is 256 and 128 columns"),
        ({"query": np.zeros((3, 61, 127), np.float32)}, "query_offset is 0 and 128 columns"),
        ({"query": np.zeros((3, 61), np.float32)}, "input query has rank 2; it must have 3"),
        ({"prefix_key": PREFIX[:, :1]}, "input prefix_key has 1 along axis 1; kv_heads is 2"),
        ({"prefix_key": PREFIX[..., :63]}, "input prefix_key has 63 along axis 3; head_dim is 64"),
        ({"prefix_value": PREFIX[:, :, 1:]}, "input prefix_value has 66 along axis 2; P is 67"),
        ({"prefix_value": PREFIX[1:]}, "input prefix_value has 2 along axis 0; L is 3"),
    ],
)
def test_attention_wrong_shape_is_engine_error(
    changed: dict[str, Any], message: str, library: Path
) -> None:
    changed = {key: np.ascontiguousarray(value) for key, value in changed.items()}
    with pytest.raises(ENGINE_ERRORS, match=f"PrefixAttention: {message}"):
        run(replace(SMALL.inputs(), **changed), SMALL.attributes, library)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layer": 3}, "layer is 3; the prefix has 3 layers"),
        ({"layer": -1}, "layer is -1; the prefix has 3 layers"),
        ({"heads": 3}, "3 heads over 2 heads of keys"),
        ({"heads": 0}, "0 heads over 2 heads of keys"),
        ({"key_offset": -1}, "key_offset is -1 and 128 columns"),
        ({"scale": float("inf")}, "scale is not finite"),
        ({"products": "fp8"}, "attribute products is none of fp32, bf16"),
    ],
)
def test_attention_bad_attribute_is_engine_error(
    changed: Attributes, message: str, library: Path
) -> None:
    with pytest.raises(ENGINE_ERRORS, match=f"PrefixAttention: {message}"):
        run(SMALL.inputs(), {**SMALL.attributes, **changed}, library)


def test_attention_unknown_isa_is_engine_error(library: Path) -> None:
    with pytest.raises(ENGINE_ERRORS, match="PrefixAttention: attribute isa"):
        run(SMALL.inputs(), SMALL.attributes, library, "sse9")
