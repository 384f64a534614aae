"""The fail-closed table: every kind of failure, provoked where it arises, at every endpoint.

Not: the checks (test_serve_fail_closed.py) or good answers. Run as a script it prints
docs/fail-closed.md with what each endpoint answered just now, by the real application on the toy
artifact.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import serve_client  # noqa: F401  (skips what imports this without csrm[serve])
import toy
from fail_closed_surfaces import (
    BLOCKED,
    COLUMNS,
    GATEWAYS,
    LET_BY,
    NONE,
    SURFACES,
    Ask,
    Bench,
    Surface,
    is_let_by,
)
from fail_closed_ways import WAYS, Way

from csrm.serve.failures import STATUSES, Failure

DOCUMENT = Path(__file__).parents[2] / "docs" / "fail-closed.md"


def provoke(bench: Bench, way: Way, surface: Surface, *, app: str = "") -> str | None:
    """The cell of `way` at `surface`; None where it cannot arise."""
    with pytest.MonkeyPatch.context() as patch:
        return way.ask(Ask(getattr(bench, app or way.app), surface, patch))


def table(bench: Bench) -> dict[str, dict[str, str]]:
    """Kind -> column -> cell, the last column being that of fail mode open. Errors: ValueError
    when endpoints of one column differ.
    """
    found: dict[str, dict[str, str]] = {}
    for way in WAYS:
        row = found.setdefault(way.kind, dict.fromkeys([*COLUMNS.values(), "open"], NONE))
        for surface in SURFACES:
            got = provoke(bench, way, surface)
            if got is None:
                continue
            if row[surface.column] not in (NONE, got):
                raise ValueError(
                    f"{way.kind}, {way.where}, {surface}: {got}, {row[surface.column]}"
                )
            row[surface.column] = got
            if surface.column in GATEWAYS and way.app == "plain":
                by = provoke(bench, way, surface, app="open") or ""
                row["open"] = LET_BY if is_let_by(surface, by) else BLOCKED
            elif surface.column in GATEWAYS:
                row["open"] = LET_BY if Failure(way.kind, "").is_ours else BLOCKED
    return found


def cells_of(document: str) -> dict[str, dict[str, str]]:
    """The same out of the text of docs/fail-closed.md."""
    rows = [
        [part.strip() for part in line.strip().strip("|").split("|")]
        for line in document.splitlines()
        if line.startswith("|")
    ]
    columns = list(dict.fromkeys(COLUMNS.values()))
    return {
        row[0].strip("`"): dict(zip([*columns, "open"], row[2:], strict=True)) for row in rows[2:]
    }


_HEAD = """# Fail closed: what every failure looks like from outside

A failure is never a verdict. Below, every kind of failure is provoked at every endpoint of the
real application: by a request that causes it, or, for failures of the engine, by a stand-in for
the native queue that refuses the conversation or answers with the error. A cell is the status and
what the caller reads in it: `unknown` is `"verdict": "unknown", "flagged": true`; `BLOCKED`,
`reject`, `false` and `denied` are the gateways' own words for "do not pass". {none} means that this
kind cannot arise there. The last column is what a gateway is told with `--fail-mode open`.

Not in the table: bytes that are no HTTP get 400 from the HTTP library; a client that has gone gets
nothing, and what it queued is withdrawn. Written by `python tests/python/fail_closed_table.py`;
`tests/python/test_serve_fail_closed.py` checks every cell.
"""


def document(found: dict[str, dict[str, str]]) -> str:
    """The text of docs/fail-closed.md."""
    columns = list(dict.fromkeys(COLUMNS.values()))
    lines = [_HEAD.format(none=NONE)]
    lines.append("| kind | arises at | " + " | ".join([*columns, "fail mode open"]) + " |")
    lines.append("|" + "---|" * (len(columns) + 3))
    for kind in STATUSES:
        places = [way.where for way in WAYS if way.kind == kind]
        if kind == "Internal":
            places = ["the engine", "anything unforeseen"]
        cells = [found[kind][column] for column in [*columns, "open"]]
        lines.append(f"| `{kind}` | {'; '.join(places)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@contextmanager
def benched() -> Iterator[Bench]:
    """A Bench on a toy artifact of its own."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        artifact = toy.make_toy_model.write_toy_artifact(place / "artifact")
        bench = Bench(place, artifact)
        try:
            yield bench
        finally:
            bench.close()


if __name__ == "__main__":
    with benched() as made:
        sys.stdout.write(document(table(made)))
