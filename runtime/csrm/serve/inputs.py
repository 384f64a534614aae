"""What the adapters share when they turn a request's fields into `Case`s.

Not: any one peer's format. Errors name fields and places, never what stands in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from csrm.conversation import conversation_from
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

    These are the turns after the last assistant turn, because a model answers all of them and not
    just the last; when the conversation ends in assistant turns (a prefill), those too. System
    turns are the operator's: they are read, not judged. Errors: Failure, csrm.Error.
    """
    turns = conversation_from(messages)
    end = len(turns)
    while end and turns[end - 1].role == "assistant":
        end -= 1
    start = max((i + 1 for i in range(end) if turns[i].role == "assistant"), default=0)
    judged = [i for i in range(start, len(turns)) if turns[i].role != "system" and turns[i].content]
    limit = call.service.options.limits.max_judged
    if not judged:
        raise Failure("EmptyConversation", "there is no turn with text to judge")
    if len(judged) > limit:
        raise Failure("LimitExceeded", f"{len(judged):,} turns without an answer; limit {limit:,}")
    return [Case(config, turns[: i + 1]) for config in named for i in judged]
