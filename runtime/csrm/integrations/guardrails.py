"""`CsrmConfig`: a validator of Guardrails AI that judges texts under a csrm config.

Not: the decision (guard.py), and not a hub package: importing this module registers the validator
as "csrm/config". Texts come from a Guard of Guardrails AI, earlier turns from the metadata of its
call; a PassResult or FailResult goes back. Tested with guardrails-ai 0.11.0.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Literal

from guardrails.validator_base import Validator, register_validator
from guardrails_ai.types import ErrorSpan, FailResult, PassResult, ValidationResult

from csrm import errors
from csrm.config import SafetyConfig
from csrm.integrations.guard import Decision, FailMode, Guard
from csrm.scorer import Scorer

Side = Literal["output", "input"]
# Where a sentence or line is over: the mark, what closes it, and the space that shows its end.
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s|[。！？]|\n")


@dataclass
class _Answer:
    """An answer that is being streamed: its text so far, and why it is blocked, if it is."""

    text: str = ""
    failure: Decision | None = None


@register_validator(name="csrm/config", data_type="string")
class CsrmConfig(Validator):  # type: ignore[misc]
    """Fails a text that breaks `config`, and a text that could not be judged.

    config, model, deadline_s, fail_mode: as of `csrm.integrations.guard.Guard`. on_fail: what
    Guardrails AI does with a FailResult (None = "exception"); "fix" puts "" in the text's place.
    side "output": a text is the model's turn after metadata["messages"], the request's messages.
    side "input", for Guard.use(..., on="messages"): a text is a message of the request. With
    metadata["messages"] the request is judged once, as a whole, when its last message comes by, so
    they must be those of the call; without, every message is judged alone as a user's, a system
    message too.
    A result's metadata["csrm"] holds config, verdict and compliance, of passes as well.
    In a stream every piece is judged before it is let out, in the answer so far: the runners of
    Guardrails AI let a piece out when this returns and never say that it was the last one.
    Thread-safe, except that a stream is for one thread. Errors: those of `Guard`, BadArgument.
    """

    def __init__(
        self,
        config: SafetyConfig | str | os.PathLike[str],
        *,
        side: Side = "output",
        model: Scorer | str | os.PathLike[str] | None = None,
        deadline_s: float = 10.0,
        fail_mode: FailMode = "closed",
        on_fail: str | Callable[[Any, FailResult], Any] | None = None,
    ) -> None:
        if side not in ("output", "input"):
            raise errors.BadArgument('side must be "output" or "input"')
        self._side = side
        self._guard = Guard(config, model=model, deadline_s=deadline_s, fail_mode=fail_mode)
        self._answers: dict[int, _Answer] = {}
        self._key = f"csrm/{id(self)}"
        # Guardrails AI makes the validator anew from these and shows them: plain values only.
        options: dict[str, Any] = {"side": side, "deadline_s": deadline_s, "fail_mode": fail_mode}
        options["config"] = config.id if isinstance(config, SafetyConfig) else os.fspath(config)
        if model is not None and not isinstance(model, Scorer):
            options["model"] = os.fspath(model)
        super().__init__(on_fail=on_fail, **options)

    def _validate(self, value: object, metadata: Mapping[str, Any]) -> ValidationResult:
        messages = self._messages(value, metadata)
        return self._result(value, self._check(messages, value), metadata)

    async def async_validate(self, value: object, metadata: Mapping[str, Any]) -> ValidationResult:
        """`validate` for asyncio: waits without a thread."""
        messages = self._messages(value, metadata)
        return self._result(value, await self._acheck(messages, value), metadata)

    def validate_stream(
        self,
        chunk: str,
        metadata: Mapping[str, Any],
        *,
        context: Context | None = None,
        **_: object,
    ) -> ValidationResult:
        """The result for `chunk`: that of the answer so far. Once failed, all later ones fail."""
        answer = self._answer(metadata, context)
        messages = self._grow(answer, chunk, metadata)
        return self._piece(answer, chunk, self._check(messages, answer.text), metadata)

    async def async_validate_stream(
        self,
        chunk: str,
        metadata: Mapping[str, Any],
        *,
        context: Context | None = None,
        **_: object,
    ) -> ValidationResult:
        """`validate_stream` for asyncio."""
        answer = self._answer(metadata, context)
        messages = self._grow(answer, chunk, metadata)
        return self._piece(answer, chunk, await self._acheck(messages, answer.text), metadata)

    def _messages(self, value: object, metadata: Mapping[str, Any]) -> object:
        """The messages that `value` is judged in; None if it need not be judged."""
        messages = (metadata or {}).get("messages") or []
        if self._side == "output":
            return messages
        contents = [m.get("content") for m in messages if isinstance(m, Mapping)]
        if value not in contents:
            return [*messages, {"role": "user", "content": value}]
        # The last message has all of the request judged; the others need not have it again.
        return messages if value == contents[-1] else None

    def _check(self, messages: object, value: object) -> Decision | None:
        if messages is None:
            return None
        if self._side == "input":
            return self._guard.check_input(messages)
        return self._guard.check_output(messages, [value])  # type: ignore[list-item]  # it checks

    async def _acheck(self, messages: object, value: object) -> Decision | None:
        if messages is None:
            return None
        if self._side == "input":
            return await self._guard.acheck_input(messages)
        return await self._guard.acheck_output(messages, [value])  # type: ignore[list-item]

    def _result(
        self, value: object, decision: Decision | None, metadata: Mapping[str, Any]
    ) -> ValidationResult:
        if decision is None:
            return PassResult()
        told = {
            **(metadata or {}),
            "csrm": {
                "config": self._guard.config.id,
                "verdict": decision.verdict,
                "compliance": decision.compliance,
            },
        }
        if not decision.is_blocked:
            return PassResult(metadata=told)
        size = len(value) if isinstance(value, str) else 0
        return FailResult(
            error_message=decision.reason,
            fix_value="",
            error_spans=[ErrorSpan(start=0, end=size, reason=decision.reason)],
            metadata=told,
        )

    def _answer(self, metadata: Mapping[str, Any], context: Context | None) -> _Answer:
        """The answer that a piece belongs to.

        An AsyncGuard has one `context` for each stream; a Guard hands a result's metadata to the
        next call. The base class keeps the text on the validator, where streams get mixed up.
        """
        if context is None:
            found = (metadata or {}).get(self._key)
            return found if isinstance(found, _Answer) else _Answer()
        key = id(context)
        if key not in self._answers:
            self._answers[key] = _Answer()
            weakref.finalize(context, self._answers.pop, key, None)
        return self._answers[key]

    def _grow(self, answer: _Answer, chunk: str, metadata: Mapping[str, Any]) -> object:
        """Adds `chunk`; the messages to judge the answer in, or None."""
        answer.text += chunk
        # Space says nothing, so it passes.
        if answer.failure is not None or not chunk or not answer.text.strip():
            return None
        return self._messages(answer.text, metadata)

    def _piece(
        self,
        answer: _Answer,
        chunk: str,
        decision: Decision | None,
        metadata: Mapping[str, Any],
    ) -> ValidationResult:
        if decision is not None and decision.is_blocked:
            answer.failure = decision
        result = self._result(chunk, answer.failure or decision, metadata)
        result.validated_chunk = chunk
        result.metadata = {**(result.metadata or metadata or {}), self._key: answer}
        return result


def sentences(pieces: Iterable[str]) -> Iterator[str]:
    """The text of `pieces` in whole sentences and lines, and at the end the rest.

    Around a model's stream it makes a validator judge once per sentence rather than per token.
    """
    held = ""
    for piece in pieces:
        whole, held = _whole_sentences(held + piece)
        if whole:
            yield whole
    if held:
        yield held


async def asentences(pieces: AsyncIterable[str]) -> AsyncIterator[str]:
    """`sentences` for asyncio."""
    held = ""
    async for piece in pieces:
        whole, held = _whole_sentences(held + piece)
        if whole:
            yield whole
    if held:
        yield held


def _whole_sentences(text: str) -> tuple[str, str]:
    end = max((match.end() for match in _SENTENCE_END.finditer(text)), default=0)
    return text[:end], text[end:]
