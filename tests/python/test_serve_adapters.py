"""The peers' formats: OpenAI's client, LiteLLM, ext_authz, vLLM, OpenRLHF, TEI. Both verdicts, and
"unknown" blocks or fails. Each body has a field that its peer may add one day.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from serve_client import (
    CHAT,
    EMPTY_TURN,
    UNSCORABLE,
    RunningApp,
    httpx,
    openai,
    options_for,
    serve_artifact,
    shared_app,
    write_configs,
)

fixtures = (serve_artifact, shared_app)  # made known to pytest here

LITELLM = "/beta/litellm_basic_guardrail_api"
USER = [{"role": "user", "content": "a b c"}]


def openai_moderation(app: RunningApp, **given: Any) -> Any:
    """What the real client makes of /v1/moderations."""

    async def create() -> Any:
        transport = httpx.ASGITransport(app=app.app)
        async with (
            httpx.AsyncClient(transport=transport) as http,
            openai.AsyncOpenAI(
                base_url="http://csrm/v1", api_key="none", http_client=http, max_retries=0
            ) as client,
        ):
            return await client.moderations.create(**given)

    return app.run(create())


def litellm(app: RunningApp, config: str, **given: Any) -> dict[str, Any]:
    body = {"litellm_call_id": "c", "litellm_trace_id": "t", "a_new_field": {"x": 1}, **given}
    found = app.post(f"/configs/{config}{LITELLM}", body)
    assert found.status_code == 200
    return dict(found.json())


def ext_authz(app: RunningApp, config: str, body: object, **headers: str) -> httpx.Response:
    return app.post(f"/configs/{config}/ext_authz/v1/chat/completions", body, **headers)


@pytest.mark.parametrize(("model", "flagged"), [("lenient", False), ("strict", True)])
def test_moderations_openai_client_reads_both_verdicts(
    shared_app: RunningApp, model: str, flagged: bool
) -> None:
    found = openai_moderation(shared_app, input="a b c", model=model)
    assert (found.model, found.id[:5]) == (model, "modr-")
    (result,) = found.results
    assert result.flagged is flagged
    assert result.categories.to_dict() == {"First": flagged, "rule-2": flagged}
    scores = result.category_scores.to_dict()
    assert set(scores) == {"First", "rule-2"}
    assert all(0 < score < 1 for score in scores.values())


def test_moderations_openai_client_several_inputs_and_default_model(
    shared_app: RunningApp,
) -> None:
    texts = ["a b", "c d", "e f"]
    found = openai_moderation(shared_app, input=texts)
    assert (found.model, len(found.results)) == ("lenient", 3)
    alone = openai_moderation(shared_app, input=texts[1], model="omni-moderation-latest")
    expected = alone.results[0].category_scores.to_dict()
    assert found.results[1].category_scores.to_dict() == pytest.approx(expected, abs=5e-6)


def test_moderations_parts_and_messages_are_one_input(shared_app: RunningApp) -> None:
    parts = [{"type": "text", "text": "a b"}, {"type": "text", "text": "c"}]
    assert len(shared_app.post("/v1/moderations", {"input": parts}).json()["results"]) == 1
    assert len(shared_app.post("/v1/moderations", {"input": CHAT}).json()["results"]) == 1


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"input": "b z c"}, openai.InternalServerError),
        ({"input": ["a", "b z c"]}, openai.InternalServerError),
        ({"input": ""}, openai.UnprocessableEntityError),
        ({"input": "a", "model": "absent"}, openai.NotFoundError),
        (
            {"input": [{"type": "image_url", "image_url": {"url": "https://x"}}]},
            openai.UnprocessableEntityError,
        ),
    ],
)
def test_moderations_openai_client_gets_a_typed_error(
    shared_app: RunningApp, given: dict[str, Any], error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error) as caught:
        openai_moderation(shared_app, **given)
    assert caught.value.code


@pytest.mark.parametrize("texts", [["a b c"], ["a b", "c d"]])
@pytest.mark.parametrize("kind", ["request", "response"])
def test_litellm_both_verdicts(shared_app: RunningApp, kind: str, texts: list[str]) -> None:
    given = {"input_type": kind, "texts": texts, "images": [], "tools": [], "tool_calls": []}
    assert litellm(shared_app, "lenient", **given) == {"action": "NONE"}
    blocked = litellm(shared_app, "strict", **given)
    assert blocked == {"action": "BLOCKED", "blocked_reason": "violates the config strict"}


@pytest.mark.parametrize(
    "given",
    [
        {"input_type": "request", "texts": ["b z c"]},
        {"input_type": "request", "structured_messages": UNSCORABLE[:1] + UNSCORABLE},
        {"input_type": "response", "texts": ["a", "b z c"], "structured_messages": USER},
        {"input_type": "response", "texts": [""]},
        {"input_type": "request", "texts": []},
        {"input_type": "request", "texts": ["a"], "images": ["data:image/png;base64,AAAA"]},
        {"input_type": "both", "texts": ["a"]},
        {"texts": ["a"]},
        {"input_type": "request", "texts": [7]},
        {
            "input_type": "request",
            "structured_messages": [{"role": "user", "content": [{"type": "image_url"}]}],
        },
        {"input_type": "request", "texts": ["a"], "additional_provider_specific_params": 3},
        {
            "input_type": "request",
            "texts": ["a"],
            "additional_provider_specific_params": {"threshold": "0"},
        },
    ],
)
def test_litellm_unknown_is_blocked(shared_app: RunningApp, given: dict[str, Any]) -> None:
    answer = litellm(shared_app, "lenient", **given)
    assert answer["action"] == "BLOCKED"
    assert answer["blocked_reason"].startswith("not judged (")


def test_litellm_bodies_as_version_1_108_7_sends_them(shared_app: RunningApp) -> None:
    """A proxy's bodies: what is not there is null, and a response comes without its messages."""
    function = {"name": "a", "arguments": "{}"}
    call = {"id": "t", "type": "function", "function": function}
    turns = [
        {"role": "system", "content": "a b"},
        {"role": "user", "content": [{"type": "text", "text": "a b c"}]},
        {"role": "assistant", "content": None, "tool_calls": [call], "thinking_blocks": None},
        {"role": "tool", "content": "d e", "tool_call_id": "t"},
    ]
    common = {
        "litellm_call_id": "c",
        "litellm_trace_id": "t",
        "litellm_version": "1.108.7",
        "images": None,
        "tools": None,
        "model": "toy",
        "request_data": {"user_api_key_hash": "h", "user_api_key_user_id": "u"},
        "request_headers": {"host": "127.0.0.1:4000", "authorization": "[present]"},
        "additional_provider_specific_params": {},
    }
    request = {
        **common,
        "input_type": "request",
        "structured_messages": turns,
        "texts": ["a b", "a b c", "d e"],
        "tool_calls": [{**call, "index": 0}],
    }
    response = {
        **common,
        "input_type": "response",
        "structured_messages": None,
        "texts": ["d e f"],
        "tool_calls": None,
    }
    for body in (request, response):
        for config, action in (("lenient", "NONE"), ("strict", "BLOCKED")):
            found = shared_app.post(f"/configs/{config}{LITELLM}", body)
            assert (found.status_code, found.json()["action"]) == (200, action)


