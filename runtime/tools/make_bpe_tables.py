"""Write the C++ character tables of byte-level BPE: `python make_bpe_tables.py WORDS.inc NFC.inc`.

Run by CMake at build time; needs nothing but the standard library. The tables reproduce what
Hugging Face's `tokenizers` 0.23 does, measured over all 1,112,064 code points, and must not depend
on the Unicode version of the Python that builds csrm (13.0 for 3.10 to 16.0 for 3.14):

- `\\p{L}` and `\\p{N}` of the split patterns are those of Unicode 16.0 (its Oniguruma).
- The numeric characters of the `Digits` pre-tokenizer are those of Unicode 17.0 (Rust's own).
- `\\s` is the White_Space property, the same in all versions.
- Normalisation (NFC) is that of Unicode 9.0, as in make_unicode_tables.py.

`unicodedata` is read where all these Pythons agree, the rest is pinned here, and the result is
checked against EXPECTED_SHA256. The tests compare every code point with `tokenizers` itself.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import unicodedata
from pathlib import Path

from make_unicode_tables import (
    BLOCK_SHIFT,
    DECOMPOSED_LATER,
    HANGUL_SYLLABLES,
    N_CODE_POINTS,
    WHITE,
    Range,
    array,
    combining_class,
    decompositions,
    mapping_items,
    scalar_values,
    two_stage,
    within,
)

EXPECTED_SHA256 = "4c769f82632335ab2d3acb9aac3202456c229c7ec087df788d11b466389fb3ea"

# Letters of Unicode 16.0 that 13.0 lacks; no letter of 13.0 ceased to be one.
LETTERS_SINCE_13: tuple[Range, ...] = (
    (0x870, 0x887),
    (0x889, 0x88E),
    (0x8B5, 0x8B5),
    (0x8C8, 0x8C9),
    (0xC5D, 0xC5D),
    (0xCDD, 0xCDD),
    (0x170D, 0x170D),
    (0x171F, 0x171F),
    (0x1B4C, 0x1B4C),
    (0x1C89, 0x1C8A),
    (0x2C2F, 0x2C2F),
    (0x2C5F, 0x2C5F),
    (0x9FFD, 0x9FFF),
    (0xA7C0, 0xA7C1),
    (0xA7CB, 0xA7CD),
    (0xA7D0, 0xA7D1),
    (0xA7D3, 0xA7D3),
    (0xA7D5, 0xA7DC),
    (0xA7F2, 0xA7F4),
    (0x10570, 0x1057A),
    (0x1057C, 0x1058A),
    (0x1058C, 0x10592),
    (0x10594, 0x10595),
    (0x10597, 0x105A1),
    (0x105A3, 0x105B1),
    (0x105B3, 0x105B9),
    (0x105BB, 0x105BC),
    (0x105C0, 0x105F3),
    (0x10780, 0x10785),
    (0x10787, 0x107B0),
    (0x107B2, 0x107BA),
    (0x10D4A, 0x10D65),
    (0x10D6F, 0x10D85),
    (0x10EC2, 0x10EC4),
    (0x10F70, 0x10F81),
    (0x11071, 0x11072),
    (0x11075, 0x11075),
    (0x1123F, 0x11240),
    (0x11380, 0x11389),
    (0x1138B, 0x1138B),
    (0x1138E, 0x1138E),
    (0x11390, 0x113B5),
    (0x113B7, 0x113B7),
    (0x113D1, 0x113D1),
    (0x113D3, 0x113D3),
    (0x11740, 0x11746),
    (0x11AB0, 0x11ABF),
    (0x11BC0, 0x11BE0),
    (0x11F02, 0x11F02),
    (0x11F04, 0x11F10),
    (0x11F12, 0x11F33),
    (0x12F90, 0x12FF0),
    (0x1342F, 0x1342F),
    (0x13441, 0x13446),
    (0x13460, 0x143FA),
    (0x16100, 0x1611D),
    (0x16A70, 0x16ABE),
    (0x16D40, 0x16D6C),
    (0x18CFF, 0x18CFF),
    (0x1AFF0, 0x1AFF3),
    (0x1AFF5, 0x1AFFB),
    (0x1AFFD, 0x1AFFE),
    (0x1B11F, 0x1B122),
    (0x1B132, 0x1B132),
    (0x1B155, 0x1B155),
    (0x1DF00, 0x1DF1E),
    (0x1DF25, 0x1DF2A),
    (0x1E030, 0x1E06D),
    (0x1E290, 0x1E2AD),
    (0x1E4D0, 0x1E4EB),
    (0x1E5D0, 0x1E5ED),
    (0x1E5F0, 0x1E5F0),
    (0x1E7E0, 0x1E7E6),
    (0x1E7E8, 0x1E7EB),
    (0x1E7ED, 0x1E7EE),
    (0x1E7F0, 0x1E7FE),
    (0x2A6DE, 0x2A6DF),
    (0x2B735, 0x2B739),
    (0x2EBF0, 0x2EE5D),
    (0x31350, 0x323AF),
)
# Numbers of Unicode 16.0 that 13.0 lacks, and those of 17.0 that 16.0 lacks.
NUMBERS_SINCE_13: tuple[Range, ...] = (
    (0x10D40, 0x10D49),
    (0x116D0, 0x116E3),
    (0x11BF0, 0x11BF9),
    (0x11F50, 0x11F59),
    (0x16130, 0x16139),
    (0x16AC0, 0x16AC9),
    (0x16D70, 0x16D79),
    (0x1CCF0, 0x1CCF9),
    (0x1D2C0, 0x1D2D3),
    (0x1E4F0, 0x1E4F9),
    (0x1E5F1, 0x1E5FA),
)
NUMBERS_SINCE_16: tuple[Range, ...] = ((0x11DE0, 0x11DE9), (0x16FF4, 0x16FF6))

# The bits of a property byte of pre_tokens.cc.
LETTER, NUMBER, NUMERIC, SPACE = (1 << bit for bit in range(4))

# What nfc.cc keeps per code point: its combining class, and for starters one of these. Classes end
# at 240. Nothing composes an INERT or STABLE starter with what stands before it.
INERT = 0  # no decomposition
STABLE = 254  # decomposes, and is what NFC makes of its decomposition
CHANGING = 255  # any other starter
# Vowels and trailing consonants of Hangul join the syllable before them, by arithmetic.
HANGUL_JOINING: tuple[Range, ...] = ((0x1161, 0x1175), (0x11A8, 0x11C2))


def word_properties() -> bytearray:
    """The property byte of every code point."""
    properties = bytearray(N_CODE_POINTS)
    for code_point in scalar_values():
        category = unicodedata.category(chr(code_point))[0]
        if category == "L":
            properties[code_point] = LETTER
        elif category == "N":
            properties[code_point] = NUMBER | NUMERIC
    for ranges, bits in (
        (LETTERS_SINCE_13, LETTER),
        (NUMBERS_SINCE_13, NUMBER | NUMERIC),
        (NUMBERS_SINCE_16, NUMERIC),
        (WHITE, SPACE),
    ):
        for first, last in ranges:
            for code_point in range(first, last + 1):
                properties[code_point] = bits
    return properties


def compositions() -> list[tuple[int, int, int]]:
    """(first, second, composite), sorted; Hangul is left out, as C++ composes it by arithmetic."""
    found = []
    for code_point in scalar_values():
        if within(code_point, (HANGUL_SYLLABLES, *DECOMPOSED_LATER)):
            continue
        parts = unicodedata.decomposition(chr(code_point)).split()
        if len(parts) != 2 or parts[0].startswith("<"):
            continue
        if unicodedata.normalize("NFC", chr(code_point)) == chr(code_point):
            found.append((int(parts[0], 16), int(parts[1], 16), code_point))
    return sorted(found)


def nfc_properties(
    decomposed: dict[int, tuple[int, ...]], composed: list[tuple[int, int, int]]
) -> bytearray:
    """The combining class of every code point, or INERT, STABLE or CHANGING."""
    joining = {second for _, second, _ in composed}
    for first, last in HANGUL_JOINING:
        joining.update(range(first, last + 1))
    properties = bytearray(N_CODE_POINTS)
    for code_point in scalar_values():
        value = combining_class(code_point)
        if value:
            properties[code_point] = value
        elif code_point in joining:
            properties[code_point] = CHANGING
        elif within(code_point, (HANGUL_SYLLABLES,)):
            properties[code_point] = STABLE
        elif code_point in decomposed:
            first = decomposed[code_point][0]
            stable = unicodedata.normalize("NFC", chr(code_point)) == chr(code_point)
            stable = stable and first not in joining and not combining_class(first)
            properties[code_point] = STABLE if stable else CHANGING
    return properties


def property_arrays(properties: bytes) -> tuple[str, ...]:
    """The beginning of either file."""
    index, blocks = two_stage(properties)
    return (
        "// Written by make_bpe_tables.py; do not edit.",
        f"constexpr int kPropertyShift = {BLOCK_SHIFT};",
        array("uint8_t kPropertyBlocks", list(map(str, index))),
        array("uint8_t kProperties", list(map(str, blocks))),
    )


def nfc_table() -> str:
    """The text of NFC.inc."""
    decomposed, composed = decompositions(), compositions()
    sequences: list[int] = []
    mappings = mapping_items(decomposed, sequences)
    pairs = [f"{{0x{first:X}, 0x{second:X}, 0x{whole:X}}}" for first, second, whole in composed]
    return "\n".join(
        (
            *property_arrays(bytes(nfc_properties(decomposed, composed))),
            array("char32_t kSequences", [f"0x{value:X}" for value in sequences]),
            array("Mapping kDecompositions", mappings),
            array("Composition kCompositions", pairs),
        )
    )


def main() -> None:
    """Write the two files named on the command line, or explain why this Python cannot."""
    parser = argparse.ArgumentParser(description="Write the character tables of byte-level BPE.")
    parser.add_argument("words", type=Path, help="file of pre_tokens.cc")
    parser.add_argument("nfc", type=Path, help="file of nfc.cc")
    options = parser.parse_args()
    texts = ("\n".join(property_arrays(bytes(word_properties()))), nfc_table())
    digest = hashlib.sha256("".join(texts).encode()).hexdigest()
    if digest != EXPECTED_SHA256:
        sys.exit(
            f"the character tables of this Python (Unicode {unicodedata.unidata_version}) have "
            f"sha256 {digest}, not {EXPECTED_SHA256}: they would tokenise differently; build with "
            "Python 3.10 to 3.14, or extend the pinned ranges and run the tokenizer's tests"
        )
    options.words.write_text(texts[0], encoding="ascii")
    options.nfc.write_text(texts[1], encoding="ascii")


if __name__ == "__main__":
    main()
