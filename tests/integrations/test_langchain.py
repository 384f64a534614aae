"""langchain-core with its fake chat model behind `GuardedRunnable`: what passes, what does not, and
that nothing unjudged leaves by a stream or by an event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from csrm_server import POLICY, Traffic
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda

import csrm
from csrm.integrations.answer_stream import Release
from csrm.integrations.guard import Guard
from csrm.integrations.langchain import Blocked, GuardedRunnable

VIOLATES = "violates the config general-default"
REFUSAL = "I cannot help with that."


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    guard = Guard(POLICY, model=csrm.load(n_threads=1), deadline_s=60)
    yield guard
    guard.close()


def model(*answers: str | AIMessage) -> GenericFakeChatModel:
    """Answers one after another; what it was not asked for is left over."""
    return GenericFakeChatModel(messages=iter(answers))


def left_over(fake: GenericFakeChatModel) -> int:
    return len(list(fake.messages))


def pieces(*found: Any) -> Runnable[Any, Any]:
    """A runnable that streams `found`."""

    def stream(_: Iterator[Any]) -> Iterator[Any]:
        yield from found

    async def astream(_: AsyncIterator[Any]) -> AsyncIterator[Any]:
        for piece in found:
            yield piece

    return RunnableGenerator(stream, astream)


def streamed(runnable: Runnable[Any, Any], input: Any, how: str) -> tuple[list[Any], str]:
    """What came of a stream, and why it ended, if it was blocked."""
    seen: list[Any] = []

    async def collect() -> None:
        async for piece in runnable.astream(input):
            seen.append(piece)

    try:
        if how == "async":
            asyncio.run(collect())
        else:
            for piece in runnable.stream(input):
                seen.append(piece)
    except Blocked as blocked:
        return seen, str(blocked)
    return seen, ""


def text_of(found: Sequence[BaseMessage]) -> str:
    return "".join(str(piece.content) for piece in found)


HOW = pytest.mark.parametrize("how", ["sync", "async"])
RELEASE = pytest.mark.parametrize("release", ["whole", "judged"])


def ask(runnable: Runnable[Any, Any], input: Any, how: str) -> Any:
    if how == "async":
        return asyncio.run(runnable.ainvoke(input))
    return runnable.invoke(input)


@HOW
def test_invoke_allowed_turns_pass(guard: Guard, traffic: Traffic, how: str) -> None:
    guarded = GuardedRunnable(model(traffic.allowed_answer), guard)
    assert ask(guarded, traffic.allowed, how).content == traffic.allowed_answer


@HOW
def test_invoke_violating_input_does_not_reach_the_model(
    guard: Guard, traffic: Traffic, how: str
) -> None:
    fake = model(traffic.allowed_answer)
    with pytest.raises(Blocked, match=VIOLATES) as caught:
        ask(GuardedRunnable(fake, guard), traffic.violating, how)
    assert caught.value.decision.verdict == "violation"
    assert traffic.violating not in str(caught.value)
    assert left_over(fake) == 1


@HOW
def test_invoke_violating_answer_is_blocked(guard: Guard, traffic: Traffic, how: str) -> None:
    guarded = GuardedRunnable(model(traffic.violating_answer), guard)
    with pytest.raises(Blocked, match=VIOLATES):
        ask(guarded, traffic.question, how)


@pytest.mark.parametrize(
    "turns",
    [
        [SystemMessage("Be brief."), HumanMessage("{0}"), HumanMessage("Please.")],
        [
            HumanMessage("Hello."),
            AIMessage("Hello!"),
            HumanMessage([{"type": "text", "text": "{0}"}]),
        ],
        [("system", "Be brief."), ("human", "{0}")],
        [{"role": "user", "content": "{0}"}],
    ],
)
def test_invoke_every_new_turn_is_judged(guard: Guard, traffic: Traffic, turns: list[Any]) -> None:
    for text, blocked in ((traffic.allowed, False), (traffic.violating, True)):
        fake = model(traffic.allowed_answer)
        filled = _filled(turns, text)
        if blocked:
            with pytest.raises(Blocked, match=VIOLATES):
                GuardedRunnable(fake, guard).invoke(filled)
        else:
            assert GuardedRunnable(fake, guard).invoke(filled).content == traffic.allowed_answer


def _filled(turns: Any, text: str) -> Any:
    if isinstance(turns, str):
        return turns.replace("{0}", text)
    if isinstance(turns, BaseMessage):
        return type(turns)(_filled(turns.content, text))
    if isinstance(turns, dict):
        return {key: _filled(value, text) for key, value in turns.items()}
    return type(turns)(_filled(turn, text) for turn in turns)


def test_invoke_conversation_with_tools_is_read(guard: Guard, traffic: Traffic) -> None:
    call = {"name": "find", "args": {"q": "bread"}, "id": "c", "type": "tool_call"}
    turns = [
        HumanMessage(traffic.allowed),
        AIMessage("", tool_calls=[call]),
        ToolMessage("A page about bread.", tool_call_id="c"),
    ]
    guarded = GuardedRunnable(model(traffic.allowed_answer), guard)
    assert guarded.invoke(turns).content == traffic.allowed_answer


def test_invoke_in_a_chain_judges_what_the_prompt_makes(guard: Guard, traffic: Traffic) -> None:
    prompt = ChatPromptTemplate([("system", "Be brief."), ("human", "{question}")])
    fake = model(traffic.allowed_answer)
    chain = prompt | GuardedRunnable(fake, guard) | StrOutputParser()
    assert chain.invoke({"question": traffic.allowed}) == traffic.allowed_answer
    with pytest.raises(Blocked, match=VIOLATES):
        chain.invoke({"question": traffic.violating})


@pytest.mark.parametrize(
    "input",
    [
        {"question": "Hello."},
        [HumanMessage([{"type": "image", "url": "https://example.org/a.png"}])],
        [("martian", "Hello.")],
        [7],
        [],
        "",
        [SystemMessage("Be brief.")],
    ],
)
@HOW
def test_invoke_input_that_cannot_be_judged_is_blocked(
    guard: Guard, traffic: Traffic, input: Any, how: str
) -> None:
    fake = model(traffic.allowed_answer)
    with pytest.raises(Blocked, match="not judged"):
        ask(GuardedRunnable(fake, guard), input, how)
    assert left_over(fake) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"answer": "Hello."},
        AIMessage([{"type": "image", "url": "https://example.org/a.png"}]),
        AIMessage(""),
        AIMessage("Fine.", additional_kwargs={"audio": {"transcript": "Hello."}}),
    ],
)
def test_answer_that_cannot_be_judged_is_blocked(
    guard: Guard, traffic: Traffic, answer: Any
) -> None:
    guarded = GuardedRunnable(RunnableLambda(lambda _: answer), guard)
    with pytest.raises(Blocked, match="not judged"):
        guarded.invoke(traffic.allowed)
    seen, reason = streamed(GuardedRunnable(pieces(answer), guard), traffic.allowed, "sync")
    assert (seen, reason[:10]) == ([], "not judged")


@HOW
def test_unknown_verdict_is_blocked(traffic: Traffic, how: str) -> None:
    late = Guard(POLICY, model=csrm.load(n_threads=1), deadline_s=0)
    fake = model(traffic.allowed_answer)
    with pytest.raises(Blocked, match="DeadlineExceeded") as caught:
        ask(GuardedRunnable(fake, late), traffic.allowed, how)
    assert caught.value.decision.verdict == "unknown"
    assert left_over(fake) == 1
    late.close()


def older_call(arguments: str) -> dict[str, object]:
    return {"function_call": {"name": "say", "arguments": arguments}}


def test_answers_tool_calls_and_reasoning_are_judged(guard: Guard, traffic: Traffic) -> None:
    call = {"name": "say", "args": {"text": traffic.violating_answer}, "id": "c"}
    thought = {"type": "reasoning", "reasoning": traffic.violating_answer}
    for answer in (
        AIMessage("", tool_calls=[call]),
        AIMessage([thought, {"type": "text", "text": "Fine."}]),
        AIMessage("Fine.", invalid_tool_calls=[{**call, "args": traffic.violating_answer}]),
        AIMessage("Fine.", additional_kwargs={"refusal": traffic.violating_answer}),
        AIMessage("Fine.", additional_kwargs=older_call(traffic.violating_answer)),
    ):
        with pytest.raises(Blocked, match=VIOLATES):
            GuardedRunnable(model(answer), guard).invoke(traffic.question)


@HOW
@RELEASE
def test_stream_allowed_answer_arrives_piece_by_piece(
    guard: Guard, traffic: Traffic, how: str, release: Release
) -> None:
    guarded = GuardedRunnable(model(traffic.allowed_answer), guard, release=release)
    seen, reason = streamed(guarded, traffic.allowed, how)
    assert (text_of(seen), reason) == (traffic.allowed_answer, "")
    assert len(seen) > 5


@HOW
@RELEASE
def test_stream_violating_answer_is_not_shown(
    guard: Guard, traffic: Traffic, how: str, release: Release
) -> None:
    guarded = GuardedRunnable(model(traffic.violating_answer), guard, release=release)
    assert streamed(guarded, traffic.question, how) == ([], VIOLATES)
    fake = model(traffic.allowed_answer)
    guarded = GuardedRunnable(fake, guard, release=release)
    assert streamed(guarded, traffic.violating, how) == ([], VIOLATES)
    assert left_over(fake) == 1


@HOW
def test_stream_judged_shows_what_complied_and_nothing_after(
    guard: Guard, traffic: Traffic, how: str
) -> None:
    first = "Your neighbour waved and smiled. "
    answer = first + traffic.violating_answer
    guarded = GuardedRunnable(model(answer), guard, release="judged")
    seen, reason = streamed(guarded, traffic.question, how)
    assert (text_of(seen), reason) == (first, VIOLATES)
    guarded = GuardedRunnable(model(answer), guard)
    assert streamed(guarded, traffic.question, how) == ([], VIOLATES)


@HOW
@RELEASE
def test_stream_tool_calls_are_held_until_judged(
    guard: Guard, traffic: Traffic, how: str, release: Release
) -> None:
    def answer(text: str) -> Runnable[Any, Any]:
        parts = [f'{{"text": "{text[:9]}', f'{text[9:]}"}}']
        calls = [
            {"name": "say" if i == 0 else None, "args": part, "id": "c", "index": 0}
            for i, part in enumerate(parts)
        ]
        return pieces(
            AIMessageChunk("Fine.\n"),
            *(AIMessageChunk("", tool_call_chunks=[call]) for call in calls),
        )

    guarded = GuardedRunnable(answer(traffic.violating_answer), guard, release=release)
    seen, reason = streamed(guarded, traffic.question, how)
    assert (text_of(seen), reason) == ("" if release == "whole" else "Fine.\n", VIOLATES)
    assert not any(piece.tool_call_chunks for piece in seen)
    guarded = GuardedRunnable(answer(traffic.allowed_answer), guard, release=release)
    seen, reason = streamed(guarded, traffic.question, how)
    assert (len(seen), reason) == (3, "")


@RELEASE
def test_stream_older_function_calls_are_held_until_judged(
    guard: Guard, traffic: Traffic, release: Release
) -> None:
    def answer(text: str) -> Runnable[Any, Any]:
        parts = (text[:9], text[9:])
        calls = [AIMessageChunk("", additional_kwargs=older_call(part)) for part in parts]
        return pieces(AIMessageChunk("Fine.\n"), *calls)

    guarded = GuardedRunnable(answer(traffic.violating_answer), guard, release=release)
    seen, reason = streamed(guarded, traffic.question, "sync")
    assert (text_of(seen), reason) == ("" if release == "whole" else "Fine.\n", VIOLATES)
    guarded = GuardedRunnable(answer(traffic.allowed_answer), guard, release=release)
    seen, reason = streamed(guarded, traffic.question, "sync")
    assert (len(seen), reason) == (3, "")


@HOW
def test_stream_of_strings_is_judged(guard: Guard, traffic: Traffic, how: str) -> None:
    words = traffic.violating_answer.split(" ")
    guarded = GuardedRunnable(pieces(*(f"{word} " for word in words)), guard)
    assert streamed(guarded, traffic.question, how) == ([], VIOLATES)
    guarded = GuardedRunnable(pieces("Hello ", "there."), guard)
    assert streamed(guarded, traffic.question, how) == (["Hello ", "there."], "")


def test_stream_events_and_handlers_of_events_see_nothing_unjudged(
    guard: Guard, traffic: Traffic
) -> None:
    guarded = GuardedRunnable(model(traffic.violating_answer), guard)
    chain = RunnableLambda(lambda text: [HumanMessage(text)]) | guarded | StrOutputParser()
    seen: list[str] = []

    async def collect() -> None:
        async for event in chain.astream_events(traffic.question, version="v2"):
            seen.append(str(event))

    with pytest.raises(Blocked, match=VIOLATES):
        asyncio.run(collect())
    assert any(traffic.question in event for event in seen)
    assert not any("worthless" in event for event in seen)


def test_stream_events_of_an_allowed_answer_are_those_of_the_guard(
    guard: Guard, traffic: Traffic
) -> None:
    guarded = GuardedRunnable(model(traffic.allowed_answer), guard)
    seen: list[str] = []

    async def collect() -> None:
        async for event in guarded.astream_events(traffic.question, version="v2"):
            if event["event"] == "on_chain_stream":
                seen.append(event["data"]["chunk"].content)

    asyncio.run(collect())
    assert "".join(seen) == traffic.allowed_answer


def test_invoke_other_handlers_still_see_the_models_run(guard: Guard, traffic: Traffic) -> None:
    class Handler(BaseCallbackHandler):
        n_starts = 0

        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            self.n_starts += 1

    handler = Handler()
    guarded = GuardedRunnable(model(traffic.allowed_answer), guard)
    guarded.invoke(traffic.allowed, {"callbacks": [handler]})
    assert handler.n_starts == 1


@HOW
def test_batch_answers_each_on_its_own(guard: Guard, traffic: Traffic, how: str) -> None:
    answers = {
        traffic.allowed: AIMessage(traffic.allowed_answer),
        traffic.question: AIMessage(traffic.violating_answer),
    }
    guarded = GuardedRunnable(RunnableLambda(lambda text: answers[text]), guard)
    inputs = [traffic.allowed, traffic.violating, traffic.question, traffic.allowed]
    if how == "async":
        found = asyncio.run(guarded.abatch(inputs, return_exceptions=True))
    else:
        found = guarded.batch(inputs, return_exceptions=True)
    kinds = [type(answer) for answer in found]
    assert kinds == [AIMessage, Blocked, Blocked, AIMessage]
    with pytest.raises(Blocked):
        guarded.batch(inputs)


@HOW
def test_fallback_takes_over_what_is_blocked(guard: Guard, traffic: Traffic, how: str) -> None:
    refuse = RunnableLambda(lambda _: AIMessage(REFUSAL))
    fake = model(traffic.violating_answer, traffic.violating_answer, traffic.allowed_answer)
    guarded = GuardedRunnable(fake, guard).with_fallbacks([refuse], exceptions_to_handle=(Blocked,))
    assert ask(guarded, traffic.question, how).content == REFUSAL
    seen, reason = streamed(guarded, traffic.question, how)
    assert (text_of(seen), reason) == (REFUSAL, "")
    assert ask(guarded, traffic.violating, how).content == REFUSAL
    assert ask(guarded, traffic.allowed, how).content == traffic.allowed_answer


def test_unknown_release_is_refused(guard: Guard) -> None:
    with pytest.raises(csrm.errors.BadArgument):
        GuardedRunnable(model(), guard, release="early")  # type: ignore[arg-type]