def test_litellm_every_turn_without_an_answer_is_judged(shared_app: RunningApp) -> None:
    """Two user turns in a row: the first must not hide behind the second."""
    turns = [*CHAT, {"role": "user", "content": "b z"}, {"role": "user", "content": "a"}]
    given = {"input_type": "request", "structured_messages": turns, "texts": []}
    before = shared_app.service.snapshot.model.lanes[0].scheduler.stats()["n_accepted"]
    assert litellm(shared_app, "lenient", **given)["action"] == "BLOCKED"
    after = shared_app.service.snapshot.model.lanes[0].scheduler.stats()["n_accepted"]
    assert after - before == 2


def test_litellm_system_turn_is_read_and_not_judged(shared_app: RunningApp) -> None:
    turns = [{"role": "system", "content": "a b"}, *USER]
    before = shared_app.service.snapshot.model.lanes[0].scheduler.stats()["n_accepted"]
    given = {"input_type": "request", "structured_messages": turns, "texts": ["a b", "a b c"]}
    assert litellm(shared_app, "lenient", **given)["action"] == "NONE"
    after = shared_app.service.snapshot.model.lanes[0].scheduler.stats()["n_accepted"]
    assert after - before == 1


def test_litellm_tool_calls_of_a_response_are_judged(shared_app: RunningApp) -> None:
    call = {"type": "function", "function": {"name": "a", "arguments": "b z"}}
    given = {"input_type": "response", "texts": [""], "tool_calls": [call]}
    assert "NonFinite" in litellm(shared_app, "lenient", **given)["blocked_reason"]


