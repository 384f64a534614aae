"""Labelled examples -> padded tensors for a decoder: one row per config, then the conversations.

What it is: csrm.train.batch for the causal layout. Each distinct config of a batch (its rules in
their order) is one row without a prefix, encoded and back-propagated through once however many
conversations read it; a conversation's positions run on from the end of its config. Token ids come
from the C++ renderer that serves. Not: choosing examples or computing losses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from csrm._core import ChatRenderer
from csrm.train.batch import (
    Batch,
    ConversationGroup,
    Example,
    Family,
    Ids,
    RuleText,
    TurnText,
    finish,
    pad,
    split_evenly,
)
from csrm.train.model import Rows


class ChatBatchBuilder:
    """Turns families into batches. Keeps the ids of the configs it has seen; not thread-safe."""

    def __init__(self, renderer: ChatRenderer, row_group: int = 16) -> None:
        self.renderer = renderer
        self.row_group = row_group
        self._configs: dict[tuple[RuleText, ...], Ids] = {}

    def config_ids(self, rules: tuple[RuleText, ...]) -> Ids:
        """Ids of a config, remembered."""
        ids = self._configs.get(rules)
        if ids is None:
            ids = self._configs[rules] = self.renderer.config(rules)
        return ids

    def conversation_ids(self, turns: Sequence[TurnText]) -> Ids:
        """Ids of a conversation and the cue that asks about its last turn."""
        return self.renderer.conversation(turns)[0][0]

    def n_tokens(self, example: Example) -> int:
        """Tokens of the config, the conversation and the cue together."""
        return len(self.config_ids(example.rules)) + len(self.conversation_ids(example.turns))

    def build(self, family: Family) -> Batch:
        """The batch of `family`; its `rule_rows` hold whole configs."""
        configs = list(dict.fromkeys(example.rules for example in family.examples))
        ids = {rules: self.config_ids(rules) for rules in configs}
        configs.sort(key=lambda rules: len(ids[rules]))
        spans: dict[tuple[RuleText, ...], Ids] = {}
        offset = 0
        for rules in configs:
            spans[rules] = np.arange(offset, offset + len(ids[rules]), dtype=np.int32)
            offset += len(ids[rules])
        parts = split_evenly(range(len(configs)), self.row_group)
        rule_rows = [causal_rows([(ids[configs[i]], 0) for i in part]) for part in parts]
        conversations = [self.conversation_ids(example.turns) for example in family.examples]
        by_length = sorted(range(len(conversations)), key=lambda i: len(conversations[i]))
        groups = []
        for part in split_evenly(by_length, self.row_group):
            sees = [spans[family.examples[i].rules] for i in part]
            rows = causal_rows(
                [(conversations[i], len(seen)) for i, seen in zip(part, sees, strict=True)]
            )
            groups.append(ConversationGroup(rows, pad(sees, -1), part))
        n_tokens = offset + sum(len(conversation) for conversation in conversations)
        return finish(family, rule_rows, groups, n_tokens)


def causal_rows(sequences: Sequence[tuple[Ids, int]]) -> Rows:
    """Rows of (ids, first position); the last token of each is pooled."""
    lengths = [len(ids) for ids, _ in sequences]
    within = [np.arange(n, dtype=np.int32) for n in lengths]
    positions = [steps + first for steps, (_, first) in zip(within, sequences, strict=True)]
    return Rows(
        pad((ids for ids, _ in sequences), 0),
        pad(positions, 0),
        torch.zeros((len(lengths), max(lengths)), dtype=torch.int64),
        pad((steps + 1 for steps in within), 0),
        torch.tensor([[n - 1] for n in lengths]),
    )
