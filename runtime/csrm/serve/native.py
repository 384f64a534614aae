"""csrm's own endpoints: POST /v1/score, GET, PUT, DELETE /v1/configs, POST /v1/configs/check.

Not: the peers' formats. Fields are checked strictly here: one that is not known is refused, so that
a misspelt "threshold" does not pass unnoticed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Set
from dataclasses import replace
from typing import cast

from starlette.responses import JSONResponse, Response

from csrm import config_formats
from csrm.config import SafetyConfig
from csrm.scorer import Explain, Judged
from csrm.serve.answers import fields_of, identity
from csrm.serve.call import Call
from csrm.serve.configs import NamedConfig, named_config
from csrm.serve.failures import Failure
from csrm.serve.inputs import threshold_of
from csrm.serve.judging import Case, Judgement, judge
from csrm.text import decode_utf8

SCORE_FIELDS = frozenset(
    [
        *("config", "rules", "threshold", "messages", "conversations"),
        *("judged", "explain", "deadline_ms"),
    ]
)
INLINE_ID = "inline"
_YAML_TYPES = ("application/json", "application/yaml", "text/yaml", "application/x-yaml")


async def score(call: Call) -> Response:
    """POST /v1/score: `messages` for one conversation, `conversations` for several."""
    check_fields(call.body, SCORE_FIELDS)
    call.set_deadline(call.body.get("deadline_ms"))
    named = stated_config(call)
    judged, explain = call.body.get("judged", "last"), call.body.get("explain", False)
    if judged not in ("last", "assistant"):
        raise Failure("BadRequest", 'judged must be "last" or "assistant"')
    if not isinstance(explain, bool) and explain != "fast":
        raise Failure("BadRequest", 'explain must be true, false or "fast"')
    is_batch = "conversations" in call.body
    if is_batch == ("messages" in call.body):
        raise Failure("BadRequest", "give either messages or conversations")
    inputs = call.body["conversations"] if is_batch else [call.body["messages"]]
    if not isinstance(inputs, list):
        raise Failure("BadRequest", "conversations must be a list of lists of messages")
    cases = [
        Case(named, messages, cast(Judged, judged), cast(Explain, explain)) for messages in inputs
    ]
    answers = await judge(call, cases)
    turns = judged == "assistant"
    if not is_batch:
        answers[0].scored()
        return JSONResponse({**identity(call), **fields_of(answers[0], turns=turns)})
    return JSONResponse({**identity(call), **named.fields(), "results": _results(answers, turns)})


async def list_configs(call: Call) -> Response:
    """GET /v1/configs: those that the key may use."""
    found = call.snapshot.configs
    mine = [_summary(named) for id, named in found.by_id.items() if call.tenant.may_use(id)]
    default = call.tenant.config or found.default
    return JSONResponse({**identity(call), "default": default, "configs": mine})


async def get_config(call: Call) -> Response:
    """GET /v1/configs/{id}: with the rules."""
    named = call.config_of(call.connection.path_params["id"])
    call.named = named
    return JSONResponse({**_summary(named), **_contents(named.config)})


async def check_config(call: Call) -> Response:
    """POST /v1/configs/check: reads a config as PUT does and says what it states; keeps nothing."""
    if not call.tenant.admin and not _may_bring_rules(call):
        raise Failure("Forbidden", "this server takes no rules from requests")
    call.service.quotas.take(call.tenant, 1)
    config, format = await _parsed(call)
    if config.id:
        named_config(config, config.id, "request")
    found = NamedConfig(config.id, config, config.digest(), "request")
    return JSONResponse(
        {**identity(call), **_summary(found), "format": format, **_contents(config)}
    )


async def put_config(call: Call) -> Response:
    """PUT /v1/configs/{id}: JSON, or a config file's text in any format that csrm reads."""
    _check_admin(call)
    config, _ = await _parsed(call)
    id = call.connection.path_params["id"]
    if config.id not in ("", id):
        raise Failure("BadRequest", "the config states another id than the path")
    call.named = named_config(replace(config, id=id), id, "api")
    is_new = await call.service.put_config(call.named)
    return JSONResponse(_summary(call.named), 201 if is_new else 200)


async def delete_config(call: Call) -> Response:
    """DELETE /v1/configs/{id}: of what PUT made."""
    _check_admin(call)
    await call.service.delete_config(call.config_of(call.connection.path_params["id"]).id)
    return Response(status_code=204)


def stated_config(call: Call) -> NamedConfig:
    """The config of a native request: that of its `rules`, or the one it names; its threshold
    raised to the request's. Errors: Failure, csrm.Error.
    """
    threshold = threshold_of(call.body.get("threshold"))
    rules = call.body.get("rules")
    if rules is None:
        return call.config(call.body.get("config")).at_least(threshold)
    if not _may_bring_rules(call):
        raise Failure("Forbidden", "this server does not take rules from requests; name a config")
    if "config" in call.body or not isinstance(rules, list):
        raise Failure("BadRequest", "give either config, the id of one, or rules, a list")
    config = SafetyConfig.from_rules(rules, threshold=0.5 if threshold is None else threshold)
    return NamedConfig(INLINE_ID, config, config.digest(), "request")


def check_fields(body: dict[str, object], known: Set[str]) -> None:
    """Errors: Failure BadRequest if `body` has a field that is not `known`."""
    if not body.keys() <= known:
        raise Failure("BadRequest", f"unknown field; the fields are {', '.join(sorted(known))}")


def _results(answers: list[Judgement], turns: bool) -> list[dict[str, object]]:
    """One object for each conversation. Errors: the Failure, when no conversation has a score."""
    if all(answer.score is None for answer in answers):
        answers[0].scored()
    return [{"index": i, **fields_of(answer, turns=turns)} for i, answer in enumerate(answers)]


async def _parsed(call: Call) -> tuple[SafetyConfig, str]:
    """The config in the body, and the format it was read in. Errors: Failure, csrm.Error."""
    kind = call.connection.headers.get("content-type", "").partition(";")[0].strip().lower()
    text = decode_utf8(call.data, "the body")

    def parse() -> tuple[SafetyConfig, str]:
        format = "yaml" if kind in _YAML_TYPES else config_formats.detect(text)
        return SafetyConfig.parse(text, format), format

    work = asyncio.get_running_loop().run_in_executor(call.service.parsing, parse)
    try:
        return await asyncio.wait_for(work, call.deadline - time.monotonic())
    except (asyncio.TimeoutError, TimeoutError):
        raise Failure("DeadlineExceeded", "the deadline passed while the config was read") from None


def _contents(config: SafetyConfig) -> dict[str, object]:
    rules = [{key: value for key, value in vars(rule).items() if value} for rule in config.rules]
    return {"description": config.description, "rules": rules}


def _may_bring_rules(call: Call) -> bool:
    return call.service.options.inline_configs and not call.tenant.configs


def _summary(named: NamedConfig) -> dict[str, object]:
    config = named.config
    return {
        "id": named.id,
        "version": config.version,
        "digest": named.digest,
        "threshold": config.threshold,
        "n_rules": len(config.rules),
        "source": named.source,
    }


def _check_admin(call: Call) -> None:
    if not call.tenant.admin:
        raise Failure("Forbidden", "this key may not change configs")
