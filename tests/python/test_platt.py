"""csrm.train.calibration.platt against scikit-learn's logistic regression and hand-made cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize
from sklearn.linear_model import LogisticRegression

from csrm.errors import BadArgument
from csrm.train.calibration.platt import MIN_SLOPE, apply_platt, fit_platt


def make_rewards(n: int, a: float, b: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(1)
    rewards = rng.normal(0.5, 3.0, n)
    compliant = rng.random(n) < 1 / (1 + np.exp(-(a * rewards + b)))
    return rewards, (~compliant).astype(np.int64)


def test_fit_platt_known_model_recovers_a_and_b() -> None:
    rewards, labels = make_rewards(50_000, 0.7, -0.4)
    fit = fit_platt(rewards, labels)
    assert fit.a == pytest.approx(0.7, abs=0.03)
    assert fit.b == pytest.approx(-0.4, abs=0.05)
    assert (fit.n, fit.is_floored) == (50_000, False)
    assert fit.nll_after < fit.nll_before


def test_fit_platt_large_sample_equals_unregularised_regression() -> None:
    rewards, labels = make_rewards(20_000, 1.3, 0.5)
    oracle = LogisticRegression(C=1e9, tol=1e-8).fit(rewards[:, None], 1 - labels)
    fit = fit_platt(rewards, labels)
    assert fit.a == pytest.approx(oracle.coef_[0, 0], abs=5e-3)
    assert fit.b == pytest.approx(oracle.intercept_[0], abs=5e-3)


def test_fit_platt_small_sample_minimises_the_smoothed_loss() -> None:
    rewards, labels = make_rewards(40, 0.9, 0.2)
    n_bad = int(labels.sum())
    n_good = labels.size - n_bad
    target = np.where(labels == 0, (n_good + 1) / (n_good + 2), 1 / (n_bad + 2))

    def loss(weights: NDArray[np.float64]) -> float:
        logits = weights[0] * rewards + weights[1]
        return float(np.mean(np.logaddexp(0, logits) - target * logits))

    best = optimize.minimize(loss, [1.0, 0.0], tol=1e-12)
    fit = fit_platt(rewards, labels)
    assert [fit.a, fit.b] == pytest.approx(best.x, abs=1e-4)


def test_fit_platt_separable_data_stays_finite_and_ranks() -> None:
    fit = fit_platt([-2000.0, -1500.0, 1500.0, 2000.0], [1, 1, 0, 0])
    low, high = apply_platt(fit, [-2000.0, 2000.0])
    assert math.isfinite(fit.a)
    assert math.isfinite(fit.b)
    assert 0 < low < 0.3
    assert 0.7 < high < 1


def test_fit_platt_reversed_rewards_slope_stays_positive() -> None:
    rewards, labels = make_rewards(500, 1.0, 0.0)
    fit = fit_platt(-rewards, labels)
    assert fit.is_floored
    assert fit.a == MIN_SLOPE
    base_rate = 1 - labels.mean()
    assert apply_platt(fit, -rewards).mean() == pytest.approx(base_rate, abs=0.01)


def test_fit_platt_polarity_violation_gets_low_compliance() -> None:
    fit = fit_platt([3.0, 2.0, -2.0, -3.0] * 10, [0, 0, 1, 1] * 10)
    assert fit.a > 0
    assert apply_platt(fit, [3.0])[0] > 0.5 > apply_platt(fit, [-3.0])[0]


@pytest.mark.parametrize(
    ("rewards", "labels"),
    [
        ([], []),
        ([1.0, 2.0], [0, 0]),
        ([1.0], [0, 1]),
        ([1.0, math.inf], [0, 1]),
        ([1.0, 2.0], [0, 3]),
    ],
)
def test_fit_platt_bad_input_is_typed(rewards: list[float], labels: list[int]) -> None:
    with pytest.raises(BadArgument):
        fit_platt(rewards, labels)
