"""Isotonic calibration: the best monotone map from rewards to compliance, for comparison.

What it is: pool-adjacent-violators on squared error, applied by linear interpolation. Not: a
calibration that an artifact can hold (that is a, b of csrm.train.calibration.platt); it shows
how much a freer shape would gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csrm.train.calibration.platt import check_labelled

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Isotonic:
    """A non-decreasing map: compliance `values` [k] at the rewards `knots` [k], rising."""

    knots: Floats
    values: Floats

    def apply(self, rewards: ArrayLike) -> Floats:
        """Compliance [n] in [0, 1] of `rewards` [n]: linear between knots, constant outside."""
        return np.interp(np.asarray(rewards, np.float64), self.knots, self.values)


def fit_isotonic(rewards: ArrayLike, labels: ArrayLike) -> Isotonic:
    """The least-squares monotone fit to `rewards` [n] (log-odds) and `labels` [n] (1 = violation).

    Equal rewards share a value. Each pooled block becomes one or two knots, at its lowest and its
    highest reward. Errors: BadArgument as for `fit_platt`. Thread-safe.
    """
    reward, label = check_labelled(rewards, labels)
    knots, index = np.unique(reward, return_inverse=True)
    mass = np.bincount(index).astype(np.float64)
    mean = np.bincount(index, 1.0 - label) / mass
    blocks: list[tuple[float, float, int]] = []  # mean, mass, number of distinct rewards
    for value, weight in zip(mean.tolist(), mass.tolist(), strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] >= block[0]:
            below = blocks.pop()
            total = below[1] + block[1]
            pooled = (below[0] * below[1] + block[0] * block[1]) / total
            block = (pooled, total, below[2] + block[2])
        blocks.append(block)
    ends = np.cumsum([count for _, _, count in blocks])
    starts = ends - [count for _, _, count in blocks]
    at = np.stack([starts, ends - 1], axis=1).ravel()
    values = np.repeat([value for value, _, _ in blocks], 2)
    first = np.concatenate([[True], at[1:] != at[:-1]])
    return Isotonic(knots[at[first]], values[first])
