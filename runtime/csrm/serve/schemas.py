"""JSON Schemas of what the endpoints read and answer, by the endpoint's name, for openapi.py.

Not: validation; the handlers check what they are sent. Of a peer's request only the fields that
csrm reads are here, so that a newer peer's are no contradiction. Answers are whole: they are ours.
Names of endpoints are those of routes.py; one that is not here has no schema.
"""

from __future__ import annotations

import json
from importlib.resources import files

from csrm.serve.failures import STATUSES

Schema = dict[str, object]

_ANY: Schema = {}
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_FLAG: Schema = {"type": "boolean"}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_VERDICT: Schema = {"enum": ["compliant", "violation"]}


def _object(required: Schema, optional: Schema | None = None, *, is_closed: bool = True) -> Schema:
    """An object with these properties, and no others if it is closed."""
    found: Schema = {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }
    return {**found, "additionalProperties": False} if is_closed else found


def _open(required: Schema, optional: Schema | None = None) -> Schema:
    """A peer's object: other properties may be there."""
    return _object(required, optional, is_closed=False)


def _list(items: Schema, least: int = 0) -> Schema:
    return {"type": "array", "items": items, **({"minItems": least} if least else {})}


def _nullable(*types: str) -> Schema:
    return {"type": [*types, "null"]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _named(text: str, schema: Schema) -> Schema:
    return {**schema, "description": text}


_TEXTS: Schema = {"anyOf": [_TEXT, _list(_TEXT, 1)]}
_MESSAGES = _list(_ref("Message"), 1)
_CONFIG: Schema = {
    "config_id": _TEXT,
    "config_version": _TEXT,
    "config_digest": _TEXT,
    "threshold": _SHARE,
}
_SUMMARY: Schema = {
    "id": _TEXT,
    "version": _TEXT,
    "digest": _TEXT,
    "threshold": _SHARE,
    "n_rules": _COUNT,
    "source": {"enum": ["file", "api"]},
}
_RULE_SCORE = _object(
    {"index": _COUNT, "name": _TEXT, "reward": _NUMBER, "compliance": _SHARE, "verdict": _VERDICT}
)
_SCORED: Schema = {
    "flagged": _named("True unless the verdict is compliant.", _FLAG),
    "verdict": _VERDICT,
    "reason": _TEXT,
    "reward": _named("Log-odds that the judged turn complies.", _NUMBER),
    "compliance": _SHARE,
    "scored_tokens": _COUNT,
    **_CONFIG,
}
_SCORED_MORE: Schema = {
    "rules": _list(_RULE_SCORE),
    "turns": _list(_object({"turn": _COUNT, "reward": _NUMBER, "compliance": _SHARE})),
}
_UNSCORED = _object(
    {"index": _COUNT, "flagged": {"const": True}, "verdict": {"const": "unknown"}, **_CONFIG},
    {"error": _ref("Error")},
)
_IDENTITY: Schema = {"id": _TEXT, "artifact_digest": _TEXT}


def _config_schemas() -> dict[str, Schema]:
    """The schema of config files, with its parts where the document has them."""
    text = files("csrm").joinpath("config.schema.json").read_text(encoding="utf-8")
    whole = json.loads(text.replace("#/$defs/rule", "#/components/schemas/Rule"))
    rule = whole.pop("$defs")["rule"]
    del whole["$schema"]
    return {"Config": whole, "Rule": rule}


# For components/schemas of the document.
COMPONENTS: dict[str, Schema] = {
    "Message": _open(
        {
            "role": {"enum": ["system", "developer", "user", "assistant", "tool", "function"]},
            "content": _named("A string, or a list of parts of type text.", _ANY),
        }
    ),
    "ScoreRequest": _object(
        {},
        {
            "messages": _MESSAGES,
            "conversations": _list(_MESSAGES, 1),
            "config": _named("Id of a config.", _nullable("string")),
            "rules": _named("Rules of this request, in place of config.", _ANY),
            "threshold": {
                "type": ["number", "null"],
                "minimum": 0,
                "maximum": 1,
                "description": "Raises the config's threshold; never lowers it.",
            },
            "judged": {"enum": ["last", "assistant"]},
            "explain": _named(
                "Also score each rule alone; fast: approximately.", {"enum": [True, False, "fast"]}
            ),
            "deadline_ms": _named("Positive; less time than the server's own.", _ANY),
        },
    ),
    "Answer": {
        "anyOf": [
            _object({**_IDENTITY, **_SCORED}, _SCORED_MORE),
            _object(
                {
                    **_IDENTITY,
                    **_CONFIG,
                    "results": _list(
                        {"anyOf": [_object({"index": _COUNT, **_SCORED}, _SCORED_MORE), _UNSCORED]}
                    ),
                }
            ),
        ]
    },
    "Error": _object(
        {
            "code": {"enum": sorted(STATUSES)},
            "message": _TEXT,
            "type": {"enum": ["invalid_request_error", "server_error"]},
            "param": {"type": "null"},
        }
    ),
    "Failure": _object(
        {
            "error": _ref("Error"),
            "verdict": {"const": "unknown"},
            "flagged": {"const": True},
        }
    ),
    **_config_schemas(),
}


REQUESTS: dict[str, Schema] = {
    "score": {
        **_ref("ScoreRequest"),
        "oneOf": [{"required": ["messages"]}, {"required": ["conversations"]}],
    },
    "check_config": _ref("Config"),
    "put_config": _ref("Config"),
    "moderations": _open(
        {"input": {"anyOf": [_TEXT, _list(_TEXT, 1), _list({"type": "object"}, 1)]}},
        {"model": _nullable("string")},
    ),
    "litellm": _open(
        {"input_type": {"enum": ["request", "response"]}},
        {
            "texts": _list(_TEXT),
            "structured_messages": {"anyOf": [_MESSAGES, {"type": "null"}]},
            "tool_calls": _ANY,
            "images": _named("If there are any, the answer is BLOCKED.", _ANY),
            "additional_provider_specific_params": _nullable("object"),
        },
    ),
    "agentgateway_request": _open({"body": _open({"messages": _MESSAGES})}),
    "agentgateway_response": _open(
        {"body": _open({"choices": _list(_open({"message": {"type": "object"}}), 1)})}
    ),
    "portkey": _open(
        {
            "eventType": {"enum": ["beforeRequestHook", "afterRequestHook"]},
            "request": {"type": "object"},
        },
        {"response": {"type": "object"}},
    ),
    "classify": {
        **_open(
            {},
            {"model": _nullable("string"), "input": _TEXTS, "messages": _MESSAGES},
        ),
        "anyOf": [{"required": ["input"]}, {"required": ["messages"]}],
    },
    "get_reward": _open(
        {"query": _TEXTS},
        {"prompts": _nullable("array"), "labels": _nullable("array")},
    ),
    "predict": _open(
        {
            "inputs": {
                "anyOf": [_TEXT, _list(_TEXT, 1), _list(_list(_TEXT, 1), 1)],
                "description": "A text, a pair of texts, or a list of lists of these.",
            }
        }
    ),
    "ext_authz": {
        "type": "object",
        "properties": {"messages": _MESSAGES, "prompt": _TEXTS, "input": _TEXTS},
        "oneOf": [{"required": [field]} for field in ("messages", "prompt", "input")],
    },
}

_SCORES: Schema = {"type": "object", "additionalProperties": _SHARE}
_LABELS = _list(_object({"label": _VERDICT, "score": _NUMBER}))
_DENIED = _object(
    {
        "error": _object(
            {
                "code": {"const": "blocked"},
                "message": _TEXT,
                "type": {"const": "policy"},
                "param": {"type": "null"},
            }
        )
    }
)
_LITELLM: Schema = {
    "anyOf": [
        _object({"action": {"const": "NONE"}}),
        _object({"action": {"const": "BLOCKED"}, "blocked_reason": _TEXT}),
    ]
}
_WEBHOOK = _object(
    {"action": _object({"reason": _TEXT}, {"body": _TEXT, "status_code": {"const": 403}})}
)
_FAILURE = ("Not judged.", _ref("Failure"))

# Endpoint -> status ("default" = any other) -> what it means and the body; None = there is none.
ANSWERS: dict[str, dict[str, tuple[str, Schema | None]]] = {
    "score": {"200": ("Judged.", _ref("Answer")), "default": _FAILURE},
    "configs": {
        "200": (
            "Those that the key may use.",
            _object({**_IDENTITY, "default": _TEXT, "configs": _list(_object(_SUMMARY))}),
        ),
        "default": _FAILURE,
    },
    "config": {
        "200": (
            "The config.",
            _object({**_SUMMARY, "description": _TEXT, "rules": _list({"type": "object"})}),
        ),
        "default": _FAILURE,
    },
    "check_config": {
        "200": (
            "What the config states.",
            _object(
                {
                    **_IDENTITY,
                    **_SUMMARY,
                    "source": {"const": "request"},
                    "format": {"enum": ["yaml", "text", "llamaguard", "numbered"]},
                    "description": _TEXT,
                    "rules": _list({"type": "object"}),
                }
            ),
        ),
        "default": _FAILURE,
    },
    "put_config": {
        "200": ("Replaced.", _object(_SUMMARY)),
        "201": ("Added.", _object(_SUMMARY)),
        "default": _FAILURE,
    },
    "delete_config": {"204": ("Removed.", None), "default": _FAILURE},
    "moderations": {
        "200": (
            "Judged.",
            _object(
                {
                    **_IDENTITY,
                    "model": _TEXT,
                    "results": _list(
                        _object(
                            {
                                "flagged": _FLAG,
                                "categories": {
                                    "type": "object",
                                    "additionalProperties": _FLAG,
                                },
                                "category_scores": _SCORES,
                                "category_applied_input_types": {"type": "object"},
                                "metadata": {"type": "object"},
                            }
                        )
                    ),
                }
            ),
        ),
        "default": _FAILURE,
    },
    "litellm": {
        "200": ("Decided; BLOCKED too when there is no verdict.", _LITELLM),
        "default": ("BLOCKED: a key or config is wrong.", _LITELLM),
    },
    "agentgateway_request": {
        "200": ("Decided; with status_code it is rejected.", _WEBHOOK),
    },
    "agentgateway_response": {
        "200": ("Decided; with status_code it is rejected.", _WEBHOOK),
    },
    "portkey": {
        "200": (
            "Decided; false too when there is no verdict.",
            _object(
                {
                    "verdict": _FLAG,
                    "data": _object(
                        {
                            "reason": _TEXT,
                            "verdict": {"enum": ["compliant", "violation", "unknown"]},
                        }
                    ),
                }
            ),
        )
    },
    "classify": {
        "200": (
            "Judged.",
            _object(
                {
                    **_IDENTITY,
                    "object": {"const": "list"},
                    "created": _COUNT,
                    "model": _TEXT,
                    "data": _list(
                        _object(
                            {
                                "index": _COUNT,
                                "label": _VERDICT,
                                "probs": _list(_NUMBER, 1),
                                "num_classes": {"enum": [1, 2]},
                            }
                        )
                    ),
                    "usage": {"type": "object"},
                }
            ),
        ),
        "default": _FAILURE,
    },
    "get_reward": {
        "200": (
            "Judged.",
            _object(
                {
                    "rewards": _list(_NUMBER),
                    "scores": _list(_SHARE),
                    "extra_logs": {"type": "object"},
                }
            ),
        ),
        "default": _FAILURE,
    },
    "predict": {
        "200": ("Judged.", {"anyOf": [_LABELS, _list(_LABELS)]}),
        "default": _FAILURE,
    },
    "ext_authz": {"200": ("Let it pass.", None), "403": ("Deny it.", _DENIED)},
}
