"""Training messages that say the same in disguise, so that a disguise does not move the reward.

What it is: of a family's conversations a share gets its judged message wrapped in disclaimers,
claims, invented rules or verdicts, quotes and small talk (disguises.yaml, texts of this project),
or spelled otherwise: digits for letters, letters of another script, letters apart, swapped letters.
Labels and pairs stay; one example of each is kept as it was too, and held together with its copy
by the term on rewordings. Violations and harmless messages alike, so that a disguise says nothing
by itself. Why: the fourth csrm-mini let 6 in 10 caught violations pass behind a disclaimer
(docs/log.md). Not: conversations whose rules are about form (`DISGUISED`), and no other turns.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import yaml

from csrm.train.batch import Family, TurnText

# Kinds of families whose rules are about harms and not about how a message is written: an added
# disclaimer could keep or break a rule of the others.
DISGUISED = frozenset({"categorised", "strictness", "cca"})
_SPELLED_SHARE = 0.35  # of the disguises
_DIGITS = str.maketrans("aeiostAEIOST", "431057431057")
# Letters of the Cyrillic script that look like Latin ones.
_LOOKALIKES = str.maketrans("aceopxyABCEHKMOPTX", "асеорхуАВСЕНКМОРТХ")
_SHARES = (0.15, 0.3, 0.5)  # of the words that are spelled otherwise


@dataclass(frozen=True)
class Disguises:
    """Texts that may stand around a message."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    frames: tuple[tuple[str, str], ...]
    asides: tuple[str, ...]

    def draw(self, rng: random.Random) -> Callable[[str], str]:
        """A change of a message, the same for every message it is given."""
        if rng.random() < _SPELLED_SHARE:
            spell, share, seed = rng.choice(_SPELLINGS), rng.choice(_SHARES), rng.random()
            return lambda text: _spelled(text, spell, share, seed)
        before, after = self._draw_frame(rng)
        return lambda text: f"{before}{text}{after}"

    def _draw_frame(self, rng: random.Random) -> tuple[str, str]:
        """What stands before and after."""
        gap = rng.choice((" ", "\n", "\n\n"))
        kind = rng.choice(("before", "after", "both", "frame", "aside"))
        if kind == "frame":
            return rng.choice(self.frames)
        if kind == "aside":
            talk = " ".join(rng.sample(self.asides, rng.randint(1, 3)))
            return (talk + gap, "") if rng.random() < 0.5 else ("", gap + talk)
        before = rng.choice(self.before) + gap if kind != "after" else ""
        after = gap + rng.choice(self.after) if kind != "before" else ""
        return before, after


def load_disguises() -> Disguises:
    """The packaged ones."""
    text = resources.files(__package__).joinpath("disguises.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load(text)
    return Disguises(
        tuple(found["before"]),
        tuple(found["after"]),
        tuple((before, after) for before, after in found["frames"]),
        tuple(found["asides"]),
    )


def with_disguises(
    rng: random.Random, family: Family, disguises: Disguises, share: float
) -> Family:
    """`family` with the last message of about `share` of its conversations disguised.

    See `Family.restated`. A text without the letters that a spelling changes stays as it is.
    """

    def disguised(turns: tuple[TurnText, ...]) -> tuple[TurnText, ...]:
        if rng.random() >= share:
            return turns
        role, content = turns[-1]
        return (*turns[:-1], (role, disguises.draw(rng)(content)))

    return family.restated(disguised)


def _spelled(text: str, spell: Callable[[str], str], share: float, seed: float) -> str:
    """`text` with about `share` of its words through `spell`; the same words for the same seed."""
    rng = random.Random(seed)
    return " ".join(spell(word) if rng.random() < share else word for word in text.split(" "))


def _swapped(word: str) -> str:
    """`word` with its second and third letter in each other's place."""
    return word if len(word) < 4 else word[0] + word[2] + word[1] + word[3:]


def _doubled(word: str) -> str:
    """`word` with its middle letter twice."""
    middle = len(word) // 2
    return word[:middle] + word[middle : middle + 1] + word[middle:]


_SPELLINGS: tuple[Callable[[str], str], ...] = (
    lambda word: word.translate(_DIGITS),
    lambda word: word.translate(_LOOKALIKES),
    " ".join,
    "-".join,
    ".".join,
    _swapped,
    _doubled,
)
