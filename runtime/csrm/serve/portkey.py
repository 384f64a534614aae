"""Portkey's webhook guardrail: POST /portkey.

Not: transforming; the verdict is all. Portkey counts a check that errs as passed unless it is told
otherwise, so every decision is status 200 and false when there is no verdict.
"""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from csrm.serve.call import Call
from csrm.serve.configs import NamedConfig
from csrm.serve.failures import Failure
from csrm.serve.inputs import answer_cases, choice_texts, new_turn_cases, texts_of
from csrm.serve.judging import Case, Decision, decide, decide_unknown, judge


async def check(call: Call) -> Response:
    """Judges the request before it is sent, or the response after. Errors: for `refuse`."""
    event = call.body.get("eventType")
    if event == "beforeRequestHook":
        cases = new_turn_cases(call, [call.config()], _messages(_part(call, "request")))
    elif event == "afterRequestHook":
        cases = _response_cases(call, call.config())
    else:
        raise Failure("BadRequest", "eventType must be beforeRequestHook or afterRequestHook")
    return _answer(decide(call, await judge(call, cases)))


def refuse(call: Call, failure: Failure) -> Response:
    """What Portkey is told when there is no verdict."""
    return _answer(decide_unknown(call, failure))


def _response_cases(call: Call, named: NamedConfig) -> list[Case]:
    response = _part(call, "response")
    document = response.get("json")
    if isinstance(document, dict) and "choices" in document:
        texts = choice_texts(document["choices"])
    else:
        texts = texts_of(response.get("text"), "the text of the response")
    return answer_cases([named], _messages(_part(call, "request")), texts)


def _messages(request: dict[str, object]) -> object:
    """The chat of a request, or its text as a turn of the user."""
    document = request.get("json")
    if isinstance(document, dict) and "messages" in document:
        return document["messages"]
    texts = texts_of(request.get("text"), "the text of the request")
    return [{"role": "user", "content": text} for text in texts]


def _part(call: Call, name: str) -> dict[str, object]:
    part = call.body.get(name)
    if not isinstance(part, dict):
        raise Failure("BadRequest", f"{name} must be an object")
    return part


def _answer(decision: Decision) -> Response:
    data = {"reason": decision.reason, "verdict": decision.verdict}
    return JSONResponse({"verdict": not decision.is_blocked, "data": data})
