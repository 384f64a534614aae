"""agentgateway's guardrail webhook: POST /request and POST /response.

Not: masking; texts are passed or rejected as they are. The gateway may forward its client's
headers, so only x-csrm-key is read of them. Every decision is status 200, the one without a verdict
too.
"""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from csrm.serve.call import Call
from csrm.serve.failures import Failure
from csrm.serve.inputs import answer_cases, choice_texts, new_turn_cases
from csrm.serve.judging import Decision, decide, decide_unknown, judge

_BLOCKED = {"violation": "violates a policy", "unknown": "could not be checked"}


async def check_request(call: Call) -> Response:
    """The turns that the model is to answer. Errors: Failure, csrm.Error, for `refuse`."""
    cases = new_turn_cases(call, [call.config()], _body(call).get("messages"))
    return _answer(decide(call, await judge(call, cases)))


async def check_response(call: Call) -> Response:
    """The choices of the model; the request is not sent along. Errors: as above."""
    cases = answer_cases([call.config()], [], choice_texts(_body(call).get("choices")))
    return _answer(decide(call, await judge(call, cases)))


def refuse(call: Call, failure: Failure) -> Response:
    """What the gateway is told when there is no verdict."""
    return _answer(decide_unknown(call, failure))


def _body(call: Call) -> dict[str, object]:
    body = call.body.get("body")
    if not isinstance(body, dict):
        raise Failure("BadRequest", "body must be an object")
    return body


def _answer(decision: Decision) -> Response:
    action: dict[str, object] = {"reason": decision.reason}
    if decision.is_blocked:
        what = _BLOCKED.get(decision.verdict, "is blocked")
        action.update(body=f"the text {what}", status_code=403)
    return JSONResponse({"action": action})
