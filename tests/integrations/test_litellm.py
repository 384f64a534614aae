"""A real LiteLLM proxy in front of a toy upstream: CsrmGuardrail in process, and the generic
guardrail API on a running `csrm serve`. What the client and the model get to see, and what not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from csrm_server import POLICY, Server, Traffic, start_server
from litellm_proxy import Proxy, start_proxy
from toy_upstream import DEFAULT_ANSWER, Upstream

MODELS = """
model_list:
  - model_name: toy
    litellm_params: {model: openai/toy, api_base: os.environ/TOY_V1, api_key: none}
  - model_name: toy-text
    litellm_params: {model: text-completion-openai/toy, api_base: os.environ/TOY_V1, api_key: none}
  - model_name: toy-claude
    litellm_params: {model: anthropic/toy, api_base: os.environ/TOY, api_key: none}
"""
# As in docs/integrations/litellm.md.
DEFAULT_ON = f"""
guardrails:
  - guardrail_name: csrm
    litellm_params:
      guardrail: csrm.integrations.litellm.CsrmGuardrail
      mode: [pre_call, post_call]
      default_on: true
      safety_config: {POLICY}
      n_threads: 1
"""
INSIDE = f"""&inside
      guardrail: csrm.integrations.litellm.CsrmGuardrail
      mode: [pre_call, post_call]
      safety_config: {POLICY}
      n_threads: 1
"""
HTTP = """&http
      guardrail: generic_guardrail_api
      mode: [pre_call, post_call]
      api_base: os.environ/CSRM
      streaming_buffer_until_moderated: true
"""
BY_NAME = f"""
guardrails:
  - guardrail_name: inside
    litellm_params: {INSIDE}
  - guardrail_name: http
    litellm_params: {HTTP}
  - guardrail_name: inside-late
    litellm_params: {{<<: *inside, deadline_s: 0}}
  - guardrail_name: http-late
    litellm_params: {{<<: *http, api_base: os.environ/CSRM_LATE}}
  - guardrail_name: http-gone
    litellm_params: {{<<: *http, api_base: os.environ/CSRM_GONE}}
  - guardrail_name: during
    litellm_params: {{<<: *inside, mode: during_call}}
  - guardrail_name: judged
    litellm_params: {{<<: *inside, mode: post_call, release: judged}}
  - guardrail_name: strict
    litellm_params: {{<<: *inside, threshold: 1.0}}
  - guardrail_name: lower
    litellm_params: {{<<: *inside, threshold: 0.0}}
"""
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
    assert first.startswith(reply.text)
    assert reply.text.startswith("Your neighbour waved")
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
