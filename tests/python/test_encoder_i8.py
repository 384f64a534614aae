"""EncoderI8 through ONNX Runtime against its NumPy definition and, to the bit, against the chain of
operators that it stands for: every case, every version, any threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from kernel_engine import ENGINE_ERRORS
from numpy.typing import NDArray

from csrm.kernels import ENCODER_I8_CASES, EncoderI8Case, EncoderI8Inputs, encoder_i8
from csrm.kernels.encoder_i8_models import OUTPUTS, encoder_chain_model, encoder_i8_model
from csrm.kernels.one_node import session

BY_NAME = {case.name: case for case in ENCODER_I8_CASES}
REPEATS = 8  # of a call on several threads, whose order differs
Found = dict[str, NDArray[np.float32]]
Model = Callable[[EncoderI8Inputs, dict[str, int | float | str], str], bytes]


def opened(
    case: EncoderI8Case,
    inputs: EncoderI8Inputs,
    library: Path,
    isa: str = "",
    *,
    model: Model = encoder_i8_model,
    n_threads: int = 1,
    **attributes: Any,
) -> onnxruntime.InferenceSession:
    written = model(inputs, {**case.attributes, **attributes}, isa)
    return session(written, library, n_threads=n_threads)


def outputs(engine: onnxruntime.InferenceSession, inputs: EncoderI8Inputs) -> Found:
    return dict(zip(OUTPUTS, engine.run(OUTPUTS, inputs.tensors), strict=True))


def run(
    case: EncoderI8Case, inputs: EncoderI8Inputs, library: Path, isa: str = "", **options: Any
) -> Found:
    return outputs(opened(case, inputs, library, isa, **options), inputs)


def assert_equal_bits(found: Found, expected: Found) -> None:
    for name in OUTPUTS:
        assert np.array_equal(found[name], expected[name], equal_nan=True), name


@lru_cache
def definition(name: str, products: str) -> dict[str, NDArray[np.float32]]:
    case = BY_NAME[name]
    attributes: Any = {**case.attributes, "products": products}
    return dict(zip(OUTPUTS, encoder_i8(**vars(case.inputs()), **attributes), strict=True))


@pytest.fixture(scope="module", params=["", "portable", "avx2", "avx512", "amx"])
def isa(request: pytest.FixtureRequest, library: Path) -> str:
    """As conftest's, but of this operator: LinearI8's AVX-512 version needs VNNI."""
    case = BY_NAME["smallest"]
    try:
        run(case, case.inputs(), library, request.param)
    except ENGINE_ERRORS:
        if request.param in ("", "portable"):
            raise
        pytest.skip(f"this CPU has no {request.param} of EncoderI8")
    return str(request.param)


@pytest.mark.parametrize("case", ENCODER_I8_CASES, ids=lambda case: case.name)
def test_encoder_i8_case_matches_definition(case: EncoderI8Case, isa: str, library: Path) -> None:
    """With the products that this version has: those of fp32 if it gives the same for these."""
    inputs = case.inputs()
    found = run(case, inputs, library, isa)
    fp32 = run(case, inputs, library, isa, products="fp32")
    is_fp32 = all(np.array_equal(found[name], fp32[name]) for name in OUTPUTS)
    expected = definition(case.name, "fp32" if is_fp32 else "bf16")
    for name in OUTPUTS:
        assert found[name].dtype == np.float32
        assert found[name].shape == expected[name].shape
        apart = np.abs(found[name] - expected[name])
        assert apart.max() <= case.steps * case.step, case.reason
        assert apart.mean() <= case.step, case.reason


@pytest.mark.parametrize("case", ENCODER_I8_CASES, ids=lambda case: case.name)
def test_encoder_i8_equals_chain_of_operators_to_the_bit(
    case: EncoderI8Case, isa: str, library: Path
) -> None:
    inputs = case.inputs()
    expected = run(case, inputs, library, isa, model=encoder_chain_model)
    for n_threads in (1, 2, 3):
        engine = opened(case, inputs, library, isa, n_threads=n_threads)
        for _ in range(1 if n_threads == 1 or case.is_timed else REPEATS):
            assert_equal_bits(outputs(engine, inputs), expected)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("name", ["few_rows", "many_rows", "odd_head"])
def test_encoder_i8_of_no_usual_prefix_equals_chain(
    name: str, poison: float, isa: str, library: Path
) -> None:
    """One key of a head that is not finite, or whose scores leave all range."""
    case = BY_NAME[name]
    inputs = case.inputs()
    inputs.prefix_key[0, 1, 3] = poison
    expected = run(case, inputs, library, isa, model=encoder_chain_model)
    assert not np.array_equal(expected["pooled"], run(case, case.inputs(), library, isa)["pooled"])
    for n_threads in (1, 2):
        assert_equal_bits(run(case, inputs, library, isa, n_threads=n_threads), expected)


@pytest.mark.parametrize("name", ["few_rows", "many_rows", "minilm_heads"])
def test_encoder_i8_calls_at_once_give_equal_bits(name: str, isa: str, library: Path) -> None:
    """Several callers of one session with two threads, each with tensors of its own."""
    case = BY_NAME[name]
    inputs = case.inputs()
    engine = opened(case, inputs, library, isa, n_threads=2)
    calls = [rows_of(inputs, slice(first, None)) for first in range(case.batch)]
    expected = [outputs(engine, call) for call in calls]
    with ThreadPoolExecutor(4) as callers:
        for _ in range(3):
            for found, alone in zip(
                callers.map(lambda call: outputs(engine, call), calls * 2),
                expected * 2,
                strict=True,
            ):
                assert_equal_bits(found, alone)


def rows_of(inputs: EncoderI8Inputs, rows: Any) -> EncoderI8Inputs:
    """Some rows of the batch."""
    names = ("input_ids", "position_ids", "segment_ids", "visible", "pooled_at")
    return replace(inputs, **{name: getattr(inputs, name)[rows].copy() for name in names})


@pytest.mark.parametrize(
    "name", ["one_token", "few_rows", "many_rows", "many_rows_fp32", "read_more_than_there_is"]
)
def test_encoder_i8_any_batch_or_padding_gives_equal_bits(
    name: str, isa: str, library: Path
) -> None:
    """A row alone, among others in another order, and padded agrees to the bit."""
    case = BY_NAME[name]
    inputs = case.inputs()
    engines = [opened(case, inputs, library, isa, n_threads=n) for n in (1, 2)]
    whole = outputs(engines[0], inputs)
    rng = np.random.default_rng(1)
    for n_rows in (1, 2, 3, 11):
        index = rng.integers(0, case.batch, n_rows)
        for n_padding in (0, 1, 18):
            some = padded(rows_of(inputs, index), n_padding)
            for engine in engines:
                found = outputs(engine, some)
                for kept in ("key", "value"):
                    found[kept] = found[kept][..., : case.tokens, :]
                assert_equal_bits(found, {name: value[index] for name, value in whole.items()})


def padded(inputs: EncoderI8Inputs, n: int) -> EncoderI8Inputs:
    """With n tokens more behind each row, which nobody sees."""
    names = ("input_ids", "position_ids", "segment_ids", "visible")
    more = {name: np.pad(getattr(inputs, name), [(0, 0), (0, n)]) for name in names}
    return replace(inputs, **more)


@pytest.mark.parametrize("name", ["many_rows", "many_rows_fp32", "one_row_of_tiles", "long_row"])
def test_encoder_i8_any_cut_into_prefix_and_row_gives_equal_bits(
    name: str, isa: str, library: Path
) -> None:
    """What makes a cached prefix exact: it is the key and value of a row's first tokens."""
    case = BY_NAME[name]
    inputs = rows_of(case.inputs(), slice(0, 1))
    engine = opened(case, inputs, library, isa, n_threads=2)
    for n in (1, 16, case.tokens // 2):
        # Two blocks: the first tokens see each other alone, the rest all tokens.
        inputs.visible[:] = np.where(np.arange(case.tokens) < n, n, case.tokens)
        inputs.pooled_at[:] = case.tokens - 1
        whole = outputs(engine, inputs)
        places = ("input_ids", "position_ids", "segment_ids")
        head, tail = (
            replace(inputs, **{name: getattr(inputs, name)[:, part] for name in places})
            for part in (slice(0, n), slice(n, None))
        )
        head = replace(head, visible=inputs.visible[:, :n], pooled_at=inputs.pooled_at[:, :0])
        first = outputs(engine, head)
        tail = replace(
            tail,
            visible=inputs.visible[:, n:] - n,
            pooled_at=inputs.pooled_at - n,
            prefix_key=np.concatenate([inputs.prefix_key, first["key"][0]], 2),
            prefix_value=np.concatenate([inputs.prefix_value, first["value"][0]], 2),
        )
        last = outputs(engine, tail)
        assert np.array_equal(last["pooled"], whole["pooled"])
        for kept in ("key", "value"):
            joined = np.concatenate([first[kept], last[kept]], 3)
            np.testing.assert_array_equal(joined, whole[kept])


@pytest.mark.parametrize(
    ("batch", "tokens", "pooled"),
    [(0, 5, 1), (0, 5, 0), (0, 0, 2), (2, 0, 0), (3, 5, 0), (2, 100, 0)],
)
def test_encoder_i8_of_nothing_gives_nothing(
    batch: int, tokens: int, pooled: int, isa: str, library: Path
) -> None:
    case = replace(BY_NAME["few_rows"], batch=batch, tokens=tokens, pooled=pooled)
    inputs = case.inputs()
    found = run(case, inputs, library, isa, n_threads=2)
    assert found["key"].shape == found["value"].shape == (batch, 2, 2, tokens, 32)
    assert found["pooled"].shape == (batch, pooled, 64)
    if batch * tokens > 0:
        expected = run(case, inputs, library, isa, model=encoder_chain_model)
        assert_equal_bits(found, expected)


def test_encoder_i8_negative_place_reads_the_first_token(isa: str, library: Path) -> None:
    case = BY_NAME["few_rows"]
    inputs = case.inputs()
    found = []
    for places in ([0, 0, 0], [-1, -7, np.iinfo(np.int64).min]):
        inputs.pooled_at[:] = places
        found.append(run(case, inputs, library, isa))
    assert_equal_bits(*found)


# What is refused.

SMALL = BY_NAME["one_layer"]  # [2, 17] over 5, 2 heads of 32, 2 read of each row
ENDS = np.iinfo(np.int64)


@pytest.mark.parametrize(
    ("name", "number", "must"),
    [
        *(("input_ids", n, "at least 0 and below 50") for n in (-1, 50, ENDS.min, ENDS.max)),
        *(("position_ids", n, "at least 0 and below 300") for n in (-1, 300)),
        *(("segment_ids", n, "at least 0 and below 5") for n in (-1, 5)),
        *(("visible", n, "at least 0 and below 18") for n in (-1, 18, ENDS.max)),
        *(("pooled_at", n, "below 17") for n in (17, ENDS.max)),
    ],
)
def test_encoder_i8_number_out_of_range_is_engine_error(
    name: str, number: int, must: str, library: Path
) -> None:
    inputs = SMALL.inputs()
    getattr(inputs, name)[1, 1] = number
    with pytest.raises(
        ENGINE_ERRORS, match=rf"EncoderI8: {name}\[1, 1\] is {number}; it must be {must}$"
    ):
        run(SMALL, inputs, library)


def test_encoder_i8_reading_rows_without_tokens_is_engine_error(library: Path) -> None:
    case = replace(SMALL, tokens=0)
    with pytest.raises(ENGINE_ERRORS, match="EncoderI8: rows have no tokens"):
        run(case, case.inputs(), library)


def zeros(*shape: int) -> NDArray[np.int64]:
    return np.zeros(shape, np.int64)


PREFIX = SMALL.inputs().prefix_key  # [1, 2, 5, 32]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"position_ids": zeros(2, 16)}, "input position_ids has 16 along axis 1; T is 17"),
        ({"segment_ids": zeros(1, 17)}, "input segment_ids has 1 along axis 0; B is 2"),
        ({"visible": zeros(2, 18)}, "input visible has 18 along axis 1; T is 17"),
        ({"pooled_at": zeros(3, 2)}, "input pooled_at has 3 along axis 0; B is 2"),
        ({"visible": zeros(2, 17, 1)}, "input visible has rank 3; it must have 2"),
        ({"prefix_key": PREFIX.repeat(2, 0)}, "input prefix_key has 2 along axis 0; layers is 1"),
        ({"prefix_key": PREFIX[:, :1]}, "input prefix_key has 1 along axis 1; heads is 2"),
        ({"prefix_value": PREFIX[:, :, 1:]}, "input prefix_value has 4 along axis 2; P is 5"),
        ({"prefix_value": PREFIX[..., 1:]}, "input prefix_value has 31 along axis 3; head_dim"),
        ({"prefix_key": PREFIX[0]}, "input prefix_key has rank 3; it must have 4"),
    ],
)
def test_encoder_i8_wrong_shape_is_engine_error(
    changed: dict[str, Any], message: str, library: Path
) -> None:
    changed = {name: np.ascontiguousarray(value) for name, value in changed.items()}
    with pytest.raises(ENGINE_ERRORS, match=f"EncoderI8: {message}"):
        run(SMALL, replace(SMALL.inputs(), **changed), library)


