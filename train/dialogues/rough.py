"""Surface variation of written turns: typing errors, casing, missing punctuation.

Not a change of meaning: digits and short words stay as they are.
"""

from __future__ import annotations

import random
import re

LONG_WORD = re.compile(r"\b[a-z]{5,}\b")


def roughen(rng: random.Random, text: str) -> str:
    """A user's text as typed in a hurry, one time in three."""
    if rng.random() < 0.65:
        return text
    if rng.random() < 0.4:
        text = text.lower() if rng.random() < 0.85 else text.upper()
    if rng.random() < 0.4:
        text = text.rstrip(".!?") + rng.choice(("", "", "...", "??", "!", " pls", " please"))
    if rng.random() < 0.3:
        text = text.replace("'", "")
    if rng.random() < 0.4:
        text = typo(rng, text)
    return text


def typo(rng: random.Random, text: str) -> str:
    """`text` with one letter of a longer word swapped, dropped or doubled."""
    words = list(LONG_WORD.finditer(text))
    if not words:
        return text
    word = rng.choice(words)
    at = rng.randrange(word.start() + 1, word.end() - 1)
    changed = rng.choice((text[at + 1] + text[at], "" + text[at + 1], text[at] * 2 + text[at + 1]))
    return text[:at] + changed + text[at + 2 :]


def vary_case(rng: random.Random, text: str) -> str:
    """An agent's earlier text, rarely without its capital letter."""
    return text[:1].lower() + text[1:] if rng.random() < 0.03 else text
