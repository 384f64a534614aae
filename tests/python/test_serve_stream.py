"""/v1/stream: one answer for each append, the final score that of the whole turn, failures that end
it; and over a real port, where a drain waits for open streams.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_client import (
    CHAT,
    RULES,
    WAIT_S,
    RunningApp,
    exchange,
    serve_artifact,
    shared_app,
    wsproto,
)
from test_serve_process import Process, policy, server

import csrm
from csrm.serve import Limits
from csrm.serve.service import Service

fixtures = (serve_artifact, shared_app, policy, server)  # made known to pytest here

PARTS = ["a b c d. ", "e f", " g h i.\n", "j k"]


def answers(app: RunningApp, messages: list[object], **given: str) -> list[dict[str, Any]]:
    """The JSON sent, and the close code in the last place."""
    sent = app.run(exchange(app, messages, **given))
    assert sent[0]["type"] == "websocket.accept"
    assert sent[-1]["type"] == "websocket.close"
    return [*(json.loads(one["text"]) for one in sent[1:-1]), {"code": sent[-1]["code"]}]


def whole(artifact: Path, threshold: float) -> csrm.Score:
    config = csrm.SafetyConfig.from_rules(RULES, threshold=threshold)
    turns = [*CHAT[:1], {"role": "assistant", "content": "".join(PARTS)}]
    return csrm.load(artifact, n_threads=1).score(config, turns, reuse_turns=True)


@pytest.mark.parametrize(("config", "threshold"), [("lenient", 0.0), ("strict", 1.0)])
def test_stream_final_score_is_that_of_the_whole_turn(
    shared_app: RunningApp, serve_artifact: Path, config: str, threshold: float
) -> None:
    appends = [{"append": part} for part in PARTS]
    opening = {"messages": CHAT[:1], "config": config, "every_append": True}
    opened, *scored, final, close = answers(shared_app, [opening, *appends, {"finish": True}])
    expected = whole(serve_artifact, threshold)
    assert (opened["open"], opened["config_id"], close) == (True, config, {"code": 1000})
    assert [one["append"] for one in scored] == [1, 2, 3, 4]
    assert all(one["scored"] for one in scored)
    assert (final["final"], final["verdict"]) == (True, expected.verdict)
    assert final["reward"] == pytest.approx(expected.reward, abs=5e-6)
    assert final["flagged"] is (config == "strict")
    assert final["artifact_digest"] == shared_app.service.snapshot.model.digest


def test_stream_before_the_first_score_is_flagged_unknown(shared_app: RunningApp) -> None:
    opening = {"messages": CHAT[:1], "every_tokens": 0, "sentence_ends": False}
    _, first, final, _ = answers(shared_app, [opening, {"append": "a b"}, {"finish": True}])
    assert first == {"append": 1, "scored": False, "verdict": "unknown", "flagged": True}
    assert final["verdict"] == "compliant"


@pytest.mark.parametrize(
    ("messages", "kind", "code"),
    [
        (["{"], "BadJson", 1008),
        ([{"mesages": []}], "BadRequest", 1008),
        ([{"config": "absent"}], "UnknownConfig", 1008),
        ([{"role": "nobody"}], "UnknownRole", 1008),
        ([{"every_tokens": -1}], "BadArgument", 1008),
        ([{"every_append": 1}], "BadRequest", 1008),
        ([{"messages": CHAT * 251}], "LimitExceeded", 1008),
        ([{}, {"append": 1}], "BadRequest", 1008),
        ([{}, {"append": "a", "more": 1}], "BadRequest", 1008),
        ([{}, {"append": "a"}, "[]"], "BadJson", 1008),
        ([{}, {"finish": True}], "EmptyConversation", 1008),
        ([{}, {"append": "a z"}, {"finish": True}], "NonFinite", 1011),
        ([{}] + [{"append": " " * (1 << 19)}] * 3, "LimitExceeded", 1008),
    ],
)
def test_stream_failure_is_unknown_and_ends_it(
    shared_app: RunningApp, messages: list[object], kind: str, code: int
) -> None:
    *_, last, close = answers(shared_app, messages)
    assert (last["error"]["code"], last["verdict"], last["flagged"]) == (kind, "unknown", True)
    assert close == {"code": code}
    assert (shared_app.service.n_streams, shared_app.service.n_in_flight) == (0, 0)


def test_stream_config_of_the_path_and_gone_client(shared_app: RunningApp) -> None:
    path = "/configs/strict/v1/stream"
    opened, *_ = answers(shared_app, [{"config": "lenient"}, {"finish": True}], path=path)
    assert opened["config_id"] == "strict"

    async def leave() -> None:
        task = asyncio.ensure_future(exchange(shared_app, [{}]))
        await asyncio.sleep(0.05)
        assert shared_app.service.n_streams == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    shared_app.run(leave())
    assert (shared_app.service.n_streams, shared_app.service.n_in_flight) == (0, 0)


def test_stream_too_many_or_draining_is_later(
    shared_app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_app.service, "n_streams", Limits().max_streams)
    *_, last, close = answers(shared_app, [{}])
    assert (last["error"]["code"], close["code"]) == ("Overloaded", 1013)
    monkeypatch.undo()
    monkeypatch.setattr(shared_app.service, "state", "draining")
    *_, last, close = answers(shared_app, [{}])
    assert (last["error"]["code"], close["code"]) == ("Draining", 1013)
    assert isinstance(shared_app.service, Service)


class Client:
    """A WebSocket client in the few lines that the test needs."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._socket = socket.create_connection((host, int(port)), WAIT_S)
        self._connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._send(wsproto.events.Request(host=host, target="/v1/stream"))
        assert isinstance(next(self._events()), wsproto.events.AcceptConnection)

    def ask(self, message: object) -> dict[str, Any]:
        self._send(wsproto.events.Message(data=json.dumps(message)))
        text = ""
        for event in self._events():
            assert isinstance(event, wsproto.events.TextMessage), event
            text += event.data
            if event.message_finished:
                return dict(json.loads(text))
        raise AssertionError("the server sent nothing")

    def close(self) -> None:
        self._socket.close()

    def _send(self, event: Any) -> None:
        self._socket.sendall(self._connection.send(event))

    def _events(self) -> Iterator[Any]:
        while True:
            yield from self._connection.events()
            self._connection.receive_data(self._socket.recv(1 << 16) or None)


def test_stream_process_drain_waits_for_open_streams(server: Process) -> None:
    client = Client(server.url)
    try:
        assert client.ask({"messages": CHAT[:1], "every_append": True})["open"]
        assert client.ask({"append": "a b c."})["scored"]
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        assert client.ask({"append": " d e"})["append"] == 2
        final = client.ask({"finish": True})
        assert (final["final"], final["verdict"]) == (True, "compliant")
    finally:
        client.close()
    assert server.process.wait(WAIT_S) == 0
    (line,) = [line for line in server.lines() if line.get("endpoint") == "stream"]
    assert (line["outcome"], line["verdicts"]) == ("ok", {"compliant": 1})
