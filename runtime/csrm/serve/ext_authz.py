"""A check that Envoy (ext_authz, HTTP service) and other proxies ask before they pass a request on.

Not: the proxy's side (docs/serve.md). The body is the request of the proxy's client, in one of
OpenAI's shapes; so are its headers, which is why only x-csrm-key is read of them. 200 allows and
403 denies. A failure is 403 as well: proxies may be set to let other statuses pass.
"""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from csrm.serve.call import Call
from csrm.serve.failures import Failure
from csrm.serve.inputs import new_turn_cases, texts_of
from csrm.serve.judging import Decision, decide, decide_unknown, judge

_TEXT_FIELDS = ("messages", "prompt", "input")


async def check(call: Call) -> Response:
    """Allows or denies. Errors: Failure, csrm.Error, for `refuse`."""
    if call.connection.headers.get("x-envoy-auth-partial-body", "false").lower() != "false":
        raise Failure("PartialBody", "the proxy cut the body; raise its max_request_bytes")
    cases = new_turn_cases(call, [call.config()], _messages(call))
    return _answer(decide(call, await judge(call, cases)))


def refuse(call: Call, failure: Failure) -> Response:
    """What the proxy is told when the request could not be judged."""
    return _answer(decide_unknown(call, failure))


def _messages(call: Call) -> object:
    """The messages of the one field that has them: two would be read differently elsewhere."""
    present = [field for field in _TEXT_FIELDS if field in call.body]
    if len(present) != 1:
        raise Failure("BadRequest", f"the body must have one of {', '.join(_TEXT_FIELDS)}")
    given = call.body[present[0]]
    if present[0] == "messages":
        return given
    return [{"role": "user", "content": text} for text in texts_of(given, present[0])]


def _answer(decision: Decision) -> Response:
    headers = {"x-csrm-verdict": decision.verdict}
    if not decision.is_blocked:
        return Response(status_code=200, headers=headers)
    # Goes to the proxy's client: no more than it needs to know.
    known = decision.verdict == "violation"
    message = "the request violates a policy" if known else "the request could not be checked"
    error = {"code": "blocked", "message": message, "type": "policy", "param": None}
    return JSONResponse({"error": error}, 403, headers)
