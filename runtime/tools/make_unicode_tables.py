"""Write the C++ character tables of normalise.cc: `python make_unicode_tables.py OUT.inc`.

Run by CMake at build time; needs nothing but the standard library. The tables reproduce what
Hugging Face's `tokenizers` 0.22 (Rust) does, which mixes several Unicode versions, and they must
not depend on the Unicode version of the Python that builds csrm (13.0 for 3.10 to 16.0 for 3.14).
So `unicodedata` is read only where all of these agree, and the rest is pinned here:

- General categories (control, punctuation, mark) are those of Unicode 8.0. A code point assigned
  later is in no category: it is neither dropped, nor split off, nor stripped. Unassigned code
  points are kept, private-use ones are dropped.
- Canonical decompositions and combining classes are those of Unicode 9.0.
- Lowercase is that of Unicode 17.0.
- White space and CJK ranges are constants of the algorithm.

The result is checked against EXPECTED_SHA256, so a Python with yet other tables fails the build
instead of tokenising differently. The tests compare every code point with `tokenizers` itself.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

EXPECTED_SHA256 = "252b2436d3a6c2c6009d386b156f2286bded35c58b3d654d5bf9474c10b69ddf"

Range = tuple[int, int]

# Ranges without any control, punctuation or mark of Unicode 8.0, in which later versions have some.
CATEGORISED_LATER: tuple[Range, ...] = (
    (0x5C8, 0x5C9),
    (0x61D, 0x61D),
    (0x7FD, 0x7FD),
    (0x890, 0x8E2),
    (0x9FD, 0x9FE),
    (0xA76, 0xA76),
    (0xAFA, 0xAFF),
    (0xB53, 0xB55),
    (0xC04, 0xC3C),
    (0xC77, 0xC77),
    (0xC84, 0xC84),
    (0xD00, 0xD00),
    (0xD3B, 0xD3C),
    (0xD81, 0xD81),
    (0xEBA, 0xEBA),
    (0xECE, 0xECE),
    (0x180F, 0x1886),
    (0x1ABF, 0x1AF0),
    (0x1B4E, 0x1B4F),
    (0x1B7D, 0x1B7F),
    (0x1DF6, 0x1DFB),
    (0x2E43, 0x2E63),
    (0xA82C, 0xA82C),
    (0xA8C5, 0xA8C5),
    (0xA8FF, 0xA8FF),
    (0xA9BD, 0xA9BD),
    (0x10D24, 0x10F89),
    (0x11070, 0x11074),
    (0x110C2, 0x110CD),
    (0x111CF, 0x111CF),
    (0x1123E, 0x11241),
    (0x1133B, 0x1133B),
    (0x113BB, 0x1145E),
    (0x11660, 0x1166C),
    (0x116B9, 0x116B9),
    (0x1182F, 0x11FFF),
    (0x12FF1, 0x1612F),
    (0x16D6D, 0x16F4F),
    (0x16FE2, 0x16FE4),
    (0x1CF00, 0x1D128),
    (0x1D25B, 0x1D25C),
    (0x1E000, 0x1E6F5),
    (0x1E944, 0x1E95F),
)
# Marks and punctuation of Unicode 8.0 that a later version put into another category.
MARKS_OF_8: tuple[Range, ...] = ((0x1734, 0x1734), (0x1171E, 0x1171E))
PUNCTUATION_OF_8: tuple[Range, ...] = ((0x166D, 0x166D), (0x111C9, 0x111C9))

# Ranges without decomposition or combining class in Unicode 9.0, in which later versions have some.
DECOMPOSED_LATER: tuple[Range, ...] = (
    (0x5C8, 0x5C9),
    (0x7FD, 0x7FD),
    (0x897, 0x8D3),
    (0x9FE, 0x9FE),
    (0xC3C, 0xC3C),
    (0xD3B, 0xD3C),
    (0xEBA, 0xEBA),
    (0x1715, 0x1715),
    (0x1ABF, 0x1AF0),
    (0x1DF6, 0x1DFA),
    (0xA82C, 0xA82C),
    (0x105C9, 0x105E4),
    (0x10D24, 0x10F85),
    (0x11070, 0x11070),
    (0x1133B, 0x1133B),
    (0x11383, 0x113D0),
    (0x1145E, 0x1145E),
    (0x11839, 0x11A99),
    (0x11D42, 0x1612F),
    (0x16D68, 0x16FF1),
    (0x1D127, 0x1D128),
    (0x1D250, 0x1D281),
    (0x1E08F, 0x1E6F5),
)

# (first, last, step, lowercase minus uppercase): uppercase letters of Unicode 14.0 to 17.0.
LOWERCASE_SINCE_13: tuple[tuple[int, int, int, int], ...] = (
    (0x1C89, 0x1C89, 1, 1),
    (0x2C2F, 0x2C2F, 1, 48),
    (0xA7C0, 0xA7C0, 1, 1),
    (0xA7CB, 0xA7CB, 1, -42343),
    (0xA7CC, 0xA7DA, 2, 1),
    (0xA7DC, 0xA7DC, 1, -42561),
    (0x10570, 0x1057A, 1, 39),
    (0x1057C, 0x1058A, 1, 39),
    (0x1058C, 0x10592, 1, 39),
    (0x10594, 0x10595, 1, 39),
    (0x10D50, 0x10D65, 1, 32),
    (0x16EA0, 0x16EB8, 1, 27),
)

WHITE: tuple[Range, ...] = (
    (0x09, 0x0D),
    (0x20, 0x20),
    (0x85, 0x85),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
)
KEPT_CONTROLS = frozenset((0x09, 0x0A, 0x0D))
REPLACEMENT_CHARACTER = 0xFFFD
# The CJK blocks that BERT names; U+2B820..U+2B91F are not among them.
IDEOGRAPHS: tuple[Range, ...] = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
HANGUL_SYLLABLES: Range = (0xAC00, 0xD7A3)

# The bits of a property byte; normalise.cc declares the same values.
DROPPED, WHITE_SPACE, PUNCTUATION, IDEOGRAPH, MARK, ORDERED, DECOMPOSES, HAS_LOWER = (
    1 << bit for bit in range(8)
)

N_CODE_POINTS = 0x110000
BLOCK_SHIFT = 7


def within(code_point: int, ranges: Iterable[Range]) -> bool:
    """Whether one of the inclusive `ranges` holds `code_point`."""
    return any(first <= code_point <= last for first, last in ranges)


def scalar_values() -> Iterator[int]:
    """Every code point that is not a surrogate."""
    yield from range(0xD800)
    yield from range(0xE000, N_CODE_POINTS)


def category_bits(code_point: int) -> int:
    """The DROPPED, PUNCTUATION and MARK bits, by the categories of Unicode 8.0."""
    if within(code_point, MARKS_OF_8):
        return MARK
    if within(code_point, PUNCTUATION_OF_8):
        return PUNCTUATION
    if code_point == REPLACEMENT_CHARACTER:
        return DROPPED
    category = unicodedata.category(chr(code_point))
    if category[0] == "P" or (code_point < 0x80 and category[0] == "S"):
        bits = PUNCTUATION
    elif category == "Mn":
        bits = MARK
    elif category in ("Cc", "Cf", "Co") and code_point not in KEPT_CONTROLS:
        bits = DROPPED
    else:
        return 0
    return 0 if within(code_point, CATEGORISED_LATER) else bits


def combining_class(code_point: int) -> int:
    """Canonical combining class in Unicode 9.0."""
    value = unicodedata.combining(chr(code_point))
    return 0 if value == 0 or within(code_point, DECOMPOSED_LATER) else value


def decompositions() -> dict[int, tuple[int, ...]]:
    """Full canonical decompositions, Hangul syllables (done by arithmetic in C++) left out."""
    found = {}
    for code_point in scalar_values():
        text = unicodedata.normalize("NFD", chr(code_point))
        if text == chr(code_point) or within(code_point, (HANGUL_SYLLABLES, *DECOMPOSED_LATER)):
            continue
        found[code_point] = tuple(map(ord, text))
    return found


def lowercase() -> dict[int, tuple[int, ...]]:
    """Full lowercase of every code point that has one, in Unicode 17.0."""
    found = {
        code_point: tuple(map(ord, chr(code_point).lower()))
        for code_point in scalar_values()
        if chr(code_point).lower() != chr(code_point)
    }
    for first, last, step, offset in LOWERCASE_SINCE_13:
        for code_point in range(first, last + 1, step):
            found[code_point] = (code_point + offset,)
    return dict(sorted(found.items()))


def property_bytes(decomposed: Iterable[int], lowered: Iterable[int]) -> bytearray:
    """One byte of property bits per code point."""
    properties = bytearray(N_CODE_POINTS)
    for code_point in scalar_values():
        properties[code_point] = category_bits(code_point)
        if combining_class(code_point):
            properties[code_point] |= ORDERED
    for bit, ranges in (
        (WHITE_SPACE, WHITE),
        (IDEOGRAPH, IDEOGRAPHS),
        (DECOMPOSES, (HANGUL_SYLLABLES,)),
    ):
        for first, last in ranges:
            for code_point in range(first, last + 1):
                properties[code_point] |= bit
    for code_point in decomposed:
        properties[code_point] |= DECOMPOSES
    for code_point in lowered:
        properties[code_point] |= HAS_LOWER
    return properties


def two_stage(values: bytes) -> tuple[list[int], bytes]:
    """Block number of each block of `values`, and the distinct blocks one after another."""
    size = 1 << BLOCK_SHIFT
    numbers: dict[bytes, int] = {}
    index = [
        numbers.setdefault(values[at : at + size], len(numbers))
        for at in range(0, len(values), size)
    ]
    if len(numbers) > 256:
        raise SystemExit(f"{len(numbers)} distinct blocks do not fit a byte; raise BLOCK_SHIFT")
    return index, b"".join(numbers)


def combining_ranges(properties: bytes) -> list[tuple[int, int, int]]:
    """(first, last, combining class) of the ordered code points that are not stripped marks."""
    ranges: list[tuple[int, int, int]] = []
    for code_point in scalar_values():
        if not properties[code_point] & ORDERED or properties[code_point] & MARK:
            continue
        value = combining_class(code_point)
        if ranges and ranges[-1][1:] == (code_point - 1, value):
            ranges[-1] = (ranges[-1][0], code_point, value)
        else:
            ranges.append((code_point, code_point, value))
    return ranges


def array(declaration: str, items: Sequence[str]) -> str:
    """A C++ array definition, wrapped at 100 columns."""
    lines = [f"constexpr {declaration}[] = {{"]
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > 100:
            lines.append(line)
            line = "   "
        line += f" {item},"
    return "\n".join([*lines, line, "};", ""])


def mapping_items(mapping: dict[int, tuple[int, ...]], sequences: list[int]) -> list[str]:
    """The `Mapping` initialisers of `mapping`, whose values go to the end of `sequences`."""
    items = []
    for code_point, sequence in mapping.items():
        items.append(f"{{0x{code_point:X}, {len(sequences)}, {len(sequence)}}}")
        sequences.extend(sequence)
    return items


def tables() -> str:
    """The text of the .inc file."""
    decomposed, lowered = decompositions(), lowercase()
    properties = bytes(property_bytes(decomposed, lowered))
    index, blocks = two_stage(properties)
    sequences: list[int] = []
    decomposition_items = mapping_items(decomposed, sequences)
    lowercase_items = mapping_items(lowered, sequences)
    combining_items = [f"{{0x{a:X}, 0x{b:X}, {c}}}" for a, b, c in combining_ranges(properties)]
    return "\n".join(
        (
            "// Written by make_unicode_tables.py; do not edit.",
            f"constexpr int kPropertyShift = {BLOCK_SHIFT};",
            array("uint8_t kPropertyBlocks", list(map(str, index))),
            array("uint8_t kProperties", list(map(str, blocks))),
            array("char32_t kSequences", [f"0x{value:X}" for value in sequences]),
            array("Mapping kDecompositions", decomposition_items),
            array("Mapping kLowercase", lowercase_items),
            array("CombiningRange kCombining", combining_items),
        )
    )


def main() -> None:
    """Write the file named on the command line, or explain why this Python cannot."""
    parser = argparse.ArgumentParser(description="Write the character tables of normalise.cc.")
    parser.add_argument("out", type=Path, help="file to write")
    out: Path = parser.parse_args().out
    text = tables()
    digest = hashlib.sha256(text.encode()).hexdigest()
    if digest != EXPECTED_SHA256:
        sys.exit(
            f"the character tables of this Python (Unicode {unicodedata.unidata_version}) have "
            f"sha256 {digest}, not {EXPECTED_SHA256}: they would tokenise differently; build with "
            "Python 3.10 to 3.14, or extend the pinned ranges and run the tokenizer's tests"
        )
    out.write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()
