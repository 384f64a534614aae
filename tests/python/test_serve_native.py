"""/v1/score, /v1/configs and what is open: answers, batches, strictness, OpenAPI examples."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from serve_client import (
    CHAT,
    EMPTY_TURN,
    RULES,
    UNSCORABLE,
    RunningApp,
    config_text,
    httpx,
    serve_artifact,
    shared_app,
)

import csrm
from csrm.serve.failures import STATUSES, Failure, failure_of
from csrm.serve.openapi import document
from csrm.serve.routes import ROWS

fixtures = (serve_artifact, shared_app)  # made known to pytest here


def lenient() -> csrm.SafetyConfig:
    return csrm.SafetyConfig.parse(config_text("lenient", 0.0), "yaml")


def test_score_single_equals_the_scorer(shared_app: RunningApp, serve_artifact: Any) -> None:
    found = shared_app.post("/v1/score", {"messages": CHAT, "explain": True})
    expected = csrm.load(serve_artifact, n_threads=1).score(lenient(), CHAT, explain=True)
    assert found.status_code == 200
    answer = found.json()
    assert answer["reward"] == pytest.approx(expected.reward, abs=5e-6)
    assert answer["compliance"] == pytest.approx(expected.compliance, abs=5e-6)
    assert answer["scored_tokens"] == expected.scored_tokens
    assert [rule["name"] for rule in answer["rules"]] == ["First", ""]
    assert answer["rules"][1]["reward"] == pytest.approx(expected.rules[1].reward, abs=5e-6)


@pytest.mark.parametrize(
    ("config", "verdict", "flagged"),
    [("lenient", "compliant", False), ("strict", "violation", True)],
)
def test_score_verdict_follows_the_config(
    shared_app: RunningApp, config: str, verdict: str, flagged: bool
) -> None:
    found = shared_app.post("/v1/score", {"messages": CHAT, "config": config}).json()
    assert (found["verdict"], found["flagged"]) == (verdict, flagged)
    assert found["config_id"] == config


@pytest.mark.parametrize(
    ("messages", "status", "code"),
    [
        (UNSCORABLE, 500, "NonFinite"),
        (EMPTY_TURN, 422, "EmptyConversation"),
        ([], 422, "EmptyConversation"),
        ("text", 422, "BadConversation"),
        ([{"role": "nobody", "content": "a"}], 422, "UnknownRole"),
    ],
)
def test_score_failure_is_unknown_flagged_and_not_200(
    shared_app: RunningApp, messages: object, status: int, code: str
) -> None:
    found = shared_app.post("/v1/score", {"messages": messages})
    assert found.status_code == status
    answer = found.json()
    assert (answer["verdict"], answer["flagged"], answer["error"]["code"]) == (
        "unknown",
        True,
        code,
    )
    assert "reward" not in answer
    assert "compliance" not in answer


def test_score_every_answer_carries_config_and_artifact(shared_app: RunningApp) -> None:
    digest = lenient().digest()
    artifact = shared_app.service.snapshot.model.digest
    for messages in (CHAT, UNSCORABLE):
        headers = shared_app.post("/v1/score", {"messages": messages}).headers
        assert headers["x-csrm-config-id"] == "lenient"
        assert headers["x-csrm-config-version"] == "1"
        assert headers["x-csrm-config-digest"] == digest
        assert headers["x-csrm-artifact-digest"] == artifact
    answer = shared_app.post("/v1/score", {"messages": CHAT}).json()
    assert (answer["config_digest"], answer["artifact_digest"]) == (digest, artifact)


def test_score_batch_keeps_order_and_places_failures(shared_app: RunningApp) -> None:
    body = {"conversations": [CHAT, UNSCORABLE, EMPTY_TURN, CHAT], "config": "strict"}
    found = shared_app.post("/v1/score", body)
    assert found.status_code == 200
    results = found.json()["results"]
    assert [one["index"] for one in results] == [0, 1, 2, 3]
    verdicts = [one["verdict"] for one in results]
    assert verdicts == ["violation", "unknown", "unknown", "violation"]
    assert all(one["flagged"] for one in results)
    assert results[1]["error"]["code"] == "NonFinite"
    assert results[0]["reward"] == pytest.approx(results[3]["reward"], abs=5e-6)


def test_score_batch_without_any_score_fails(shared_app: RunningApp) -> None:
    found = shared_app.post("/v1/score", {"conversations": [UNSCORABLE, EMPTY_TURN]})
    assert found.status_code == 500
    assert found.json()["verdict"] == "unknown"
    assert shared_app.post("/v1/score", {"conversations": []}).status_code == 422


def test_score_judged_assistant_lists_turns(shared_app: RunningApp) -> None:
    body = {"messages": [*CHAT, *CHAT], "judged": "assistant"}
    answer = shared_app.post("/v1/score", body).json()
    assert [turn["turn"] for turn in answer["turns"]] == [1, 3]
    assert answer["reward"] == min(turn["reward"] for turn in answer["turns"])


def test_score_threshold_tightens_and_never_loosens(shared_app: RunningApp) -> None:
    tight = shared_app.post("/v1/score", {"messages": CHAT, "threshold": 1.0}).json()
    assert (tight["verdict"], tight["threshold"]) == ("violation", 1.0)
    loose = {"messages": CHAT, "threshold": 0.0, "config": "strict"}
    answer = shared_app.post("/v1/score", loose).json()
    assert (answer["verdict"], answer["threshold"]) == ("violation", 1.0)


def test_score_inline_rules_are_judged_by(shared_app: RunningApp) -> None:
    body = {"messages": CHAT, "rules": RULES, "threshold": 1.0}
    answer = shared_app.post("/v1/score", body).json()
    assert (answer["config_id"], answer["verdict"]) == ("inline", "violation")
    assert answer["config_digest"] == lenient().digest()


@pytest.mark.parametrize(
    "change",
    [
        {"treshold": 0.9},
        {"threshold": "0.9"},
        {"threshold": 1.5},
        {"judged": "all"},
        {"explain": 1},
        {"explain": "slow"},
        {"conversations": [CHAT]},
        {"rules": RULES, "config": "lenient"},
        {"deadline_ms": -1},
        {"deadline_ms": True},
        {"config": 7},
    ],
)
def test_score_bad_field_is_refused(shared_app: RunningApp, change: dict[str, object]) -> None:
    found = shared_app.post("/v1/score", {"messages": CHAT, **change})
    assert found.status_code == 422
    assert found.json()["error"]["code"] == "BadRequest"


def test_score_unknown_config_is_404(shared_app: RunningApp) -> None:
    found = shared_app.post("/v1/score", {"messages": CHAT, "config": "absent"})
    assert (found.status_code, found.json()["error"]["code"]) == (404, "UnknownConfig")


def test_score_config_of_path_wins_over_header_over_body(shared_app: RunningApp) -> None:
    body = {"messages": CHAT, "config": "lenient"}
    assert shared_app.post("/v1/score", body).json()["config_id"] == "lenient"
    by_header = shared_app.post("/v1/score", body, x_csrm_config="strict").json()
    assert by_header["config_id"] == "strict"
    path = "/configs/lenient/v1/score"
    by_path = shared_app.post(path, {"messages": CHAT}, x_csrm_config="strict").json()
    assert by_path["config_id"] == "lenient"


def test_configs_put_get_list_delete(shared_app: RunningApp) -> None:
    path, body = "/v1/configs/mine", {"version": "3", "threshold": 1.0, "rules": RULES}
    assert shared_app.ask("PUT", path, json=body).status_code == 201
    assert shared_app.ask("PUT", path, json=body).status_code == 200
    found = shared_app.ask("GET", path).json()
    assert (found["version"], found["source"], found["rules"]) == ("3", "api", RULES)
    listed = shared_app.ask("GET", "/v1/configs").json()
    assert [one["id"] for one in listed["configs"]] == ["lenient", "strict", "mine"]
    assert listed["default"] == "lenient"
    scored = shared_app.post("/v1/score", {"messages": CHAT, "config": "mine"}).json()
    assert (scored["verdict"], scored["config_version"]) == ("violation", "3")
    assert shared_app.ask("DELETE", path).status_code == 204
    assert shared_app.ask("GET", path).status_code == 404


def test_configs_put_markdown_is_read_as_a_file(shared_app: RunningApp) -> None:
    text = "# Title\n\n- Never a b c.\n- Never d e f.\n"
    headers = {"content-type": "text/markdown"}
    found = shared_app.ask("PUT", "/v1/configs/notes", content=text, headers=headers)
    assert (found.status_code, found.json()["n_rules"]) == (201, 2)
    assert shared_app.ask("DELETE", "/v1/configs/notes").status_code == 204


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/configs/strict", {"rules": RULES}, "ConfigConflict"),
        ("/v1/configs/mine", {"id": "other", "rules": RULES}, "BadRequest"),
        ("/v1/configs/mine", {"rules": []}, "EmptyConfig"),
        ("/v1/configs/mine", {"rules": RULES, "treshold": 1}, "BadConfig"),
        ("/v1/configs/.mine", {"rules": RULES}, "BadConfig"),
    ],
)
def test_configs_bad_put_changes_nothing(
    shared_app: RunningApp, path: str, body: dict[str, object], code: str
) -> None:
    before = shared_app.ask("GET", "/v1/configs").json()["configs"]
    found = shared_app.ask("PUT", path, json=body)
    assert found.status_code == STATUSES[code]
    assert found.json()["error"]["code"] == code
    assert shared_app.ask("GET", "/v1/configs").json()["configs"] == before


def test_configs_delete_of_a_file_is_a_conflict(shared_app: RunningApp) -> None:
    assert shared_app.ask("DELETE", "/v1/configs/strict").status_code == 409


def test_health_metrics_and_openapi_are_open(shared_app: RunningApp) -> None:
    assert shared_app.ask("GET", "/healthz").json() == {"status": "ready"}
    assert shared_app.ask("GET", "/readyz").status_code == 200
    shared_app.post("/v1/score", {"messages": CHAT})
    text = shared_app.ask("GET", "/metrics").text
    for name in (
        'csrm_requests_total{endpoint="score",outcome="ok"}',
        'csrm_verdicts_total{config_id="lenient",config_version="1",verdict="compliant"}',
        "csrm_request_duration_seconds_bucket",
        "csrm_queue_depth 0.0",
        "csrm_prefix_cache_hits_total",
        "csrm_build_info{",
    ):
        assert name in text
    assert shared_app.ask("GET", "/openapi.json").json() == json.loads(json.dumps(document()))


def test_unknown_path_and_method_have_typed_answers(shared_app: RunningApp) -> None:
    for method, path, status in (("GET", "/v2/none", 404), ("GET", "/v1/score", 405)):
        found = shared_app.ask(method, path)
        assert found.status_code == status
        assert found.json()["verdict"] == "unknown"


def check_described(path: str, method: str, found: httpx.Response) -> None:
    """The answer and the row's example are what the document says of them."""
    whole = json.loads(json.dumps(document()))
    operation = whole["paths"][path][method.lower()]
    asked = operation["requestBody"]["content"]["application/json"]
    pairs = [(asked["schema"], asked["example"])]
    if found.content:
        answer = operation["responses"][str(found.status_code)]["content"]["application/json"]
        pairs.append((answer["schema"], found.json()))
    for schema, instance in pairs:
        jsonschema.validate(instance, {**schema, "components": whole["components"]})


