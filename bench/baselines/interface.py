"""What every baseline offers, and the rows they all run.

Without a cache, config and turn go through the model together, as one row, from token ids on
(tokenising is not charged to it). Timed are `plain_rows`, full attention over config and turn (of a
decoder, causal). Before that every baseline answers a row that csrm itself would encode so, and its
reward is compared with csrm's (csrm.bench.agreement).

With a cache (`CachingBaseline`) the config's keys and values are computed before the clock starts,
with csrm's own attention, and only the turns' tokens are timed: what csrm does, in another engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from csrm.errors import BadArgument, Unsupported

MAX_POSITIONS = 512

# input_ids, position_ids, segment_ids, visible [B, T] and pooled_at [B, 1]: docs/datapath.md.
Rows = dict[str, NDArray[np.int64]]
Rewards = NDArray[np.float64]


@dataclass(frozen=True)
class CachedRows:
    """A config to be encoded before the clock starts, and the rows that are timed over it."""

    blocks: tuple[Rows, ...]  # one row each, without a prefix; joined in order they are the prefix
    turns: Rows

    @property
    def n_prefix(self) -> int:
        """Tokens of the prefix."""
        return sum(block["input_ids"].shape[1] for block in self.blocks)


class Baseline(Protocol):
    """One compared system with its model loaded. Not thread-safe."""

    def prepare(self, rows: Rows) -> Rows:
        """Takes a batch; not timed. Returns the rows that `run` will answer.

        They are `rows` themselves, unless the engine cannot express their attention or their ids;
        then those nearest to them, of the same shape. Errors: Unsupported when there are none.
        """
        ...

    def run(self) -> Rewards:
        """One forward pass over what was prepared: rewards [B], log-odds. Timed."""
        ...

    def close(self) -> None:
        """Ends what the baseline started (processes, files)."""
        ...


class CachingBaseline(Baseline, Protocol):
    """A Baseline that can be given the config's keys and values."""

    def prepare_cached(self, rows: CachedRows) -> None:
        """Encodes the blocks and takes the turns; not timed. What `prepare` took stays.

        Errors: Unsupported when the engine cannot hold or express them.
        """
        ...

    def run_cached(self) -> Rewards:
        """One forward pass of the turns over the prefix: rewards [B], log-odds. Timed."""
        ...


def listed_rows(rows: Rows) -> dict[str, list[list[int]]]:
    """`rows` as JSON holds them."""
    return {name: ids.tolist() for name, ids in rows.items()}


def rows_of(listed: Mapping[str, list[list[int]]]) -> Rows:
    """What `listed_rows` made."""
    return {name: np.array(ids, np.int64) for name, ids in listed.items()}


def plain_rows(config_ids: Sequence[int], turn_ids: Sequence[Sequence[int]]) -> Rows:
    """Rows config + turn that see themselves whole. Errors: BadArgument, turns of two lengths."""
    rows = _rows(config_ids, turn_ids)
    length = rows["input_ids"].shape[1]
    rows["position_ids"][:] = np.arange(length) % MAX_POSITIONS
    rows["visible"][:] = length
    return rows


def block_rows(rule_ids: Sequence[int], turn_ids: Sequence[Sequence[int]]) -> Rows:
    """Rows of one rule and a turn with csrm's own attention: the rule does not see the turn.

    A config of that single rule gives csrm the same reward. (Several rules would have to see only
    themselves, which `visible` cannot say within one row.) Errors: as `plain_rows`.
    """
    rows = _rows(rule_ids, turn_ids)
    n_rule, length = len(rule_ids), rows["input_ids"].shape[1]
    rows["position_ids"][:] = [*range(n_rule), *range(length - n_rule)]
    rows["visible"][:] = [n_rule] * n_rule + [length] * (length - n_rule)
    return rows


def causal_rows(config_ids: Sequence[int], turn_ids: Sequence[Sequence[int]]) -> Rows:
    """Rows config + turn of a decoder, read at the last token. Errors: as `plain_rows`."""
    rows = _rows(config_ids, turn_ids)
    length = rows["input_ids"].shape[1]
    rows["position_ids"][:] = np.arange(length)
    rows["segment_ids"][:] = 0
    rows["visible"][:] = 1 + np.arange(length)
    rows["pooled_at"][:] = length - 1
    return rows


def cached_block_rows(
    rule_ids: Sequence[Sequence[int]], turn_ids: Sequence[Sequence[int]]
) -> CachedRows:
    """Rules that see themselves alone, and turns over them all. Errors: as `plain_rows`."""
    blocks = []
    for ids in rule_ids:
        block = plain_rows([], [ids])
        block["segment_ids"][:] = 0
        blocks.append(block)
    return CachedRows(tuple(blocks), plain_rows([], turn_ids))


def cached_causal_rows(config_ids: Sequence[int], turn_ids: Sequence[Sequence[int]]) -> CachedRows:
    """A decoder's config in one row, and turns that go on from it. Errors: as `plain_rows`."""
    turns = causal_rows([], turn_ids)
    turns["position_ids"] += len(config_ids)
    return CachedRows((causal_rows([], [config_ids]),), turns)


def bert_rows(rows: Rows) -> Rows:
    """`rows` as a plain BERT reads them: full attention, positions from 0 on.

    Errors: Unsupported when there are more tokens than positions.
    """
    length = rows["input_ids"].shape[1]
    if length > MAX_POSITIONS:
        raise Unsupported(f"a BERT of {MAX_POSITIONS} positions cannot read {length} tokens")
    positions = np.broadcast_to(np.arange(length), rows["input_ids"].shape).copy()
    return {**rows, "position_ids": positions, "visible": np.full_like(positions, length)}


def _rows(config_ids: Sequence[int], turn_ids: Sequence[Sequence[int]]) -> Rows:
    lengths = {len(turn) for turn in turn_ids}
    if len(lengths) != 1:
        raise BadArgument(f"turns have {len(lengths)} different lengths; a batch needs one")
    n_config = len(config_ids)
    ids = np.array([[*config_ids, *turn] for turn in turn_ids], np.int64)
    is_turn = np.arange(ids.shape[1]) >= n_config
    return {
        "input_ids": ids,
        "position_ids": np.zeros_like(ids),
        "segment_ids": np.broadcast_to(is_turn.astype(np.int64), ids.shape).copy(),
        "visible": np.zeros_like(ids),
        "pooled_at": np.full((ids.shape[0], 1), n_config, np.int64),
    }
