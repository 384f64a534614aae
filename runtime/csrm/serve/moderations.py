"""POST /v1/moderations as OpenAI's clients call it; categories are the rules of the config.

Not: OpenAI's categories. `model` names the config. There is no "unknown" in this format, so an
input without a score fails the whole request.
"""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from csrm.serve.answers import digits, fields_of, identity, rule_names
from csrm.serve.call import Call
from csrm.serve.failures import Failure
from csrm.serve.inputs import text_role, texts_of
from csrm.serve.judging import Case, Judgement, judge

# Models of OpenAI's own, which clients send unasked: they mean the default config.
_DEFAULT_MODELS = ("omni-moderation", "text-moderation", "csrm")


async def moderate(call: Call) -> Response:
    """One result for each input. Errors: Failure, csrm.Error."""
    named = call.config(model_config(call.body.get("model")))
    cases = [Case(named, messages, explain=True) for messages in _conversations(call)]
    answers = await judge(call, cases)
    results = [_result(answer) for answer in answers]
    return JSONResponse(
        {
            **identity(call),
            "id": f"modr-{call.id}",
            "model": named.id,
            "results": results,
        }
    )


def model_config(model: object) -> object:
    """The config that `model` names; "" if it is one of OpenAI's or the shipped model."""
    if isinstance(model, str) and model.startswith(_DEFAULT_MODELS):
        return ""
    return model


def _conversations(call: Call) -> list[list[dict[str, object]]]:
    """A text, several texts, one text in parts, or (as an extension) one list of messages."""
    given = call.body.get("input")
    role = text_role(call, "user")
    if isinstance(given, list) and given and all(isinstance(item, dict) for item in given):
        if all("role" in item for item in given):
            return [given]
        return [[{"role": role, "content": given}]]
    return [[{"role": role, "content": text}] for text in texts_of(given, "input")]


def _result(answer: Judgement) -> dict[str, object]:
    score = answer.scored()
    names = rule_names(answer)
    if len(names) != len(score.rules):
        raise Failure("Internal", "a rule has no score")
    pairs = list(zip(names, score.rules, strict=True))
    return {
        "flagged": answer.verdict != "compliant",
        "categories": {name: rule.verdict != "compliant" for name, rule in pairs},
        "category_scores": {name: digits(1 - rule.compliance) for name, rule in pairs},
        "category_applied_input_types": {name: ["text"] for name in names},
        "metadata": {key: value for key, value in fields_of(answer).items() if key != "rules"},
    }
