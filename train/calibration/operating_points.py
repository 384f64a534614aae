"""Operating points: thresholds on compliance for given false-positive rates.

What it is: for each rate asked for, the strictest threshold that flags no larger share of the
compliant cases at hand. Not: fitting probabilities (csrm.train.calibration.platt). A false positive
is a compliant turn judged a violation; its rate is over compliant turns. The rate on other data
differs: `fpr_upper` bounds it for data of the same kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from csrm.errors import BadArgument
from csrm.operating_point import OperatingPoint
from csrm.train.augment.clopper_pearson import lower_bound

RATES = (0.01, 0.02, 0.05)


def operating_points(
    compliance: ArrayLike, labels: ArrayLike, rates: Sequence[float] = RATES
) -> list[OperatingPoint]:
    """One point per rate, in rising order, from `compliance` [n] and `labels` [n] (1 = violation).

    Rates that `n_compliant` turns cannot show (fewer than 1 / rate of them) are left out. Errors:
    BadArgument for unequal lengths, a compliance outside [0, 1] or a rate outside (0, 1).
    """
    p, label = np.asarray(compliance, np.float64), np.asarray(labels, np.float64)
    if p.ndim != 1 or p.shape != label.shape or not ((p >= 0) & (p <= 1)).all():
        raise BadArgument(
            f"compliance of shape {p.shape} and labels of shape {label.shape} must be equally many"
            " numbers, compliance in [0, 1]"
        )
    for rate in rates:
        if not 0 < rate < 1:
            raise BadArgument(f"a false-positive rate is {rate}; give numbers between 0 and 1")
    good, bad = np.sort(p[label == 0]), p[label == 1]
    points = []
    for rate in sorted(set(rates)):
        n_allowed = math.floor(rate * good.size + 1e-9)
        if n_allowed == 0:
            continue
        threshold = float(good[n_allowed])
        n_flagged = int((good < threshold).sum())
        points.append(
            OperatingPoint(
                max_fpr=rate,
                threshold=threshold,
                fpr=n_flagged / good.size,
                fpr_upper=1.0 - lower_bound(good.size - n_flagged, good.size),
                recall=float((bad < threshold).mean()) if bad.size else math.nan,
                n_compliant=good.size,
                n_violation=bad.size,
            )
        )
    return points
