"""No text of a request gets into a log line, a metric or an error's body, whatever goes wrong.

CASES are written by hand and all fail; those of canaries.py put a canary in every place there is.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import canaries  # skips this file without csrm[serve]
import pytest
from canaries import Canaried
from serve_client import (
    CHAT,
    WAIT_S,
    RunningApp,
    exchange,
    options_for,
    serve_artifact,
    shared_app,
    write_configs,
)

from csrm import errors
from csrm.scheduler import Scheduler
from csrm.serve.logs import JsonFormatter
from csrm.serve.routes import ROWS

fixtures = (serve_artifact, shared_app)  # made known to pytest here

CANARY = "qxcanary"
TURN = {"role": "user", "content": f"{CANARY} z"}
LITELLM = "/beta/litellm_basic_guardrail_api"

# Every one of these fails. (method, path, JSON or bytes, headers)
CASES: list[tuple[str, str, Any, dict[str, str]]] = [
    ("POST", "/v1/score", {"messages": [TURN]}, {}),
    ("POST", "/v1/score", {"messages": [TURN, {"role": CANARY, "content": "a"}]}, {}),
    ("POST", "/v1/score", {"messages": [{"role": "user", "content": [CANARY]}]}, {}),
    ("POST", "/v1/score", {"messages": [{"role": "user", "content": [{"type": CANARY}]}]}, {}),
    ("POST", "/v1/score", {"messages": [{CANARY: CANARY}]}, {}),
    ("POST", "/v1/score", {"messages": CANARY}, {}),
    ("POST", "/v1/score", {"messages": [TURN], CANARY: 1}, {}),
    ("POST", "/v1/score", {"messages": [TURN], "config": CANARY}, {}),
    ("POST", "/v1/score", {"messages": [TURN], "judged": CANARY}, {}),
    ("POST", "/v1/score", {"messages": [TURN], "threshold": CANARY}, {}),
    ("POST", "/v1/score", {"messages": [TURN], "deadline_ms": CANARY}, {}),
    ("POST", "/v1/score", {"messages": [TURN], "rules": [{"text": CANARY, CANARY: 1}]}, {}),
    ("POST", "/v1/score", {"messages": [TURN], "rules": [{"name": CANARY, "text": ""}]}, {}),
    ("POST", "/v1/score", {"messages": [TURN], "rules": [CANARY]}, {}),
    ("POST", "/v1/score", {"conversations": [[TURN], CANARY]}, {}),
    ("POST", "/v1/score", {"messages": [TURN], "deadline_ms": 0.0001}, {}),
    ("POST", "/v1/score", {"messages": CHAT}, {"x-csrm-config": CANARY}),
    ("POST", "/v1/score", {"messages": CHAT}, {"x-csrm-deadline-ms": CANARY}),
    ("POST", "/v1/score", {"messages": CHAT}, {"content-encoding": CANARY}),
    ("POST", "/v1/score", {"messages": [TURN]}, {"traceparent": f"00-{CANARY}-00-00"}),
    ("POST", "/v1/score", f'{{"messages": "{CANARY}'.encode(), {}),
    ("POST", "/v1/score", f'{{"{CANARY}": 1, "{CANARY}": 1}}'.encode(), {}),
    ("POST", "/v1/score", f'{{"messages": "{CANARY}\ud800"}}'.encode("utf-8", "surrogatepass"), {}),
    (
        "POST",
        "/v1/score",
        f'{{"messages": [{{"role": "user", "content": "{CANARY}'.encode() + b'\\ud800"}]}',
        {},
    ),
    ("POST", f"/configs/{CANARY}/v1/score", {"messages": CHAT}, {}),
    ("POST", f"/{CANARY}?{CANARY}={CANARY}", {"messages": CHAT}, {}),
    ("PATCH", f"/v1/configs/{CANARY}", {}, {}),
    ("GET", f"/v1/configs/{CANARY}", None, {}),
    ("DELETE", f"/v1/configs/{CANARY}", None, {}),
    ("POST", "/v1/configs/check", {"rules": [{"text": CANARY, CANARY: CANARY}]}, {}),
    ("POST", "/v1/configs/check", f"S1: {CANARY}.\nS1: {CANARY}.".encode(), {}),
    ("PUT", "/v1/configs/mine", {"rules": [{"text": CANARY, CANARY: CANARY}]}, {}),
    ("PUT", "/v1/configs/mine", {"rules": [CANARY], "threshold": CANARY}, {}),
    ("PUT", "/v1/configs/mine", {"rules": [CANARY], "id": f"{CANARY} {CANARY}"}, {}),
    ("PUT", f"/v1/configs/-{CANARY}", {"rules": [CANARY]}, {}),
    (
        "PUT",
        "/v1/configs/mine",
        f"rules: [{CANARY}, &{CANARY}".encode(),
        {"content-type": "text/yaml"},
    ),
    ("PUT", "/v1/configs/mine", f"S1: {CANARY}.\nS1: {CANARY}.".encode(), {}),
    ("POST", "/v1/moderations", {"input": CANARY + " z", "model": "lenient"}, {}),
    ("POST", "/v1/moderations", {"input": [TURN["content"]], "model": CANARY}, {}),
    ("POST", "/v1/moderations", {"input": {CANARY: CANARY}}, {}),
    ("POST", "/v1/moderations", {"input": "a"}, {"x-csrm-role": CANARY}),
    ("POST", LITELLM, {"input_type": "request", "texts": [TURN["content"]]}, {}),
    ("POST", LITELLM, {"input_type": CANARY, "texts": [CANARY]}, {}),
    ("POST", LITELLM, {"input_type": "request", "structured_messages": [{CANARY: 1}]}, {}),
    ("POST", LITELLM, {"input_type": "response", "tool_calls": CANARY}, {}),
    (
        "POST",
        LITELLM,
        {
            "input_type": "request",
            "texts": ["a"],
            "additional_provider_specific_params": {"config_id": CANARY},
        },
        {},
    ),
    ("POST", LITELLM, {"input_type": "request", "texts": ["a"], "images": [CANARY]}, {}),
    ("POST", f"/ext_authz/{CANARY}", {"messages": [TURN]}, {}),
    ("POST", f"/ext_authz/{CANARY}", {CANARY: CANARY}, {"authorization": f"Bearer {CANARY}"}),
    ("POST", "/classify", {"input": [TURN["content"]]}, {}),
    ("POST", "/request", {"body": {"messages": [TURN]}}, {"x-csrm-key": CANARY}),
    ("POST", "/request", {"body": CANARY}, {}),
    ("POST", "/response", {"body": {"choices": [{"message": TURN}]}}, {}),
    ("POST", "/portkey", {"eventType": CANARY}, {}),
    (
        "POST",
        "/portkey",
        {"eventType": "beforeRequestHook", "request": {"text": TURN["content"]}},
        {},
    ),
    ("POST", "/classify", {"input": CANARY, "model": CANARY}, {}),
    ("POST", "/get_reward", {"query": [CANARY], "labels": [CANARY]}, {}),
    ("POST", "/get_reward", {"query": [TURN["content"]], "prompts": [CANARY]}, {}),
    ("POST", "/predict", {"inputs": [[CANARY, CANARY, CANARY]]}, {}),
    ("POST", "/predict", {"inputs": TURN["content"]}, {}),
]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What every record of any library would be, as the server writes it; filled at the end."""
    caplog.set_level(logging.DEBUG, logger="csrm")
    found: list[str] = []
    formatter = JsonFormatter()

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(formatter.format(record))

    handler = Keep()
    loggers = [logging.getLogger(name) for name in ("csrm.serve", "uvicorn", "uvicorn.error")]
    for logger in loggers:
        logger.addHandler(handler)
    yield found
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.mark.parametrize(("method", "path", "body", "headers"), CASES, ids=range(len(CASES)))
def test_redaction_of_every_failure(
    shared_app: RunningApp,
    lines: list[str],
    method: str,
    path: str,
    body: Any,
    headers: dict[str, str],
) -> None:
    given = {"content": body} if isinstance(body, bytes) else {"json": body}
    found = shared_app.ask(method, path, headers=headers, **given)
    blocks = ("BLOCKED", '"status_code":403', '"verdict":false')
    assert found.status_code >= 400 or any(block in found.text for block in blocks), found.text
    assert len(lines) >= 1
    assert CANARY not in "\n".join(lines).lower()
    assert CANARY not in found.text.lower()
    assert CANARY not in str(found.headers).lower()
    assert CANARY not in shared_app.ask("GET", "/metrics").text.lower()


