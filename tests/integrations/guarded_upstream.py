"""What the tests of proxies share: a toy API behind the proxy, and the proxy from a page's text.

Not: a proxy (test_nginx.py, test_envoy.py). A page of docs/integrations holds its configuration in
code blocks; the tests run exactly those, with the three ports replaced.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from csrm_server import WAIT_S

# The ports that the pages state: csrm, the guarded API, the proxy itself.
CSRM, MODEL, PROXY = "8080", "8000", "8081"
PIECES = [b"data: one\n\n", b"data: two\n\n"]


def with_ports(config: str, csrm_url: str, upstream: Upstream, port: int) -> str:
    """`config` with the ports of this test in place of those that the page states."""
    ports = {CSRM: csrm_url.rsplit(":", 1)[1], MODEL: str(upstream.port), PROXY: str(port)}
    for stated in ports:
        assert len(re.findall(rf"\b{stated}\b", config)) == 1, f"port {stated} in the page"
    return re.sub(rf"\b({'|'.join(ports)})\b", lambda found: ports[found[1]], config)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@dataclass
class Upstream:
    """The guarded API: answers every request and remembers it. POST to a path that ends in
    "stream" is answered in two pieces.
    """

    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Upstream:
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                seen.append((self.command, self.path, body))
                self.send_response(200)
                if self.path.endswith("stream"):
                    self.send_header("content-type", "text/event-stream")
                    self.send_header("connection", "close")
                    self.end_headers()
                    for piece in PIECES:
                        self.wfile.write(piece)
                        self.wfile.flush()
                    self.close_connection = True
                    return
                data = json.dumps({"upstream": True}).encode()
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = answer  # noqa: N815  (the names that the base class calls)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Proxy:
    """A running proxy, its address and the upstream behind it."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str
    upstream: Upstream

    def stop(self) -> None:
        """Ends the process."""
        self.process.terminate()
        self.process.wait(WAIT_S)


def start_proxy(command: list[str], log: Path, port: int, upstream: Upstream) -> Proxy:
    """The proxy, once it listens on `port`. Errors: AssertionError with its log."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    proxy = Proxy(process, log, f"http://127.0.0.1:{port}", upstream)
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return proxy
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"{command[0]} does not listen:\n{log.read_text()}")


def chat(text: str) -> dict[str, object]:
    """A request to a model with one turn."""
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


def refused(answer: httpx.Response, proxy: Proxy) -> bool:
    """Whether it is a 403 and the upstream knows nothing of it."""
    return answer.status_code == 403 and proxy.upstream.seen == []


def assert_passes_unchanged(proxy: Proxy, path: str, text: str) -> None:
    """`text`, which is allowed, reaches the upstream byte for byte, query included."""
    body = json.dumps(chat(text)).encode()
    answer = httpx.post(f"{proxy.url}{path}?a=b", content=body)
    assert (answer.status_code, answer.json()) == (200, {"upstream": True})
    assert proxy.upstream.seen == [("POST", f"{path}?a=b", body)]


def assert_bounds_bodies(proxy: Proxy, path: str, text: str, largest: int) -> None:
    """A body over 1 MiB is refused; one of `largest` bytes with the allowed `text` is judged."""
    body = json.dumps(chat(text)).encode()
    answer = httpx.post(proxy.url + path, content=body + b" " * (1 << 20))
    assert (answer.status_code, proxy.upstream.seen) == (413, [])
    whole = body + b" " * (largest - len(body))
    assert httpx.post(proxy.url + path, content=whole).status_code == 200
    assert proxy.upstream.seen[0][2] == whole


def assert_refuses_what_cannot_be_judged(proxy: Proxy, path: str, text: str) -> None:
    """Bodies that say nothing, or more than one thing, though `text` is allowed."""
    allowed = json.dumps(chat(text)).encode()
    cases: tuple[tuple[bytes, dict[str, str]], ...] = (
        (b"", {}),
        (b"text", {}),
        (gzip.compress(allowed), {"content-encoding": "gzip"}),
        (allowed[:-1] + b', "prompt": "x"}', {}),
        (b'{"messages": [], ' + allowed[1:], {}),
    )
    for body, headers in cases:
        assert refused(httpx.post(proxy.url + path, content=body, headers=headers), proxy)
    assert refused(httpx.get(f"{proxy.url}/v1/models"), proxy)
