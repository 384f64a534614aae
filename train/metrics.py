"""Figures of merit for predicted violations, with bootstrap intervals, in NumPy alone.

Polarity of the whole module: label y = 1 means violation, y = 0 compliant, and p is P(violation),
that is, 1 - compliance. Every figure is defined on weighted samples, so one code path serves the
point estimate (all weights 1) and all bootstrap resamples at once (a row of counts each).
It scores nothing and draws nothing but resamples; `csrm.train.evaluate` calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csrm.errors import BadArgument

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ECE_BINS = 15
RESAMPLES = 1000
THRESHOLD = 0.5
_GRID = 512
_MIN_BANDWIDTH = 1e-4
_BISECTIONS = 18
_CHUNK_ELEMENTS = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the 2.5 and 97.5 percentiles of its bootstrap distribution; NaN = undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures of one set of `n` cases, `n_violation` of them violations, in `n_clusters` records.

    `f1_violation`, `auprc` take violation as the positive class; `f1_compliant` takes compliant.
    A figure that needs an absent class is NaN: the F1 of that class, AUPRC and AUROC.
    """

    n: int
    n_violation: int
    n_clusters: int
    f1_violation: Interval
    f1_compliant: Interval
    accuracy: Interval
    auprc: Interval
    auroc: Interval
    brier: Interval
    ece: Interval
    smooth_ece: Interval


@dataclass(frozen=True, slots=True)
class PairMetrics:
    """Figures of `n` preference pairs: how often the chosen one has the larger reward, and by how
    much on average (log-odds)."""

    n: int
    accuracy: Interval
    gap: Interval


@dataclass(frozen=True, slots=True)
class ReliabilityBins:
    """Equal-mass bins: mean predicted P(violation) and observed violation rate [n_bins] each."""

    predicted: Floats
    observed: Floats


@dataclass(frozen=True, slots=True)
class _Sample:
    """Cases in rising order of p. `tie_starts` [G]: where each group of equal p begins."""

    y: Floats
    p: Floats
    tie_starts: Ints
    clusters: Ints  # [n], 0..n_clusters-1
    n_clusters: int

    def per_tie(self, weights: Floats) -> Floats:
        """[R, n] -> [R, G] sums over groups of equal p."""
        sums: Floats = np.add.reduceat(weights, self.tie_starts, axis=1)
        return sums


