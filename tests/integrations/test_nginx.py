"""A real nginx with njs that guards a toy API, as docs/integrations/nginx.md configures it.

Needs `apt-get install -y nginx libnginx-mod-http-js` on Debian. Nothing is skipped: without them
the tests fail and say so.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
from csrm_server import Server, Traffic
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

NJS = Path("/usr/lib/nginx/modules/ngx_http_js_module.so")
INSTALL = "install them: apt-get install -y nginx libnginx-mod-http-js"
CHAT = "/v1/chat/completions"
MAIN = """
load_module {njs};
{user}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    {temporary}
    include csrm.conf;
}}
"""
Start = Callable[[str], AbstractContextManager[Proxy]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts nginx in front of a toy API; it asks the csrm at the given address."""
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if nginx is None or not NJS.is_file():
        pytest.fail(f"nginx or its njs module was not found; {INSTALL}")

    @contextmanager
    def started(csrm_url: str) -> Iterator[Proxy]:
        port = free_port()
        with Upstream() as upstream:
            (tmp_path / "njs").mkdir()
            (tmp_path / "njs" / "csrm.js").write_text(blocks("nginx", "js")[0])
            config = with_ports(blocks("nginx", "nginx")[0], csrm_url, upstream, port)
            (tmp_path / "csrm.conf").write_text(config)
            kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            temporary = "\n    ".join(f"{kind}_temp_path {kind};" for kind in kinds)
            user = "user root;" if os.geteuid() == 0 else ""  # the test's folder is its own
            main = MAIN.format(njs=NJS, user=user, temporary=temporary)
            (tmp_path / "nginx.conf").write_text(main)
            command = [nginx, "-p", str(tmp_path), "-c", "nginx.conf", "-e", "stderr"]
            proxy = start_proxy(command, tmp_path / "nginx.log", port, upstream)
            try:
                yield proxy
            finally:
                proxy.stop()

    return started


def test_nginx_allowed_request_passes_unchanged(
    start: Start, csrm_server: Server, traffic: Traffic
) -> None:
    with start(csrm_server.url) as proxy:
        assert_passes_unchanged(proxy, CHAT, traffic.allowed)


def test_nginx_violating_request_is_blocked(
    start: Start, csrm_server: Server, traffic: Traffic
) -> None:
    with start(csrm_server.url) as proxy:
        answer = httpx.post(proxy.url + CHAT, json=chat(traffic.violating))
        assert refused(answer, proxy)
        assert answer.json()["error"]["code"] == "blocked"
        earlier = [{"role": "user", "content": t} for t in (traffic.violating, traffic.allowed)]
        assert refused(httpx.post(proxy.url + CHAT, json={"messages": earlier}), proxy)


def test_nginx_chunked_and_streamed_pass_through(
    start: Start, csrm_server: Server, traffic: Traffic
) -> None:
    def pieces(text: str) -> Iterator[bytes]:
        body = json.dumps(chat(text)).encode()
        yield body[:20]
        yield body[20:]

    with start(csrm_server.url) as proxy:
        assert refused(httpx.post(proxy.url + CHAT, content=pieces(traffic.violating)), proxy)
        with httpx.stream(
            "POST", f"{proxy.url}/v1/stream", content=pieces(traffic.allowed)
        ) as answer:
            assert b"".join(answer.iter_bytes()) == b"".join(PIECES)
        assert len(proxy.upstream.seen) == 1


def test_nginx_unknown_verdict_is_blocked(
    start: Start, late_server: Server, traffic: Traffic
) -> None:
    with start(late_server.url) as proxy:
        assert refused(httpx.post(proxy.url + CHAT, json=chat(traffic.allowed)), proxy)
        query = {"q": traffic.allowed}
        assert refused(httpx.get(f"{proxy.url}/search", params=query), proxy)


def test_nginx_without_csrm_everything_is_blocked(start: Start, traffic: Traffic) -> None:
    with start(f"http://127.0.0.1:{free_port()}") as proxy:
        answer = httpx.post(proxy.url + CHAT, json=chat(traffic.allowed))
        assert refused(answer, proxy)
        assert answer.json()["error"]["message"] == "the request could not be checked"
        assert refused(httpx.get(f"{proxy.url}/search", params={"q": traffic.allowed}), proxy)


def test_nginx_too_large_a_body_is_refused(
    start: Start, csrm_server: Server, traffic: Traffic
) -> None:
    with start(csrm_server.url) as proxy:
        # As large as may be: nginx keeps it in a file, and it is judged all the same.
        assert_bounds_bodies(proxy, CHAT, traffic.allowed, 1 << 20)


def test_nginx_what_cannot_be_judged_is_blocked(
    start: Start, csrm_server: Server, traffic: Traffic
) -> None:
    with start(csrm_server.url) as proxy:
        assert_refuses_what_cannot_be_judged(proxy, CHAT, traffic.allowed)


def test_nginx_query_is_judged_by_auth_request(
    start: Start, csrm_server: Server, traffic: Traffic
) -> None:
    with start(csrm_server.url) as proxy:
        url = f"{proxy.url}/search"
        for query in (
            [("q", traffic.violating)],
            [("q", traffic.allowed), ("q", traffic.violating)],
            [("q", traffic.violating), ("q", traffic.allowed)],
            [("q", traffic.allowed), ("other", traffic.violating)],
            [],
        ):
            assert refused(httpx.get(url, params=query), proxy), query
        for space in ("+", "%20"):
            plain = traffic.violating.replace(" ", space)
            for name in ("q=", "__proto__=", ""):
                assert refused(httpx.get(f"{url}?{name}{plain}"), proxy)
        assert httpx.get(url, params={"q": traffic.allowed}).status_code == 200
        assert [method for method, *_ in proxy.upstream.seen] == ["GET"]


def test_nginx_other_paths_are_not_there(start: Start, csrm_server: Server) -> None:
    with start(csrm_server.url) as proxy:
        for path in ("/", "/csrm/body", "/csrm/query", "/csrm/none", "/search/more", "/x/../v2/"):
            assert httpx.get(proxy.url + path).status_code == 404
        assert proxy.upstream.seen == []
