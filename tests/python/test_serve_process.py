"""`csrm serve` as a process on a loopback port: start, readiness, reload under load, drain."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from serve_client import CHAT, WAIT_S, config_text, httpx, serve_artifact

import csrm
from csrm.serve.run import listen

fixtures = (serve_artifact,)  # made known to pytest here

LONG = [{"role": "assistant", "content": "a b c d e f g " * 60}] * 5
# Two versions of one config, of which each answer must match exactly one.
VERSIONS = {
    "1": (0.0, [{"name": "First", "text": "a b c d"}, {"text": "e f g"}]),
    "2": (1.0, [{"name": "Other", "text": "h i j k l"}]),
}
CANARY = "qxcanary"


class Process:
    """The server and what it logs. `url` is known once it listens."""

    def __init__(self, artifact: Path, config: Path, *more: str) -> None:
        command = [sys.executable, "-m", "csrm", "serve", "--config", str(config)]
        command += ["--model", str(artifact), "--port", "0", "--threads", "1", *more]
        self.log = config.parent / "stderr"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ})
        self.url = ""

    def lines(self) -> list[dict[str, Any]]:
        """The log so far; each line must be JSON."""
        text = self.log.read_text()
        whole = text[: text.rfind("\n") + 1]
        return [json.loads(line) for line in whole.splitlines()]

    def wait_ready(self) -> None:
        """Until /readyz says 200."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until and self.process.poll() is None:
            listening = [line for line in self.lines() if line["event"] == "listening"]
            if listening:
                self.url = f"http://127.0.0.1:{listening[0]['port']}"
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"the server is not ready:\n{self.log.read_text()}")

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    write_version(path, "1")
    return path


@pytest.fixture
def server(serve_artifact: Path, policy: Path) -> Iterator[Process]:
    started = Process(serve_artifact, policy, "--poll-s", "0", "--deadline-s", "60")
    try:
        started.wait_ready()
        yield started
    finally:
        started.process.kill()
        started.process.wait(WAIT_S)


def write_version(path: Path, version: str) -> None:
    threshold, rules = VERSIONS[version]
    text = config_text("policy", threshold, version, rules)
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def expected_answers(artifact: Path) -> dict[str, tuple[str, float, str]]:
    """Of each version: digest, reward and verdict of CHAT."""
    scorer = csrm.load(artifact, n_threads=1)
    found = {}
    for version, (threshold, rules) in VERSIONS.items():
        config = csrm.SafetyConfig.from_rules(rules, threshold=threshold)
        score = scorer.score(config, CHAT)
        found[version] = (config.digest(), score.reward, score.verdict)
    return found


def in_flight(url: str) -> float:
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        if line.startswith("csrm_requests_in_flight "):
            return float(line.split()[1])
    return 0.0


def test_process_reload_under_load_never_mixes_versions(
    server: Process, policy: Path, serve_artifact: Path
) -> None:
    expected = expected_answers(serve_artifact)
    assert expected["1"][1] != pytest.approx(expected["2"][1], abs=1e-3)
    answers: list[httpx.Response] = []

    async def client(http: httpx.AsyncClient, is_done: asyncio.Event) -> None:
        while not is_done.is_set():
            answers.append(await http.post("/v1/score", json={"messages": CHAT}))

    async def reload() -> None:
        for turn in range(6):
            write_version(policy, "2" if turn % 2 == 0 else "1")
            server.process.send_signal(signal.SIGHUP)
            for _ in range(200):
                done = [line for line in server.lines() if line["event"] == "reloaded"]
                if len(done) > turn:
                    break
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)

    async def play() -> None:
        is_done = asyncio.Event()
        limits = httpx.Limits(max_connections=30)
        async with httpx.AsyncClient(base_url=server.url, timeout=WAIT_S, limits=limits) as http:
            clients = [asyncio.ensure_future(client(http, is_done)) for _ in range(30)]
            await reload()
            is_done.set()
            await asyncio.gather(*clients)

    asyncio.run(play())
    assert {answer.status_code for answer in answers} == {200}
    seen = set()
    for answer in answers:
        body = answer.json()
        digest, reward, verdict = expected[body["config_version"]]
        assert body["config_digest"] == digest == answer.headers["x-csrm-config-digest"]
        assert body["verdict"] == verdict
        assert body["reward"] == pytest.approx(reward, abs=5e-6)
        seen.add(body["config_version"])
    assert seen == {"1", "2"}
    assert len(answers) > 60
    assert len([line for line in server.lines() if line["event"] == "reloaded"]) == 6
    assert server.stop() == 0


