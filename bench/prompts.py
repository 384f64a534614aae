"""Texts of a case as the model reads them: token ids of a config and of turns, and rows of them.

What it is: one face over the two layouts of docs/datapath.md, an encoder's blocks and a decoder's
one sequence, for benches that compare engines on either. A decoder's config holds its head, and
its turn the question that follows it: a case "4096+128" is as long for both. Not: texts
(texts.py).
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from csrm._core import ChatRenderer, Renderer
from csrm.bench.baselines.interface import (
    CachedRows,
    Rows,
    block_rows,
    cached_block_rows,
    cached_causal_rows,
    causal_rows,
    plain_rows,
)
from csrm.bench.texts import (
    CHAT,
    RULE_TOKENS,
    CaseTexts,
    case_texts,
    filled,
    open_renderer,
    parse_case,
    turn_ids,
)
from csrm.errors import BadArgument, BadArtifact
from csrm.train.chat_template import chat_renderer_of

_WORD = "the"  # one token


class Prompts(Protocol):
    """The layout of one artifact."""

    @property
    def agreement_case(self) -> str:
        """A short case, of an encoder one of one rule, on which engines are compared with csrm."""
        ...

    def case(self, case: str, *, seed: int = 0) -> CaseTexts:
        """Texts with exactly the token counts of `case`. Errors: BadArgument, it is too short."""
        ...

    def plain_rows(self, texts: CaseTexts, turns: Sequence[str]) -> Rows:
        """Config and turn as one row each, as engines without a cache are timed."""
        ...

    def exact_rows(self, texts: CaseTexts, turns: Sequence[str]) -> Rows:
        """The same of `agreement_case`, with csrm's own attention."""
        ...

    def cached_rows(self, texts: CaseTexts, turns: Sequence[str]) -> CachedRows:
        """The config's blocks and rows of turns over them, with csrm's own attention."""
        ...


def open_prompts(artifact: Path) -> Prompts:
    """The layout of an artifact folder. Errors: BadArtifact."""
    try:
        template = json.loads((artifact / "manifest.json").read_text())["template"]
        if template["id"] != CHAT:
            return BlockPrompts(open_renderer(artifact))
        renderer = chat_renderer_of((artifact / "tokenizer.json").read_bytes(), template)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadArtifact(
            f"manifest.json or tokenizer.json cannot be read: {type(error).__name__}"
        ) from error
    return ChatPrompts(renderer)


@dataclass(frozen=True)
class BlockPrompts:
    """An encoder's: every rule a block, every turn a block."""

    renderer: Renderer
    agreement_case: str = f"{RULE_TOKENS}+50"

    def case(self, case: str, *, seed: int = 0) -> CaseTexts:
        """See Prompts."""
        return case_texts(self.renderer, case, seed=seed)

    def plain_rows(self, texts: CaseTexts, turns: Sequence[str]) -> Rows:
        """See Prompts."""
        return plain_rows(texts.config_ids, self._ids(turns))

    def exact_rows(self, texts: CaseTexts, turns: Sequence[str]) -> Rows:
        """See Prompts."""
        return block_rows(texts.config_ids, self._ids(turns))

    def cached_rows(self, texts: CaseTexts, turns: Sequence[str]) -> CachedRows:
        """See Prompts."""
        blocks = [ids for rule in texts.rules for ids, _ in self.renderer.rule("", rule)]
        return cached_block_rows([ids.tolist() for ids in blocks], self._ids(turns))

    def _ids(self, turns: Sequence[str]) -> list[list[int]]:
        return [turn_ids(self.renderer, turn) for turn in turns]


@dataclass(frozen=True)
class ChatPrompts:
    """A decoder's: one causal sequence, the config first."""

    renderer: ChatRenderer
    agreement_case: str = "160+64"

    def case(self, case: str, *, seed: int = 0) -> CaseTexts:
        """See Prompts."""
        n_config, n_turn = parse_case(case)
        rng = random.Random(seed)
        least, question = self._n_config([_WORD]) - 1, self._n_turn(_WORD) - 1
        if n_config < least + RULE_TOKENS // 2 or n_turn <= question:
            raise BadArgument(
                f"a decoder's config has {least} tokens beside its first rule's text and a turn"
                f" {question}; give at least 16 more of the one and 1 more of the other"
            )
        rules: list[str] = []
        while n_config - self._n_config([*rules, _WORD]) >= 2 * RULE_TOKENS:
            # "S12:" may have a token more than "S1:"; the last rule makes up for that.
            rules.append(filled(lambda text: self._n_config([text]) - least, RULE_TOKENS, rng))
        rules.append(filled(lambda text: self._n_config([*rules, text]), n_config, rng))
        turn = filled(self._n_turn, n_turn, rng)
        ids = self.renderer.config([("", rule) for rule in rules]).tolist()
        return CaseTexts(tuple(rules), turn, tuple(ids))

    def plain_rows(self, texts: CaseTexts, turns: Sequence[str]) -> Rows:
        """See Prompts."""
        return causal_rows(texts.config_ids, self._ids(turns))

    def exact_rows(self, texts: CaseTexts, turns: Sequence[str]) -> Rows:
        """See Prompts: plain rows are exact."""
        return self.plain_rows(texts, turns)

    def cached_rows(self, texts: CaseTexts, turns: Sequence[str]) -> CachedRows:
        """See Prompts."""
        return cached_causal_rows(texts.config_ids, self._ids(turns))

    def _ids(self, turns: Sequence[str]) -> list[list[int]]:
        found = (self.renderer.conversation([("assistant", turn)]) for turn in turns)
        return [np.asarray(ids).tolist() for [(ids, _)] in found]

    def _n_config(self, rules: Sequence[str]) -> int:
        return len(self.renderer.config([("", rule) for rule in rules]))

    def _n_turn(self, text: str) -> int:
        return len(self.renderer.conversation([("assistant", text)])[0][0])
