"""python -m csrm.train.augment: tests the strictness pairs and writes the report.

Reads the permissive sources of a data folder; judges by the ratings, or with --artifact by a model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from csrm.train.augment.dominance import ALPHA, BOUND, POOL, find_pairs, markdown, write_report
from csrm.train.augment.judges import ArtifactJudge, Judge, LabelJudge
from csrm.train.augment.severity import check_scales, load_scales
from csrm.train.corpus import PERMISSIVE, is_held_out
from csrm.train.records import DataFolder, Severity, read_records


def rated(data: DataFolder) -> list[Severity]:
    """The rated conversations of the training split, permissive sources only."""
    return [
        record
        for path in data.train_files
        if path.name.split(".")[0] in PERMISSIVE
        for record in read_records(path)
        if isinstance(record, Severity) and not is_held_out(record.conversation)
    ]


def main() -> None:
    """Errors: BadArgument for a data folder of another shape, those of `csrm.load`."""
    parser = argparse.ArgumentParser(prog="python -m csrm.train.augment", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument("--artifact", type=Path, help="judge with this model, not the ratings")
    parser.add_argument("--pool", type=int, default=POOL, help="conversations per scale")
    parser.add_argument("--alpha", type=float, default=ALPHA)
    parser.add_argument("--bound", type=float, default=BOUND)
    options = parser.parse_args()
    data = DataFolder(options.data)
    check_scales(load_scales(), data.severity_scales)
    judge: Judge = ArtifactJudge(options.artifact) if options.artifact else LabelJudge()
    report = find_pairs(
        rated(data), load_scales(), judge, options.pool, options.alpha, options.bound
    )
    write_report(report, options.out)
    print(markdown(report), end="")


if __name__ == "__main__":
    main()
