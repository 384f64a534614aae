"""Limits of csrm.serve: bodies, nesting, turns, batches, tokens, time; which files are configs."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import toy
from serve_client import (
    CHAT,
    RunningApp,
    code,
    config_text,
    httpx,
    options_for,
    raw_call,
    serve_artifact,
    shared_app,
    wait_for,
    write_configs,
)

from csrm.config import SafetyConfig
from csrm.errors import BadArgument, BadConfig
from csrm.serve import Limits
from csrm.serve.body import parse_object
from csrm.serve.configs import default_of, read_files

fixtures = (serve_artifact, shared_app)  # made known to pytest here


def test_client_slow_body_is_408(serve_artifact: Path, tmp_path: Path) -> None:
    configs = write_configs(tmp_path / "configs")
    with RunningApp(options_for(serve_artifact, configs, body_timeout_s=0.05)).ready() as app:
        part = {"type": "http.request", "body": b"{", "more_body": True}
        sent = app.run(raw_call(app.app, [part]))
        assert sent[0]["status"] == 408


@pytest.mark.parametrize(
    ("content", "status", "kind"),
    [
        (b"", 400, "BadJson"),
        (b"[]", 400, "BadJson"),
        (b'{"messages": NaN}', 400, "BadJson"),
        (b'{"messages": [], "messages": []}', 400, "BadJson"),
        (b'{"messages": 1' + b"0" * 5000 + b"}", 400, "BadJson"),
        (b'{"messages": "\xff"}', 400, "BadUtf8"),
        (b'{"messages": ' + b"[" * 33 + b"]" * 33 + b"}", 413, "LimitExceeded"),
        (b'{"messages": ' + b"[" * 250_000 + b"]" * 250_000 + b"}", 413, "LimitExceeded"),
        (b'{"messages": "' + b"a" * (1 << 20) + b'"}', 413, "BodyTooLarge"),
    ],
    ids=range(9),
)
def test_limits_bad_bodies_are_typed(
    shared_app: RunningApp, content: bytes, status: int, kind: str
) -> None:
    assert code(shared_app.ask("POST", "/v1/score", content=content)) == (status, kind)


def test_limits_body_without_a_length_is_bounded(shared_app: RunningApp) -> None:
    async def parts() -> Any:
        for _ in range(40):
            yield b" " * (1 << 16)

    async def send() -> httpx.Response:
        return await shared_app.send("POST", "/v1/score", content=parts())

    assert code(shared_app.run(send())) == (413, "BodyTooLarge")


def test_limits_turns_batch_and_encoding(shared_app: RunningApp) -> None:
    limits = Limits()
    many = [{"role": "user", "content": "a"}] * (limits.max_turns + 1)
    assert code(shared_app.post("/v1/score", {"messages": many})) == (413, "LimitExceeded")
    assert shared_app.post("/v1/score", {"messages": many[1:]}).status_code == 200
    batch = {"conversations": [CHAT] * (limits.max_batch + 1)}
    assert code(shared_app.post("/v1/score", batch)) == (413, "LimitExceeded")
    body = gzip.compress(json.dumps({"messages": CHAT}).encode())
    headers = {"content-encoding": "gzip"}
    found = shared_app.ask("POST", "/v1/score", content=body, headers=headers)
    assert code(found) == (415, "UnsupportedEncoding")


def test_limits_tokens_of_the_model_are_413(shared_app: RunningApp) -> None:
    long = [{"role": "user", "content": toy.letters(40_000)}]
    assert code(shared_app.post("/v1/score", {"messages": long})) == (413, "LimitExceeded")


def test_limits_long_bodies_are_parsed_off_the_event_loop(
    shared_app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def noted(*given: Any, **named: Any) -> Any:
        threads.append(threading.current_thread())
        return parse_object(*given, **named)

    monkeypatch.setattr("csrm.serve.endpoint.parse_object", noted)
    put = SafetyConfig.parse
    monkeypatch.setattr(
        SafetyConfig,
        "parse",
        lambda *given: (threads.append(threading.current_thread()), put(*given))[1],
    )
    assert shared_app.post("/v1/score", {"messages": [{}] * 40_000}).status_code == 413
    assert shared_app.post("/v1/score", {"messages": CHAT}).status_code == 200
    assert shared_app.ask("PUT", "/v1/configs/new", json={"rules": ["a"]}).status_code == 201
    assert shared_app.ask("DELETE", "/v1/configs/new").status_code == 204
    long, short, config = threads
    assert long is not short
    assert config is not short


def test_limits_in_flight_is_429(serve_artifact: Path, tmp_path: Path) -> None:
    options = options_for(serve_artifact, write_configs(tmp_path / "c"), max_in_flight=1)
    with RunningApp(options).ready() as app:
        path = "/configs/lenient/v1/score"
        assert app.post(path, {"messages": CHAT}).status_code == 200
        waiting = app.start(
            raw_call(app.app, [{"type": "http.request", "more_body": True}], path=path)
        )
        wait_for(lambda: app.service.n_in_flight == 1)
        assert code(app.post(path, {"messages": CHAT})) == (429, "Overloaded")
        waiting.cancel()
        wait_for(lambda: app.service.n_in_flight == 0)
        assert app.post(path, {"messages": CHAT}).status_code == 200


def test_configs_folder_reads_config_files_only(tmp_path: Path) -> None:
    folder = write_configs(tmp_path / "c")
    (folder / "README.md").write_text("# About\n\nText.\n")
    (folder / "examples.jsonl").write_text("{}\n")
    (folder / ".hidden.yaml").write_text("rules: [a]")
    (folder / "plain.md").write_text("- Never a b c.\n")
    found = read_files(folder, 10)
    assert set(found) == {"lenient", "strict", "plain"}
    assert default_of(found, "plain") == "plain"
    assert default_of(found, "") == ""
    assert default_of({"plain": found["plain"]}, "") == "plain"
    with pytest.raises(BadArgument):
        default_of(found, "absent")
    with pytest.raises(BadArgument):
        read_files(folder, 2)
    (folder / "twice.yaml").write_text(config_text("strict", 0.5))
    with pytest.raises(BadConfig, match="same id"):
        read_files(folder, 10)
