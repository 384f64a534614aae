"""The one-sided Clopper-Pearson bound and the regularised incomplete beta function it inverts.

What it is: the exact lower confidence bound of a binomial share, in double precision, standard
library only. Not: what the counts mean (csrm.train.augment.dominance).
"""

from __future__ import annotations

import math

from csrm.errors import BadArgument

_MAX_TERMS = 10_000
_TINY = 1e-300
_EPSILON = 1e-15


def lower_bound(hits: int, trials: int, alpha: float = 0.05) -> float:
    """The share that `hits` of `trials` exceed with confidence 1 - alpha.

    It is the alpha quantile of Beta(hits, trials - hits + 1), 0 without a hit. Errors: BadArgument
    unless 0 <= hits <= trials and 0 < alpha < 1. Thread-safe.
    """
    if not 0 <= hits <= trials:
        raise BadArgument(f"{hits} hits in {trials} trials; give 0 to all of them")
    if not 0 < alpha < 1:
        raise BadArgument(f"alpha is {alpha}; give a number between 0 and 1")
    if hits == 0:
        return 0.0
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):  # neighbouring doubles
            return low
        if regularised_beta(middle, hits, trials - hits + 1) < alpha:
            low = middle
        else:
            high = middle


def regularised_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b), the distribution function of Beta(a, b) at x.

    Errors: BadArgument unless 0 <= x <= 1, a > 0 and b > 0.
    """
    if not (0 <= x <= 1 and a > 0 and b > 0):
        raise BadArgument("the incomplete beta function needs x in [0, 1] and positive a and b")
    if x in (0, 1):
        return float(x)
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    front = math.exp(log_front)
    # The fraction converges fast on the near side of the mean; the other side by symmetry.
    if x < (a + 1) / (a + b + 2):
        return front * _continued_fraction(x, a, b) / a
    return 1.0 - front * _continued_fraction(1.0 - x, b, a) / b


def _continued_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of I_x(a, b), evaluated from the front (Lentz's method)."""
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        change = 1.0
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            change = c * d
            value *= change
        if abs(change - 1.0) < _EPSILON:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
