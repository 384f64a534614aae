"""The OpenAPI document, made from the table of endpoints and their schemas (schemas.py).

Not: validation; the adapters check what they are sent. tests/integrations/test_schemathesis.py
holds the running server to this document.
"""

from __future__ import annotations

import re

import csrm
from csrm.serve.call import CONFIG_HEADER, DEADLINE_HEADER
from csrm.serve.inputs import ROLE_HEADER
from csrm.serve.routes import PIN, ROWS, Row
from csrm.serve.schemas import ANSWERS, COMPONENTS, REQUESTS

_STATE: dict[str, object] = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"enum": ["loading", "ready", "draining", "failed"]}},
}
# Path -> what it says, its other statuses, media type and schema.
_UNGUARDED: tuple[tuple[str, str, tuple[str, ...], str, dict[str, object]], ...] = (
    ("/healthz", "Whether the process lives.", ("500",), "application/json", _STATE),
    (
        "/readyz",
        "Whether it serves: 503 while loading or draining.",
        ("503",),
        "application/json",
        _STATE,
    ),
    ("/metrics", "Prometheus metrics.", (), "text/plain", {"type": "string"}),
    ("/openapi.json", "This document.", (), "application/json", {"type": "object"}),
)
# Headers that some endpoints read, if they are the caller's own (Endpoint.reads_headers).
_ROLE: dict[str, object] = {
    "name": ROLE_HEADER,
    "in": "header",
    "schema": {"enum": ["user", "assistant"]},
}
_ROLED = ("moderations", "classify", "predict")


def document() -> dict[str, object]:
    """The whole document."""
    paths: dict[str, dict[str, object]] = {}
    for row in ROWS:
        for path in (row.path, PIN + row.path) if row.is_pinnable else (row.path,):
            plain = path.replace("{rest:path}", "")
            for method in row.methods:
                paths.setdefault(plain, {})[method.lower()] = _operation(row, path, method)
    for path, summary, others, media, schema in _UNGUARDED:
        answer = {"description": summary, "content": {media: {"schema": schema}}}
        responses = dict.fromkeys(("200", *others), answer)
        name = path.strip("/").partition(".")[0]
        paths[path] = {"get": {"operationId": name, "summary": summary, "responses": responses}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "csrm", "version": csrm.__version__},
        "paths": paths,
        "components": {
            "schemas": COMPONENTS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{}, {"bearer": []}, {"key": []}],
    }


def _operation(row: Row, path: str, method: str) -> dict[str, object]:
    name = row.endpoint.name + ("_pinned" if path.startswith(PIN) else "")
    answers = ANSWERS.get(row.endpoint.name, {"default": ("The answer.", {})})
    operation: dict[str, object] = {
        "operationId": name if len(row.methods) == 1 else f"{name}_{method.lower()}",
        "summary": row.summary,
        "parameters": _parameters(row, path),
        "responses": {
            status: {"description": text, **({} if schema is None else {"content": _json(schema)})}
            for status, (text, schema) in answers.items()
        },
    }
    if row.example is not None:
        content = _json(REQUESTS.get(row.endpoint.name, {}), example=row.example)
        if row.endpoint.reads == "bytes":
            content |= {"text/plain": {"schema": {"type": "string"}}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(row: Row, path: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    if row.endpoint.reads_headers and row.is_pinnable:
        number: dict[str, object] = {"type": "number", "exclusiveMinimum": 0}
        found.append({"name": CONFIG_HEADER, "in": "header", "schema": {"type": "string"}})
        found.append({"name": DEADLINE_HEADER, "in": "header", "schema": number})
    if row.endpoint.name in _ROLED:
        found.append(_ROLE)
    return found


def _json(schema: dict[str, object], **more: object) -> dict[str, object]:
    return {"application/json": {"schema": schema, **more}}