@pytest.mark.parametrize(
    ("config", "params", "action"),
    [
        ("lenient", {"config_id": "strict"}, "BLOCKED"),
        ("lenient", {"threshold": 1.0}, "BLOCKED"),
        ("strict", {"config_id": "lenient"}, "BLOCKED"),
        ("strict", {"threshold": 0.0}, "BLOCKED"),
        ("lenient", {"config_id": "absent"}, "BLOCKED"),
        ("lenient", {"config_id": "lenient", "threshold": 0.0, "new": 1}, "NONE"),
    ],
)
def test_litellm_params_tighten_and_never_loosen(
    shared_app: RunningApp, config: str, params: dict[str, object], action: str
) -> None:
    body = {
        "input_type": "request",
        "texts": ["a b"],
        "additional_provider_specific_params": params,
    }
    found = shared_app.post(f"/configs/{config}{LITELLM}", body)
    assert found.json()["action"] == action


def test_ext_authz_both_verdicts(shared_app: RunningApp) -> None:
    body = {"model": "gpt-x", "messages": USER, "stream": True, "a_new_field": 1}
    allowed, denied = (ext_authz(shared_app, id, body) for id in ("lenient", "strict"))
    assert (allowed.status_code, allowed.headers["x-csrm-verdict"]) == (200, "compliant")
    assert (denied.status_code, denied.headers["x-csrm-verdict"]) == (403, "violation")
    assert denied.json()["error"]["message"] == "the request violates a policy"


@pytest.mark.parametrize("field", ["prompt", "input"])
def test_ext_authz_other_shapes_are_judged(shared_app: RunningApp, field: str) -> None:
    assert ext_authz(shared_app, "lenient", {field: "a b"}).status_code == 200
    assert ext_authz(shared_app, "strict", {field: ["a b", "c"]}).status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "b z c"}]},
        {"messages": EMPTY_TURN[1:]},
        {"messages": USER, "prompt": "a"},
        {"messages": [{"role": "system", "content": "a"}]},
        {"messages": USER * 17},
        {"query": "a"},
        {},
    ],
)
def test_ext_authz_unknown_is_403(shared_app: RunningApp, body: dict[str, object]) -> None:
    found = ext_authz(shared_app, "lenient", body)
    assert (found.status_code, found.headers["x-csrm-verdict"]) == (403, "unknown")


def test_ext_authz_cut_body_and_no_json_are_403(shared_app: RunningApp) -> None:
    body = {"messages": USER}
    cut = ext_authz(shared_app, "lenient", body, x_envoy_auth_partial_body="true")
    assert cut.status_code == 403
    whole = ext_authz(shared_app, "lenient", body, x_envoy_auth_partial_body="false")
    assert whole.status_code == 200
    for content in (b"", b"{", b"\xff", b"[]"):
        found = shared_app.ask("POST", "/ext_authz/v1/chat/completions", content=content)
        assert found.status_code == 403
    assert shared_app.ask("GET", "/ext_authz/v1/models").status_code == 403


def test_ext_authz_headers_of_the_checked_request_choose_nothing(shared_app: RunningApp) -> None:
    body = {"messages": USER}
    found = shared_app.post("/ext_authz", body, x_csrm_config="strict", x_csrm_deadline_ms="0.001")
    assert found.status_code == 200  # lenient is the default


def test_classify_raw_reward_is_where_verl_reads_it(shared_app: RunningApp) -> None:
    scored = shared_app.post("/v1/score", {"messages": CHAT[1:]}).json()
    for name in ("use_activation", "activation"):
        body = {"model": "lenient", "input": CHAT[1]["content"], name: False, "truncate": True}
        found = shared_app.post("/classify", body).json()
        assert found["data"][-1]["probs"][-1] == pytest.approx(scored["reward"], abs=5e-6)
    body = {"model": "lenient", "messages": CHAT[1:], "truncate_prompt_tokens": 1}
    item = shared_app.post("/classify", body).json()["data"][0]
    assert item["probs"][-1] == pytest.approx(scored["compliance"], abs=5e-6)
    assert (item["label"], item["num_classes"]) == ("compliant", 2)
    assert sum(item["probs"]) == pytest.approx(1, abs=1e-6)
    strict = shared_app.post("/classify", {"model": "strict", "input": ["a"]}).json()
    assert strict["data"][0]["label"] == "violation"
    assert strict["usage"]["prompt_tokens"] > 0


