"""Calibration methods compared on data that each fit has not seen.

What it is: cross-fitting. The records are split into folds; every method is fitted on all folds but
one and applied to that one, so the figures of a method are of rewards it was not fitted to. Not:
scoring (csrm.train.evaluate) or the figures (csrm.train.metrics).

Methods: `current` (the artifact's own a and b), `temperature` and `platt` (one and two fitted
numbers, which an artifact can hold) and `isotonic` (any monotone map, only for comparison).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csrm.errors import BadArgument
from csrm.train.calibration.isotonic import fit_isotonic
from csrm.train.calibration.platt import (
    Calibration,
    apply_platt,
    check_labelled,
    fit_platt,
    fit_temperature,
)
from csrm.train.metrics import brier

Floats = NDArray[np.float64]
Method: TypeAlias = Literal["current", "temperature", "platt", "isotonic"]

METHODS: tuple[Method, ...] = ("current", "temperature", "platt", "isotonic")
STORABLE: tuple[Method, ...] = ("temperature", "platt")
FOLDS = 5
MIN_PER_CLASS = 20


@dataclass(frozen=True, slots=True)
class Rewards:
    """Scored, labelled cases: `reward` [n] (log-odds of compliance), `label` [n] (1 = violation),
    `record` [n] (cases of one record are not independent and stay in one fold)."""

    reward: Floats
    label: Floats
    record: Sequence[str]


def cross_fitted(
    data: Rewards, current: Calibration, *, folds: int = FOLDS, seed: int = 0
) -> dict[Method, Floats]:
    """Compliance [n] by method, each case by a fit to the other folds. Deterministic.

    Errors: BadArgument for fewer than `MIN_PER_CLASS` cases of a class, fewer than two folds, or
    a fold without which a class is absent.
    """
    reward, label = check_labelled(data.reward, data.label)
    check_enough(label)
    fold = fold_of(data.record, folds, seed)
    out: dict[Method, Floats] = {name: np.empty(label.size) for name in METHODS}
    out["current"] = apply_platt(current, reward)
    for index in range(folds):
        inside = fold == index
        seen_reward, seen_label = reward[~inside], label[~inside]
        held = reward[inside]
        out["temperature"][inside] = apply_platt(fit_temperature(seen_reward, seen_label), held)
        out["platt"][inside] = apply_platt(fit_platt(seen_reward, seen_label), held)
        out["isotonic"][inside] = fit_isotonic(seen_reward, seen_label).apply(held)
    return out


def fold_of(records: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each case: distinct records, shuffled, dealt out in turn."""
    names, index = np.unique(np.asarray(records), return_inverse=True)
    if not 2 <= folds <= names.size:
        raise BadArgument(f"{folds} folds for {names.size} records; give 2 to that many")
    dealt = np.random.default_rng(seed).permutation(names.size) % folds
    return dealt[index].astype(np.int64)


def check_enough(label: ArrayLike) -> None:
    """Errors: BadArgument when a class has fewer than `MIN_PER_CLASS` cases."""
    labels = np.asarray(label, np.float64)
    n_violation = int(labels.sum())
    fewest = min(n_violation, labels.size - n_violation)
    if fewest < MIN_PER_CLASS:
        raise BadArgument(
            f"the smaller class has {fewest} cases; calibration needs {MIN_PER_CLASS} of each"
        )


def best_method(label: ArrayLike, compliance: dict[Method, Floats]) -> Method:
    """The storable method with the smallest cross-fitted Brier score; the simpler one on a tie."""
    return min(STORABLE, key=lambda name: brier(label, 1.0 - compliance[name]))


def fit_method(method: Method, data: Rewards) -> Calibration:
    """The fit of a storable method to all of `data`. Errors: BadArgument."""
    if method == "temperature":
        return fit_temperature(data.reward, data.label)
    if method == "platt":
        return fit_platt(data.reward, data.label)
    raise BadArgument(f"method is {method!r}; an artifact can hold {', '.join(STORABLE)}")
