"""The result of an evaluation as tables on a terminal, as JSON and as plots.

Computes no figures: it shows the dictionary that `csrm.train.evaluate` builds. Plots need
matplotlib; without it the JSON is written and the omission is said.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from csrm.errors import BadArgument

# The others (AUROC, accuracy) are in the JSON: more columns do not fit a terminal.
_FIGURES = (
    ("f1_violation", "F1 viol."),
    ("f1_compliant", "F1 comp."),
    ("auprc", "AUPRC"),
    ("brier", "Brier"),
    ("ece", "ECE"),
    ("smooth_ece", "smECE"),
)
_SENSITIVITY = ("forbid", "omit", "allow")


def without_nan(value: Any) -> Any:
    """`value` with every NaN or infinite number replaced by None, so that it is valid JSON."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_tables(result: Mapping[str, Any], console: Console) -> None:
    """Prints the classification, pair and sensitivity tables that `result` has rows for."""
    files = result["files"]
    for table in (_classification(files), _groups(files), _pairs(files), _sensitivity(files)):
        if table.row_count:
            console.print(table)
    for file in files:
        for system, kinds in file["errors"].items():
            if kinds:
                counts = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
                console.print(f"{file['file']}, {system}: unknown and not scored: {counts}")
        if file["n_skipped"]:
            console.print(f"{file['file']}: {file['n_skipped']} records gave no labelled case")


def write(result: Mapping[str, Any], json_path: Path) -> None:
    """Writes `result` to `json_path` and its plots beside it as `<json stem>.<...>.png`.

    Errors: BadArgument when the folder cannot be written to.
    """
    try:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadArgument(
            f"cannot write '{json_path.name}': {error.strerror}; name a writable folder"
        ) from error
    try:
        for name, figure in plots(result["files"]).items():
            figure.savefig(json_path.with_suffix(f".{name}.png"), dpi=150)
    except ImportError:
        Console(stderr=True).print("no plots: matplotlib is not installed")


def _table(title: str, caption: str, *columns: str) -> Table:
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table


def _fill(table: Table, name: str, rows: Mapping[str, Sequence[str]]) -> None:
    """Adds a file's heading and its rows, if there are any."""
    if rows:
        table.add_row(f"[bold]{name}[/bold]")
        for label, cells in rows.items():
            table.add_row(f"  {label}", *cells)
        table.add_section()


def _classification(files: list[dict[str, Any]]) -> Table:
    table = _table(
        "Classification (positive class of AUPRC: violation)",
        "value and 95% bootstrap interval over records; - = undefined",
        *("system", "n\n(viol.)", *(title for _, title in _FIGURES)),
    )
    for file in files:
        _fill(table, file["file"], {k: _cells(row) for k, row in file["systems"].items()})
    return table


def _groups(files: list[dict[str, Any]]) -> Table:
    table = _table(
        "The model by type of configuration",
        "a figure that needs a class which is absent is -",
        *("configuration", "n\n(viol.)", *(title for _, title in _FIGURES)),
    )
    for file in files:
        if len(file["groups"]) > 1:
            _fill(table, file["file"], {k: _cells(row) for k, row in file["groups"].items()})
    return table


def _pairs(files: list[dict[str, Any]]) -> Table:
    table = _table(
        "Preference pairs",
        "share of pairs whose chosen reply has the larger reward; mean gap in log-odds",
        *("system", "n", "accuracy", "gap"),
    )
    for file in files:
        rows = {
            name: (str(row["n"]), interval(row["accuracy"]), interval(row["gap"]))
            for name, row in file["pairs"].items()
        }
        _fill(table, file["file"], rows)
    return table


def _sensitivity(files: list[dict[str, Any]]) -> Table:
    table = _table(
        "Config sensitivity: share judged a violation",
        "the row's categories forbidden, omitted, allowed; the other rules are the same",
        *("rows", "n", *_SENSITIVITY),
    )
    for file in files:
        rows = {
            kind: (str(row["n"]), *(interval(row[group]) for group in _SENSITIVITY))
            for kind, row in file["sensitivity"].items()
        }
        _fill(table, file["file"], rows)
    return table


def _cells(row: Mapping[str, Any]) -> list[str]:
    counts = f"{row['n']}\n({row['n_violation']})"
    return [counts, *(interval(row[name]) for name, _ in _FIGURES)]


def interval(
    figure: Mapping[str, float | None], bounds: Callable[[float, float], str] | None = None
) -> str:
    """A figure with three decimals, then `bounds(low, high)` (default: a short second line).

    - for an undefined figure; no bounds where the interval is undefined.
    """
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return "-"
    if low is None or high is None:
        return f"{value:.3f}"
    shown = f"\n{_short(low)} {_short(high)}" if bounds is None else bounds(low, high)
    return f"{value:.3f}{shown}"


def _short(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


def plots(files: list[dict[str, Any]]) -> dict[str, Any]:
    """matplotlib figures by name: `<file>.reliability` of each file, and `sensitivity` of all.

    Errors: ImportError when matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figures: dict[str, Any] = {}
    for file in files:
        if file["reliability"] is not None and None not in file["reliability"]["predicted"]:
            figure = Figure(figsize=(4.2, 4.2), layout="constrained")
            _draw_reliability(figure.subplots(), file)
            figures[f"{file['file']}.reliability"] = figure
    sensitive = [file for file in files if file["sensitivity"]]
    if sensitive:
        figure = Figure(figsize=(1.5 + 2.6 * len(sensitive), 3.6), layout="constrained")
        _draw_sensitivity(figure.subplots(1, len(sensitive), squeeze=False)[0], sensitive)
        figures["sensitivity"] = figure
    return figures


def _draw_reliability(axes: Any, file: Mapping[str, Any]) -> None:
    model = file["systems"]["model"]
    bins = file["reliability"]
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.plot(bins["predicted"], bins["observed"], marker="o", markersize=4, linewidth=1)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
        xlabel="predicted P(violation), equal-mass bins",
        ylabel="observed violation rate",
        title=f"{file['file']}\nn = {model['n']}, smECE {model['smooth_ece']['value']:.3f}",
    )


def _draw_sensitivity(all_axes: Any, files: list[dict[str, Any]]) -> None:
    for axes, file in zip(all_axes, files, strict=True):
        kinds = list(file["sensitivity"])
        for index, kind in enumerate(kinds):
            row = file["sensitivity"][kind]
            at = [group + (index - (len(kinds) - 1) / 2) * 0.4 for group in range(3)]
            values = [row[group]["value"] for group in _SENSITIVITY]
            spread = [
                [row[group]["value"] - row[group]["low"] for group in _SENSITIVITY],
                [row[group]["high"] - row[group]["value"] for group in _SENSITIVITY],
            ]
            label = f"{kind} rows (n = {row['n']})"
            axes.bar(at, values, width=0.38, yerr=spread, capsize=2, label=label)
        axes.set_xticks(range(3), _SENSITIVITY)
        axes.set(ylim=(0, 1.05), title=file["file"])
        axes.legend(fontsize=7)
    all_axes[0].set_ylabel("share judged a violation")
