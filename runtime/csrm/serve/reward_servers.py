"""Endpoints that trainers and clients of other model servers call: vLLM's /classify (verl), the
/get_reward of OpenRLHF and TEI's /predict.

Not: their tokenisers or truncation: texts are read as text, special tokens in them included, and
nothing is cut, whatever the request asks for. A text without a role is an assistant's turn. These
formats have no "unknown": one conversation without a score fails the whole request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from starlette.responses import JSONResponse, Response

from csrm.score import Score
from csrm.serve.answers import digits, identity
from csrm.serve.call import Call
from csrm.serve.configs import NamedConfig
from csrm.serve.failures import Failure
from csrm.serve.inputs import Message, text_role, texts_of
from csrm.serve.judging import Case, judge
from csrm.serve.moderations import model_config

# vLLM's field for "the probability and not the raw value", by age; the first that is there counts.
_ACTIVATION = ("use_activation", "activation", "softmax")


async def classify(call: Call) -> Response:
    """vLLM's /classify: the compliance, or with use_activation false the raw reward, in `probs`."""
    named = call.config(model_config(call.body.get("model")))
    role = text_role(call, "assistant")
    if "messages" in call.body:
        cases = [Case(named, call.body["messages"])]
    else:
        texts = texts_of(call.body.get("input"), "input")
        cases = [Case(named, [{"role": role, "content": text}]) for text in texts]
    scores = await _scores(call, cases)
    stated = [call.body[name] for name in _ACTIVATION if call.body.get(name) is not None]
    is_raw = bool(stated) and stated[0] is False
    data = [{"index": i, **_class(score, is_raw)} for i, score in enumerate(scores)]
    n_tokens = sum(score.scored_tokens for score in scores)
    return JSONResponse(
        {
            **identity(call),
            "id": f"classify-{call.id}",
            "object": "list",
            "created": int(time.time()),
            "model": named.id,
            "data": data,
            "usage": {
                "prompt_tokens": n_tokens,
                "total_tokens": n_tokens,
                "completion_tokens": 0,
            },
        }
    )


async def get_reward(call: Call) -> Response:
    """OpenRLHF's remote reward: the rewards, and the compliances as scores in [0, 1]."""
    queries = texts_of(call.body.get("query"), "query")
    prompts = _column(call, "prompts", len(queries))
    labels = _column(call, "labels", len(queries))
    cases = [
        Case(_label_config(call, label), _answered(prompt, query))
        for query, prompt, label in zip(queries, prompts, labels, strict=True)
    ]
    scores = await _scores(call, cases)
    compliances = [digits(score.compliance) for score in scores]
    violations = [float(score.verdict != "compliant") for score in scores]
    return JSONResponse(
        {
            "rewards": [digits(score.reward) for score in scores],
            "scores": compliances,
            "extra_logs": {"compliance": compliances, "violation": violations},
        }
    )


async def predict(call: Call) -> Response:
    """TEI's /predict: a text, a pair (user, assistant), or a list of lists of these."""
    given = call.body.get("inputs")
    is_batch = isinstance(given, list) and bool(given) and isinstance(given[0], list)
    named, role = call.config(), text_role(call, "assistant")
    items = given if isinstance(given, list) and is_batch else [given]
    scores = await _scores(call, [Case(named, _predicted(item, role)) for item in items])
    is_raw = call.body.get("raw_scores") is True
    answers = [_labels(score, is_raw) for score in scores]
    return JSONResponse(answers if is_batch else answers[0])


async def _scores(call: Call, cases: Sequence[Case]) -> list[Score]:
    return [answer.scored() for answer in await judge(call, cases)]


def _class(score: Score, is_raw: bool) -> dict[str, object]:
    if is_raw:
        return {"label": score.verdict, "probs": [digits(score.reward)], "num_classes": 1}
    probs = [digits(1 - score.compliance), digits(score.compliance)]
    return {"label": score.verdict, "probs": probs, "num_classes": 2}


def _labels(score: Score, is_raw: bool) -> list[dict[str, object]]:
    """Both labels, the likelier first."""
    good = score.reward if is_raw else score.compliance
    bad = -score.reward if is_raw else 1 - score.compliance
    pairs = sorted([("compliant", good), ("violation", bad)], key=lambda pair: -pair[1])
    return [{"label": label, "score": digits(value)} for label, value in pairs]


def _column(call: Call, field: str, n: int) -> list[str]:
    """A list beside `query`, or empty strings if it is absent. Errors: Failure BadRequest."""
    given = call.body.get(field)
    if given is None:
        return [""] * n
    values = ["" if value is None else value for value in given] if type(given) is list else []
    if len(values) != n or not all(isinstance(value, str) for value in values):
        raise Failure("BadRequest", f"{field} must be a list of strings, as long as query")
    return values


def _label_config(call: Call, label: str) -> NamedConfig:
    """The config that a sample's label names; a path or header that names one comes first."""
    return call.config(label)


def _answered(prompt: str, query: str) -> list[Message]:
    """The query as an assistant's turn; after the prompt, if it begins with it."""
    if not prompt or not query.startswith(prompt):
        return [{"role": "assistant", "content": query}]
    return [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": query[len(prompt) :]},
    ]


def _predicted(item: object, role: str) -> list[Message]:
    texts = texts_of(item, "an input")
    if len(texts) == 1:
        return [{"role": role, "content": texts[0]}]
    if len(texts) == 2:
        return [
            {"role": "user", "content": texts[0]},
            {"role": "assistant", "content": texts[1]},
        ]
    raise Failure("BadRequest", "an input must be a text or a pair of texts")
