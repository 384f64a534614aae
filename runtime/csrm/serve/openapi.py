"""The OpenAPI document, made from the table of endpoints and the table of failures.

Not: validation; the adapters check what they are sent. Peers' formats are described by an example
and a link to their own documents' terms, not by a schema that would go stale.
"""

from __future__ import annotations

import re

import csrm
from csrm.serve.failures import STATUSES
from csrm.serve.routes import PIN, ROWS, Row

_MESSAGES = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant", "tool", "function"]},
            "content": {"description": "A string, or a list of parts of type text."},
        },
    },
}
_SCORE_REQUEST = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "messages": _MESSAGES,
        "conversations": {"type": "array", "items": _MESSAGES},
        "config": {"type": "string", "description": "Id of a config."},
        "rules": {"type": "array", "description": "Rules of this request, in place of config."},
        "threshold": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "Raises the config's threshold; never lowers it.",
        },
        "judged": {"enum": ["last", "assistant"]},
        "explain": {
            "enum": [True, False, "fast"],
            "description": "Also score each rule alone; fast: approximately.",
        },
        "deadline_ms": {"type": "number"},
    },
}
_ANSWER = {
    "type": "object",
    "properties": {
        "flagged": {"type": "boolean", "description": "True unless the verdict is compliant."},
        "verdict": {"enum": ["compliant", "violation", "unknown"]},
        "reward": {"type": "number", "description": "Log-odds that the judged turn complies."},
        "compliance": {"type": "number", "minimum": 0, "maximum": 1},
        "threshold": {"type": "number"},
        "config_id": {"type": "string"},
        "config_version": {"type": "string"},
        "config_digest": {"type": "string"},
        "artifact_digest": {"type": "string"},
        "scored_tokens": {"type": "integer"},
        "reason": {"type": "string"},
        "rules": {"type": "array", "items": {"type": "object"}},
        "turns": {"type": "array", "items": {"type": "object"}},
        "results": {"type": "array", "items": {"type": "object"}},
    },
}
_FAILURE = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"enum": sorted(STATUSES)},
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": "null"},
            },
        },
        "verdict": {"const": "unknown"},
        "flagged": {"const": True},
    },
}
_UNGUARDED = {
    "/healthz": "Whether the process lives.",
    "/readyz": "Whether it serves: 503 while loading or draining.",
    "/metrics": "Prometheus metrics.",
    "/openapi.json": "This document.",
}


def document() -> dict[str, object]:
    """The whole document."""
    paths: dict[str, dict[str, object]] = {}
    for row in ROWS:
        for path in (row.path, PIN + row.path) if row.is_pinnable else (row.path,):
            plain = path.replace("{rest:path}", "")
            for method in row.methods:
                paths.setdefault(plain, {})[method.lower()] = _operation(row, path, method)
    for path, summary in _UNGUARDED.items():
        paths[path] = {"get": {"summary": summary, "responses": {"200": {"description": "Yes."}}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "csrm", "version": csrm.__version__},
        "paths": paths,
        "components": {
            "schemas": {"Answer": _ANSWER, "Failure": _FAILURE, "ScoreRequest": _SCORE_REQUEST},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{}, {"bearer": []}, {"key": []}],
    }


def _operation(row: Row, path: str, method: str) -> dict[str, object]:
    name = row.endpoint.name + ("_pinned" if path.startswith(PIN) else "")
    is_score = row.endpoint.name == "score"
    answer = {"$ref": "#/components/schemas/Answer"} if is_score else {}
    operation: dict[str, object] = {
        "operationId": name if len(row.methods) == 1 else f"{name}_{method.lower()}",
        "summary": row.summary,
        "parameters": [
            {"name": found, "in": "path", "required": True, "schema": {"type": "string"}}
            for found in re.findall(r"{(\w+)}", path)
        ],
        "responses": {
            "200": {"description": "Answered.", "content": _json(answer)},
            "default": {
                "description": "Not judged.",
                "content": _json({"$ref": "#/components/schemas/Failure"}),
            },
        },
    }
    if row.example is not None:
        schema = {"$ref": "#/components/schemas/ScoreRequest"} if is_score else {}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": row.example}},
        }
    return operation


def _json(schema: dict[str, str]) -> dict[str, object]:
    return {"application/json": {"schema": schema}}