def measure(
    labels: ArrayLike,
    p: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Metrics:
    """All figures of `labels` [n] (1 = violation) and `p` [n] = P(violation), with 95% intervals.

    `clusters` [n]: equal values are cases of one record, resampled together (default: each case by
    itself). A case is predicted a violation when p > `THRESHOLD`. Seeded: the same arguments give
    the same intervals. Errors: BadArgument on unequal lengths, labels that are not 0 or 1, or p
    outside [0, 1]. No cases: every figure is NaN. Thread-safe.
    """
    sample = _sample(labels, p, clusters)
    intervals = {name: Interval(np.nan, np.nan, np.nan) for name in _FIGURES}
    if sample.y.size:
        point = _figures(sample, np.ones((1, sample.y.size)))
        drawn = _bootstrap(sample, resamples, seed)
        intervals = {name: _interval(point[name][0], drawn[name]) for name in _FIGURES}
    return Metrics(
        n=sample.y.size,
        n_violation=int(sample.y.sum()),
        n_clusters=sample.n_clusters,
        f1_violation=intervals["f1_violation"],
        f1_compliant=intervals["f1_compliant"],
        accuracy=intervals["accuracy"],
        auprc=intervals["auprc"],
        auroc=intervals["auroc"],
        brier=intervals["brier"],
        ece=intervals["ece"],
        smooth_ece=intervals["smooth_ece"],
    )


def f1_violation(labels: ArrayLike, p: ArrayLike) -> float:
    """F1 of the class violation at `THRESHOLD`; NaN when no label is a violation."""
    return _point(_f1_violation, labels, p)


def f1_compliant(labels: ArrayLike, p: ArrayLike) -> float:
    """F1 of the class compliant at `THRESHOLD`; NaN when every label is a violation."""
    return _point(_f1_compliant, labels, p)


def accuracy(labels: ArrayLike, p: ArrayLike) -> float:
    """Share of cases on the right side of `THRESHOLD`."""
    return _point(_accuracy, labels, p)


def auprc(labels: ArrayLike, p: ArrayLike) -> float:
    """Average precision of the class violation (step-wise, no interpolation; ties in one step)."""
    return _point(_auprc, labels, p)


def auroc(labels: ArrayLike, p: ArrayLike) -> float:
    """P(a violation has a larger p than a compliant case), ties counting one half."""
    return _point(_auroc, labels, p)


def brier(labels: ArrayLike, p: ArrayLike) -> float:
    """Mean of (p - y)^2."""
    return _point(_brier, labels, p)


def ece(labels: ArrayLike, p: ArrayLike) -> float:
    """Expected calibration error: mean |observed - predicted| over `ECE_BINS` equal-mass bins.

    Bins hold exactly n / ECE_BINS of mass; a group of equal p that lies across an edge is shared
    out in proportion, so the order of ties does not matter.
    """
    return _point(_ece, labels, p)


def smooth_ece(labels: ArrayLike, p: ArrayLike) -> float:
    """Smooth calibration error smECE (Blasiok & Nakkiran 2023, arXiv 2309.12236).

    With the Gaussian kernel of bandwidth s reflected at 0 and 1,
    r_s(t) = (1/n) sum_i K_s(t, p_i) (y_i - p_i) and smECE_s = integral over [0, 1] of |r_s(t)|;
    the result is smECE_s at the bandwidth where smECE_s = s. The residuals are spread linearly
    over a grid of 512 cells; the reflected kernel is diagonal in its cosine basis, so smoothing
    is one FFT. Agrees with the direct sum within about 2e-5.
    """
    return _point(_smooth_ece, labels, p)


def reliability_bins(labels: ArrayLike, p: ArrayLike, n_bins: int = ECE_BINS) -> ReliabilityBins:
    """The bins of `ece`, for a diagram; NaN everywhere when there are no cases."""
    sample = _sample(labels, p, None)
    if sample.y.size == 0:
        return ReliabilityBins(np.full(n_bins, np.nan), np.full(n_bins, np.nan))
    predicted, observed = _bins(sample, np.ones((1, sample.y.size)), n_bins)
    return ReliabilityBins(predicted[0], observed[0])


def pairwise_accuracy(chosen: ArrayLike, rejected: ArrayLike) -> float:
    """Share of pairs whose chosen reward is larger than the rejected one, ties counting one half.

    NaN when there are no pairs. Errors: BadArgument on unequal lengths or a reward that is NaN.
    """
    return measure_pairs(chosen, rejected, resamples=0).accuracy.value


def measure_pairs(
    chosen: ArrayLike, rejected: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> PairMetrics:
    """Pairwise accuracy and mean reward gap of `chosen` [n] over `rejected` [n] (log-odds)."""
    better, worse = np.asarray(chosen, np.float64), np.asarray(rejected, np.float64)
    if better.ndim != 1 or better.shape != worse.shape or not np.isfinite(better - worse).all():
        raise BadArgument(
            f"rewards of shapes {better.shape} and {worse.shape} are no pairs of finite numbers; "
            "leave failed pairs out"
        )
    wins = (np.sign(better - worse) + 1) / 2
    return PairMetrics(
        n=better.size,
        accuracy=mean_interval(wins, resamples=resamples, seed=seed),
        gap=mean_interval(better - worse, resamples=resamples, seed=seed),
    )


def mean_interval(values: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean of `values` [n] with its 95% bootstrap interval; NaN when there are none."""
    value = np.asarray(values, np.float64)
    if value.size == 0:
        return Interval(np.nan, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK_ELEMENTS // value.size)
    means = [
        value[rng.integers(0, value.size, (min(rows, resamples - start), value.size))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return _interval(float(value.mean()), np.concatenate(means) if means else np.empty(0))


def _sample(labels: ArrayLike, p: ArrayLike, clusters: ArrayLike | None) -> _Sample:
    y, q = np.asarray(labels, np.float64), np.asarray(p, np.float64)
    if y.ndim != 1 or y.shape != q.shape:
        raise BadArgument(f"labels have shape {y.shape} and p {q.shape}; give one p per label")
    if not np.isin(y, (0.0, 1.0)).all():
        raise BadArgument("a label is not 0 (compliant) or 1 (violation); correct the labels")
    if not ((q >= 0) & (q <= 1)).all():
        raise BadArgument("a p is NaN or outside [0, 1]; leave failed cases out")
    group = np.arange(y.size) if clusters is None else np.asarray(clusters)
    if group.shape != y.shape:
        raise BadArgument(f"clusters have shape {group.shape}; give one per label, {y.shape}")
    names, index = np.unique(group, return_inverse=True)
    order = np.argsort(q, kind="stable")
    q = q[order]
    starts = np.flatnonzero(np.concatenate([[True], q[1:] != q[:-1]])) if y.size else np.empty(0)
    return _Sample(y[order], q, starts.astype(np.int64), index[order], names.size)


def _point(figure: Callable[[_Sample, Floats], Floats], labels: ArrayLike, p: ArrayLike) -> float:
    sample = _sample(labels, p, None)
    return float(figure(sample, np.ones((1, sample.y.size)))[0]) if sample.y.size else np.nan


def _bootstrap(sample: _Sample, resamples: int, seed: int) -> dict[str, Floats]:
    """Every figure [resamples], whole clusters drawn with replacement."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK_ELEMENTS // sample.y.size)
    parts = []
    for start in range(0, resamples, rows):
        n_rows, n = min(rows, resamples - start), sample.n_clusters
        drawn = rng.integers(0, n, (n_rows, n)) + n * np.arange(n_rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n_rows * n).reshape(n_rows, n)
        parts.append(_figures(sample, counts[:, sample.clusters].astype(np.float64)))
    return {
        name: np.concatenate([part[name] for part in parts]) if parts else np.empty(0)
        for name in _FIGURES
    }


def _figures(sample: _Sample, weights: Floats) -> dict[str, Floats]:
    return {name: figure(sample, weights) for name, figure in _FIGURES.items()}


def _interval(value: float, drawn: Floats) -> Interval:
    drawn = drawn[np.isfinite(drawn)]  # a resample may lack a class
    if drawn.size == 0 or np.isnan(value):
        return Interval(float(value), np.nan, np.nan)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))


def _divide(top: Floats, bottom: Floats) -> Floats:
    ratio: Floats = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)
    return ratio


