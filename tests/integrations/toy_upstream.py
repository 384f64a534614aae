"""A model server for tests: completions and embeddings as of OpenAI, messages as of Anthropic.

Not: a model. It answers what a test told it to for the last text of a request, whole or streamed a
word at a time, and keeps what it was asked. Loopback only.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DEFAULT_ANSWER = "Feed the starter, mix flour and water, and bake it hot."


class Upstream:
    """The server, from construction to `close`. `calls` are the bodies it got."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        # By the last text of the request: the message of the answer, or its content alone.
        self.answers: dict[str, dict[str, Any] | str] = {}
        self.pause_s = 0.0  # after each chunk of a stream
        self.n_chunks = 0
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                upstream.calls.append({"path": self.path, **body})
                _answer(upstream, self, body)

            def log_message(self, format: str, *arguments: object) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def message_for(self, body: dict[str, Any]) -> dict[str, Any]:
        found = self.answers.get(_last_text(body), DEFAULT_ANSWER)
        message = {"content": found} if isinstance(found, str) else found
        return {"role": "assistant", **message}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _last_text(body: dict[str, Any]) -> str:
    if "messages" not in body:
        return str(body.get("prompt") or body.get("input"))
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else str(content[-1].get("text"))


def _answer(upstream: Upstream, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    message = upstream.message_for(body)
    handler.send_response(200)
    if body.get("stream"):
        handler.send_header("content-type", "text/event-stream")
        handler.end_headers()
        events = _events(message) if handler.path.endswith("/messages") else _chunks(message, body)
        for event in events:
            try:
                handler.wfile.write(event.encode())
            except OSError:
                return  # nobody reads on
            upstream.n_chunks += 1
            time.sleep(upstream.pause_s)
        return
    data = json.dumps(_whole(message, handler.path)).encode()
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def _whole(message: dict[str, Any], path: str) -> dict[str, Any]:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    head = {"id": "toy", "created": 1, "model": "toy", "usage": usage}
    if path.endswith("/embeddings"):
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
        return {**head, "object": "list", "data": data}
    if path.endswith("/messages"):
        content = [{"type": "text", "text": message["content"]}]
        counts = {"input_tokens": 1, "output_tokens": 1}
        head = {"id": "toy", "type": "message", "role": "assistant", "model": "toy"}
        return {**head, "content": content, "stop_reason": "end_turn", "usage": counts}
    if path.endswith("/chat/completions"):
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {**head, "object": "chat.completion", "choices": [choice]}
    choice = {"index": 0, "text": message["content"], "finish_reason": "stop"}
    return {**head, "object": "text_completion", "choices": [choice]}


def _words(text: str | None) -> list[str]:
    words = (text or "").split(" ")
    return [word if i == 0 else f" {word}" for i, word in enumerate(words) if word]


def _chunks(message: dict[str, Any], body: dict[str, Any]) -> Iterator[str]:
    """OpenAI's stream: the role, each word, then what tools are to do, the end."""
    is_chat = "messages" in body
    kind = "chat.completion.chunk" if is_chat else "text_completion"
    head = {"id": "toy", "created": 1, "model": "toy", "object": kind}
    parts: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for field in ("reasoning_content", "content"):
        parts += [{field: word} for word in _words(message.get(field))]
    parts += [{"tool_calls": [call]} for call in message.get("tool_calls", [])]
    for part, reason in [*((part, None) for part in parts), ({}, "stop")]:
        delta = {"delta": part} if is_chat else {"text": part.get("content", "")}
        choice = {"index": 0, "finish_reason": reason, **delta}
        yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"


def _events(message: dict[str, Any]) -> Iterator[str]:
    """Anthropic's stream of one block of text."""
    start = {**_whole({"content": ""}, "/messages"), "content": [], "stop_reason": None}
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    block = {"type": "text", "text": ""}
    words = [{"type": "text_delta", "text": word} for word in _words(message["content"])]
    events = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *({"type": "content_block_delta", "index": 0, "delta": word} for word in words),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    for event in events:
        yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
