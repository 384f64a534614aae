"""The routes of the playground, when they are there, and POST /v1/configs/check.

Not: what the page does in a browser (tests/integrations/test_page.py).
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from serve_client import (
    CHAT,
    RULES,
    RunningApp,
    code,
    config_text,
    options_for,
    serve_artifact,
    shared_app,
    wait_for,
    write_configs,
)

import csrm
from csrm import config_formats
from csrm.serve import Service, create_app
from csrm.serve.playground import FOLDER

fixtures = (serve_artifact, shared_app)  # made known to pytest here

CHECK = "/v1/configs/check"
KEY = "key-of-somebody-0001"
TEXTS = {
    "yaml": "version: '7'\nthreshold: 0.25\nrules:\n- {name: First, text: a b c d}\n- e f g\n",
    "text": "# Title\n\n- Never a b c.\n- Never d e f.\n",
    "numbered": "1. Never a b c.\n2. Never d e f.\n",
    "llamaguard": "S1: First. Never a b c.\nS2: Second. Never d e f.\n",
}


def paths_of(service: Service) -> set[str]:
    return {getattr(route, "path", "") for route in create_app(service).routes}


def test_page_index_has_headers_that_bind_it_to_its_server(shared_app: RunningApp) -> None:
    found = shared_app.ask("GET", "/")
    assert found.status_code == 200
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    policy = found.headers["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'self'"
    assert "frame-ancestors 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert not any("unsafe" in part or ":" in part for part in policy)
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["referrer-policy"] == "no-referrer"


def test_page_every_file_it_names_is_there(shared_app: RunningApp) -> None:
    named = set(re.findall(r'(?:src|href)="(page/[^"]+)"', shared_app.ask("GET", "/").text))
    for script in FOLDER.glob("*.js"):
        named |= {f"page/{name}" for name in re.findall(r'from "\./([^"]+)"', script.read_text())}
    assert named == {f"page/{path.name}" for path in FOLDER.iterdir() if path.suffix != ".html"}
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    for path in named:
        found = shared_app.ask("GET", f"/{path}")
        assert found.status_code == 200
        assert found.headers["content-type"].startswith(kinds[Path(path).suffix])
        assert "content-security-policy" in found.headers


def test_page_unchanged_file_is_not_sent_again(shared_app: RunningApp) -> None:
    first = shared_app.ask("GET", "/")
    again = shared_app.ask("GET", "/", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert shared_app.ask("GET", "/", headers={"if-none-match": '"x"'}).content == first.content


@pytest.mark.parametrize(
    "path",
    ["/page/", "/page/index.html", "/page/none.js", "/page/../app.py", "/page/%2e%2e/app.py"],
)
def test_page_other_path_is_404(shared_app: RunningApp, path: str) -> None:
    assert code(shared_app.ask("GET", path)) == (404, "NotFound")


def test_page_other_method_is_405(shared_app: RunningApp) -> None:
    assert code(shared_app.ask("POST", "/", json={"messages": CHAT})) == (405, "MethodNotAllowed")
    assert shared_app.ask("HEAD", "/").status_code == 200


@pytest.mark.parametrize(
    ("page", "keys", "expected"),
    [
        (None, "", True),
        (None, f"somebody={KEY}", False),
        (True, f"somebody={KEY}", True),
        (False, "", False),
    ],
)
def test_page_is_there_without_keys_or_when_wanted(
    serve_artifact: Path, tmp_path: Path, page: bool | None, keys: str, expected: bool
) -> None:
    options = options_for(serve_artifact, write_configs(tmp_path / "of"), page=page)
    service = Service(options, {"CSRM_API_KEYS": keys})
    assert ("/" in paths_of(service)) == expected
    assert any(path.startswith("/page/") for path in paths_of(service)) == expected


def test_page_switched_off_is_404(serve_artifact: Path, tmp_path: Path) -> None:
    options = options_for(serve_artifact, write_configs(tmp_path / "of"), page=False)
    with RunningApp(options) as app:
        for path in ("/", "/page/main.js"):
            assert code(app.ask("GET", path)) == (404, "NotFound")


@pytest.mark.parametrize("format", TEXTS)
def test_check_reads_each_format_and_stores_nothing(shared_app: RunningApp, format: str) -> None:
    before = shared_app.ask("GET", "/v1/configs").json()["configs"]
    headers = {"content-type": "text/plain"}
    found = shared_app.ask("POST", CHECK, content=TEXTS[format], headers=headers)
    assert found.status_code == 200
    answer, expected = found.json(), csrm.SafetyConfig.parse(TEXTS[format])
    assert (answer["format"], answer["digest"]) == (format, expected.digest())
    assert (answer["threshold"], answer["version"]) == (expected.threshold, expected.version)
    assert answer["n_rules"] == len(answer["rules"]) == 2
    scored = shared_app.post("/v1/score", {"messages": CHAT, "rules": answer["rules"]}).json()
    assert scored["config_digest"] == answer["digest"]
    assert shared_app.ask("GET", "/v1/configs").json()["configs"] == before


def test_check_leaves_the_id_check_to_configs(shared_app: RunningApp) -> None:
    """A config may be called check: only POST is the other endpoint."""
    assert code(shared_app.ask("GET", CHECK)) == (404, "UnknownConfig")
    assert shared_app.ask("PUT", CHECK, json={"rules": RULES}).status_code == 201
    assert shared_app.ask("GET", CHECK).json()["id"] == "check"
    assert shared_app.ask("DELETE", CHECK).status_code == 204


@pytest.mark.parametrize(
    ("text", "status", "kind"),
    [
        ("", 422, "EmptyConfig"),
        ("rules: 7", 422, "BadConfig"),
        ("rules: [a, &x b]", 422, "BadConfig"),
        ("id: 'a b'\nrules: [a b c]", 422, "BadConfig"),
        (b"\xff", 400, "BadUtf8"),
    ],
)
def test_check_bad_text_has_a_typed_error(
    shared_app: RunningApp, text: str | bytes, status: int, kind: str
) -> None:
    found = shared_app.ask("POST", CHECK, content=text, headers={"content-type": "text/plain"})
    assert code(found) == (status, kind)
    assert found.json()["verdict"] == "unknown"


def test_check_says_the_line(shared_app: RunningApp) -> None:
    text = "rules:\n- a b c\n- {txt: d}\n"
    found = shared_app.ask("POST", CHECK, content=text, headers={"content-type": "text/plain"})
    assert found.json()["error"]["message"].startswith("line 3, column 4: ")


def test_check_is_refused_where_rules_of_requests_are(serve_artifact: Path, tmp_path: Path) -> None:
    configs = write_configs(tmp_path / "of")
    given: list[dict[str, Any]] = [{"inline_configs": False}, {}]
    for options, keys, status in ((given[0], "", 403), (given[1], f"somebody={KEY}", 401)):
        service = options_for(serve_artifact, configs, **options)
        with RunningApp(service, {"CSRM_API_KEYS": keys}) as app:
            assert app.ready().post(CHECK, {"rules": RULES}).status_code == status


def test_check_beyond_the_deadline_is_a_failure(
    shared_app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that takes long to read holds up neither other requests nor its own deadline."""
    parse, go = config_formats.parse, threading.Event()

    def slow(text: str, format: str | None = None) -> config_formats.ConfigFields:
        go.wait(30)
        return parse(text, format)

    monkeypatch.setattr(config_formats, "parse", slow)
    try:
        late = shared_app.start(
            shared_app.send(
                "POST", CHECK, json={"rules": RULES}, headers={"x-csrm-deadline-ms": "200"}
            )
        )
        assert shared_app.post("/v1/score", {"messages": CHAT}).status_code == 200
        wait_for(late.done)
        assert code(late.result()) == (504, "DeadlineExceeded")
    finally:
        go.set()
    assert shared_app.post(CHECK, {"rules": RULES}).status_code == 200


def test_detect_ignores_byte_order_mark_and_line_ends() -> None:
    text = config_text("a", 0.5)
    assert config_formats.detect("\ufeff" + text) == "yaml"
    assert config_formats.detect("# T\rrules: [a]\r") == "yaml"