def _f1(sample: _Sample, weights: Floats, positive: int) -> Floats:
    is_true = sample.y == positive
    is_predicted = (sample.p > THRESHOLD) == bool(positive)
    n_true = weights @ is_true.astype(np.float64)
    hits = weights @ (is_true & is_predicted).astype(np.float64)
    value = _divide(2 * hits, n_true + weights @ is_predicted.astype(np.float64))
    return np.where(n_true > 0, value, np.nan)


def _f1_violation(sample: _Sample, weights: Floats) -> Floats:
    return _f1(sample, weights, positive=1)


def _f1_compliant(sample: _Sample, weights: Floats) -> Floats:
    return _f1(sample, weights, positive=0)


def _accuracy(sample: _Sample, weights: Floats) -> Floats:
    is_right = (sample.p > THRESHOLD) == (sample.y == 1)
    return _divide(weights @ is_right.astype(np.float64), weights.sum(axis=1))


def _auprc(sample: _Sample, weights: Floats) -> Floats:
    hits = sample.per_tie(weights * sample.y)[:, ::-1]
    flagged = np.cumsum(sample.per_tie(weights)[:, ::-1], axis=1)
    precision = np.nan_to_num(_divide(np.cumsum(hits, axis=1), flagged))
    return _divide((hits * precision).sum(axis=1), hits.sum(axis=1))


