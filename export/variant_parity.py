"""What the int8 or half variant of an artifact changes on labelled cases, kept in its manifest.

What it is: every case scored by the portable variant and by that one, and the manifest's
"int8_parity" or "half_parity" written from the two; the runtime chooses a variant by itself only
when that is within its limits (manifest.cc), int8 only on a CPU with VNNI or AMX. Not: timing
(csrm.bench). `python -m csrm.export.variant_parity ARTIFACT VARIANT LIMIT DATA.jsonl.gz...` prints
the figures too; LIMIT is how many records of each file are drawn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

import csrm
from csrm.errors import BadArgument, Error
from csrm.export.artifact import read_json
from csrm.train import metrics
from csrm.train.evaluate import read_cases
from csrm.train.evaluation_sets import Case

Floats = NDArray[np.float64]
Variant = Literal["int8", "half"]
MIN_CASES = 100


@dataclass(frozen=True)
class VariantParity:
    """Changes from the portable to another variant over `n` cases."""

    n: int
    compliance_p99: float
    compliance_max: float
    reward_p99: float
    verdicts_changed: float  # share, at compliance 0.5
    f1_change: float  # the larger of both classes'


def measure_variant(
    artifact: Path, variant: Variant, paths: Sequence[Path], limit: int | None = None
) -> VariantParity:
    """The changes over the cases of record files; those without a portable score are left out.

    Errors: those of `csrm.load` (Unsupported without that variant) and of the files; BadArgument
    from `changes`; what the variant fails at where the portable one does not.
    """
    portable, other = (
        csrm.load(artifact, n_threads=1, variant=name) for name in ("portable", variant)
    )
    rows = []
    for path in paths:
        for case in read_cases(path, limit=limit).cases:
            try:
                before = _scored(portable, case)
            except Error:
                continue
            after = _scored(other, case)
            label = np.nan if case.violation is None else float(case.violation)
            rows.append((label, *(x for s in (before, after) for x in (s.compliance, s.reward))))
    return changes(np.array(rows).reshape(-1, 5))


def changes(rows: Floats) -> VariantParity:
    """The figures of cases [N, 5]: label (NaN: none), compliance and reward of either variant.

    Errors: BadArgument, too few cases for a 99th percentile, or none labelled with either class.
    """
    label, before, reward_before, after, reward_after = rows.T
    change = np.abs(after - before)
    known = ~np.isnan(label)
    if len(rows) < MIN_CASES or len(set(label[known])) < 2:
        raise BadArgument(f"give {MIN_CASES} cases that have scores, of both classes among them")
    f1 = [
        abs(of(label[known], 1 - after[known]) - of(label[known], 1 - before[known]))
        for of in (metrics.f1_violation, metrics.f1_compliant)
    ]
    return VariantParity(
        len(rows),
        float(np.quantile(change, 0.99)),
        float(change.max()),
        float(np.quantile(np.abs(reward_after - reward_before), 0.99)),
        float(((after >= 0.5) != (before >= 0.5)).mean()),
        float(max(f1)),
    )


def keep(artifact: Path, variant: Variant, parity: VariantParity) -> None:
    """Writes `parity` into the artifact's manifest."""
    path = artifact / "manifest.json"
    manifest = read_json(path)
    manifest[f"{variant}_parity"] = asdict(parity)
    path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _scored(scorer: csrm.Scorer, case: Case) -> csrm.Score:
    turns = [{"role": role, "content": content} for role, content in case.conversation]
    return scorer.score(csrm.SafetyConfig.from_rules(list(case.rules)), turns, judged=case.judged)


if __name__ == "__main__":
    folder, name = Path(sys.argv[1]), sys.argv[2]
    if name not in get_args(Variant):
        sys.exit(f"VARIANT must be one of {', '.join(get_args(Variant))}")
    chosen = cast(Variant, name)
    data = [Path(argument) for argument in sys.argv[4:]]
    measured = measure_variant(folder, chosen, data, int(sys.argv[3]))
    keep(folder, chosen, measured)
    print(json.dumps(asdict(measured), indent=1))
