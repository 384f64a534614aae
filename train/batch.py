"""Labelled examples -> padded tensors: rule rows, conversation rows and who sees which rules.

What it is: the training side of the data path. Token ids and control ids come from the C++ renderer
(`csrm._core.Renderer`), the same code that serves. Each distinct rule of a batch is one rule row,
so it is encoded (and back-propagated through) once however many conversations read it. Not:
choosing examples (csrm.train.compose) or computing losses (csrm.train.losses).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from csrm._core import Renderer
from csrm.train.model import Encoded, Places, Prefix, Rows

Ids = NDArray[np.int32]
RuleText = tuple[str, str]  # (name, text)
TurnText = tuple[str, str]  # (role, content)


@dataclass(frozen=True)
class Example:
    """One conversation under one config; the last turn is judged."""

    rules: tuple[RuleText, ...]
    turns: tuple[TurnText, ...]
    target: float  # probability that the last turn complies: 0, 1 or a soft label
    weight: float = 1.0
    # The turns before `Family.restated` changed them; () = as here.
    plain: tuple[TurnText, ...] = ()


@dataclass
class Family:
    """Examples that share rules, and what is known of their order."""

    examples: list[Example] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)  # (better, worse) example indices
    # Examples that differ in wording only: one conversation under configs that mean the same.
    same: list[tuple[int, int]] = field(default_factory=list)

    def add(self, example: Example) -> int:
        """Appends `example`; its index."""
        self.examples.append(example)
        return len(self.examples) - 1

    def join(self, other: Family) -> None:
        """Appends the examples and pairs of `other`."""
        offset = len(self.examples)
        self.examples += other.examples
        self.pairs += [(better + offset, worse + offset) for better, worse in other.pairs]
        self.same += [(one + offset, two + offset) for one, two in other.same]

    def restated(self, change: Callable[[tuple[TurnText, ...]], tuple[TurnText, ...]]) -> Family:
        """This family with other turns that say the same.

        `change` is called once for each conversation, in order; every example of it gets what
        comes out, so that no label hangs on it, and indices stay. Of a conversation that it changed
        one example more, at the end, is the first of them as it was, with an entry in `same`.
        """
        made = Family(list(self.examples), list(self.pairs), list(self.same))
        places: dict[tuple[TurnText, ...], list[int]] = {}
        for i, example in enumerate(self.examples):
            places.setdefault(example.turns, []).append(i)
        for turns, own in places.items():
            changed = change(turns)
            if changed == turns:
                continue
            for i in own:
                plain = self.examples[i].plain or turns
                made.examples[i] = replace(self.examples[i], turns=changed, plain=plain)
            made.same.append((own[0], made.add(self.examples[own[0]])))
        return made

    def as_it_was(self) -> Family:
        """This family with every conversation as it was before `restated`; indices stay."""
        examples = [replace(e, turns=e.plain, plain=()) if e.plain else e for e in self.examples]
        return Family(examples, self.pairs, self.same)


@dataclass(frozen=True)
class ConversationGroup:
    """Conversation rows of similar length, each with the rule tokens it sees."""

    rows: Rows
    prefix_index: Tensor  # int64 [B, P] into the batch's rule tokens; -1 = padding
    members: list[int]  # example index of each row


@dataclass(frozen=True)
class Batch:
    """Everything one optimiser micro-step needs."""

    rule_rows: list[Rows]
    groups: list[ConversationGroup]
    target: Tensor  # float [N] probability of compliance, N examples
    weight: Tensor  # float [N]
    pairs: Tensor  # int64 [M, 2] (better, worse)
    same: Tensor  # int64 [K, 2] examples that should have equal rewards
    n_tokens: int  # tokens encoded, padding excluded
    taught: Batch | None = None  # the same examples, none restated, as the run's teacher reads them


class BatchBuilder:
    """Turns families into batches. Keeps the ids of the rules it has seen; not thread-safe."""

    def __init__(self, renderer: Renderer, row_group: int = 16) -> None:
        self.renderer = renderer
        self.row_group = row_group
        self._rules: dict[RuleText, list[tuple[Ids, int]]] = {}

    def rule_blocks(self, rule: RuleText) -> list[tuple[Ids, int]]:
        """Blocks (ids, segment) of `rule`, remembered."""
        blocks = self._rules.get(rule)
        if blocks is None:
            blocks = self._rules[rule] = self.renderer.rule(rule[0], rule[1])
        return blocks

    def turn_blocks(self, turns: Sequence[TurnText]) -> list[tuple[Ids, int]]:
        """Blocks (ids, segment) of a conversation in order."""
        blocks: list[tuple[Ids, int]] = []
        for index, (role, content) in enumerate(turns):
            blocks.extend(self.renderer.turn(role, content, index))
        return blocks

    def n_tokens(self, example: Example) -> int:
        """Tokens of the config and the conversation together."""
        rules = sum(len(ids) for rule in example.rules for ids, _ in self.rule_blocks(rule))
        return rules + sum(len(ids) for ids, _ in self.turn_blocks(example.turns))

    def build(self, family: Family) -> Batch:
        """The batch of `family` under block attention."""
        rules = {rule: None for example in family.examples for rule in example.rules}
        blocks, owners = [], []
        for rule in rules:
            for block in self.rule_blocks(rule):
                blocks.append(block)
                owners.append(rule)
        order = sorted(range(len(blocks)), key=lambda i: len(blocks[i][0]))
        spans: dict[RuleText, list[Ids]] = {}
        offset = 0
        for i in order:
            length = len(blocks[i][0])
            span = np.arange(offset, offset + length, dtype=np.int32)
            spans.setdefault(owners[i], []).append(span)
            offset += length
        rule_rows = [
            pack_rows([[blocks[i]] for i in part]) for part in split_evenly(order, self.row_group)
        ]
        conversations = [self.turn_blocks(example.turns) for example in family.examples]
        lengths = [sum(len(ids) for ids, _ in blocks) for blocks in conversations]
        by_length = sorted(range(len(conversations)), key=lengths.__getitem__)
        groups = []
        for part in split_evenly(by_length, self.row_group):
            sees = [
                np.concatenate([s for rule in family.examples[i].rules for s in spans[rule]])
                for i in part
            ]
            groups.append(
                ConversationGroup(pack_rows([conversations[i] for i in part]), pad(sees, -1), part)
            )
        return finish(family, rule_rows, groups, offset + sum(lengths))

    def build_full(self, family: Family) -> Batch:
        """The same under ordinary full attention: one row `[config][conversation]`, no prefix.

        The comparison of docs/log.md; positions run through the row, so it must fit 512 tokens.
        """
        sequences = []
        for example in family.examples:
            rules = [block for rule in example.rules for block in self.rule_blocks(rule)]
            sequences.append(rules + self.turn_blocks(example.turns))
        lengths = [sum(len(ids) for ids, _ in blocks) for blocks in sequences]
        by_length = sorted(range(len(sequences)), key=lengths.__getitem__)
        groups = []
        for part in split_evenly(by_length, self.row_group):
            rows = pack_rows([sequences[i] for i in part], full=True)
            none = torch.empty((len(part), 0), dtype=torch.int64)
            groups.append(ConversationGroup(rows, none, part))
        return finish(family, [], groups, sum(lengths))


def finish(
    family: Family, rule_rows: list[Rows], groups: list[ConversationGroup], n_tokens: int
) -> Batch:
    """A Batch with the targets of `family`."""
    return Batch(
        rule_rows,
        groups,
        torch.tensor([example.target for example in family.examples]),
        torch.tensor([example.weight for example in family.examples]),
        torch.tensor(family.pairs, dtype=torch.int64).reshape(-1, 2),
        torch.tensor(family.same, dtype=torch.int64).reshape(-1, 2),
        n_tokens,
    )


def split_evenly(items: Sequence[int], size: int) -> list[list[int]]:
    """`items` in order, in parts of at most `size`."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


