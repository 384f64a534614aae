"""The webhooks of agentgateway and Portkey: both verdicts, both sides, and "unknown" blocks."""

from __future__ import annotations

from typing import Any

import pytest
from serve_client import CHAT, UNSCORABLE, RunningApp, serve_artifact, shared_app

fixtures = (serve_artifact, shared_app)  # made known to pytest here

USER, ANSWER = CHAT
TOOL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "a"}}]}


def agentgateway(app: RunningApp, config: str, side: str, body: object) -> dict[str, Any]:
    found = app.post(f"/configs/{config}/{side}", {"body": body, "a_new_field": 1})
    assert found.status_code == 200
    return dict(found.json()["action"])


def portkey(app: RunningApp, config: str, **given: object) -> dict[str, Any]:
    body = {"provider": "openai", "requestType": "chatComplete", "metadata": {}, **given}
    found = app.post(f"/configs/{config}/portkey", body)
    assert found.status_code == 200
    return dict(found.json())


def choices(*messages: object) -> dict[str, object]:
    return {"choices": [{"index": i, "message": message} for i, message in enumerate(messages)]}


@pytest.mark.parametrize(
    ("side", "body"),
    [
        ("request", {"messages": [USER], "model": "gpt-x"}),
        ("request", {"messages": [USER, ANSWER, USER, USER]}),
        ("response", choices(ANSWER)),
        ("response", choices(ANSWER, ANSWER, TOOL)),
    ],
)
def test_agentgateway_both_verdicts(
    shared_app: RunningApp, side: str, body: dict[str, object]
) -> None:
    assert agentgateway(shared_app, "lenient", side, body) == {"reason": "complies"}
    rejected = agentgateway(shared_app, "strict", side, body)
    assert rejected == {
        "reason": "violates the config strict",
        "body": "the text violates a policy",
        "status_code": 403,
    }


@pytest.mark.parametrize(
    ("side", "body"),
    [
        ("request", {"messages": UNSCORABLE[:1] + UNSCORABLE}),
        ("request", {"messages": []}),
        ("request", {}),
        ("request", None),
        ("response", choices(UNSCORABLE[1])),
        ("response", choices(ANSWER, UNSCORABLE[1])),
        ("response", choices({"role": "assistant", "content": ""})),
        ("response", choices({"role": "assistant", "content": [{"type": "image_url"}]})),
        ("response", {"choices": [{"delta": {}}]}),
        ("response", {"choices": []}),
    ],
)
def test_agentgateway_unknown_is_rejected(shared_app: RunningApp, side: str, body: object) -> None:
    action = agentgateway(shared_app, "lenient", side, body)
    assert (action["status_code"], action["body"]) == (403, "the text could not be checked")


def test_agentgateway_forwarded_headers_choose_nothing(shared_app: RunningApp) -> None:
    body = {"body": {"messages": [USER]}}
    found = shared_app.post("/request", body, x_csrm_config="strict").json()
    assert found["action"] == {"reason": "complies"}  # lenient is the default


@pytest.mark.parametrize(
    "given",
    [
        {"eventType": "beforeRequestHook", "request": {"json": {"messages": [USER]}, "text": "a"}},
        {"eventType": "beforeRequestHook", "request": {"json": {}, "text": "a b"}},
        {
            "eventType": "afterRequestHook",
            "request": {"json": {"messages": [USER]}, "text": "a"},
            "response": {"json": choices(ANSWER), "text": "d", "statusCode": 200},
        },
        {
            "eventType": "afterRequestHook",
            "request": {"json": None, "text": "a"},
            "response": {"json": None, "text": "d"},
        },
    ],
)
def test_portkey_both_verdicts(shared_app: RunningApp, given: dict[str, Any]) -> None:
    assert portkey(shared_app, "lenient", **given)["verdict"] is True
    denied = portkey(shared_app, "strict", **given)
    assert denied["verdict"] is False
    assert denied["data"] == {"reason": "violates the config strict", "verdict": "violation"}


@pytest.mark.parametrize(
    "given",
    [
        {"eventType": "beforeRequestHook", "request": {"json": {}, "text": "b z c"}},
        {"eventType": "beforeRequestHook", "request": {"json": {}, "text": ""}},
        {"eventType": "beforeRequestHook"},
        {"eventType": "other", "request": {"text": "a"}},
        {
            "eventType": "afterRequestHook",
            "request": {"text": "a"},
            "response": {"json": choices(UNSCORABLE[1])},
        },
        {"eventType": "afterRequestHook", "request": {"text": "a"}, "response": {"text": ""}},
        {"eventType": "afterRequestHook", "request": {"text": "a"}},
    ],
)
def test_portkey_unknown_is_false(shared_app: RunningApp, given: dict[str, Any]) -> None:
    found = portkey(shared_app, "lenient", **given)
    assert (found["verdict"], found["data"]["verdict"]) == (False, "unknown")
