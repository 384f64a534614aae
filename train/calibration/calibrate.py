"""`csrm calibrate`: fits an artifact's probabilities and thresholds to labelled files.

Reads record files as `csrm evaluate` does, has every case scored, compares the methods on cases
that each fit has not seen, fits the chosen one to all cases and writes a copy of the artifact with
it. Trains nothing, and the rewards (so every ranking) stay the same. A case whose scoring fails is
counted and left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from rich.console import Console

from csrm.errors import BadArgument, Error
from csrm.export.artifact import read_json
from csrm.export.recalibrate import recalibrate
from csrm.operating_point import OperatingPoint
from csrm.paths import default_artifact
from csrm.progress_bar import progress_bar
from csrm.train import metrics
from csrm.train.calibration import report
from csrm.train.calibration.comparison import (
    METHODS,
    Method,
    Rewards,
    best_method,
    cross_fitted,
    fit_method,
)
from csrm.train.calibration.operating_points import RATES, operating_points
from csrm.train.calibration.platt import Calibration, apply_platt
from csrm.train.evaluate import (
    ArtifactScorer,
    Outcome,
    RuleScorer,
    read_cases,
    score_cases,
    sha256_of,
    stem,
)

SCHEMA_VERSION = 1
FIGURES = ("brier", "ece", "smooth_ece")

Chosen: TypeAlias = Literal["auto", "temperature", "platt"]


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """How to calibrate: `method` auto takes the smaller cross-fitted Brier score."""

    method: Chosen = "auto"
    rates: tuple[float, ...] = RATES
    limit: int | None = None
    seed: int = 0


def calibrate_files(
    paths: Sequence[str | Path],
    out: str | Path,
    artifact: str | Path | None = None,
    json_path: str | Path | None = None,
    options: CalibrationOptions = CalibrationOptions(),
    *,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes `artifact` (None: the shipped one), calibrated on the record files, into `out`.

    Prints the comparison; `json_path`: writes it there, and reliability diagrams as PNG beside it.
    The result is JSON-ready. Errors: BadArgument (files, options, too few cases of a class),
    BadConversation (records), BadArtifact.
    """
    source = default_artifact() if artifact is None else Path(artifact)
    manifest = read_json(source / "manifest.json")
    current = current_calibration(manifest)
    data, n_unknown = scored_cases(ArtifactScorer(source), paths, options, is_shown=progress)
    result, fit, points = calibrated(data, current, options)
    result["n_unknown"] = n_unknown
    result["data"] = {path.name: sha256_of(path) for path in map(Path, paths)}
    method = str(result["chosen"])
    note = report.card_note(result)
    threshold = float(manifest.get("threshold", 0.5))
    recalibrate(source, out, fit, method=method, points=points, threshold=threshold, note=note)
    report.print_tables(result, Console())
    if json_path is not None:
        report.write(result, Path(json_path))
    return result


def current_calibration(manifest: dict[str, Any]) -> Calibration:
    """The a and b that an artifact has. Errors: BadArgument when they are not numbers."""
    stored = manifest.get("calibration")
    values = stored if isinstance(stored, dict) else {}
    a, b, n = values.get("a"), values.get("b"), values.get("n", 0)
    if not isinstance(a, (int, float)) or not isinstance(b, (int, float)):
        raise BadArgument("the artifact's manifest has no calibration; export it again")
    return Calibration(a=a, b=b, n=int(n), nll_before=np.nan, nll_after=np.nan)


def scored_cases(
    scorer: RuleScorer,
    paths: Sequence[str | Path],
    options: CalibrationOptions,
    *,
    is_shown: bool = False,
) -> tuple[dict[str, Rewards], dict[str, dict[str, int]]]:
    """(rewards by file, failures by file and kind) of every labelled case of the files."""
    if not paths:
        raise BadArgument("no record files given; name at least one .jsonl or .jsonl.gz file")
    if len({stem(Path(path)) for path in paths}) < len(paths):
        raise BadArgument("two of the record files have one name; rename one")
    found: dict[str, Rewards] = {}
    failed: dict[str, dict[str, int]] = {}
    for path in map(Path, paths):
        cases = read_cases(path, limit=options.limit, seed=options.seed).cases
        rows = [case for case in cases if case.violation is not None]
        with progress_bar(path.name, len(rows), is_shown=is_shown) as advance:
            outcomes = score_cases(scorer, rows, [case.rules for case in rows], advance)
        good = [(c, o) for c, o in zip(rows, outcomes, strict=True) if isinstance(o, Outcome)]
        failed[stem(path)] = dict(
            Counter(type(o).__name__ for o in outcomes if isinstance(o, Error))
        )
        found[stem(path)] = Rewards(
            np.array([outcome.reward for _, outcome in good], np.float64),
            np.array([bool(case.violation) for case, _ in good], np.float64),
            [case.record for case, _ in good],
        )
    return found, failed


def calibrated(
    data: dict[str, Rewards], current: Calibration, options: CalibrationOptions
) -> tuple[dict[str, Any], Calibration, list[OperatingPoint]]:
    """(comparison, fit, operating points) of the scored cases of all files together.

    Each method is fitted to the files pooled and measured on each of them apart.
    """
    pooled = Rewards(
        np.concatenate([rows.reward for rows in data.values()]),
        np.concatenate([rows.label for rows in data.values()]),
        [f"{name}\0{record}" for name, rows in data.items() for record in rows.record],
    )
    compliance = cross_fitted(pooled, current, seed=options.seed)
    best = best_method(pooled.label, compliance)
    method: Method = best if options.method == "auto" else options.method
    fit = fit_method(method, pooled)
    points = operating_points(apply_platt(fit, pooled.reward), pooled.label, options.rates)
    result: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "seed": options.seed,
        "limit": options.limit,
        "chosen": method,
        "best_storable": best,
        "fit": asdict(fit),
        "before": {"a": current.a, "b": current.b},
        "operating_points": [asdict(point) for point in points],
        "files": file_figures(data, pooled, compliance, options.seed),
    }
    return result, fit, points


def file_figures(
    data: dict[str, Rewards], pooled: Rewards, compliance: dict[Method, Any], seed: int
) -> list[dict[str, Any]]:
    """Per file, and for all of them when there are several: figures and bins of every method."""
    parts: list[tuple[str, slice]] = []
    start = 0
    for name, rows in data.items():
        parts.append((name, slice(start, start + len(rows.label))))
        start += len(rows.label)
    if len(parts) > 1:
        parts.append(("all files", slice(0, start)))
    figures = []
    for name, part in parts:
        label, record = pooled.label[part], pooled.record[part]
        methods: dict[str, Any] = {}
        for method in METHODS:
            p = np.clip(1.0 - compliance[method][part], 0.0, 1.0)
            measured = metrics.measure(label, p, clusters=record, seed=seed)
            bins = metrics.reliability_bins(label, p)
            methods[method] = {
                **{figure: asdict(getattr(measured, figure)) for figure in FIGURES},
                "reliability": {
                    "predicted": bins.predicted.tolist(),
                    "observed": bins.observed.tolist(),
                },
            }
        n_violation = int(label.sum())
        figures.append(
            {"file": name, "n": len(label), "n_violation": n_violation, "methods": methods}
        )
    return figures
