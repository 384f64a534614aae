"""The table of endpoints: path, method, handler, what it is for and an example of its body.

Not: HTTP or documents. app.py makes routes of it and openapi.py the OpenAPI document; a test sends
every example.
"""

from __future__ import annotations

from dataclasses import dataclass

from csrm.serve import (
    agentgateway,
    ext_authz,
    litellm,
    moderations,
    native,
    portkey,
    reward_servers,
)
from csrm.serve.endpoint import Endpoint

PIN = "/configs/{config_id}"
_ASK = {"role": "user", "content": "Will I get my money back?"}
_ANSWER = {"role": "assistant", "content": "I cannot promise that; our refund team will check."}
_CHAT = [_ASK, _ANSWER]
_ANY_METHOD = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True)
class Row:
    """One endpoint. is_pinnable: also there under /configs/{config_id}, which fixes the config."""

    path: str
    methods: tuple[str, ...]
    endpoint: Endpoint
    summary: str
    example: dict[str, object] | None = None
    is_pinnable: bool = False


ROWS = (
    Row(
        "/v1/score",
        ("POST",),
        Endpoint("score", native.score),
        "Score one conversation (messages) or several (conversations) under a config.",
        {"messages": _CHAT, "explain": True},
        True,
    ),
    Row(
        "/v1/configs",
        ("GET",),
        Endpoint("configs", native.list_configs, reads="nothing"),
        "List the configs.",
    ),
    Row(
        "/v1/configs/check",
        ("POST",),
        Endpoint("check_config", native.check_config, reads="bytes"),
        "Read a config in any format and answer what it states; nothing is stored.",
        {"version": "1", "threshold": 0.5, "rules": [{"name": "Refunds", "text": "No promises."}]},
    ),
    Row(
        "/v1/configs/{id}",
        ("GET",),
        Endpoint("config", native.get_config, reads="nothing"),
        "A config with its rules.",
    ),
    Row(
        "/v1/configs/{id}",
        ("PUT",),
        Endpoint("put_config", native.put_config, reads="bytes"),
        "Add or replace a config; admin keys only.",
        {"version": "1", "threshold": 0.5, "rules": [{"name": "Refunds", "text": "No promises."}]},
    ),
    Row(
        "/v1/configs/{id}",
        ("DELETE",),
        Endpoint("delete_config", native.delete_config, reads="nothing"),
        "Remove a config that PUT made; admin keys only.",
    ),
    Row(
        "/v1/moderations",
        ("POST",),
        Endpoint("moderations", moderations.moderate),
        "OpenAI's moderations; model names the config, categories are its rules.",
        {"input": ["Will I get my money back?"], "model": "omni-moderation-latest"},
        True,
    ),
    Row(
        "/beta/litellm_basic_guardrail_api",
        ("POST",),
        Endpoint("litellm", litellm.check, litellm.refuse),
        "LiteLLM's generic guardrail API.",
        {
            "input_type": "response",
            "texts": [_ANSWER["content"]],
            "structured_messages": [_ASK],
            "litellm_call_id": "0d6f0fd2-30a8-4a0b-8b8f-0a9f1a9f3f0e",
        },
        True,
    ),
    Row(
        "/request",
        ("POST",),
        Endpoint(
            "agentgateway_request",
            agentgateway.check_request,
            agentgateway.refuse,
            reads_headers=False,
        ),
        "agentgateway's webhook, before the model is asked.",
        {"body": {"messages": [_ASK]}},
        True,
    ),
    Row(
        "/response",
        ("POST",),
        Endpoint(
            "agentgateway_response",
            agentgateway.check_response,
            agentgateway.refuse,
            reads_headers=False,
        ),
        "agentgateway's webhook, before the answer is passed on.",
        {"body": {"choices": [{"message": _ANSWER}]}},
        True,
    ),
    Row(
        "/portkey",
        ("POST",),
        Endpoint("portkey", portkey.check, portkey.refuse),
        "Portkey's webhook guardrail.",
        {
            "eventType": "beforeRequestHook",
            "request": {"json": {"messages": [_ASK]}, "text": _ASK["content"]},
            "response": {"json": {}, "text": ""},
        },
        True,
    ),
    Row(
        "/classify",
        ("POST",),
        Endpoint("classify", reward_servers.classify),
        "vLLM's /classify, as verl's reward client calls it.",
        {"model": "csrm", "input": [_ANSWER["content"]], "use_activation": False},
        True,
    ),
    Row(
        "/get_reward",
        ("POST",),
        Endpoint("get_reward", reward_servers.get_reward),
        "OpenRLHF's remote reward; labels may name configs.",
        {"query": [f"{_ASK['content']}{_ANSWER['content']}"], "prompts": [_ASK["content"]]},
        True,
    ),
    Row(
        "/predict",
        ("POST",),
        Endpoint("predict", reward_servers.predict),
        "TEI's /predict: texts, or pairs of a user's and an assistant's text.",
        {"inputs": [[_ASK["content"], _ANSWER["content"]]], "raw_scores": False},
        True,
    ),
    Row(
        "/ext_authz{rest:path}",
        _ANY_METHOD,
        Endpoint("ext_authz", ext_authz.check, ext_authz.refuse, reads_headers=False),
        "Envoy's ext_authz over HTTP: 200 allows, 403 denies.",
        {"model": "gpt-x", "messages": [_ASK]},
        True,
    ),
)