def test_process_sigterm_loses_no_accepted_request(server: Process) -> None:
    n_requests = 30

    async def play() -> list[httpx.Response]:
        async with httpx.AsyncClient(
            base_url=server.url, timeout=WAIT_S, limits=httpx.Limits(max_connections=40)
        ) as http:
            sent = [
                asyncio.ensure_future(http.post("/v1/score", json={"messages": LONG}))
                for _ in range(n_requests)
            ]
            n_seen = 0.0
            while n_seen < 20 and not all(one.done() for one in sent):
                await asyncio.sleep(0.01)
                n_seen = await asyncio.to_thread(in_flight, server.url)
            server.process.send_signal(signal.SIGTERM)
            return await asyncio.gather(*sent)

    answers = asyncio.run(play())
    assert server.process.wait(WAIT_S) == 0
    accepted = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(accepted) >= 20
    assert {answer.json()["error"]["code"] for answer in refused} <= {"Draining", "Overloaded"}
    lines = server.lines()
    draining = [line for line in lines if line["event"] == "draining"]
    assert draining[0]["in_flight"] >= 1, "the signal came too late to test anything"
    (stopped,) = [line for line in lines if line["event"] == "stopped"]
    assert stopped["abandoned"] == 0
    ok = [line for line in lines if line["event"] == "request" and line["outcome"] == "ok"]
    assert len(ok) == len(accepted)


def test_process_log_holds_no_text_of_a_request(server: Process) -> None:
    bad = [{"role": "user", "content": f"{CANARY} z"}]
    with httpx.Client(base_url=server.url) as http:
        http.post(f"/v1/score?q={CANARY}", json={"messages": bad, "config": CANARY})
        http.post("/v1/score", json={"messages": bad})
        http.post(f"/{CANARY}", content=CANARY)
        http.post("/v1/score", content=f"{CANARY}[".encode(), headers={"x-api-key": CANARY})
        http.request(CANARY.upper(), "/v1/score")
        metrics = http.get("/metrics").text
    assert server.stop() == 0
    lines = server.lines()
    assert len([line for line in lines if line["event"] == "request"]) >= 4
    for text in (server.log.read_text(), metrics):
        assert CANARY not in text.lower()


def test_process_endless_head_is_400(server: Process) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for part in (b"x-more: " + b"a" * 1000 + b"\r\n", b"a" * 1000):
        with socket.create_connection((host, int(port)), WAIT_S) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: csrm\r\nx-first: ")
            try:
                for _ in range(1000):
                    client.sendall(part)
                answer = client.recv(1 << 16)
            except ConnectionError:  # it was closed while we went on
                continue
            assert answer.startswith(b"HTTP/1.1 400 ")
    assert httpx.get(f"{server.url}/healthz").status_code == 200


@pytest.mark.parametrize(
    "part", [b"x-more: " + b"a" * 1000 + b"\r\n", b"a" * 1000], ids=["lines", "one line"]
)
def test_process_endless_trailers_are_400(server: Process, part: bytes) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    head = b"POST /v1/score HTTP/1.1\r\nhost: csrm\r\ntransfer-encoding: chunked\r\n\r\n"
    with socket.create_connection((host, int(port)), WAIT_S) as client:
        client.sendall(head + b"1\r\n{\r\n0\r\nx-first: ")
        try:
            for _ in range(1000):
                client.sendall(part)
            answer = client.recv(1 << 16)
        except ConnectionError:  # it was closed while we went on
            return
        assert answer.startswith(b"HTTP/1.1 400 ")


def test_process_body_in_many_chunks_is_read_and_its_trailers_are_not(server: Process) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    head = b"POST /v1/score HTTP/1.1\r\nhost: csrm\r\ntransfer-encoding: chunked\r\n\r\n"
    body = json.dumps({"messages": CHAT}).encode() + b" " * 100_000
    with socket.create_connection((host, int(port)), WAIT_S) as client:
        for _ in range(2):  # the second request on the connection is bounded anew
            client.sendall(head)
            for place in range(0, len(body), 1000):
                part = body[place : place + 1000]
                client.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            client.sendall(b"0\r\nx-csrm-config: absent\r\n\r\n")
            answer = HTTPResponse(client)
            answer.begin()
            assert (answer.status, json.loads(answer.read())["config_id"]) == (200, "policy")


@pytest.mark.parametrize("damage", ["config", "model", "port"])
def test_process_that_cannot_serve_exits_2(
    serve_artifact: Path, policy: Path, tmp_path: Path, damage: str
) -> None:
    model, more = serve_artifact, ["--poll-s", "0"]
    if damage == "config":
        policy.write_text("rules: [")
    elif damage == "model":
        model = tmp_path / "empty"
        model.mkdir()
    else:
        more += ["--host", "203.0.113.1"]
    started = Process(model, policy, *more)
    try:
        assert started.process.wait(WAIT_S) == 2
    finally:
        started.process.kill()
        started.process.wait(WAIT_S)
    assert "Traceback" not in started.log.read_text()


def test_process_listens_by_tcp_so_that_answers_are_not_held_back() -> None:
    """asyncio turns Nagle's algorithm off only for a socket that names its protocol."""
    with listen("127.0.0.1", 0) as bound:
        assert bound.proto == socket.IPPROTO_TCP
