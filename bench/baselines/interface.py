"""What every baseline offers, and the plain row they all run.

A baseline has no prefix cache: the config and the turn go through the model together, as one row
under full attention, from token ids on (tokenising is not charged to it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from csrm.errors import BadArgument

MAX_POSITIONS = 512


class Baseline(Protocol):
    """One compared system with its model loaded. Not thread-safe."""

    name: str

    def prepare(self, config_ids: Sequence[int], turn_ids: Sequence[Sequence[int]]) -> None:
        """Takes the config and a batch of turns of equal length; not timed."""
        ...

    def run(self) -> float:
        """One forward pass over what was prepared; the first turn's reward. Timed."""
        ...


def plain_rows(
    config_ids: Sequence[int], turn_ids: Sequence[Sequence[int]]
) -> dict[str, NDArray[np.int64]]:
    """Model inputs [B, T] (pooled_at [B, 1]) of rows config + turn that see themselves whole.

    Errors: BadArgument when turns differ in length.
    """
    lengths = {len(turn) for turn in turn_ids}
    if len(lengths) != 1:
        raise BadArgument(f"turns have {len(lengths)} different lengths; a batch needs one")
    n_config = len(config_ids)
    ids = np.array([[*config_ids, *turn] for turn in turn_ids], np.int64)
    columns = np.arange(ids.shape[1])
    return {
        "input_ids": ids,
        "position_ids": np.broadcast_to(columns % MAX_POSITIONS, ids.shape).copy(),
        "segment_ids": np.broadcast_to((columns >= n_config).astype(np.int64), ids.shape).copy(),
        "visible": np.full(ids.shape, ids.shape[1], np.int64),
        "pooled_at": np.full((ids.shape[0], 1), n_config, np.int64),
    }