# The weights of SMALL in their order: 0 to 5 tokens, scale, positions, segments, norm; 6 to 8
# query, 9 to 11 key_value, 12 to 14 attended, 15 and 16 norm, 17 to 19 up, 20 to 22 down.
TOKENS, TOKEN_SCALE, POSITIONS, NORM, QUERY, KEY_VALUE = 0, 1, 2, 4, 6, 9
ATTENDED, ATTENTION_NORM, UP, DOWN = 12, 15, 17, 20


def floats(*shape: int) -> NDArray[np.float32]:
    return np.ones(shape, np.float32)


def bytes_(*shape: int) -> NDArray[np.int8]:
    return np.ones(shape, np.int8)


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (TOKENS, floats(50, 64), "weight 0 has another rank or type"),
        (TOKENS, bytes_(50, 63), "input weights has 63 along axis 1; its width is 64"),
        (TOKENS, bytes_(0, 64), "input weights has 50 along axis 0; the number of tokens is 0"),
        (TOKEN_SCALE, floats(50), "weight 1 has another rank or type"),
        (TOKEN_SCALE, floats(50, 2), "input weights has 2 along axis 1; its width is 1"),
        (TOKEN_SCALE, floats(49, 1), "input weights has 49 along axis 0; the number of tokens"),
        (POSITIONS, bytes_(300, 64), "weight 2 has another rank or type"),
        (POSITIONS, floats(300, 65), "input weights has 65 along axis 1; its width is 64"),
        (POSITIONS, floats(0, 64), "a table of embeddings has no rows"),
        (NORM, floats(63), "input weights has 63 along axis 0; hidden is 64"),
        (NORM + 1, floats(1, 64), "weight 5 has another rank or type"),
        (QUERY, floats(64, 64), "weight 6 has another rank or type"),
        (QUERY + 1, floats(63), "input weights has 63 along axis 0; N is 64"),
        (QUERY + 2, floats(1), "input weights has 1 along axis 0; N is 64"),
        (QUERY, bytes_(63, 64), "query of layer 0 is 63 x 64; it must be 64 x 64"),
        (KEY_VALUE, bytes_(65, 128), "key_value of layer 0 is 65 x 128; it must be 64 x 128"),
        (ATTENDED, bytes_(1, 64), "attended of layer 0 is 1 x 64; it must be 64 x 64"),
        (ATTENTION_NORM, floats(65), "input weights has 65 along axis 0; hidden is 64"),
        (UP, bytes_(60, 96), "up of layer 0 is 60 x 96; it must be 64 x 96"),
        (DOWN, bytes_(95, 64), "down of layer 0 is 95 x 64; it must be 96 x 64"),
    ],
)
def test_encoder_i8_wrong_weight_is_engine_error(
    index: int, value: NDArray[Any], message: str, library: Path
) -> None:
    inputs = SMALL.inputs()
    weights = list(inputs.weights)
    weights[index] = value
    with pytest.raises(ENGINE_ERRORS, match=f"EncoderI8: {message}"):
        run(SMALL, replace(inputs, weights=tuple(weights)), library)


