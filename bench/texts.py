"""Synthetic rules and turns with an exact number of rendered tokens, out of real English words.

Not data: the texts mean nothing, only their token counts matter. The count is the renderer's own
(`csrm._core.Renderer`), control ids included, so a case "256+128" is 256 and 128 for every engine.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from csrm._core import Renderer
from csrm.errors import BadArgument, BadArtifact

RULE_TOKENS = 32  # about one sentence of policy
CHAT = "csrm-chat-1"  # the template of decoders
_WORDS = re.findall(
    r"[a-z]+",
    """
    the of and to in for is on that by this with you it not or be are from at as your all have new
    more an was we will home can us about if page my has search free but our one other do no time
    they site he up may what which their news out use any there see only so his when contact here
    business who web also now help get view online first am been would how were services some these
    click its like service than find price date back top people had list name just over state year
    day into email two health world next used go work last most products music buy data make them
    should product system post her city add policy number such please available copyright support
    message after best software then good video well where info rights public books high school
    through each links she review years order very privacy book items company read group need many
    user said does set under general research university january mail full map reviews program life
    know games way days management part could great united hotel real item international center must
    store travel comments made development report off member details line terms before did send
    right type because local those using results office education national car design take posted
    internet address community within states area want
    """,
)


@dataclass(frozen=True)
class CaseTexts:
    """The texts of one case. `permuted` gives other turns with the same token count."""

    rules: tuple[str, ...]
    turn: str
    config_ids: tuple[int, ...]  # all rule blocks, one after another

    def permuted(self, rng: random.Random) -> str:
        """The turn with its words in another order: new to any cache, as long as the first."""
        return shuffled(self.turn, rng)


def open_renderer(artifact: Path) -> Renderer:
    """The renderer of an artifact folder. Errors: BadArtifact."""
    try:
        template = json.loads((artifact / "manifest.json").read_text())["template"]
        tokenizer = (artifact / "tokenizer.json").read_bytes()
        if template["id"] == CHAT:
            raise BadArtifact("csrm bench knows encoder artifacts only; this one is a decoder's")
        return Renderer(
            tokenizer,
            cls=template["cls"],
            sep=template["sep"],
            rule=template["rule"],
            name_end=template["name_end"],
            roles=template["roles"],
            max_block_tokens=template["max_block_tokens"],
            n_turn_indices=template["n_turn_indices"],
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadArtifact(
            f"manifest.json or tokenizer.json cannot be read: {type(error).__name__}"
        ) from error


def parse_case(case: str) -> tuple[int, int]:
    """ "256+128" -> (256, 128): rendered tokens of the config and of the new turn."""
    match = re.fullmatch(r"([0-9]{1,5})\+([0-9]{1,5})", case)
    if match is None:
        raise BadArgument("a case is CONFIG+TURN in tokens, for example 256+128")
    return int(match[1]), int(match[2])


def case_texts(renderer: Renderer, case: str, *, seed: int = 0) -> CaseTexts:
    """Rules and a turn whose blocks render to exactly the token counts of `case`."""
    n_config, n_turn = parse_case(case)
    rng = random.Random(seed)
    n_rules = max(1, n_config // RULE_TOKENS)
    sizes = [n_config // n_rules + (index < n_config % n_rules) for index in range(n_rules)]
    rules = tuple(filled(lambda text: len(rule_ids(renderer, text)), n, rng) for n in sizes)
    turn = filled(lambda text: len(turn_ids(renderer, text)), n_turn, rng)
    config_ids = tuple(token for rule in rules for token in rule_ids(renderer, rule))
    return CaseTexts(rules, turn, config_ids)


def rule_ids(renderer: Renderer, text: str) -> list[int]:
    """Token ids of all blocks of one unnamed rule."""
    return [token for ids, _ in renderer.rule("", text) for token in ids]


def turn_ids(renderer: Renderer, text: str) -> list[int]:
    """Token ids of all blocks of an assistant turn at index 0."""
    return [token for ids, _ in renderer.turn("assistant", text, 0) for token in ids]


def shuffled(text: str, rng: random.Random) -> str:
    """The words of `text` in another order: another text of as many tokens."""
    words = text.split()
    rng.shuffle(words)
    return " ".join(words)


def filled(count: Callable[[str], int], n_tokens: int, rng: random.Random) -> str:
    """Words until `count` is `n_tokens`; a word that overshoots is replaced by another."""
    text = ""
    for _ in range(4 * n_tokens + 100):
        longer = f"{text} {rng.choice(_WORDS)}".strip()
        size = count(longer)
        if size <= n_tokens:
            text = longer
        if size == n_tokens:
            return text
    raise BadArgument(f"no text renders to {n_tokens} tokens; give at least 8 per block")
