"""What the adapters share when they turn a request's fields into `Case`s.

Not: any one peer's format. Errors name fields and places, never what stands in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from csrm.conversation import conversation_from, unanswered_turns
from csrm.serve.call import Call
from csrm.serve.configs import NamedConfig
from csrm.serve.failures import Failure
from csrm.serve.judging import Case

ROLE_HEADER = "x-csrm-role"
Message = dict[str, object]


def text_role(call: Call, default: str) -> str:
    """Who wrote a text that comes without a role: the header x-csrm-role, or `default`."""
    role = call.connection.headers.get(ROLE_HEADER, default)
    if role not in ("user", "assistant"):
        raise Failure("BadRequest", f"{ROLE_HEADER} must be user or assistant")
    return role


def texts_of(value: object, what: str) -> list[str]:
    """A string, or a list of strings, as a list. Errors: Failure BadRequest."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        return list(value)
    raise Failure("BadRequest", f"{what} must be a string or a list of strings")


def threshold_of(value: object) -> float | None:
    """A threshold that a request states, in [0, 1], or None. Errors: Failure BadRequest."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Failure("BadRequest", "threshold must be a number in [0, 1]")
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise Failure("BadRequest", "threshold must be a number in [0, 1]")
    return float(value)


def new_turn_cases(call: Call, named: Sequence[NamedConfig], messages: object) -> list[Case]:
    """One case for each config of `named` and each turn that a gateway has not seen answered.

    Errors: Failure, csrm.Error.
    """
    turns = conversation_from(messages)
    judged = unanswered_turns(turns)
    limit = call.service.options.limits.max_judged
    if not judged:
        raise Failure("EmptyConversation", "there is no turn with text to judge")
    if len(judged) > limit:
        raise Failure("LimitExceeded", f"{len(judged):,} turns without an answer; limit {limit:,}")
    return [Case(config, turns[: i + 1]) for config in named for i in judged]


def answer_cases(named: Sequence[NamedConfig], earlier: object, texts: Sequence[str]) -> list[Case]:
    """One case for each config and each text: an assistant's answer to the messages `earlier`.

    Several texts are choices of one model, not turns. Errors: Failure EmptyConversation.
    """
    if not isinstance(earlier, list):
        raise Failure("BadRequest", "the messages before the response must be a list")
    answers: list[Message] = [{"role": "assistant", "content": text} for text in texts if text]
    if not answers:
        raise Failure("EmptyConversation", "there is no text to judge in the response")
    return [Case(config, [*earlier, answer]) for config in named for answer in answers]


def choice_texts(choices: object) -> list[str]:
    """The texts of a chat completion's choices, what they want tools to do included.

    Errors: Failure BadRequest, csrm.Error.
    """
    if not isinstance(choices, list) or not choices:
        raise Failure("BadRequest", "the response must have a list of choices")
    texts: list[str] = []
    for choice in choices:
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            raise Failure("BadRequest", "a choice of the response has no message")
        if message.get("content") is not None:
            content = {"role": "assistant", "content": message["content"]}
            texts.append(conversation_from([content])[0].content)
        texts += tool_texts(message.get("tool_calls"))
    return texts


def tool_texts(calls: object) -> list[str]:
    """What a model wants tools to do, as text; calls of built-in tools have no function."""
    if not calls:
        return []
    if not isinstance(calls, list):
        raise Failure("BadRequest", "tool_calls must be a list")
    functions = [item.get("function") for item in calls if isinstance(item, dict)]
    return [
        f"{function.get('name', '')}({function.get('arguments', '')})"
        for function in functions
        if isinstance(function, dict)
    ]