def test_get_reward_scores_answers_after_their_prompts(shared_app: RunningApp) -> None:
    scored = shared_app.post("/v1/score", {"messages": CHAT}).json()
    prompt, answer = (turn["content"] for turn in CHAT)
    body = {"query": [prompt + answer] * 2, "prompts": [prompt] * 2, "labels": ["lenient", None]}
    found = shared_app.post("/get_reward", body).json()
    assert found["rewards"] == pytest.approx([scored["reward"]] * 2, abs=5e-6)
    assert found["scores"] == pytest.approx([scored["compliance"]] * 2, abs=5e-6)
    assert found["extra_logs"]["violation"] == [0.0, 0.0]
    body["labels"] = ["strict", "lenient"]
    assert shared_app.post("/get_reward", body).json()["extra_logs"]["violation"] == [1.0, 0.0]


def test_predict_pairs_batches_and_raw_scores(shared_app: RunningApp) -> None:
    scored = shared_app.post("/v1/score", {"messages": CHAT}).json()
    pair = [turn["content"] for turn in CHAT]
    single = shared_app.post("/predict", {"inputs": pair, "truncate": True}).json()
    assert {one["label"] for one in single} == {"compliant", "violation"}
    assert single[0]["score"] >= single[1]["score"]
    batch = shared_app.post("/predict", {"inputs": [pair, ["a b"]], "raw_scores": True}).json()
    raw = {one["label"]: one["score"] for one in batch[0]}
    assert raw["compliant"] == pytest.approx(scored["reward"], abs=5e-6)
    assert raw["violation"] == -raw["compliant"]
    assert len(batch) == 2


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/classify", {"input": ["a", "b z"]}, 500),
        ("/classify", {"input": [[1, 2]]}, 422),
        ("/classify", {"input": "a", "model": "absent"}, 404),
        ("/get_reward", {"query": ["b z"]}, 500),
        ("/get_reward", {"query": ["a"], "labels": ["absent"]}, 404),
        ("/get_reward", {"query": ["a"], "prompts": []}, 422),
        ("/predict", {"inputs": "b z"}, 500),
        ("/predict", {"inputs": ["a", "b", "c"]}, 422),
        ("/predict", {"inputs": []}, 422),
    ],
)
def test_reward_servers_failure_is_no_number(
    shared_app: RunningApp, path: str, body: dict[str, object], status: int
) -> None:
    found = shared_app.post(path, body)
    assert found.status_code == status
    answer = found.json()
    assert set(answer) == {"error", "verdict", "flagged"}
    assert answer["verdict"] == "unknown"


def test_fail_mode_open_passes_our_failures_and_no_bad_input(
    serve_artifact: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configs = write_configs(tmp_path / "configs")
    options = options_for(serve_artifact, configs, default_config="lenient", fail_mode="open")
    with RunningApp(options).ready() as app:
        ours = {"input_type": "request", "texts": ["b z c"]}
        assert app.post(LITELLM, ours).json() == {"action": "NONE"}
        messages = [{"role": "user", "content": "b z c"}]
        assert app.post("/ext_authz", {"messages": messages}).status_code == 200
        for texts in ([], [""], ["a"] * 17):
            theirs = {"input_type": "request", "texts": texts}
            assert app.post(LITELLM, theirs).json()["action"] == "BLOCKED"
        assert app.ask("POST", "/ext_authz", content=b"{").status_code == 403
        both = {"input_type": "request", "structured_messages": messages + messages * 17}
        assert app.post(LITELLM, both).json()["action"] == "BLOCKED"
        text = app.ask("GET", "/metrics").text
        assert 'csrm_fail_open_total{endpoint="litellm"} 1.0' in text
        assert app.post("/v1/score", {"messages": messages}).json()["flagged"] is True
    levels = [record.levelname for record in caplog.records if record.msg == "fail_open"]
    assert levels == ["CRITICAL", "CRITICAL"]
