"""`OperatingPoint`: a threshold for a false-positive rate, and reading an artifact's list of them.

Not: finding them (csrm.train.calibration), nor judging by one: that is a config's `threshold`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

from csrm.errors import BadArtifact


@dataclass(frozen=True)
class OperatingPoint:
    """A turn is a violation if its compliance is below `threshold`.

    max_fpr: the largest share of compliant turns to be judged violations that was asked for. fpr,
    recall: the shares of `n_compliant` compliant turns and of `n_violation` violations that were
    flagged where it was fitted (recall is NaN without violations). fpr_upper: the one-sided 95 %
    Clopper-Pearson bound of fpr. On data of another kind the rate differs.
    """

    max_fpr: float
    threshold: float
    fpr: float
    fpr_upper: float
    recall: float
    n_compliant: int
    n_violation: int


def read_operating_points(artifact: Path) -> tuple[OperatingPoint, ...]:
    """The points in an artifact's manifest, by rising rate; none if it has no such list.

    Errors: BadArtifact when the manifest cannot be read or a point has other fields.
    """
    try:
        manifest = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadArtifact(f"manifest.json cannot be read: {type(error).__name__}") from error
    listed = manifest.get("operating_points", []) if isinstance(manifest, dict) else None
    if not isinstance(listed, list):
        raise BadArtifact("manifest.json: operating_points must be a list; export it again")
    return tuple(sorted((_point(values) for values in listed), key=lambda point: point.max_fpr))


def _point(values: object) -> OperatingPoint:
    names = [field.name for field in fields(OperatingPoint)]
    numbers = [values.get(name) for name in names] if isinstance(values, dict) else []
    if len(numbers) == len(names) and numbers[4] is None:  # JSON has no NaN
        numbers[4] = math.nan
    if not numbers or any(type(number) not in (int, float) for number in numbers):
        raise BadArtifact(
            f"manifest.json: an operating point must have the numbers {', '.join(names)};"
            " calibrate again"
        )
    point = OperatingPoint(*numbers)  # type: ignore[arg-type]
    if not (0 < point.max_fpr < 1 and 0 <= point.threshold <= 1):
        raise BadArtifact("manifest.json: an operating point is outside [0, 1]; calibrate again")
    return point
