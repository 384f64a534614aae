"""Rules about the form of a reply, judged from its text: length, lists, required lines.

What it is: one check and one rewriting per style, so a form rule has a known label for any reply of
any topic. Wordings of the rules are in shared.yaml. Not: rules about content (content.py).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
EMOJI = re.compile("[\U0001f300-\U0001faff☀-➿]")
CONTRACTION = re.compile(r"\b\w+(?:n't|'re|'ll|'ve|'m|'d)\b", re.IGNORECASE)
POSSESSIVE = re.compile(r"\w's\b")
BULLET = re.compile(r"(?m)^\s*(?:-|\*|\d+\.)\s")
EMOJIS = ("🙂", "😊", "👍", "🎉", "🙌", "😉", "✨")
PADDING = (
    "I am happy to go into more detail.",
    "Take all the time you need.",
    "We have had several messages like yours today.",
    "Every message here is read carefully.",
    "You can come back to this chat whenever you like.",
    "It is good that you wrote to us.",
    "That is a point that many people raise.",
    "I have read your message twice to be sure.",
)
QUESTIONS = (
    "Does that answer your question?",
    "Is there anything else you would like to know?",
    "Shall we go through it together?",
    "Would you like to add something?",
    "How does that sound?",
    "What would you like to do next?",
)
EXPANSIONS = {
    "I'm": "I am",
    "I'll": "I will",
    "I've": "I have",
    "I'd": "I would",
    "can't": "cannot",
    "won't": "will not",
    "don't": "do not",
    "doesn't": "does not",
    "didn't": "did not",
    "isn't": "is not",
    "aren't": "are not",
    "we'll": "we will",
    "we're": "we are",
    "you're": "you are",
    "you'll": "you will",
    "it's": "it is",
    "that's": "that is",
    "We'll": "We will",
    "We're": "We are",
    "You're": "You are",
    "You'll": "You will",
    "It's": "It is",
    "That's": "That is",
    "Don't": "Do not",
}
EXPANDED = re.compile(r"\b(" + "|".join(EXPANSIONS) + r")\b")
CONTRACTED = {long: short for short, long in EXPANSIONS.items()}
CONTRACTIBLE = re.compile(r"\b(" + "|".join(CONTRACTED) + r")\b")

Slots = Mapping[str, str]


@dataclass(frozen=True)
class Style:
    """One form rule. `broken` is None where the text leaves it open."""

    broken: Callable[[str, Slots], bool | None]
    keep: Callable[[random.Random, str, Slots], str]
    violate: Callable[[random.Random, str, Slots], str]
    common: bool  # ordinary replies keep it, so it can stand in any config


def sentences(text: str) -> list[str]:
    """The sentences of `text`, stripped."""
    parts, start = [], 0
    for match in SENTENCE_END.finditer(text):
        parts.append(text[start : match.end()].strip())
        start = match.end()
    rest = text[start:].strip()
    return [*parts, rest] if rest else parts


def expand(text: str) -> str:
    """`text` without the usual contractions."""
    return EXPANDED.sub(lambda match: EXPANSIONS[match.group()], text)


def contract(text: str) -> str:
    """`text` with the usual contractions."""
    return CONTRACTIBLE.sub(lambda match: CONTRACTED[match.group()], text)


def as_list(rng: random.Random, text: str, marks: tuple[str, ...] = ("-", "*")) -> str:
    """The sentences of `text` as a bullet list, at least two items."""
    items = sentences(text)
    if len(items) < 2:
        items.append(rng.choice(PADDING))
    mark = rng.choice(marks)
    return "\n".join(f"{mark} {item}" for item in items)


def flat(text: str) -> str:
    """`text` on one line without list marks."""
    return " ".join(BULLET.sub("", text).split())


def pad_to(rng: random.Random, text: str, count: int) -> str:
    """`text` with neutral sentences until it has `count`."""
    more = rng.sample(PADDING, max(0, min(len(PADDING), count - len(sentences(text)))))
    return " ".join([text, *more])


def drop_questions(text: str) -> str:
    """`text` without its last sentences that ask something; unchanged if nothing would remain."""
    items = sentences(text)
    while len(items) > 1 and items[-1].endswith("?"):
        items.pop()
    return " ".join(items)


def one_line_added(rng: random.Random, text: str, line: str) -> str:
    """`text` followed by `line`."""
    return text + rng.choice((" ", " ", "\n", "\n\n")) + line


def _contracted(text: str, slots: Slots) -> bool | None:
    if CONTRACTION.search(text):
        return True
    return None if POSSESSIVE.search(text) else False


STYLES: dict[str, Style] = {
    "length": Style(
        broken=lambda text, slots: len(sentences(text)) > int(slots["max_sentences"]),
        keep=lambda rng, text, slots: text,
        violate=lambda rng, text, slots: pad_to(
            rng, text, int(slots["max_sentences"]) + rng.choice((1, 1, 2, 3))
        ),
        common=False,
    ),
    "lists": Style(
        broken=lambda text, slots: bool(BULLET.search(text)),
        keep=lambda rng, text, slots: flat(text),
        violate=lambda rng, text, slots: as_list(rng, text),
        common=True,
    ),
    "required_list": Style(
        broken=lambda text, slots: not BULLET.search(text),
        keep=lambda rng, text, slots: as_list(rng, text),
        violate=lambda rng, text, slots: flat(text),
        common=False,
    ),
    "emoji": Style(
        broken=lambda text, slots: bool(EMOJI.search(text)),
        keep=lambda rng, text, slots: EMOJI.sub("", text).strip(),
        violate=lambda rng, text, slots: f"{text} {rng.choice(EMOJIS)}",
        common=True,
    ),
    "exclamation": Style(
        broken=lambda text, slots: "!" in text,
        keep=lambda rng, text, slots: text.replace("!", "."),
        violate=lambda rng, text, slots: text.rstrip(".") + "!" if "!" not in text else text,
        common=False,
    ),
    "closing_line": Style(
        broken=lambda text, slots: not text.rstrip().endswith(slots["closing"]),
        keep=lambda rng, text, slots: one_line_added(rng, text, slots["closing"]),
        violate=lambda rng, text, slots: (
            one_line_added(rng, text, slots["other_closing"]) if rng.random() < 0.4 else text
        ),
        common=False,
    ),
    "opening_line": Style(
        broken=lambda text, slots: not text.startswith(slots["opening"]),
        keep=lambda rng, text, slots: f"{slots['opening']} {text}",
        violate=lambda rng, text, slots: (
            f"{slots['other_opening']} {text}" if rng.random() < 0.4 else text
        ),
        common=False,
    ),
    "disclaimer": Style(
        broken=lambda text, slots: slots["disclaimer"] not in text,
        keep=lambda rng, text, slots: (
            f"{slots['disclaimer']} {text}"
            if rng.random() < 0.3
            else one_line_added(rng, text, slots["disclaimer"])
        ),
        violate=lambda rng, text, slots: (
            one_line_added(rng, text, slots["other_disclaimer"]) if rng.random() < 0.4 else text
        ),
        common=False,
    ),
    "ask_back": Style(
        broken=lambda text, slots: not text.rstrip().endswith("?"),
        keep=lambda rng, text, slots: f"{text} {rng.choice(QUESTIONS)}",
        violate=lambda rng, text, slots: drop_questions(text),
        common=False,
    ),
    "contractions": Style(
        broken=_contracted,
        keep=lambda rng, text, slots: expand(text),
        violate=lambda rng, text, slots: contract(text),
        common=False,
    ),
}
