"""LiteLLM's generic guardrail API: POST /beta/litellm_basic_guardrail_api.

Not: a LiteLLM plugin; nothing of LiteLLM is needed here. The config is that of the path, the header
or the key. What stands in additional_provider_specific_params may come from the end user: a config
or threshold there is demanded in addition, so that it can tighten and never loosen. Fields that are
not known are ignored, because the API is in beta. Every decision is status 200, also the one that
blocks because there is no verdict: LiteLLM may be set to let requests pass on other statuses.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import JSONResponse, Response

from csrm.serve.call import Call
from csrm.serve.configs import NamedConfig
from csrm.serve.failures import Failure
from csrm.serve.inputs import answer_cases, new_turn_cases, texts_of, threshold_of, tool_texts
from csrm.serve.judging import Case, Decision, decide, decide_unknown, judge

# Failures that are the operator's mistake. Their status tells; the body blocks all the same.
_SETUP = (401, 403, 404)


async def check(call: Call) -> Response:
    """BLOCKED or NONE; never changes a text. Errors: Failure, csrm.Error, for `refuse`."""
    named = _configs(call)
    kind = call.body.get("input_type")
    if _present(call, "images"):
        raise Failure("BadConversation", "csrm reads text only; it cannot judge images")
    if kind == "request":
        cases = new_turn_cases(call, named, _request_messages(call))
    elif kind == "response":
        cases = _response_cases(call, named)
    else:
        raise Failure("BadRequest", 'input_type must be "request" or "response"')
    return _answer(decide(call, await judge(call, cases)))


def refuse(call: Call, failure: Failure) -> Response:
    """What LiteLLM is told when the request could not be judged."""
    status = failure.status if failure.status in _SETUP else 200
    return _answer(decide_unknown(call, failure), status)


def _configs(call: Call) -> list[NamedConfig]:
    """The operator's config, and what the parameters demand beside it."""
    given = call.body.get("additional_provider_specific_params") or {}
    if not isinstance(given, dict):
        raise Failure("BadRequest", "additional_provider_specific_params must be an object")
    threshold = threshold_of(given.get("threshold"))
    found = [call.config()]
    extra = given.get("config_id")
    if extra not in (None, "", found[0].id):
        found.append(call.config_of(extra))
    return [named.at_least(threshold) for named in found]


def _request_messages(call: Call) -> object:
    """The messages; without them (completions, rerank) each text is a turn of the user."""
    if _present(call, "structured_messages"):
        return call.body["structured_messages"]
    return [{"role": "user", "content": text} for text in texts_of(call.body.get("texts"), "texts")]


def _response_cases(call: Call, named: Sequence[NamedConfig]) -> list[Case]:
    """Each text is one choice of the model: an answer to the same messages, if these were sent."""
    given = call.body.get("texts") or []
    texts = texts_of(given, "texts") if given else []
    texts += tool_texts(call.body.get("tool_calls"))
    return answer_cases(named, call.body.get("structured_messages") or [], texts)


def _present(call: Call, field: str) -> bool:
    return bool(call.body.get(field))


def _answer(decision: Decision, status: int = 200) -> Response:
    if not decision.is_blocked:
        return JSONResponse({"action": "NONE"}, status)
    return JSONResponse({"action": "BLOCKED", "blocked_reason": decision.reason}, status)
