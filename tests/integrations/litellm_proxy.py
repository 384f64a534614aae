"""`Proxy`: LiteLLM's proxy as a process, before a toy upstream, and what a client gets of it.

Not: the tests (test_litellm.py) or the configs they write. Loopback only; no database, no network.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

# Importing LiteLLM's proxy takes minutes on a busy machine.
WAIT_S = 600.0
KEY = f"sk-{secrets.token_hex(32)}"


@dataclass(frozen=True)
class Reply:
    """What came back: `text` joins the answer's texts, streamed or not; `raw` is all of it."""

    status: int
    text: str
    raw: str

    @property
    def error(self) -> str:
        """The message of the error, "" without one."""
        for line in [self.raw, *self.raw.splitlines()]:
            try:
                found = json.loads(line.removeprefix("data: "))
            except ValueError:
                continue
            if isinstance(found, dict) and isinstance(found.get("error"), dict):
                return str(found["error"]["message"])
        return ""


@dataclass
class Proxy:
    """A `litellm` process on a loopback port."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str

    def wait_ready(self) -> None:
        """Until it answers. Errors: AssertionError with the log."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health/liveliness", timeout=10).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"litellm is not ready:\n{self.log.read_text()[-8000:]}")

    def post(self, path: str, **body: Any) -> Reply:
        """The reply to `body`."""
        headers = {"authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=WAIT_S)
        return Reply(answer.status_code, _text(answer.text), answer.text)

    def chat(self, text: str, **body: Any) -> Reply:
        """The reply to one user's message."""
        messages = [{"role": "user", "content": text}]
        return self.post("/v1/chat/completions", **{"model": "toy", "messages": messages, **body})

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def start_proxy(folder: Path, config: str, **environment: str) -> Proxy:
    """The proxy under `config`, the text of its config file; `wait_ready` before use."""
    (folder / "config.yaml").write_text(config)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).parent / "litellm")
    command = [program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": KEY}
    log = folder / "litellm.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **offline, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Proxy(process, log, f"http://127.0.0.1:{port}")


def _text(raw: str) -> str:
    parts = []
    for line in [raw] if raw.startswith("{") else raw.splitlines():
        try:
            parts.append(_text_of(json.loads(line.removeprefix("data: "))))
        except ValueError:
            continue
    return "".join(parts)


def _text_of(event: Any) -> str:
    """The texts of OpenAI's choices, or of Anthropic's message or event."""
    if not isinstance(event, dict):
        return ""
    found = []
    for choice in event.get("choices", []):
        message = choice.get("message") or choice.get("delta") or choice
        found += [message.get(field) or "" for field in ("reasoning_content", "content", "text")]
        found.append(json.dumps(message["tool_calls"]) if message.get("tool_calls") else "")
    if isinstance(event.get("content"), list):
        found += [block.get("text", "") for block in event["content"]]
    if event.get("type") == "content_block_delta":
        found.append(event["delta"].get("text", ""))
    return "".join(found)
