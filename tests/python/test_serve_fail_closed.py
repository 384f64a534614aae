"""Every kind of failure at every endpoint is "unknown" and blocks; docs/fail-closed.md says how."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import serve_client  # noqa: F401  (skips this file without csrm[serve])
from fail_closed_surfaces import (
    COLUMNS,
    GATEWAYS,
    LET_BY,
    MESSAGE,
    NONE,
    PINNABLE,
    SURFACES,
    Bench,
    Surface,
    cell,
    is_let_by,
)
from fail_closed_table import DOCUMENT, cells_of, provoke
from fail_closed_ways import WAYS, Way
from serve_client import raw_call, serve_artifact

from csrm.serve.admission import Admission
from csrm.serve.failures import STATUSES, Failure
from csrm.serve.routes import ROWS

fixtures = (serve_artifact,)  # made known to pytest here

SAFE = {
    "LiteLLM": "200 BLOCKED",
    "agentgateway": "200 reject",
    "Portkey": "200 false",
    "ext_authz": "403 denied",
}
SETUP = {"Unauthorized": 401, "Forbidden": 403, "UnknownConfig": 404}


def name_of(surface: Surface) -> str:
    return surface.name


@pytest.fixture(scope="module")
def bench(serve_artifact: Path) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as folder:
        made = Bench(Path(folder), serve_artifact)
        yield made
        made.close()


@pytest.fixture(scope="module")
def written() -> dict[str, dict[str, str]]:
    return cells_of(DOCUMENT.read_text())


def facts(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """The log line of the newest request."""
    lines = [record for record in caplog.records if record.msg == "request"]
    return dict(vars(lines[-1])["csrm"])


@pytest.mark.parametrize("surface", SURFACES, ids=name_of)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.kind}, {way.where}")
def test_fail_closed_every_failure_blocks_as_the_table_says(
    bench: Bench,
    written: dict[str, dict[str, str]],
    caplog: pytest.LogCaptureFixture,
    way: Way,
    surface: Surface,
) -> None:
    caplog.set_level(logging.INFO, logger="csrm.serve")
    paths = [surface, surface.at("/configs/lenient")] if surface.name in PINNABLE else [surface]
    for at in paths:
        caplog.clear()
        got = provoke(bench, way, at)
        if got is None:
            continue
        assert got == written[way.kind][surface.column]
        line = facts(caplog)
        assert line["outcome"] == way.kind or line["failures"] == {way.kind: 1}
        assert line.get("verdicts", {"unknown": 1}).keys() == {"unknown"}
        assert MESSAGE not in caplog.text


@pytest.mark.parametrize("kind", STATUSES)
def test_fail_closed_document_says_nothing_unsafe(
    written: dict[str, dict[str, str]], kind: str
) -> None:
    cells, status = written[kind], STATUSES[kind]
    for column, found in cells.items():
        if found == NONE or column == "open":
            continue
        if column == "LiteLLM" and kind in SETUP:
            assert found == f"{SETUP[kind]} BLOCKED"
        elif column in SAFE:
            assert found == SAFE[column]
        elif column == COLUMNS["stream"]:
            assert found.startswith("unknown, closed ")
        else:
            assert found == f"{status} unknown"
    assert set(cells.values()) != {NONE}


@pytest.mark.parametrize(
    "surface", [one for one in SURFACES if one.column in GATEWAYS], ids=name_of
)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.kind}, {way.where}")
def test_fail_closed_mode_open_lets_by_what_the_table_says(
    bench: Bench, written: dict[str, dict[str, str]], way: Way, surface: Surface
) -> None:
    if way.app != "plain":
        return
    got = provoke(bench, way, surface, app="open")
    if got is not None:
        assert is_let_by(surface, got) is (written[way.kind]["open"] == LET_BY)
        assert is_let_by(surface, got) is Failure(way.kind, "").is_ours


def test_fail_closed_table_is_whole(written: dict[str, dict[str, str]]) -> None:
    assert {way.kind for way in WAYS} == set(STATUSES) == set(written)
    assert {row.endpoint.name for row in ROWS} | {"stream"} == set(COLUMNS)
    assert {surface.name for surface in SURFACES} == set(COLUMNS)


@pytest.mark.parametrize("surface", SURFACES[:-1], ids=name_of)
def test_fail_closed_other_methods_and_slashes_are_no_redirect(
    bench: Bench, surface: Surface
) -> None:
    wrong = bench.plain.ask("TRACE", surface.path)
    assert (wrong.status_code, wrong.json()["verdict"]) == (405, "unknown")
    if surface.name in ("ext_authz", "config", "put_config", "delete_config"):
        return  # the rest of its path is its own
    slash = bench.plain.ask(surface.method, f"{surface.path}/", json=surface.body)
    assert (slash.status_code, slash.json()["verdict"]) == (404, "unknown")


@pytest.mark.parametrize(
    "surface", [one for one in SURFACES if one.column in GATEWAYS], ids=name_of
)
def test_fail_closed_mode_open_no_time_stated_by_the_request_is_no_way_around(
    bench: Bench, surface: Surface
) -> None:
    headers = {"x-csrm-deadline-ms": "0.001"}
    found = bench.open.ask(surface.method, surface.path, json=surface.body, headers=headers)
    # Envoy's and agentgateway's headers are those of someone else, and are not read.
    is_read = surface.column in ("LiteLLM", "Portkey")
    assert is_let_by(surface, cell(surface, found)) is not is_read


@pytest.mark.parametrize(
    "surface", [one for one in SURFACES if one.column in GATEWAYS], ids=name_of
)
def test_fail_closed_mode_open_padding_is_no_way_around(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, surface: Surface
) -> None:
    """A body so long that it alone would be late is not let by as if the server were overloaded."""
    admission = Admission(1)
    monkeypatch.setattr(admission, "_busy", {surface.name: (1.0, 10_000.0)})
    admission.begin(surface.name, 50_000, float("inf"))
    monkeypatch.setattr(bench.open.service, "admission", admission)
    padded = json.dumps(surface.body) + " " * 500_000
    found = bench.open.ask(surface.method, surface.path, content=padded)
    assert not is_let_by(surface, cell(surface, found))
    monkeypatch.setattr(admission, "_busy", {surface.name: (1e9, 1.0)})
    found = bench.open.ask(surface.method, surface.path, json=surface.body)
    assert is_let_by(surface, cell(surface, found))


def test_fail_closed_mode_open_slow_body_is_no_way_around(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (surface,) = [one for one in SURFACES if one.name == "litellm"]
    service = bench.open.service
    monkeypatch.setattr(service, "options", replace(service.options, deadline_s=0.2))
    late = time.monotonic() + 0.3
    parts = [
        {"type": "http.request", "body": b"", "more_body": True},
        {"type": "http.request", "body": json.dumps(surface.body).encode()},
    ]
    work = raw_call(bench.open.app, parts, lambda: time.monotonic() > late, surface.path)
    sent = bench.open.run(work)
    assert json.loads(sent[1]["body"])["action"] == "BLOCKED"