def test_openapi_failures_are_as_described(shared_app: RunningApp) -> None:
    failure = {"$ref": "#/components/schemas/Failure", "components": document()["components"]}
    for body in ({}, {"messages": UNSCORABLE}, {"messages": CHAT, "config": "absent"}):
        found = shared_app.post("/v1/score", body)
        jsonschema.validate(found.json(), json.loads(json.dumps(failure)))
    batch = shared_app.post("/v1/score", {"conversations": [CHAT, UNSCORABLE]}).json()
    answer = {"$ref": "#/components/schemas/Answer", "components": document()["components"]}
    jsonschema.validate(batch, json.loads(json.dumps(answer)))


def test_unknown_method_answers_name_all_methods_of_the_path(shared_app: RunningApp) -> None:
    found = shared_app.ask("OPTIONS", "/v1/configs/lenient")
    assert found.headers["allow"] == "DELETE, GET, HEAD, PUT"


def test_openapi_every_example_is_answered(shared_app: RunningApp) -> None:
    n_sent = 0
    for row in ROWS:
        if row.example is None:
            continue
        path = row.path.replace("{rest:path}", "/v1/chat/completions").replace("{id}", "example")
        method = "POST" if "POST" in row.methods else row.methods[0]
        found = shared_app.ask(method, path, json=row.example)
        assert found.status_code in (200, 201), (path, found.text)
        check_described(row.path.replace("{rest:path}", ""), method, found)
        n_sent += 1
    assert n_sent == 12
    assert shared_app.ask("DELETE", "/v1/configs/example").status_code == 204


def test_openapi_operation_ids_are_unique() -> None:
    paths: Any = document()["paths"]
    ids = [op["operationId"] for path in paths.values() for op in path.values() if len(op) > 2]
    assert len(ids) > 15
    assert len(set(ids)) == len(ids)


def test_statuses_every_error_class_has_one() -> None:
    for cls in csrm.errors.ERROR_CLASSES:
        assert STATUSES[cls.__name__] >= 400
        assert failure_of(cls("m")).status == STATUSES[cls.__name__]
    assert failure_of(ValueError("secret")).kind == "Internal"
    assert "secret" not in failure_of(ValueError("secret")).message
    assert not Failure("LimitExceeded", "m").is_ours
