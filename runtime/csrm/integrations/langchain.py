"""`GuardedRunnable`: a chat model, or any other Runnable of LangChain, that judges what goes in and
what comes out.

Not: a model, a parser or a fallback; it raises `Blocked`, and LangChain's `with_fallbacks` routes
that elsewhere. No text is changed. Decisions come from `guard.Guard`, streamed ones from
`answer_stream.AnswerStream`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import reduce
from operator import add
from typing import Any, cast

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import patch_config
from langchain_core.tracers._streaming import (
    _StreamingCallbackHandler,
    _V2StreamingCallbackHandler,
)

from csrm import errors
from csrm.integrations.answer_stream import AnswerStream, Release
from csrm.integrations.guard import Blocked, Decision, Guard

__all__ = ["Blocked", "GuardedRunnable"]

_ROLES: tuple[tuple[type[BaseMessage], str], ...] = (
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (SystemMessage, "system"),
    (ToolMessage, "tool"),
    (FunctionMessage, "tool"),
)
_TEXT_FIELDS = {"text": "text", "text-plain": "text", "refusal": "refusal"}
_CALLS = (
    *("tool_call", "tool_call_chunk", "invalid_tool_call"),
    *("server_tool_call", "server_tool_call_chunk"),
)
_BESIDE_THE_TEXT = ("reasoning", *_CALLS)
Turn = dict[str, str]


class GuardedRunnable(Runnable[Any, Any]):  # type: ignore[misc]
    """`runnable` between two judgements of `guard`. Errors of every call: Blocked.

    Its input is what a chat model takes: a string, messages or a prompt's value; its output a
    message or a string. Anything else is not judged, and so blocked. release: when pieces of a
    stream leave (csrm.integrations.answer_stream). Thread-safe as `runnable` is. Handlers that
    stream events of inner runs (`astream_events`, LangGraph's messages) do not get those of
    `runnable`, which come before the judgement.
    """

    def __init__(
        self, runnable: Runnable[Any, Any], guard: Guard, *, release: Release = "whole"
    ) -> None:
        self._runnable = runnable
        self._guard = guard
        self._release: Release = release
        AnswerStream[Any](guard, (), release)  # refuses a wrong option now

    @property
    def InputType(self) -> Any:  # noqa: N802  (LangChain's name)
        """That of the guarded runnable."""
        return self._runnable.InputType

    @property
    def OutputType(self) -> Any:  # noqa: N802  (LangChain's name)
        """That of the guarded runnable."""
        return self._runnable.OutputType

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The runnable's answer, if the input and the answer comply."""
        return self._call_with_config(self._invoke, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """`invoke` for asyncio."""
        return await self._acall_with_config(self._ainvoke, input, config, **kwargs)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """The pieces of the answer, as far as `release` lets them go."""
        yield from self._transform_stream_with_config(iter([input]), self._stream, config, **kwargs)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """`stream` for asyncio."""
        async for piece in self._atransform_stream_with_config(
            _only(input), self._astream, config, **kwargs
        ):
            yield piece

    def _invoke(self, input: Any, run_manager: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        turns = self._turns(input)
        _settle(self._guard.check_input(turns))
        answer = self._runnable.invoke(input, _unwatched(config, run_manager), **kwargs)
        _settle(self._guard.check_output(turns, self._texts(answer)))
        return answer

    async def _ainvoke(
        self, input: Any, run_manager: Any, config: RunnableConfig, **kwargs: Any
    ) -> Any:
        turns = self._turns(input)
        _settle(await self._guard.acheck_input(turns))
        answer = await self._runnable.ainvoke(input, _unwatched(config, run_manager), **kwargs)
        _settle(await self._guard.acheck_output(turns, self._texts(answer)))
        return answer

    def _stream(
        self, inputs: Iterator[Any], run_manager: Any, config: RunnableConfig, **kwargs: Any
    ) -> Iterator[Any]:
        input = next(inputs)
        turns = self._turns(input)
        _settle(self._guard.check_input(turns))
        judged: AnswerStream[Any] = AnswerStream(self._guard, turns, self._release)
        calls: list[BaseMessage] = []
        for piece in self._runnable.stream(input, _unwatched(config, run_manager), **kwargs):
            yield from judged.push(piece, self._new(piece, calls), is_last=_is_last(piece))
        yield from judged.finish(_call_texts(calls))

    async def _astream(
        self, inputs: AsyncIterator[Any], run_manager: Any, config: RunnableConfig, **kwargs: Any
    ) -> AsyncIterator[Any]:
        input = await anext(inputs)
        turns = self._turns(input)
        _settle(await self._guard.acheck_input(turns))
        judged: AnswerStream[Any] = AnswerStream(self._guard, turns, self._release)
        calls: list[BaseMessage] = []
        pieces = self._runnable.astream(input, _unwatched(config, run_manager), **kwargs)
        async with aclosing(cast("AsyncGenerator[Any, None]", pieces)):
            async for piece in pieces:
                texts = self._new(piece, calls)
                for free in await judged.apush(piece, texts, is_last=_is_last(piece)):
                    yield free
        for free in await judged.afinish(_call_texts(calls)):
            yield free

    def _turns(self, input: object) -> list[Turn]:
        """The input as csrm's messages. Errors: Blocked, for what is not text."""
        try:
            return [_turn(message) for message in _messages(input)]
        except errors.Error as error:
            raise Blocked(self._guard.decide([error])) from None

    def _texts(self, answer: object) -> list[str]:
        """All texts of a whole answer. Errors: Blocked, for what is not text."""
        try:
            texts = _plain(answer)
        except errors.Error as error:
            raise Blocked(self._guard.decide([error])) from None
        return [*texts.values(), *_call_texts([answer])]

    def _new(self, piece: object, calls: list[BaseMessage]) -> dict[int, str]:
        """The texts that a piece adds; one with calls of tools goes to `calls`. Errors: Blocked."""
        try:
            texts = _plain(piece)
        except errors.Error as error:
            raise Blocked(self._guard.decide([error])) from None
        if isinstance(piece, AIMessage) and _has_calls(piece):
            calls.append(piece)
        return texts


def _settle(decision: Decision) -> None:
    if decision.is_blocked:
        raise Blocked(decision)


def _messages(input: object) -> Sequence[BaseMessage]:
    """What a chat model would be asked. Errors: BadConversation."""
    given = input.to_messages() if isinstance(input, PromptValue) else input
    given = [given] if isinstance(given, str | BaseMessage) else given
    if not isinstance(given, Sequence):
        raise errors.BadConversation("the input is neither text nor messages")
    try:
        messages: Sequence[BaseMessage] = convert_to_messages(given)
    except (ValueError, NotImplementedError):
        raise errors.BadConversation("the input has something that is not a message") from None
    return messages


def _turn(message: BaseMessage) -> Turn:
    """Errors: BadConversation."""
    roles = [role for kind, role in _ROLES if isinstance(message, kind)]
    role = message.role if isinstance(message, ChatMessage) else (roles or [message.type])[0]
    skipped = _BESIDE_THE_TEXT if role == "assistant" else ()
    blocks = [block for block in message.content_blocks if block["type"] not in skipped]
    return {"role": role, "content": "\n".join(_block_text(block) for block in blocks)}


def _plain(answer: object) -> dict[int, str]:
    """An answer's text with refusals (0) and its reasoning (1). Errors: BadConversation."""
    if isinstance(answer, str):
        return {0: answer}
    if not isinstance(answer, AIMessage):
        raise errors.BadConversation("the answer is neither text nor a model's message")
    if answer.additional_kwargs.get("audio"):
        raise errors.BadConversation("the answer has audio; csrm reads text only")
    texts = {0: "", 1: ""}
    blocks = answer.content_blocks
    if all(block["type"] != "refusal" for block in blocks):
        texts[0] += str(answer.additional_kwargs.get("refusal") or "")
    for block in blocks:
        if block["type"] == "reasoning":
            texts[1] += str(block.get("reasoning") or "")
        elif block["type"] not in _BESIDE_THE_TEXT:
            texts[0] += _block_text(block)
    return texts


def _block_text(block: Any) -> str:
    text = block.get(_TEXT_FIELDS.get(block["type"], ""))
    if not isinstance(text, str):
        raise errors.BadConversation("a part of a message is not text; csrm reads text only")
    return text


def _has_calls(message: AIMessage) -> bool:
    return bool(_calls(message))


def _call_texts(answers: Sequence[object]) -> list[str]:
    """What an answer, or the pieces of one that have calls of tools, wants these to do."""
    messages = [answer for answer in answers if isinstance(answer, AIMessage)]
    if not messages:
        return []
    return _calls(reduce(add, messages) if len(messages) > 1 else messages[0])


def _calls(message: AIMessage) -> list[str]:
    """Each call of a tool once. Blocks lack those that cannot be parsed and the older form."""
    blocks = [block for block in message.content_blocks if block["type"] in _CALLS]
    texts = [_call(block, "args") for block in [*blocks, *message.invalid_tool_calls]]
    older = message.additional_kwargs.get("function_call")
    if isinstance(older, Mapping):
        texts.append(_call(older, "arguments"))
    return list(dict.fromkeys(texts))


def _call(call: Any, arguments: str) -> str:
    return f"{call.get('name') or ''}({call.get(arguments) or ''})"


def _is_last(piece: object) -> bool:
    """Whether a piece belongs to the end of its answer."""
    is_end = getattr(piece, "chunk_position", None) == "last"
    return is_end or (isinstance(piece, AIMessage) and _has_calls(piece))


def _unwatched(config: RunnableConfig, run_manager: Any) -> RunnableConfig:
    """The config for the guarded runnable: without those who would pass on its pieces unjudged."""
    callbacks = run_manager.get_child()
    for handler in [*callbacks.handlers, *callbacks.inheritable_handlers]:
        if isinstance(handler, _StreamingCallbackHandler | _V2StreamingCallbackHandler):
            callbacks.remove_handler(handler)
    return patch_config(config, callbacks=callbacks)


async def _only(input: Any) -> AsyncIterator[Any]:
    yield input