@pytest.mark.parametrize("path", ["/v1/score", "/ext_authz"])
def test_redaction_of_unexpected_exceptions(
    shared_app: RunningApp, lines: list[str], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ValueError(f"cannot read {CANARY}")

    monkeypatch.setattr(Scheduler, "score", fail)
    found = shared_app.post(path, {"messages": CHAT[:1]})
    assert found.status_code in (403, 500)
    assert CANARY not in found.text
    (unexpected,) = [line for line in lines if '"unexpected"' in line]
    assert "ValueError" in unexpected
    assert "test_serve_redaction.py:" in unexpected
    assert CANARY not in "\n".join(lines)


def test_redaction_of_good_answers_logs_digests_only(
    shared_app: RunningApp, lines: list[str]
) -> None:
    turn = {"role": "user", "content": CANARY}
    trace = "0af7651916cd43dd8448eb211c80319c"
    found = shared_app.ask(
        "POST",
        "/v1/score",
        json={"messages": [turn], "rules": [{"name": CANARY, "text": CANARY}], "explain": True},
        headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"},
    )
    assert found.status_code == 200
    (line,) = lines
    assert CANARY not in line
    for part in (trace, found.json()["config_digest"], found.json()["artifact_digest"]):
        assert part in line
    assert CANARY not in shared_app.ask("GET", "/metrics").text


def test_redaction_of_keys(
    serve_artifact: Path, tmp_path: Path, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    configs = write_configs(tmp_path / "c")
    environment = {"CSRM_API_KEYS": f"ops={CANARY}-0123456789"}
    with RunningApp(options_for(serve_artifact, configs), environment).ready() as app:
        for key in (f"{CANARY}-0123456789", f"{CANARY}-wrong"):
            found = app.post("/configs/strict/v1/score", {"messages": CHAT}, x_api_key=key)
            assert CANARY not in found.text
        assert CANARY not in app.ask("GET", "/metrics").text
    assert len(lines) >= 4
    assert CANARY not in "\n".join(lines)


CANARIED = canaries.requests()


def test_redaction_canaries_are_at_least_500() -> None:
    assert len({case.canary for case in CANARIED}) == len(CANARIED) >= 500
    assert {case.what.partition(":")[0] for case in CANARIED} >= {row.endpoint.name for row in ROWS}


@pytest.mark.parametrize("case", CANARIED, ids=lambda case: case.what[:60])
def test_redaction_of_a_canary_in_every_place(
    shared_app: RunningApp, lines: list[str], case: Canaried
) -> None:
    found = shared_app.ask(case.method, case.path, **case.given)
    assert len(lines) >= 1
    # What a config states is what /v1/configs/check is asked for.
    is_asked_for = case.path == "/v1/configs/check" and found.status_code == 200
    for place in ("" if is_asked_for else found.text, str(found.headers), *lines):
        assert canaries.WORD not in place.lower()


def test_redaction_of_canaries_in_metrics(shared_app: RunningApp) -> None:
    for case in CANARIED[::7]:
        shared_app.ask(case.method, case.path, **case.given)
    assert canaries.WORD not in shared_app.ask("GET", "/metrics").text.lower()


@pytest.mark.parametrize("messages", canaries.stream_messages(), ids=str)
def test_redaction_of_streams(
    shared_app: RunningApp, lines: list[str], messages: list[object]
) -> None:
    sent = shared_app.run(exchange(shared_app, messages))
    assert sent[-1]["type"] == "websocket.close"
    assert len(lines) >= 1
    for place in (str(sent), *lines):
        assert canaries.WORD not in place


@pytest.mark.parametrize("kind", [error.__name__ for error in errors.ERROR_CLASSES])
@pytest.mark.parametrize("path", ["/v1/score", "/request", "/ext_authz", "/predict", LITELLM])
def test_redaction_when_the_engine_fails(
    shared_app: RunningApp, lines: list[str], monkeypatch: pytest.MonkeyPatch, path: str, kind: str
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise errors.error_from_name(kind, "what csrm says itself")

    monkeypatch.setattr(Scheduler, "score", fail)
    chat = [TURN]
    given: dict[str, object] = {
        LITELLM: {"input_type": "request", "structured_messages": chat},
        "/request": {"body": {"messages": chat}},
        "/predict": {"inputs": TURN["content"]},
    }
    found = shared_app.post(path, given.get(path, {"messages": chat}))
    for place in (found.text, str(found.headers), *lines):
        assert CANARY not in place
    assert kind in "\n".join(lines)


def test_redaction_of_config_files_at_a_reload(
    serve_artifact: Path, tmp_path: Path, lines: list[str]
) -> None:
    configs = write_configs(tmp_path / "c")
    n_refused = 0
    with RunningApp(options_for(serve_artifact, configs)).ready() as app:
        for suffix, text in canaries.config_files():
            path = configs / f"mine{suffix}"
            path.write_text(text)
            n_refused += not app.run(app.service.reload())
            path.unlink()
        assert canaries.WORD not in app.ask("GET", "/metrics").text
    assert n_refused >= 20
    assert len([line for line in lines if '"reload_failed"' in line]) == n_refused
    assert canaries.WORD not in "\n".join(lines)


def test_redaction_of_other_libraries_on_stderr() -> None:
    """An exception in a forgotten task, and a logger that nobody set up."""
    program = (
        "import asyncio, gc, logging\n"
        "from csrm.serve.logs import log_to_stderr\n"
        "async def fail():\n"
        f"    '{CANARY}\\ud800'.encode()\n"
        "async def main():\n"
        "    task = asyncio.ensure_future(fail())\n"
        "    await asyncio.sleep(0)\n"
        "    await asyncio.sleep(0)\n"
        "    del task\n"
        "    gc.collect()\n"
        "log_to_stderr()\n"
        f"logging.getLogger('other').error('{CANARY}')\n"
        "asyncio.run(main())\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=WAIT_S)
    (line,) = [json.loads(line) for line in ran.stderr.splitlines()]
    assert (line["event"], line["error"]) == ("asyncio", "UnicodeEncodeError")
    assert CANARY not in ran.stderr.decode()