def test_encoder_i8_wrong_number_of_weights_is_engine_error(library: Path) -> None:
    inputs = SMALL.inputs()
    more = replace(inputs, weights=(*inputs.weights, floats(64)))
    with pytest.raises(ENGINE_ERRORS, match="EncoderI8: there are more weights than those of 1"):
        run(SMALL, more, library)
    for n in (1, 6, len(inputs.weights) - 1):
        fewer = replace(inputs, weights=inputs.weights[:n])
        with pytest.raises(ENGINE_ERRORS, match=f"EncoderI8: there are {n} weights, fewer than"):
            run(SMALL, fewer, library)


def test_encoder_i8_without_layers_is_engine_error(library: Path) -> None:
    inputs = SMALL.inputs()
    none = replace(inputs, weights=inputs.weights[:QUERY])
    with pytest.raises(ENGINE_ERRORS, match="EncoderI8: there are no layers; give at least one"):
        run(SMALL, none, library, layers=0)


def test_encoder_i8_middle_layer_of_another_size_is_engine_error(library: Path) -> None:
    case = BY_NAME["many_rows"]  # two layers; weights 6 to 8 are the first one's three parts
    inputs = case.inputs()
    weights = list(inputs.weights)
    weights[6:9] = bytes_(64, 128), floats(128), floats(128)
    with pytest.raises(
        ENGINE_ERRORS, match="query_key_value of layer 0 is 64 x 128; it must be 64 x 192"
    ):
        run(case, replace(inputs, weights=tuple(weights)), library)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers": 0}, "EncoderI8: there are more weights than those of 0 layers"),
        ({"layers": 2}, "EncoderI8: weight 12 has another rank or type"),
        ({"heads": -2, "head_dim": -32}, "EncoderI8: -2 heads of -32; both must be >= 1"),
        ({"heads": 3}, "EncoderI8: input weights has 64 along axis 1; its width is 96"),
        ({"scale": float("inf")}, "EncoderI8: scale is not finite"),
        ({"epsilon": -1.0}, "EncoderI8: epsilon is negative or not finite"),
        ({"levels": 128}, "levels is 128"),
        ({"products": "fp8"}, "EncoderI8: attribute products is none of fp32, bf16"),
        ({"isa": "sse9"}, "EncoderI8: attribute isa"),
    ],
)
def test_encoder_i8_bad_attribute_is_engine_error(
    changed: dict[str, Any], message: str, library: Path
) -> None:
    with pytest.raises(ENGINE_ERRORS, match=message):
        run(SMALL, SMALL.inputs(), library, **changed)
