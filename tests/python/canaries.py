"""Requests that carry a canary in every place a request has: fields, keys, headers, paths, broken
bodies, config texts. test_serve_redaction.py sends them and looks for it where it must not be.

Not: what an endpoint answers. Most of these fail; some are fine, and must not leak either. Each has
a canary of its own, so that a leak names its case.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from serve_client import config_text

from csrm.serve.routes import PIN, ROWS, Row

WORD = "qxcanary"


@dataclass(frozen=True)
class Canaried:
    """One request. `body` is bytes, something for JSON, or None."""

    what: str
    canary: str
    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def given(self) -> dict[str, Any]:
        """The arguments for httpx."""
        found: dict[str, Any] = {"headers": self.headers}
        if isinstance(self.body, bytes):
            found["content"] = self.body
        elif self.body is not None:
            found["json"] = self.body
        return found


# Where the operator's own words are answered and counted: the version of a config.
_OPERATORS = ("version",)
_HEADERS = (
    *("authorization", "x-api-key", "x-csrm-key", "x-csrm-config", "x-csrm-role"),
    *("x-csrm-deadline-ms", "traceparent", "tracestate", "content-type", "content-encoding"),
    *("x-envoy-auth-partial-body", "user-agent", "cookie", "x-request-id", "x-forwarded-for"),
)
# Bodies with C for the canary.
_BROKEN = (
    b'{"messages": "C',
    b'{"C": 1, "C": 1}',
    b'{"C": "C\xff"}',
    b'{"messages": [{"role": "user", "content": "C\\ud800"}], "input": "C\\ud800"}',
    b'{"C": NaN}',
    b'{"C": ' + b"[" * 40 + b'"C"' + b"]" * 40 + b"}",
    b'{"C": 1' + b"0" * 5000 + b"}",
    b'["C"]',
    b"C",
)
# Config texts with C for the canary: (content type, text).
CONFIG_TEXTS = (
    ("text/yaml", "rules: [C, &C"),
    ("text/yaml", "rules:\n- text: C\n  C: C\n"),
    ("text/yaml", "rules:\n- C\n- C: C: C\n"),
    ("text/yaml", "C: C\nrules: [C]\n"),
    ("text/yaml", "rules: [C]\nrules: [C]\n"),
    ("text/yaml", "id: C C\nrules: [C]\n"),
    ("text/yaml", "threshold: C\nrules: [C]\n"),
    ("text/yaml", "rules: !!C [C]\n"),
    ("text/yaml", "rules: *C\n"),
    ("text/yaml", "rules: [{text: C, severity: C}]\n"),
    ("text/yaml", "rules: [{text: C, action: C}]\n"),
    ("text/yaml", "rules: C\n"),
    ("text/yaml", "- C\n"),
    ("text/yaml", "rules: ['C\n"),
    ("text/yaml", "rules: [C]\n---\nrules: [C]\n"),
    ("text/yaml", "rules:\n\t- C\n"),
    ("application/json", '{"rules": [{"text": "C", "C": "C"}]}'),
    ("application/json", '{"rules": ["C"'),
    ("application/json", '{"rules": [{"name": "C", "text": " "}]}'),
    ("text/markdown", "---\nC: C\n---\n- C\n"),
    ("text/markdown", "# C\n\nC\n"),
    ("text/plain", "S1: C.\nS1: C.\n"),
    ("text/plain", "C\n\n1. C\n3. C\n"),
    ("text/plain", "\x00C\n"),
)


def requests() -> list[Canaried]:
    """All of them, each with its own canary."""
    made: list[Canaried] = []
    for row in ROWS:
        for build in (_in_fields, _in_headers, _in_paths, _broken):
            for what, method, path, body, headers in build(row):
                canary = f"{WORD}{len(made):04d}x"
                marked = body.replace(b"C", canary.encode()) if isinstance(body, bytes) else body
                made.append(
                    Canaried(
                        f"{row.endpoint.name}: {what}",
                        canary,
                        method,
                        path.replace(WORD, canary),
                        _marked(marked, canary),
                        {key: value.replace(WORD, canary) for key, value in headers.items()},
                    )
                )
    for kind, text in CONFIG_TEXTS:
        canary = f"{WORD}{len(made):04d}x"
        content = text.replace("C", canary).encode()
        headers = {"content-type": kind}
        path = "/v1/configs/new"
        made.append(Canaried(f"config: {text}", canary, "PUT", path, content, headers))
    return made


Made = tuple[str, str, str, Any, dict[str, str]]


def _place(row: Row) -> tuple[str, str]:
    path = row.path.replace("{rest:path}", "/v1/chat").replace("{id}", "canaried")
    return "POST" if "POST" in row.methods else row.methods[0], path


def _in_fields(row: Row) -> Iterator[Made]:
    """The canary in place of every value, as a key of every object, and in place of every key."""
    if row.example is None:
        return
    method, path = _place(row)
    for where, changed in _changes(row.example):
        yield where, method, path, changed, {}


def _changes(node: Any, where: str = "$") -> Iterator[tuple[str, Any]]:
    if isinstance(node, str):
        yield f"{where} is text", f"{WORD} z"  # "z" has no finite reward
        yield f"{where} is text, fine", f"{node} {WORD}"
    yield f"{where} is an object", {WORD: WORD}
    yield f"{where} is a list", [WORD]
    yield f"{where} is a list of lists", [[[WORD]]]
    if isinstance(node, dict):
        yield f"{where} has a key more", {**node, WORD: WORD}
        for name, value in node.items():
            if name in _OPERATORS:
                continue
            rest = {key: kept for key, kept in node.items() if key != name}
            yield f"{where}.{name} has another name", {**rest, WORD: value}
            for what, changed in _changes(value, f"{where}.{name}"):
                yield what, {**rest, name: changed}
    if isinstance(node, list):
        for i, value in enumerate(node):
            for what, changed in _changes(value, f"{where}[{i}]"):
                yield what, [*node[:i], changed, *node[i + 1 :]]


def _in_headers(row: Row) -> Iterator[Made]:
    method, path = _place(row)
    for name in _HEADERS:
        value = f"Bearer {WORD}" if name == "authorization" else WORD
        yield f"header {name}", method, path, row.example, {name: value}


def _in_paths(row: Row) -> Iterator[Made]:
    method, path = _place(row)
    paths = [f"/{WORD}{path}", f"{path}/{WORD}", f"{path}?{WORD}={WORD}", f"{path}/"]
    if row.is_pinnable:
        paths.append(PIN.replace("{config_id}", WORD) + path)
    for place in paths:
        yield "path", method, place, row.example, {}
    yield "method", WORD.upper(), path, row.example, {}


def _broken(row: Row) -> Iterator[Made]:
    if row.example is None:
        return
    method, path = _place(row)
    for number, body in enumerate(_BROKEN):
        yield f"broken body {number}", method, path, body, {}


def _marked(body: Any, canary: str) -> Any:
    """The body with its own canary in every place of the word."""
    if body is None or isinstance(body, bytes):
        return body
    return json.loads(json.dumps(body).replace(WORD, canary))


def stream_messages() -> list[list[object]]:
    """Exchanges of /v1/stream that hold the word."""
    asked = {"messages": [{"role": "user", "content": WORD}], "every_append": True}
    return [
        [WORD],
        [f'{{"{WORD}": 1, "{WORD}": 1}}'],
        [{WORD: WORD}],
        [{"config": WORD}],
        [{"messages": WORD}],
        [{"messages": [{WORD: WORD}]}],
        [{"messages": [{"role": WORD, "content": WORD}]}],
        [{"role": WORD}],
        [{"every_tokens": WORD}],
        [{"every_append": WORD}],
        [{"rules": [WORD], "threshold": WORD}],
        [{"rules": [{WORD: WORD}]}],
        [{"rules": WORD}],
        [asked, {WORD: WORD}],
        [asked, {"append": [WORD]}],
        [asked, {"append": WORD, WORD: 1}],
        [asked, {"append": f"{WORD} z"}],
        [asked, {"append": f"{WORD} \ud800"}],
        [asked, {"append": WORD}, {"finish": True}],
        [asked, {"append": WORD}, {"finish": WORD}],
    ]


def config_files() -> list[tuple[str, str]]:
    """(suffix, text) of files that a reload must refuse without repeating them."""
    suffixes = {
        "text/yaml": ".yaml",
        "application/json": ".json",
        "text/markdown": ".md",
        "text/plain": ".txt",
    }
    found = [(suffixes[kind], text.replace("C", WORD)) for kind, text in CONFIG_TEXTS]
    return [*found, (".yaml", config_text("policy", 2.0).replace("a b c d", WORD))]
