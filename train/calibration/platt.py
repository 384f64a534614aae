"""Platt and temperature scaling: compliance = sigmoid(a * reward + b), with b = 0 for the second.

Fits one or two numbers from rewards and labels that the model did not train on; it runs no model
and reads no files. The trainer stores the result in the checkpoint, export and `csrm calibrate`
write it into the graph and the manifest. Not: which fit is the better one
(csrm.train.calibration.comparison).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csrm.errors import BadArgument

MIN_SLOPE = 1e-3
MAX_SLOPE = 1e3
_MAX_STEPS = 100
_TOLERANCE = 1e-10
_RIDGE = 1e-12


@dataclass(frozen=True, slots=True)
class Calibration:
    """compliance = sigmoid(a * reward + b).

    `nll_before` and `nll_after` are mean negative log-likelihoods (nats, hard labels) of the data
    of the fit under a = 1, b = 0 and under the fit. `is_floored`: the data wanted a slope below
    `MIN_SLOPE`, that is, the rewards do not rank compliant conversations first.
    """

    a: float
    b: float
    n: int
    nll_before: float
    nll_after: float
    is_floored: bool = False


def fit_platt(rewards: ArrayLike, labels: ArrayLike) -> Calibration:
    """The Platt fit for `rewards` [n] (log-odds that a turn complies) and `labels` [n].

    Polarity: label 1 (or true) = violation, 0 = compliant; a larger reward means more compliant,
    so `a` > 0. Newton's method with backtracking on the smoothed targets of Platt (1999):
    (n_compliant + 1) / (n_compliant + 2) and 1 / (n_violation + 2), which keep the fit finite on
    separable data. The loss is convex, so where its optimum has a slope below `MIN_SLOPE` the
    best allowed slope is `MIN_SLOPE`, and only b is fitted. Deterministic, thread-safe.
    Errors: BadArgument when lengths differ, a reward is not finite, a label is not 0 or 1, or a
    class is absent.
    """
    reward, label = check_labelled(rewards, labels)
    n_violation = int(label.sum())
    n_compliant = label.size - n_violation
    target = np.where(label == 0, (n_compliant + 1) / (n_compliant + 2), 1 / (n_violation + 2))

    start = np.log((n_compliant + 1) / (n_violation + 1))
    features = np.stack([reward, np.ones_like(reward)], axis=1)
    scale = float(np.abs(reward).max()) or 1.0  # conditions the Hessian for large rewards
    weights = _newton(
        features / [scale, 1.0], target, np.array([0.0, start]), np.zeros(reward.size)
    )
    a, b = float(weights[0]) / scale, float(weights[1])
    is_floored = a < MIN_SLOPE
    if is_floored:
        a = MIN_SLOPE
        b = float(_newton(features[:, 1:], target, np.array([start]), a * reward)[0])
    return Calibration(
        a=a,
        b=b,
        n=label.size,
        nll_before=_loss(reward, 1.0 - label),
        nll_after=_loss(a * reward + b, 1.0 - label),
        is_floored=is_floored,
    )


def fit_temperature(rewards: ArrayLike, labels: ArrayLike) -> Calibration:
    """The best compliance = sigmoid(a * reward): temperature 1 / a, even odds at reward 0.

    Arguments, polarity and errors as for `fit_platt`, but on the hard labels: with one number the
    loss has a finite minimum unless the data are separable, where `a` ends at `MAX_SLOPE`.
    """
    reward, label = check_labelled(rewards, labels)
    target = 1.0 - label
    low, high = MIN_SLOPE, MAX_SLOPE
    while high - low > _TOLERANCE * high:  # the derivative rises with a
        middle = (low + high) / 2
        if float(np.mean((_sigmoid(middle * reward) - target) * reward)) < 0:
            low = middle
        else:
            high = middle
    return Calibration(
        a=high,
        b=0.0,
        n=label.size,
        nll_before=_loss(reward, target),
        nll_after=_loss(high * reward, target),
        is_floored=low == MIN_SLOPE,
    )


def apply_platt(calibration: Calibration, rewards: ArrayLike) -> NDArray[np.float64]:
    """Compliance [n] in [0, 1] of `rewards` [n]; P(violation) is one minus it."""
    logits = calibration.a * np.asarray(rewards, dtype=np.float64) + calibration.b
    return _sigmoid(logits)


def check_labelled(
    rewards: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as float64 [n]. Errors: BadArgument, see `fit_platt`."""
    reward = np.asarray(rewards, dtype=np.float64)
    label = np.asarray(labels, dtype=np.float64)
    if reward.ndim != 1 or reward.shape != label.shape:
        raise BadArgument(
            f"rewards have shape {reward.shape} and labels {label.shape}; give one label per reward"
        )
    if not np.isfinite(reward).all():
        raise BadArgument("a reward is NaN or infinite; leave failed conversations out of the fit")
    if not np.isin(label, (0.0, 1.0)).all():
        raise BadArgument("a label is not 0 (compliant) or 1 (violation); correct the labels")
    if label.size == 0 or label.min() == label.max():
        raise BadArgument(
            f"the {label.size} labels hold fewer than two classes; fit on compliant and violating "
            "conversations"
        )
    return reward, label


def _newton(
    features: NDArray[np.float64],
    target: NDArray[np.float64],
    weights: NDArray[np.float64],
    offset: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Minimises the mean cross-entropy of sigmoid(features @ weights + offset) to `target`."""
    loss = _loss(features @ weights + offset, target)
    for _ in range(_MAX_STEPS):
        p = _sigmoid(features @ weights + offset)
        gradient = features.T @ (p - target) / target.size
        if np.abs(gradient).max() < _TOLERANCE:
            break
        hessian = (features * (p * (1 - p))[:, None]).T @ features / target.size
        step = np.linalg.solve(hessian + _RIDGE * np.eye(weights.size), gradient)
        size = 1.0
        while size > _TOLERANCE:
            tried = weights - size * step
            tried_loss = _loss(features @ tried + offset, target)
            if tried_loss <= loss - 1e-4 * size * float(gradient @ step):
                break
            size /= 2
        else:
            break
        weights, loss = tried, tried_loss
    return weights


def _loss(logits: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    return float(np.mean(np.logaddexp(0.0, logits) - target * logits))


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0.0, -logits))
