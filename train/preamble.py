"""Turns without meaning before training conversations, so that they do not move the reward.

What it is: of a family's conversations a share gets a system turn, or an exchange of pleasantries,
in front (preambles.yaml, texts of this project); labels and pairs stay. One example of each is kept
as it was too, and held together with its copy by the term on rewordings. Why: the fourth csrm-mini
took any system turn for evidence (docs/log.md). Not: conversations whose rules are about how a
conversation goes (`with_preambles` is told which may have talk), and no configs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import yaml

from csrm.train.batch import Family, TurnText

# Kinds of families whose rules are about what is said and not about the course of a conversation,
# which pleasantries could break or keep ("greet first").
WITH_TALK = frozenset({"categorised", "ruled", "strictness", "cca"})
_SYSTEM_SHARE = 0.6  # of the preambles, where there may be talk as well


@dataclass(frozen=True)
class Preambles:
    """Turns to put before a conversation."""

    system: tuple[tuple[TurnText, ...], ...]
    talk: tuple[tuple[TurnText, ...], ...]

    def draw(self, rng: random.Random, *, may_talk: bool) -> tuple[TurnText, ...]:
        """A system turn, talk, or now and then both."""
        if not may_talk or rng.random() < _SYSTEM_SHARE:
            system = rng.choice(self.system)
            return (*system, *rng.choice(self.talk)) if may_talk and rng.random() < 0.2 else system
        return rng.choice(self.talk)


def load_preambles() -> Preambles:
    """The packaged ones."""
    text = resources.files(__package__).joinpath("preambles.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load(text)
    return Preambles(
        tuple((("system", turn),) for turn in found["system"]),
        tuple(_exchange(turns) for turns in found["talk"]),
    )


def with_preambles(
    rng: random.Random, family: Family, preambles: Preambles, share: float, *, may_talk: bool
) -> Family:
    """`family` with a preamble before about `share` of its conversations.

    See `Family.restated`. Conversations that begin with a system turn stay as they are.
    """

    def after_one(turns: tuple[TurnText, ...]) -> tuple[TurnText, ...]:
        if turns[0][0] == "system" or rng.random() >= share:
            return turns
        return (*preambles.draw(rng, may_talk=may_talk), *turns)

    return family.restated(after_one)


def _exchange(turns: Sequence[str]) -> tuple[TurnText, ...]:
    return tuple(("assistant" if i % 2 else "user", turn) for i, turn in enumerate(turns))
