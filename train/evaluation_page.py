"""The result of an evaluation as one self-contained HTML page: tables, intervals and plots.

Computes no figures: it shows the dictionary that `csrm.train.evaluate` builds. Pictures are inside
the page, nothing is loaded from anywhere and there is no script; without matplotlib the page has no
pictures and says so. Names of files and of systems are escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from csrm.errors import BadArgument
from csrm.train.evaluation_report import interval, plots

_FIGURES = (
    ("f1_violation", "F1 violation"),
    ("f1_compliant", "F1 compliant"),
    ("auprc", "AUPRC"),
    ("auroc", "AUROC"),
    ("accuracy", "accuracy"),
    ("brier", "Brier"),
    ("ece", "ECE"),
    ("smooth_ece", "smECE"),
)
_GROUPS = ("forbid", "omit", "allow")
_NOTE = (
    "Violation is the positive class of AUPRC and AUROC. Small numbers: 95 % bootstrap intervals"
    " over records. empty_config and shuffled_config are the same model made blind to the config;"
    " all_compliant and all_violation need no model."
)


def write_page(result: Mapping[str, Any], path: Path) -> None:
    """Writes the page of `result`. Errors: BadArgument when the folder cannot be written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(result), encoding="utf-8")
    except OSError as error:
        raise BadArgument(
            f"cannot write '{path.name}': {error.strerror}; name a writable folder"
        ) from error


def page(result: Mapping[str, Any]) -> str:
    """The page as text."""
    files = result["files"]
    try:
        pictures = {name: _png(figure) for name, figure in plots(files).items()}
        missing = ""
    except ImportError:
        pictures, missing = {}, "<p>No plots: matplotlib is not installed.</p>"
    facts = [
        ("model", str(result.get("artifact", "-"))),
        ("set", str(result.get("set") or "documented records")),
        ("records of each file", str(result.get("limit") or "all")),
        ("seed", str(result["seed"])),
        *((name, f"sha256 {digest}") for name, digest in result.get("data", {}).items()),
    ]
    body = [
        "<h1>Evaluation</h1>",
        _table(("", ""), facts),
        f"<p>{_NOTE}</p>{missing}",
        *(_section(file, pictures) for file in files),
    ]
    if "sensitivity" in pictures:
        body += ["<h2>Config sensitivity</h2>", pictures["sensitivity"]]
    return _PAGE.format(body="\n".join(body))


def _section(file: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    unknown = sum(file["n_unknown"].values())
    parts = [
        f"<h2>{escape(file['file'])}</h2>",
        f"<p>{file['n_records']} records, {file['n_cases']} cases, {file['n_skipped']} records"
        f" without a labelled case, {unknown} scorings failed and left out</p>",
    ]
    head = ("n (violations)", *(title for _, title in _FIGURES))
    for title, rows in (("system", file["systems"]), ("configuration", file["groups"])):
        if rows and not (title == "configuration" and len(rows) < 2):
            cells = [(name, *_cells(row)) for name, row in rows.items()]
            parts.append(_table((title, *head), cells))
    if file["pairs"]:
        cells = [
            (name, str(row["n"]), _interval(row["accuracy"]), _interval(row["gap"]))
            for name, row in file["pairs"].items()
        ]
        parts.append(_table(("pairs by", "n", "accuracy", "gap (log-odds)"), cells))
    if file["sensitivity"]:
        cells = [
            (kind, str(row["n"]), *(_interval(row[group]) for group in _GROUPS))
            for kind, row in file["sensitivity"].items()
        ]
        parts.append(_table(("share judged a violation", "n", *_GROUPS), cells))
    parts.append(pictures.get(f"{file['file']}.reliability", ""))
    return "\n".join(parts)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (f"{row['n']} ({row['n_violation']})", *(_interval(row[name]) for name, _ in _FIGURES))


def _interval(figure: Mapping[str, float | None]) -> str:
    return interval(figure, lambda low, high: f"\n{low:.3f} to {high:.3f}")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells of one line or two; the second line is set small."""
    lines = ["<table>"]
    if any(head):
        lines.append("<tr>" + "".join(f"<th>{escape(title)}</th>" for title in head) + "</tr>")
    for row in rows:
        cells = []
        for cell in row:
            value, _, small = cell.partition("\n")
            added = f"<small>{escape(small)}</small>" if small else ""
            cells.append(f"<td>{escape(value)}{added}</td>")
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "\n".join([*lines, "</table>"])


def _png(figure: Any) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<img alt="" src="data:image/png;base64,{data}">'


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>csrm evaluation</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem;
  padding: 0 1rem }}
table {{ border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left;
  vertical-align: top }}
th {{ font-weight: 600 }}
small {{ display: block; color: #666 }}
img {{ max-width: 100% }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
