"""csrm.train.metrics against scikit-learn, direct sums and hand-made cases."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize
from sklearn import metrics as oracle

from csrm.errors import BadArgument
from csrm.train import metrics

Floats = NDArray[np.float64]


def make_sample(n: int, seed: int, decimals: int = 2) -> tuple[NDArray[np.int64], Floats]:
    """Miscalibrated predictions with many ties."""
    rng = np.random.default_rng(seed)
    p = rng.beta(0.7, 0.7, n).round(decimals)
    return (rng.random(n) < 0.8 * p**1.4 + 0.1).astype(np.int64), p


@pytest.mark.parametrize("seed", range(5))
def test_figures_random_sample_equal_sklearn(seed: int) -> None:
    y, p = make_sample(400, seed)
    flagged = p > metrics.THRESHOLD
    expected = {
        metrics.f1_violation: oracle.f1_score(y, flagged),
        metrics.f1_compliant: oracle.f1_score(y, flagged, pos_label=0),
        metrics.accuracy: oracle.accuracy_score(y, flagged),
        metrics.auprc: oracle.average_precision_score(y, p),
        metrics.auroc: oracle.roc_auc_score(y, p),
        metrics.brier: oracle.brier_score_loss(y, p),
    }
    for figure, value in expected.items():
        assert figure(y, p) == pytest.approx(value, abs=1e-12), figure.__name__


def test_ece_no_ties_equals_mean_gap_of_equal_bins() -> None:
    rng = np.random.default_rng(3)
    p = np.sort(rng.random(metrics.ECE_BINS * 20))
    y = (rng.random(p.size) < p**2).astype(int)
    pairs = zip(y.reshape(-1, 20), p.reshape(-1, 20), strict=True)
    gaps = [abs(b.mean() - q.mean()) for b, q in pairs]
    assert metrics.ece(y, p) == pytest.approx(float(np.mean(gaps)), abs=1e-12)


def test_ece_constant_prediction_equals_gap_whatever_the_order() -> None:
    y = np.array([1] * 30 + [0] * 70)
    for order in (y, y[::-1]):
        assert metrics.ece(order, np.full(100, 0.5)) == pytest.approx(0.2, abs=1e-12)


def direct_smooth_ece(y: NDArray[np.int64], p: Floats) -> float:
    """The definition as it stands: reflected Gaussian kernels summed at each point."""
    points = (np.arange(2000) + 0.5) / 2000

    def smoothed(bandwidth: float) -> float:
        total = np.zeros_like(points)
        for image in [k + sign * p for k in range(-4, 6, 2) for sign in (1, -1)]:
            z = (points[:, None] - image[None, :]) / bandwidth
            total += np.exp(-(z**2) / 2) @ (y - p)
        return float(np.abs(total / (bandwidth * math.sqrt(2 * math.pi) * p.size)).mean())

    return float(optimize.brentq(lambda s: smoothed(s) - s, 5e-3, 1.0, xtol=1e-7))


@pytest.mark.parametrize("seed", range(3))
def test_smooth_ece_random_sample_equals_direct_sum(seed: int) -> None:
    y, p = make_sample(150, seed, decimals=3)
    assert metrics.smooth_ece(y, p) == pytest.approx(direct_smooth_ece(y, p), abs=2e-5)


def test_smooth_ece_predictions_at_the_ends_equals_direct_sum() -> None:
    y, p = np.array([1, 0, 0, 1, 1] * 20), np.array([0.0, 1.0, 0.0, 1.0, 1.0] * 20)
    assert metrics.smooth_ece(y, p) == pytest.approx(direct_smooth_ece(y, p), abs=2e-5)


def test_smooth_ece_calibrated_is_small_and_shifted_is_large() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    y = rng.random(p.size) < p
    assert metrics.smooth_ece(y, p) < 0.02
    assert metrics.smooth_ece(y, np.clip(p - 0.2, 0, 1)) == pytest.approx(0.18, abs=0.02)


def test_measure_one_class_undefined_figures_are_nan_with_n() -> None:
    result = metrics.measure([0, 0, 0], [0.1, 0.7, 0.2])
    assert (result.n, result.n_violation) == (3, 0)
    for interval in (result.f1_violation, result.auprc, result.auroc):
        assert math.isnan(interval.value)
        assert math.isnan(interval.low)
    assert result.f1_compliant.value == pytest.approx(0.8)
    assert result.accuracy.value == pytest.approx(2 / 3)


def test_measure_no_cases_everything_is_nan() -> None:
    result = metrics.measure([], [])
    assert result.n == 0
    assert math.isnan(result.accuracy.value)
    assert math.isnan(result.smooth_ece.high)


def test_measure_class_never_predicted_f1_is_zero() -> None:
    assert metrics.f1_violation([1, 0], [0.0, 0.0]) == 0.0


def test_measure_same_seed_same_intervals_other_seed_others() -> None:
    y, p = make_sample(120, 0)
    first = metrics.measure(y, p, resamples=200, seed=1)
    assert first == metrics.measure(y, p, resamples=200, seed=1)
    assert first.auprc != metrics.measure(y, p, resamples=200, seed=2).auprc


def test_measure_interval_of_accuracy_is_near_the_normal_one() -> None:
    y, p = make_sample(1000, 7)
    accuracy = metrics.measure(y, p).accuracy
    half = 1.96 * math.sqrt(accuracy.value * (1 - accuracy.value) / 1000)
    assert accuracy.low == pytest.approx(accuracy.value - half, abs=0.005)
    assert accuracy.high == pytest.approx(accuracy.value + half, abs=0.005)


def test_measure_clusters_of_copies_widen_the_interval() -> None:
    y, p = make_sample(200, 4)
    copies = metrics.measure(np.tile(y, 4), np.tile(p, 4), clusters=np.tile(np.arange(200), 4))
    alone = metrics.measure(np.tile(y, 4), np.tile(p, 4))
    single = metrics.measure(y, p)
    width = copies.accuracy.high - copies.accuracy.low
    assert copies.n_clusters == 200
    assert width == pytest.approx(single.accuracy.high - single.accuracy.low, rel=0.15)
    assert width > 1.6 * (alone.accuracy.high - alone.accuracy.low)


def test_measure_bootstrap_figures_equal_those_of_the_resample() -> None:
    y, p = make_sample(60, 9)
    drawn = np.random.default_rng(5).integers(0, 60, (1, 60))
    counts = np.bincount(drawn[0], minlength=60)
    repeated = metrics.measure(np.repeat(y, counts), np.repeat(p, counts), resamples=0)
    resampled = metrics.measure(y, p, resamples=1, seed=5)
    for name in ("f1_violation", "auprc", "auroc", "brier", "ece", "smooth_ece"):
        expected = getattr(repeated, name).value
        assert getattr(resampled, name).low == pytest.approx(expected, abs=1e-9), name


def test_measure_five_thousand_cases_takes_seconds() -> None:
    y, p = make_sample(5000, 0, decimals=6)
    start = time.perf_counter()
    metrics.measure(y, p)
    assert time.perf_counter() - start < 15


@pytest.mark.parametrize(
    ("labels", "p"),
    [([0, 1], [0.5]), ([0, 2], [0.5, 0.5]), ([0, 1], [0.5, 1.1]), ([0, 1], [0.5, math.nan])],
)
def test_measure_bad_input_is_typed(labels: list[int], p: list[float]) -> None:
    with pytest.raises(BadArgument):
        metrics.measure(labels, p)


def test_reliability_bins_hold_the_ece() -> None:
    y, p = make_sample(300, 2)
    bins = metrics.reliability_bins(y, p)
    assert np.abs(bins.observed - bins.predicted).mean() == pytest.approx(metrics.ece(y, p))
    assert (np.diff(bins.predicted) >= 0).all()


def test_pairwise_accuracy_ties_count_one_half() -> None:
    assert metrics.pairwise_accuracy([1.0, 2.0, 0.0], [0.0, 2.0, 3.0]) == pytest.approx(0.5)
    assert math.isnan(metrics.pairwise_accuracy([], []))
    assert metrics.measure_pairs([1.0, 4.0], [0.0, 0.0]).gap.value == pytest.approx(2.5)


def test_pairwise_accuracy_nan_reward_is_typed() -> None:
    with pytest.raises(BadArgument):
        metrics.pairwise_accuracy([math.nan], [0.0])
