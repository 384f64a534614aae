"""`RunningApp`: the ASGI application of csrm.serve on the toy artifact, in a thread of its own.

Not: a server process (test_serve_process.py). Without csrm[serve] every module that imports this is
skipped, and says so. Config "strict" calls everything a violation, "lenient" everything compliant;
the word "z" makes the toy's reward infinite, so that the engine's answer is refused.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
import toy

_WHY = "NO SERVER TESTED: csrm[serve] is not installed; pip install 'csrm[serve]' httpx openai"
for _package in ("starlette", "uvicorn", "prometheus_client", "wsproto", "httpx", "openai"):
    pytest.importorskip(_package, reason=_WHY)

import httpx  # noqa: E402
import openai  # noqa: E402, F401  (for the tests)
import wsproto.events  # noqa: E402, F401  (for the tests)

from csrm.serve import Limits, ServeOptions, Service, create_app  # noqa: E402

T = TypeVar("T")
WAIT_S = 60.0
CHAT = [{"role": "user", "content": "a b c"}, {"role": "assistant", "content": "d e f g"}]
UNSCORABLE = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "b z c"}]
EMPTY_TURN = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": ""}]
RULES = [{"name": "First", "text": "a b c d"}, {"text": "e f g"}]
THRESHOLDS = {"strict": 1.0, "lenient": 0.0}


def config_text(id: str, threshold: float, version: str = "1", rules: object = None) -> str:
    """A config file's text."""
    return json.dumps(
        {"id": id, "version": version, "threshold": threshold, "rules": rules or RULES}
    )


def write_configs(folder: Path) -> Path:
    """The configs strict and lenient in a new folder."""
    folder.mkdir()
    for id, threshold in THRESHOLDS.items():
        (folder / f"{id}.yaml").write_text(config_text(id, threshold))
    return folder


class RunningApp:
    """The application with its lifespan, for requests from the test's thread."""

    def __init__(self, options: ServeOptions, environment: dict[str, str] | None = None) -> None:
        self.service = Service(options, environment or {})
        self.app = create_app(self.service)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        self.run(self._stack.enter_async_context(self.app.router.lifespan_context(self.app)))

    def ready(self) -> RunningApp:
        """Waits until the model is loaded."""
        until = time.monotonic() + WAIT_S
        while self.service.state == "loading" and time.monotonic() < until:
            time.sleep(0.01)
        assert self.service.state == "ready"
        return self

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work` in the application's loop."""
        return self.start(work).result(WAIT_S)

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """The same, without waiting."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def send(self, method: str, path: str, **given: Any) -> httpx.Response:
        """One request."""
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://csrm") as client:
            return await client.request(method, path, timeout=WAIT_S, **given)

    def ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        """One request, from the test's thread."""
        return self.run(self.send(method, path, **given))

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        """A POST of JSON; headers with underscores for hyphens."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.ask("POST", path, json=body, headers=named)

    def close(self) -> None:
        """Ends the lifespan and the thread."""
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()

    def __enter__(self) -> RunningApp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def code(response: httpx.Response) -> tuple[int, str]:
    """The status and kind of a failure."""
    return response.status_code, response.json()["error"]["code"]


def wait_for(what: Callable[[], object]) -> None:
    """Until `what()` is true; it must become so."""
    until = time.monotonic() + WAIT_S
    while not what() and time.monotonic() < until:
        time.sleep(0.01)
    assert what()


async def raw_call(
    app: Any,
    messages: list[dict[str, Any]],
    is_time: Callable[[], bool] = lambda: True,
    path: str = "/v1/score",
    n_bytes: int | None = None,
) -> list[Any]:
    """What an ASGI call sends that receives `messages`, those after the first when `is_time`.

    n_bytes: what its head announces.
    """
    length = [] if n_bytes is None else [(b"content-length", str(n_bytes).encode())]
    sent: list[Any] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(b"content-type", b"application/json"), *length],
    }
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.sleep(WAIT_S)
        while len(left) < len(messages) and not is_time():
            await asyncio.sleep(0.001)
        return left.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def exchange(
    app: RunningApp, messages: list[object], path: str = "/v1/stream", **headers: str
) -> list[dict[str, Any]]:
    """What /v1/stream sends to a client that sends `messages` at once and then waits."""
    sent: list[dict[str, Any]] = []
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    queue.put_nowait({"type": "websocket.connect"})
    for message in messages:
        text = message if isinstance(message, str) else json.dumps(message)
        queue.put_nowait({"type": "websocket.receive", "text": text})
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "subprotocols": [],
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
    }

    async def send(message: Any) -> None:
        sent.append(message)

    await asyncio.wait_for(app.app(scope, queue.get, send), WAIT_S)
    return sent


def options_for(artifact: Path, configs: Path, **given: Any) -> ServeOptions:
    """Options with one thread; those named like a field of Limits go there."""
    limits = {key: given.pop(key) for key in tuple(given) if key in Limits.__dataclass_fields__}
    base: dict[str, Any] = {"n_threads": 1, "poll_s": 0.0, "limits": Limits(**limits)}
    return ServeOptions(config=configs, model=artifact, **{**base, **given})


@pytest.fixture(scope="session")
def serve_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy artifact without a finite reward for "z"."""
    folder = tmp_path_factory.mktemp("serve")
    whole = toy.make_toy_model.write_toy_artifact(folder / "whole")
    return toy.without_finite_z(whole, folder / "artifact")


@pytest.fixture(scope="module")
def shared_app(serve_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One application for the tests that leave it as it is; its default config is lenient."""
    configs = write_configs(tmp_path_factory.mktemp("configs") / "of")
    options = options_for(serve_artifact, configs, default_config="lenient", config_writes=True)
    with RunningApp(options) as app:
        yield app.ready()
