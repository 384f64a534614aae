"""`Proxy`: LiteLLM's proxy as a process, before a toy upstream, and what a client gets of it.

Not: the tests (test_litellm.py). Its config files name the toy upstream and the csrm servers by
variables of its environment. Loopback only; no database, no network.
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
from csrm_server import POLICY

# Importing LiteLLM's proxy takes minutes on a busy machine.
WAIT_S = 600.0
KEY = f"sk-{secrets.token_hex(32)}"


MODELS = """
model_list:
  - model_name: toy
    litellm_params: {model: openai/toy, api_base: os.environ/TOY_V1, api_key: none}
  - model_name: toy-text
    litellm_params: {model: text-completion-openai/toy, api_base: os.environ/TOY_V1, api_key: none}
  - model_name: toy-guarded
    litellm_params:
      {model: openai/toy, api_base: os.environ/TOY_V1, api_key: none, guardrails: [inside]}
  - model_name: toy-claude
    litellm_params: {model: anthropic/toy, api_base: os.environ/TOY, api_key: none}
"""
# As in docs/integrations/litellm.md.
DEFAULT_ON = f"""
guardrails:
  - guardrail_name: csrm
    litellm_params:
      guardrail: csrm.integrations.litellm.CsrmGuardrail
      mode: [pre_call, post_call]
      default_on: true
      safety_config: {POLICY}
      n_threads: 1
"""
INSIDE = f"""&inside
      guardrail: csrm.integrations.litellm.CsrmGuardrail
      mode: [pre_call, post_call]
      safety_config: {POLICY}
      n_threads: 1
"""
HTTP = """&http
      guardrail: generic_guardrail_api
      mode: [pre_call, post_call]
      api_base: os.environ/CSRM
      streaming_buffer_until_moderated: true
"""
BY_NAME = f"""
guardrails:
  - guardrail_name: inside
    litellm_params: {INSIDE}
  - guardrail_name: http
    litellm_params: {HTTP}
  - guardrail_name: inside-late
    litellm_params: {{<<: *inside, deadline_s: 0}}
  - guardrail_name: http-late
    litellm_params: {{<<: *http, api_base: os.environ/CSRM_LATE}}
  - guardrail_name: http-gone
    litellm_params: {{<<: *http, api_base: os.environ/CSRM_GONE}}
  - guardrail_name: during
    litellm_params: {{<<: *inside, mode: during_call}}
  - guardrail_name: judged
    litellm_params: {{<<: *inside, mode: post_call, release: judged}}
  - guardrail_name: strict
    litellm_params: {{<<: *inside, threshold: 1.0}}
  - guardrail_name: lower
    litellm_params: {{<<: *inside, threshold: 0.0}}
"""


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
