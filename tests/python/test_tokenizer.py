"""The tokenizer: equal to Hugging Face's on every text, typed errors for everything else."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tokenizer_oracle import (
    broken_bytes,
    compare,
    compare_bytes,
    letters_json,
    make_reference,
    make_renderer,
    random_texts,
    run_code_points,
)

from csrm import _core, errors


def with_fields(tokenizer_json: bytes, path: str, value: Any) -> bytes:
    """The JSON with the field at `path` ("model.type") set, or removed for `...`."""
    fields = json.loads(tokenizer_json)
    *parents, last = path.split(".")
    target = fields
    for key in parents:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return json.dumps(fields).encode()


def test_encode_random_texts_equal_reference(
    tokenizer_json: bytes, renderer: _core.Renderer
) -> None:
    texts = list(random_texts(4000, seed=1))
    assert list(compare(renderer, make_reference(tokenizer_json), texts)) == []


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lowercase": False},
        {"lowercase": False, "strip_accents": True},
        {"strip_accents": False},
        {"clean_text": False},
        {"handle_chinese_chars": False},
    ],
    ids=str,
)
def test_encode_every_normaliser_option_equals_reference(options: dict[str, bool]) -> None:
    source = letters_json(**options)
    texts = list(random_texts(600, seed=2))
    assert list(compare(make_renderer(source), make_reference(source), texts)) == []


def test_encode_every_plane_equals_reference() -> None:
    # Plain letters and private or unassigned code points repeat one property: their edges suffice.
    # `python -m tests.python.tokenizer_oracle` takes all 1.1 million.
    ranges = (
        (0, 0x3500),
        (0x4DA0, 0x4E20),
        (0x9FE0, 0xAC40),
        (0xD780, 0xE020),
        (0xF8E0, 0x12020),
        (0x13400, 0x13500),
        (0x16A00, 0x17020),
        (0x1BC00, 0x1BD00),
        (0x1CE00, 0x20020),
        (0x2A6C0, 0x2A740),
        (0x2B700, 0x2B940),
        (0x2CE90, 0x2CED0),
        (0x2F7F0, 0x2FA40),
        (0xE0000, 0xE0200),
        (0xEFFF0, 0xF0010),
        (0x10FFF0, 0x110000),
    )
    assert run_code_points(c for first, end in ranges for c in range(first, end)) == []


def test_encode_broken_bytes_raise_at_the_byte_python_names(
    tokenizer_json: bytes, renderer: _core.Renderer
) -> None:
    texts = list(broken_bytes(2000, seed=3))
    assert list(compare_bytes(renderer, make_reference(tokenizer_json), texts)) == []


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"\x80", 0),
        (b"ab\xc3", 2),
        (b"abcdefgh\xc0\x80", 8),  # overlong NUL
        (b"\xe0\x9f\xbf", 0),  # overlong
        (b"x\xed\xa0\x80", 1),  # surrogate
        (b"\xf0\x8f\xbf\xbf", 0),  # overlong
        (b"\xf4\x90\x80\x80", 0),  # above U+10FFFF
        (b"\xf5\x80\x80\x80", 0),
        (b"\xc3\xa9" * 9 + b"\xe4\xb8", 18),
    ],
)
def test_encode_malformed_sequence_raises_bad_utf8(
    renderer: _core.Renderer, data: bytes, offset: int
) -> None:
    with pytest.raises(errors.BadUtf8, match=f"at byte {offset} of {len(data)};"):
        renderer.encode(data)


def test_encode_lone_surrogate_raises_bad_utf8_without_the_text(renderer: _core.Renderer) -> None:
    with pytest.raises(errors.BadUtf8, match="surrogate") as raised:
        renderer.encode("secret \ud800 word")
    assert "secret" not in str(raised.value)


def test_encode_str_and_its_bytes_give_the_same_int32(renderer: _core.Renderer) -> None:
    text = "Ünïcode \U0001f600 中文"
    ids = renderer.encode(text)
    assert ids.dtype == np.int32
    assert ids.ndim == 1
    assert ids.tolist() == renderer.encode(text.encode()).tolist()


@pytest.mark.parametrize("text", ["", " \t\n", "\x00\x07\ufffd", "\u0301\u200b"])
def test_encode_text_without_words_gives_no_ids(renderer: _core.Renderer, text: str) -> None:
    assert renderer.encode(text).shape == (0,)


def test_encode_not_a_text_raises_type_error(renderer: _core.Renderer) -> None:
    with pytest.raises(TypeError, match="str or bytes"):
        renderer.encode(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.type", "Unigram"),
        ("normalizer.type", "Sequence"),
        ("pre_tokenizer.type", "Whitespace"),
    ],
)
def test_from_json_other_type_raises_unsupported(
    tokenizer_json: bytes, path: str, value: Any
) -> None:
    with pytest.raises(errors.Unsupported, match=path.split(".")[0]):
        make_renderer(with_fields(tokenizer_json, path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model", ...),
        ("model", []),
        ("model.type", ...),
        ("model.vocab", ...),
        ("model.vocab", {}),
        ("model.vocab", {"[UNK]": -1}),
        ("model.vocab", {"[UNK]": 2**31}),
        ("model.vocab", {"[UNK]": "0"}),
        ("model.vocab", {"[UNK]": 0, "": 1}),
        ("model.unk_token", "[no such token]"),
        ("model.max_input_chars_per_word", 0),
        ("model.max_input_chars_per_word", -1),
        ("model.continuing_subword_prefix", None),
        ("normalizer", None),
        ("normalizer.lowercase", 1),
        ("normalizer.strip_accents", "yes"),
        ("pre_tokenizer", ...),
    ],
)
def test_from_json_wrong_field_raises_bad_artifact(
    tokenizer_json: bytes, path: str, value: Any
) -> None:
    with pytest.raises(errors.BadArtifact, match=path.split(".")[-1]):
        make_renderer(with_fields(tokenizer_json, path, value))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="array"),
        pytest.param(b"{", id="open"),
        pytest.param(b'{"a": 1}x', id="tail"),
        pytest.param(b'{"a": "\xff"}', id="broken-utf8"),
        pytest.param(b'{"a": "\\ud800"}', id="lone-surrogate"),
        pytest.param(b"[" * 200_000, id="deep"),
    ],
)
def test_from_json_not_a_json_object_raises_bad_artifact(data: bytes) -> None:
    with pytest.raises(errors.BadArtifact, match=r"tokenizer\.json"):
        make_renderer(data)


def test_status_table_equals_error_classes() -> None:
    for number, name, sentence in _core.STATUS_TABLE[1:]:
        error_class = getattr(errors, name)
        assert error_class.code == number
        assert (error_class.__doc__ or "").splitlines()[0] == sentence