def _auroc(sample: _Sample, weights: Floats) -> Floats:
    positive = sample.per_tie(weights * sample.y)
    negative = sample.per_tie(weights * (1 - sample.y))
    below = np.cumsum(negative, axis=1) - negative / 2
    return _divide((positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


def _brier(sample: _Sample, weights: Floats) -> Floats:
    return _divide(weights @ (sample.p - sample.y) ** 2, weights.sum(axis=1))


def _ece(sample: _Sample, weights: Floats) -> Floats:
    predicted, observed = _bins(sample, weights, ECE_BINS)
    error: Floats = np.abs(observed - predicted).mean(axis=1)
    return error


def _bins(sample: _Sample, weights: Floats, n_bins: int) -> tuple[Floats, Floats]:
    """Mean p and mean y [R, n_bins] of the equal-mass bins of each row."""
    mass = sample.per_tie(weights)
    sums = (mass * sample.p[sample.tie_starts], sample.per_tie(weights * sample.y))
    predicted, observed = (np.empty((len(weights), n_bins)) for _ in sums)
    for row, row_mass in enumerate(mass):
        upto = np.concatenate([[0.0], np.cumsum(row_mass)])
        edges = np.linspace(0.0, upto[-1], n_bins + 1)
        for out, values in zip((predicted, observed), sums, strict=True):
            cumulative = np.concatenate([[0.0], np.cumsum(values[row])])
            out[row] = np.diff(np.interp(edges, upto, cumulative)) * n_bins / upto[-1]
    return predicted, observed


def _smooth_ece(sample: _Sample, weights: Floats) -> Floats:
    """Bisection on the bandwidth, which smECE_s - s decreases in, for all rows at once."""
    spectrum = _residual_spectrum(sample, weights)
    decay = -0.5 * (np.pi * np.arange(_GRID + 1)) ** 2
    low = np.full(len(weights), _MIN_BANDWIDTH)
    high = np.ones(len(weights))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        smoothed = np.fft.irfft(spectrum * np.exp(decay * middle[:, None] ** 2), axis=1)
        is_below = np.abs(smoothed[:, :_GRID]).sum(axis=1) < middle
        high = np.where(is_below, middle, high)
        low = np.where(is_below, low, middle)
    return (low + high) / 2


def _residual_spectrum(sample: _Sample, weights: Floats) -> NDArray[np.complex128]:
    """FFT [R, GRID + 1] of the mean residuals y - p on cell centres, mirrored to a period of 2.

    Mirroring makes the plain Gaussian of the period-2 circle act as the reflected one on [0, 1].
    """
    residual = weights * (sample.y - sample.p) / weights.sum(axis=1, keepdims=True)
    position = sample.p * _GRID + 0.5  # in cells of a grid with one extra cell at either end
    left = np.floor(position).astype(np.int64)
    share = position - left
    starts = np.flatnonzero(np.concatenate([[True], left[1:] != left[:-1]]))
    padded = np.zeros((len(weights), _GRID + 2))
    padded[:, left[starts]] += np.add.reduceat(residual * (1 - share), starts, axis=1)
    padded[:, left[starts] + 1] += np.add.reduceat(residual * share, starts, axis=1)
    grid = padded[:, 1:-1]
    grid[:, 0] += padded[:, 0]
    grid[:, -1] += padded[:, -1]
    return np.fft.rfft(np.concatenate([grid, grid[:, ::-1]], axis=1), axis=1)


_FIGURES: dict[str, Callable[[_Sample, Floats], Floats]] = {
    "f1_violation": _f1_violation,
    "f1_compliant": _f1_compliant,
    "accuracy": _accuracy,
    "auprc": _auprc,
    "auroc": _auroc,
    "brier": _brier,
    "ece": _ece,
    "smooth_ece": _smooth_ece,
}
