"""A real LiteLLM proxy in front of a toy upstream: CsrmGuardrail in process, and the generic
guardrail API on a running `csrm serve`. What the client and the model get to see, and what not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from csrm_server import POLICY, Server, Traffic, start_server
from litellm_proxy import BY_NAME, DEFAULT_ON, MODELS, Proxy, start_proxy
from toy_upstream import DEFAULT_ANSWER, Upstream

import csrm

pytestmark = pytest.mark.filterwarnings("ignore")  # LiteLLM's own, when it is imported
VIOLATES = "violates the config general-default"
BOTH = pytest.mark.parametrize("guard", ["inside", "http"])
STREAMED = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture(scope="module")
def toy(traffic: Traffic) -> Iterator[Upstream]:
    upstream = Upstream()
    upstream.answers[traffic.question] = traffic.violating_answer
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def gone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a server that was killed."""
    server = start_server(tmp_path_factory.mktemp("gone"))
    server.process.kill()
    server.process.wait()
    return server.url


@pytest.fixture(scope="module")
def by_name(
    toy: Upstream,
    csrm_server: Server,
    late_server: Server,
    gone: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxy]:
    """A proxy where a request names its guardrail."""
    servers = {"CSRM": csrm_server.url, "CSRM_LATE": late_server.url, "CSRM_GONE": gone}
    yield from running(tmp_path_factory.mktemp("by_name"), MODELS + BY_NAME, toy, **servers)


