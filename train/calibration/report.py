"""The result of `csrm calibrate` as tables on a terminal, as JSON, as plots and in a model card.

Computes no figures: it shows the dictionary that `csrm.train.calibration.calibrate` builds. Plots
need matplotlib; without it the JSON is written and the omission is said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from csrm.errors import BadArgument
from csrm.train.evaluation_report import interval, without_nan

_FIGURES = (("brier", "Brier"), ("ece", "ECE"), ("smooth_ece", "smECE"))


def print_tables(result: Mapping[str, Any], console: Console) -> None:
    """Prints the comparison, the fit and the operating points."""
    table = Table(
        "file", "n (viol.)", "method", *(title for _, title in _FIGURES), box=box.SIMPLE_HEAD
    )
    for file in result["files"]:
        counts = f"{file['n']} ({file['n_violation']})"
        for index, (method, row) in enumerate(file["methods"].items()):
            head = (file["file"], counts) if index == 0 else ("", "")
            table.add_row(*head, method, *(interval(row[name]) for name, _ in _FIGURES))
    console.print(
        "Calibration error, each case by a fit that has not seen its record; below each value its"
        " 95 % interval"
    )
    console.print(table)
    fit, before = result["fit"], result["before"]
    console.print(
        f"chosen: {result['chosen']}, compliance = sigmoid({fit['a']:.4f} * reward"
        f" + {fit['b']:.4f}) on {fit['n']} cases; before: a {before['a']:.4f}, b {before['b']:.4f}"
    )
    points = Table(
        "max. false-positive rate", "threshold", "observed", "95 % bound", "violations caught",
        box=box.SIMPLE_HEAD,
    )  # fmt: skip
    for point in result["operating_points"]:
        points.add_row(
            f"{point['max_fpr']:.3g}", f"{point['threshold']:.4f}", f"{point['fpr']:.4f}",
            f"{point['fpr_upper']:.4f}", f"{point['recall']:.3f}",
        )  # fmt: skip
    console.print(points)
    for name, kinds in result["n_unknown"].items():
        if kinds:
            counts = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
            console.print(f"{name}: unknown and left out: {counts}")


def write(result: Mapping[str, Any], json_path: Path) -> None:
    """Writes `result` to `json_path` and `<json stem>.reliability.png` beside it.

    Errors: BadArgument when the folder cannot be written to.
    """
    text = json.dumps(without_nan(result), indent=1, allow_nan=False) + "\n"
    try:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadArgument(
            f"cannot write '{json_path.name}': {error.strerror}; name a writable folder"
        ) from error
    _plot(result["files"], json_path.with_suffix(".reliability.png"))


def card_note(result: Mapping[str, Any]) -> str:
    """Markdown for the model card: what was fitted, to how much data, with which figures."""
    fit = result["fit"]
    lines = [
        "## Calibrated again",
        "",
        f"`csrm calibrate` replaced the calibration above: {result['chosen']}, a = {fit['a']:.4f},"
        f" b = {fit['b']:.4f}, fitted to {fit['n']} cases of the files below. Errors are of cases"
        " that the fit had not seen.",
        "",
        "| file | n (violations) | method | Brier | smECE |",
        "|---|---|---|---|---|",
    ]
    for file in result["files"]:
        for method in ("current", result["chosen"]):
            row = file["methods"][method]
            cells = " | ".join(f"{row[name]['value']:.3f}" for name in ("brier", "smooth_ece"))
            counts = f"{file['n']} ({file['n_violation']})"
            lines.append(f"| {file['file']} | {counts} | {method} | {cells} |")
    return "\n".join(lines) + "\n"


def _plot(files: list[dict[str, Any]], path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        Console(stderr=True).print("no plots: matplotlib is not installed")
        return
    figure = Figure(figsize=(4.2 * len(files), 4.4), layout="constrained")
    for axes, file in zip(figure.subplots(1, len(files), squeeze=False)[0], files, strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for method, row in file["methods"].items():
            bins = row["reliability"]
            label = f"{method}, smECE {row['smooth_ece']['value']:.3f}"
            axes.plot(
                bins["predicted"], bins["observed"], marker="o", markersize=3, linewidth=1,
                label=label,
            )  # fmt: skip
        axes.set(
            xlim=(0, 1), ylim=(0, 1), aspect="equal",
            xlabel="predicted P(violation), equal-mass bins", ylabel="observed violation rate",
            title=f"{file['file']}, n = {file['n']}",
        )  # fmt: skip
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)