def pad(sequences: Iterable[NDArray[np.int32]], fill: int) -> Tensor:
    """Sequences of ints -> int64 [B, longest], `fill` at the ends."""
    rows = list(sequences)
    out = np.full((len(rows), max((len(row) for row in rows), default=0)), fill, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out)


def pack_rows(sequences: Sequence[Sequence[tuple[Ids, int]]], full: bool = False) -> Rows:
    """Rows of blocks; the last block's first token is pooled. `full`: every token sees its row."""
    ids, positions, segments, visible, pooled = [], [], [], [], []
    for blocks in sequences:
        lengths = [len(block) for block, _ in blocks]
        ends = np.cumsum(lengths)
        ids.append(np.concatenate([block for block, _ in blocks]))
        segments.append(np.repeat([segment for _, segment in blocks], lengths).astype(np.int32))
        if full:
            positions.append(np.arange(ends[-1], dtype=np.int32))
            visible.append(np.full(ends[-1], ends[-1], dtype=np.int32))
        else:
            positions.append(np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]))
            visible.append(np.repeat(ends, lengths).astype(np.int32))
        pooled.append([ends[-1] - lengths[-1]])
    return Rows(
        pad(ids, 0), pad(positions, 0), pad(segments, 0), pad(visible, 0), torch.tensor(pooled)
    )


def rewards(model: nn.Module, batch: Batch) -> Tensor:
    """Rewards [N] of the batch's examples: rules once, then the conversations over them.

    `model` is an Encoder, a Decoder (whose rule rows hold whole configs) or accelerate's wrapping.
    """
    encoded: list[Encoded] = [model(rows) for rows in batch.rule_rows]
    # Once for all layers: on a GPU each search for the valid tokens waits for all work before it.
    valid = [Places.of(rows.visible > 0) for rows in batch.rule_rows]
    keys = [rule_tokens(layer, valid) for layer in zip(*(e.key for e in encoded), strict=True)]
    values = [rule_tokens(layer, valid) for layer in zip(*(e.value for e in encoded), strict=True)]
    out: list[Tensor] = []
    members: list[int] = []
    for group in batch.groups:
        prefix = None
        if group.prefix_index.shape[1] > 0:
            index = group.prefix_index.clamp(min=0)
            prefix = Prefix(
                [gather_tokens(flat, index) for flat in keys],
                [gather_tokens(flat, index) for flat in values],
                group.prefix_index >= 0,
            )
        result: Encoded = model(group.rows, prefix)
        out.append(result.reward[:, 0])
        members.extend(group.members)
    order = torch.tensor(members, device=out[0].device)
    ordered = torch.empty_like(torch.cat(out)).index_copy(0, order, torch.cat(out))
    return ordered[: len(batch.target)]  # csrm.train.sharding may have filled up the groups


def rule_tokens(parts: Sequence[Tensor], valid: Sequence[Places]) -> Tensor:
    """The valid tokens [tokens, hidden] of rule rows [R, T, hidden], in order."""
    return torch.cat([places.take(part) for part, places in zip(parts, valid, strict=True)])


def gather_tokens(flat: Tensor, index: Tensor) -> Tensor:
    """Rows of `flat` [N, hidden] at `index` [B, P] -> [B, P, hidden]."""
    return flat.index_select(0, index.reshape(-1)).view(*index.shape, -1)