@pytest.fixture(scope="module")
def default_on(toy: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy that guards every request."""
    yield from running(tmp_path_factory.mktemp("default_on"), MODELS + DEFAULT_ON, toy)


def running(folder: Path, config: str, toy: Upstream, **environment: str) -> Iterator[Proxy]:
    proxy = start_proxy(folder, config, TOY=toy.url, TOY_V1=f"{toy.url}/v1", **environment)
    try:
        proxy.wait_ready()
        yield proxy
    finally:
        proxy.stop()


@BOTH
@STREAMED
def test_proxy_allowed_request_and_answer_pass(
    by_name: Proxy, traffic: Traffic, guard: str, stream: bool
) -> None:
    reply = by_name.chat(traffic.allowed, guardrails=[guard], stream=stream)
    assert (reply.status, reply.text, reply.error) == (200, DEFAULT_ANSWER, "")


@BOTH
@STREAMED
def test_proxy_violating_request_is_blocked_before_the_model(
    by_name: Proxy, toy: Upstream, traffic: Traffic, guard: str, stream: bool
) -> None:
    n_calls = len(toy.calls)
    reply = by_name.chat(traffic.violating, guardrails=[guard], stream=stream)
    assert (reply.status, reply.error, len(toy.calls)) == (400, VIOLATES, n_calls)


@BOTH
@STREAMED
def test_proxy_violating_answer_is_blocked_and_not_shown(
    by_name: Proxy, toy: Upstream, traffic: Traffic, guard: str, stream: bool
) -> None:
    n_calls = len(toy.calls)
    reply = by_name.chat(traffic.question, guardrails=[guard], stream=stream)
    assert (reply.status, reply.error, len(toy.calls)) == (400, VIOLATES, n_calls + 1)
    assert reply.text == ""
    assert "worthless" not in reply.raw


@BOTH
def test_proxy_earlier_turns_are_read_and_a_second_user_turn_hides_nothing(
    by_name: Proxy, toy: Upstream, traffic: Traffic, guard: str
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    parts = [{"type": "text", "text": traffic.allowed}, {"type": "text", "text": "Please."}]
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "A page about bread."},
    ]
    tools = [{"type": "function", "function": {"name": "find", "parameters": {}}}]
    reply = by_name.chat("", messages=turns, tools=tools, guardrails=[guard])
    assert (reply.status, reply.text) == (200, DEFAULT_ANSWER)
    n_calls = len(toy.calls)
    hidden = [{"role": "user", "content": traffic.violating}]
    reply = by_name.chat("", messages=[*hidden, *turns[1:2]], guardrails=[guard])
    assert (reply.status, reply.error, len(toy.calls)) == (400, VIOLATES, n_calls)


@pytest.mark.parametrize(
    ("guard", "reason"),
    [
        ("inside-late", "not judged (DeadlineExceeded)"),
        ("http-late", "not judged (DeadlineExceeded): the deadline passed"),
        ("http-gone", "Generic Guardrail API failed"),
    ],
)
@STREAMED
def test_proxy_unknown_is_blocked(
    by_name: Proxy, toy: Upstream, traffic: Traffic, guard: str, reason: str, stream: bool
) -> None:
    n_calls = len(toy.calls)
    reply = by_name.chat(traffic.allowed, guardrails=[guard], stream=stream)
    assert reply.status >= 400
    assert reply.error.startswith(reason)
    assert (reply.text, len(toy.calls)) == ("", n_calls)


@STREAMED
def test_during_call_violating_request_shows_no_answer(
    by_name: Proxy, traffic: Traffic, stream: bool
) -> None:
    reply = by_name.chat(traffic.violating, guardrails=["during"], stream=stream)
    assert (reply.status, reply.error, reply.text) == (400, VIOLATES, "")
    allowed = by_name.chat(traffic.allowed, guardrails=["during"], stream=stream)
    assert (allowed.status, allowed.text) == (200, DEFAULT_ANSWER)


def test_release_judged_shows_what_complied_and_nothing_after(
    by_name: Proxy, toy: Upstream, traffic: Traffic
) -> None:
    first = "Your neighbour waved and smiled. "
    toy.answers["A long one?"] = first + traffic.violating_answer
    reply = by_name.chat("A long one?", guardrails=["judged"], stream=True)
    assert (reply.status, reply.error) == (200, VIOLATES)
    # The space after a full stop comes with the next word.
    assert reply.text in (first, f"{first}You")
    allowed = by_name.chat(traffic.allowed, guardrails=["judged"], stream=True)
    assert (allowed.text, allowed.error) == (DEFAULT_ANSWER, "")


@pytest.mark.parametrize("guard", ["inside", "judged"])
def test_stream_blocked_early_stops_the_model(
    by_name: Proxy, toy: Upstream, traffic: Traffic, guard: str
) -> None:
    rest = 100 * " And so on it goes."
    toy.answers["On and on?"] = traffic.violating_answer + rest
    toy.pause_s, toy.n_chunks = 0.02, 0
    try:
        reply = by_name.chat("On and on?", guardrails=[guard], stream=True)
    finally:
        toy.pause_s = 0.0
    assert reply.error == VIOLATES
    assert toy.n_chunks < 250


@STREAMED
@pytest.mark.parametrize(
    "asked",
    [
        {"guardrails": [{"inside": {"extra_body": {"threshold": 0.0}}}]},
        {"guardrails": [{"http": {"extra_body": {"threshold": 0.0, "config_id": "other"}}}]},
        {"guardrails": ["inside"], "threshold": 0.0, "safety_config": "/dev/null"},
        {"guardrails": ["lower"]},
    ],
)
def test_config_is_not_loosened_by_the_caller_or_a_lower_threshold(
    by_name: Proxy, toy: Upstream, traffic: Traffic, asked: dict[str, object], stream: bool
) -> None:
    n_calls = len(toy.calls)
    reply = by_name.chat(traffic.violating, stream=stream, **asked)
    assert (reply.status, reply.error, len(toy.calls)) == (400, VIOLATES, n_calls)


def test_threshold_above_the_configs_tightens(by_name: Proxy, traffic: Traffic) -> None:
    reply = by_name.chat(traffic.allowed, guardrails=["strict"])
    assert (reply.status, reply.error) == (400, VIOLATES)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"guardrails": []},
        {"guardrails": [{"csrm": {"extra_body": {"threshold": 0.0}}}]},
        {"disable_global_guardrails": True},
        {"metadata": {"disable_global_guardrails": True, "guardrails": []}},
    ],
)
@STREAMED
def test_default_on_caller_cannot_leave_the_guardrail_out(
    default_on: Proxy, toy: Upstream, traffic: Traffic, asked: dict[str, object], stream: bool
) -> None:
    n_calls = len(toy.calls)
    blocked = default_on.chat(traffic.violating, stream=stream, **asked)
    assert (blocked.status, blocked.error, len(toy.calls)) == (400, VIOLATES, n_calls)
    answer = default_on.chat(traffic.question, stream=stream, **asked)
    assert (answer.status, answer.error, answer.text) == (400, VIOLATES, "")
    allowed = default_on.chat(traffic.allowed, stream=stream)
    assert (allowed.status, allowed.text) == (200, DEFAULT_ANSWER)


@STREAMED
def test_inside_guardrail_of_a_model_guards_it(
    by_name: Proxy, toy: Upstream, traffic: Traffic, stream: bool
) -> None:
    def ask(text: str) -> tuple[int, str, str, int]:
        n_calls = len(toy.calls)
        reply = by_name.chat(text, model="toy-guarded", stream=stream, guardrails=[])
        return reply.status, reply.error, reply.text, len(toy.calls) - n_calls

    assert ask(traffic.allowed) == (200, "", DEFAULT_ANSWER, 1)
    assert ask(traffic.violating) == (400, VIOLATES, "", 0)
    assert ask(traffic.question) == (400, VIOLATES, "", 1)


@STREAMED
@pytest.mark.parametrize("message", ["empty", "calls", "reasons"])
def test_inside_answer_without_plain_content_is_not_passed_unseen(
    by_name: Proxy, toy: Upstream, traffic: Traffic, message: str, stream: bool
) -> None:
    arguments = f'{{"text": "{traffic.violating_answer}"}}'
    call = {
        "id": "c",
        "index": 0,
        "type": "function",
        "function": {"name": "say", "arguments": arguments},
    }
    toy.answers["empty"] = ""
    toy.answers["calls"] = {"content": None, "tool_calls": [call]}
    toy.answers["reasons"] = {"content": "Fine.", "reasoning_content": traffic.violating_answer}
    reply = by_name.chat(message, guardrails=["inside"], stream=stream)
    expected = "not judged (EmptyConversation)" if message == "empty" else VIOLATES
    assert (reply.status, reply.error, reply.text) == (400, expected, "")


def test_inside_request_of_images_alone_is_blocked(by_name: Proxy, toy: Upstream) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    n_calls = len(toy.calls)
    turns = [{"role": "user", "content": [image]}]
    reply = by_name.chat("", messages=turns, guardrails=["inside"])
    assert (reply.status, len(toy.calls)) == (400, n_calls)
    assert reply.error.startswith("not judged (")


@STREAMED
@pytest.mark.parametrize(
    ("path", "model"), [("/v1/completions", "toy-text"), ("/v1/messages", "toy-claude")]
)
def test_inside_other_endpoints_are_judged_both_ways(
    by_name: Proxy, toy: Upstream, traffic: Traffic, path: str, model: str, stream: bool
) -> None:
    def ask(text: str) -> tuple[int, str, str]:
        turns = {"messages": [{"role": "user", "content": text}], "max_tokens": 9}
        body = turns if path == "/v1/messages" else {"prompt": text}
        reply = by_name.post(path, model=model, guardrails=["inside"], stream=stream, **body)
        return reply.status, reply.error, reply.text

    assert ask(traffic.allowed) == (200, "", DEFAULT_ANSWER)
    n_calls = len(toy.calls)
    assert ask(traffic.violating) == (400, VIOLATES, "")
    assert len(toy.calls) == n_calls
    assert ask(traffic.question) == (400, VIOLATES, "")
    assert len(toy.calls) == n_calls + 1


def test_inside_embeddings_are_judged_as_requests(by_name: Proxy, traffic: Traffic) -> None:
    texts = [traffic.allowed, traffic.violating]
    found = [
        by_name.post("/v1/embeddings", model="toy", input=text, guardrails=["inside"]).status
        for text in texts
    ]
    assert found == [200, 400]


@pytest.fixture(scope="module")
def inside() -> ModuleType:
    """The module, whose import takes long."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import csrm.integrations.litellm as inside

    return inside


@pytest.fixture(scope="module")
def guardrail(inside: ModuleType) -> Any:
    return made(inside)


def made(inside: ModuleType, **options: Any) -> Any:
    """A CsrmGuardrail as the proxy makes one."""
    modes = {"guardrail_name": "csrm", "event_hook": ["pre_call", "post_call"], "default_on": True}
    return inside.CsrmGuardrail(safety_config=str(POLICY), n_threads=1, **{**modes, **options})


def before(guardrail: Any, text: str, call_type: str = "acompletion", **data: Any) -> str:
    """Why the pre-call hook blocks, or ""."""
    body = {"model": "toy", "messages": [{"role": "user", "content": text}], **data}
    return reason(
        guardrail.async_pre_call_hook(
            user_api_key_dict=auth(), cache=None, data=body, call_type=call_type
        )
    )


def auth() -> Any:
    from litellm.proxy._types import UserAPIKeyAuth

    return UserAPIKeyAuth(request_route="/v1/chat/completions")


def reason(hook: Any) -> str:
    from litellm.exceptions import GuardrailRaisedException

    found: GuardrailRaisedException | None = None
    try:
        asyncio.run(hook)
    except GuardrailRaisedException as error:
        found = error
    assert found is None or found.blocked_content is (str(found) == VIOLATES)
    return str(found or "")


def test_guardrail_extra_body_tightens_and_never_loosens(
    guardrail: Any, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiteLLM passes extra_body on with a licence only."""
    monkeypatch.setattr(guardrail, "_validate_premium_user", lambda: True)

    def ask(text: str, threshold: object) -> str:
        extra = [{"csrm": {"extra_body": {"threshold": threshold}}}]
        return before(guardrail, text, guardrails=extra)

    assert ask(traffic.allowed, 0.0) == ""
    assert ask(traffic.violating, 0.0) == VIOLATES
    assert ask(traffic.allowed, 1.0) == VIOLATES
    for bad in ("0", 2, [0.0]):
        assert ask(traffic.allowed, bad) == "not judged (BadConfig)"


def test_guardrail_extra_body_tightens_a_stream_too(
    guardrail: Any, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guardrail, "_validate_premium_user", lambda: True)
    extra = [{"csrm": {"extra_body": {"threshold": 1.0}}}]
    assert streamed(guardrail, [traffic.allowed_answer]) == (1, "")
    assert streamed(guardrail, [traffic.allowed_answer], guardrails=extra) == (0, VIOLATES)


def streamed(guardrail: Any, texts: list[str], **data: Any) -> tuple[int, str]:
    """How many chunks leave when each text is a choice in one chunk, and why no more do."""
    from litellm.types.utils import Delta, ModelResponseStream, StreamingChoices

    choices = [StreamingChoices(index=i, delta=Delta(content=t)) for i, t in enumerate(texts)]
    n_left = 0

    async def chunks() -> AsyncIterator[Any]:
        yield ModelResponseStream(choices=choices)

    async def collect() -> None:
        nonlocal n_left
        body = {"messages": [{"role": "user", "content": "Well?"}], "stream": True, **data}
        async for _ in guardrail.async_post_call_streaming_iterator_hook(
            user_api_key_dict=auth(), response=chunks(), request_data=body
        ):
            n_left += 1

    why = reason(collect())
    return n_left, why


def test_guardrail_every_choice_of_a_stream_is_judged(guardrail: Any, traffic: Traffic) -> None:
    texts = [traffic.allowed_answer, traffic.violating_answer]
    assert streamed(guardrail, texts[:1] * 2) == (1, "")
    assert streamed(guardrail, texts) == (0, VIOLATES)
    assert streamed(guardrail, texts[::-1]) == (0, VIOLATES)


def test_guardrail_answer_with_an_image_is_blocked(guardrail: Any) -> None:
    from litellm.types.utils import Choices, Message, ModelResponse

    url = {"url": "data:image/png;base64,iVBORw0KGgo="}
    image = {"type": "image_url", "index": 0, "image_url": url}
    answer = ModelResponse(choices=[Choices(message=Message(content="Here.", images=[image]))])
    hook = guardrail.async_post_call_success_hook(
        data={"messages": [{"role": "user", "content": "Well?"}]},
        user_api_key_dict=auth(),
        response=answer,
    )
    assert reason(hook) == "not judged (BadConversation)"


def test_guardrail_call_without_text_to_judge_is_blocked(guardrail: Any, traffic: Traffic) -> None:
    assert before(guardrail, traffic.allowed) == ""
    for call_type in ("acreate_file", "a_kind_of_tomorrow"):
        assert before(guardrail, traffic.allowed, call_type) == "not judged (EmptyConversation)"


def test_guardrail_fail_mode_open_lets_by_what_csrm_failed_at_and_says_so(
    inside: ModuleType, traffic: Traffic, caplog: pytest.LogCaptureFixture
) -> None:
    late = made(inside, deadline_s=0, fail_mode="open")
    assert before(late, traffic.allowed) == ""
    assert [entry.message for entry in caplog.records if entry.levelname == "CRITICAL"] == [
        "let by what could not be judged: DeadlineExceeded"
    ]
    assert before(late, "", messages=[]) == "not judged (EmptyConversation)"


@pytest.mark.parametrize(
    "options",
    [{"event_hook": "pre_mcp_call"}, {"release": "early"}, {"fail_mode": "ajar"}],
)
def test_guardrail_wrong_option_is_refused_at_start(
    inside: ModuleType, options: dict[str, str]
) -> None:
    with pytest.raises((ValueError, csrm.errors.BadArgument)):
        made(inside, **options)


def test_guardrail_without_a_config_is_refused_at_start(inside: ModuleType) -> None:
    with pytest.raises(csrm.errors.BadArgument, match="safety_config"):
        inside.CsrmGuardrail(guardrail_name="csrm")
