"""Operations of csrm.serve: keys, quotas, backpressure, deadlines, gone clients, drain, reload,
audit.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import toy
import yaml
from serve_client import (
    CHAT,
    RULES,
    WAIT_S,
    RunningApp,
    code,
    config_text,
    httpx,
    options_for,
    raw_call,
    serve_artifact,
    shared_app,
    wait_for,
    write_configs,
)

from csrm.errors import BadArgument, BadArtifact
from csrm.serve import Service, create_app
from csrm.serve.failures import Failure
from csrm.serve.logs import JsonFormatter
from csrm.serve.tenants import Quotas, Tenant, read_tenants

fixtures = (serve_artifact, shared_app)  # made known to pytest here

KEYS = {"team-a": "key-of-team-a-0001", "team-b": "key-of-team-b-0002", "boss": "key-of-boss-0003"}
LONG = [{"role": "assistant", "content": "a b c d e f g " * 60}] * 5  # several engine calls


def tenants_file(folder: Path, **changes: dict[str, Any]) -> Path:
    """team-a with the config strict only, team-b with all, boss with admin."""
    given: dict[str, dict[str, Any]] = {
        "team-a": {"configs": ["strict"], "config": "strict"},
        "team-b": {},
        "boss": {"admin": True},
    }
    entries = [
        {
            "name": name,
            "key_sha256": hashlib.sha256(key.encode()).hexdigest(),
            **given[name],
            **changes.get(name.replace("-", "_"), {}),
        }
        for name, key in KEYS.items()
    ]
    path = folder / "tenants.yaml"
    path.write_text(yaml.safe_dump({"tenants": entries}))
    return path


def keyed(
    artifact: Path, folder: Path, app_options: dict[str, Any] | None = None, **changes: Any
) -> RunningApp:
    """An application with keys; lenient is its default."""
    options = options_for(
        artifact,
        write_configs(folder / "configs"),
        default_config="lenient",
        tenants=tenants_file(folder, **changes),
        **(app_options or {}),
    )
    return RunningApp(options).ready()


def test_keys_are_needed_and_select_the_tenant(serve_artifact: Path, tmp_path: Path) -> None:
    body = {"messages": CHAT}
    with keyed(serve_artifact, tmp_path) as app:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"x_api_key": ""}):
            found = app.post("/v1/score", body, **headers)
            assert code(found) == (401, "Unauthorized")
            assert found.headers["www-authenticate"] == "Bearer"
        for headers in (
            {"authorization": f"Bearer {KEYS['team-b']}"},
            {"x_api_key": KEYS["team-b"]},
            {"x_csrm_key": KEYS["team-b"]},
        ):
            assert app.post("/v1/score", body, **headers).json()["config_id"] == "lenient"
        mine = {"x_api_key": KEYS["team-a"]}
        assert app.post("/v1/score", body, **mine).json()["config_id"] == "strict"
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
            assert app.ask("GET", path).status_code == 200


def test_keys_bound_what_a_tenant_sees_and_changes(serve_artifact: Path, tmp_path: Path) -> None:
    with keyed(serve_artifact, tmp_path) as app:
        mine, boss = ({"x-api-key": KEYS[name]} for name in ("team-a", "boss"))
        listed = app.ask("GET", "/v1/configs", headers=mine).json()
        assert [one["id"] for one in listed["configs"]] == ["strict"]
        assert code(app.ask("GET", "/v1/configs/lenient", headers=mine)) == (404, "UnknownConfig")
        for extra in ({"config": "lenient"}, {"rules": RULES}):
            found = app.ask("POST", "/v1/score", json={"messages": CHAT, **extra}, headers=mine)
            assert found.status_code in (403, 404)
        pinned = app.ask("POST", "/configs/lenient/predict", json={"inputs": "a"}, headers=mine)
        assert code(pinned) == (404, "UnknownConfig")
        new = {"rules": RULES}
        assert code(app.ask("PUT", "/v1/configs/x", json=new, headers=mine)) == (403, "Forbidden")
        assert app.ask("PUT", "/v1/configs/x", json=new, headers=boss).status_code == 201


def test_keys_ext_authz_reads_only_the_proxys_header(serve_artifact: Path, tmp_path: Path) -> None:
    body = {"messages": CHAT[:1]}
    with keyed(serve_artifact, tmp_path) as app:
        stolen = app.post("/ext_authz", body, authorization=f"Bearer {KEYS['team-b']}")
        assert stolen.status_code == 403
        assert app.post("/ext_authz", body, x_csrm_key=KEYS["team-b"]).status_code == 200


def test_keys_from_the_environment_are_known(serve_artifact: Path, tmp_path: Path) -> None:
    configs = write_configs(tmp_path / "configs")
    options = options_for(serve_artifact, configs, default_config="lenient")
    with RunningApp(options, {"CSRM_API_KEYS": "ops=0123456789abcdef"}).ready() as app:
        assert app.post("/v1/score", {"messages": CHAT}).status_code == 401
        found = app.post("/v1/score", {"messages": CHAT}, x_api_key="0123456789abcdef")
        assert found.status_code == 200


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "a"},
        {"name": "a", "key_sha256": "x" * 64},
        {"name": "a", "key_sha256": "0" * 64, "admin": "yes"},
        {"name": "a", "key_sha256": "0" * 64, "requests_per_minute": -1},
        {"name": "a", "key_sha256": "0" * 64, "configs": "strict"},
        {"name": "a", "key_sha256": "0" * 64, "configs": ["b"], "config": "c"},
        {"name": "a b", "key_sha256": "0" * 64},
        {"name": "a", "key_sha256": "0" * 64, "key": "secret"},
        "secret",
    ],
)
def test_tenants_bad_file_is_refused_without_its_values(tmp_path: Path, entry: object) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(yaml.safe_dump({"tenants": [entry]}))
    with pytest.raises(BadArgument) as caught:
        read_tenants(path, {}, writes=False)
    assert "secret" not in str(caught.value)


def test_quotas_refill_with_time() -> None:
    now = [0.0]
    quotas, tenant = Quotas(lambda: now[0]), Tenant("a", requests_per_minute=60)
    quotas.take(tenant, 60)
    with pytest.raises(Failure) as caught:
        quotas.take(tenant, 5)
    assert (caught.value.kind, caught.value.retry_after_s) == ("QuotaExceeded", 5)
    now[0] = 5.0
    quotas.take(tenant, 5)
    with pytest.raises(Failure):
        quotas.take(tenant, 1)


def test_quotas_count_conversations_of_each_tenant(serve_artifact: Path, tmp_path: Path) -> None:
    with keyed(serve_artifact, tmp_path, team_b={"requests_per_minute": 3}) as app:
        mine, other = {"x_api_key": KEYS["team-b"]}, {"x_api_key": KEYS["boss"]}
        assert app.post("/v1/score", {"conversations": [CHAT] * 3}, **mine).status_code == 200
        found = app.post("/v1/score", {"messages": CHAT}, **mine)
        assert code(found) == (429, "QuotaExceeded")
        assert int(found.headers["retry-after"]) >= 1
        assert app.post("/v1/score", {"messages": CHAT}, **other).status_code == 200


def test_tenants_max_in_flight_is_429_for_that_key(serve_artifact: Path, tmp_path: Path) -> None:
    with keyed(serve_artifact, tmp_path, team_b={"max_in_flight": 2}) as app:
        mine = {"x_api_key": KEYS["team-b"]}
        found = app.post("/v1/score", {"conversations": [CHAT] * 3}, **mine)
        assert code(found) == (429, "Overloaded")
        assert app.post("/v1/score", {"conversations": [CHAT] * 2}, **mine).status_code == 200


def test_isolated_tenant_has_a_cache_of_its_own(serve_artifact: Path, tmp_path: Path) -> None:
    with keyed(serve_artifact, tmp_path, team_b={"isolated": True}) as app:
        model = app.service.snapshot.model
        mine = model.lane(Tenant("team-b"))
        assert mine is not model.lane(Tenant("boss"))
        before = mine.scorer.cache_stats()["n_misses"]
        found = app.post("/v1/score", {"messages": CHAT}, x_api_key=KEYS["team-b"])
        assert found.status_code == 200
        assert mine.scorer.cache_stats()["n_misses"] > before  # though lenient was warm for others


def test_queue_full_is_429_with_retry_after(serve_artifact: Path, tmp_path: Path) -> None:
    configs = write_configs(tmp_path / "configs")
    options = options_for(serve_artifact, configs, default_config="lenient", max_queue_requests=1)
    with RunningApp(options).ready() as app:

        async def flood() -> list[httpx.Response]:
            sent = [app.send("POST", "/v1/score", json={"messages": LONG}) for _ in range(12)]
            return await asyncio.gather(*sent)

        answers = app.run(flood())
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert answer.json()["error"]["code"] == "Overloaded"
            assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("how", ["field", "header"])
def test_deadline_passed_is_504(shared_app: RunningApp, how: str) -> None:
    body: dict[str, object] = {"messages": LONG}
    headers = {"x_csrm_deadline_ms": "0.001"} if how == "header" else {}
    if how == "field":
        body["deadline_ms"] = 0.001
    assert code(shared_app.post("/v1/score", body, **headers)) == (504, "DeadlineExceeded")


def test_client_gone_withdraws_what_it_queued(shared_app: RunningApp) -> None:
    scheduler = shared_app.service.snapshot.model.lanes[0].scheduler
    before = scheduler.stats()
    body = json.dumps({"conversations": [LONG] * 20, "deadline_ms": 60000}).encode()
    messages = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]

    def is_queued() -> bool:
        return bool(scheduler.stats()["n_queued"] >= 10)

    shared_app.run(raw_call(shared_app.app, messages, is_queued))
    wait_for(lambda: scheduler.stats()["n_running"] == scheduler.stats()["n_queued"] == 0)
    after = scheduler.stats()
    n_accepted = after["n_accepted"] - before["n_accepted"]
    n_finished = after["n_finished"] - before["n_finished"]
    assert after["n_cancelled"] - before["n_cancelled"] == n_accepted - n_finished
    assert n_finished <= n_accepted - 5
    assert shared_app.service.n_in_flight == 0
    assert 'outcome="abandoned"' in shared_app.ask("GET", "/metrics").text


def test_loading_is_503_and_alive(serve_artifact: Path, tmp_path: Path) -> None:
    app = create_app(Service(options_for(serve_artifact, write_configs(tmp_path / "c")), {}))

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://csrm") as client:
            return [
                await client.get("/healthz"),
                await client.get("/readyz"),
                await client.post("/v1/score", json={"messages": CHAT}),
            ]

    health, ready, score = asyncio.run(ask())
    assert (health.status_code, ready.status_code) == (200, 503)
    assert code(score) == (503, "NotReady")
    assert score.headers["retry-after"]


def test_load_failure_is_reported(serve_artifact: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(serve_artifact, broken)
    (broken / "model.onnx").write_bytes(b"no model")
    app = RunningApp(options_for(broken, write_configs(tmp_path / "c")))
    with app:
        wait_for(lambda: app.service.state != "loading")
        assert app.service.state == "failed"
        assert isinstance(app.service.error, BadArtifact)
        assert app.ask("GET", "/healthz").status_code == 500


def test_drain_finishes_what_is_in_flight_and_refuses_the_rest(
    serve_artifact: Path, tmp_path: Path
) -> None:
    app = RunningApp(
        options_for(serve_artifact, write_configs(tmp_path / "c"), default_config="lenient")
    ).ready()
    with app:
        under_way = [
            app.start(app.send("POST", "/v1/score", json={"messages": LONG})) for _ in range(8)
        ]
        wait_for(lambda: app.service.n_in_flight == 8)
        app.service.drain()
        found = app.post("/v1/score", {"messages": CHAT})
        assert code(found) == (503, "Draining")
        assert found.headers["connection"] == "close"
        assert app.ask("GET", "/readyz").json() == {"status": "draining"}
    assert [future.result(WAIT_S).status_code for future in under_way] == [200] * 8


def test_reload_replaces_files_and_keeps_put_configs(serve_artifact: Path, tmp_path: Path) -> None:
    configs = write_configs(tmp_path / "c")
    options = options_for(serve_artifact, configs, default_config="lenient", config_writes=True)
    with RunningApp(options).ready() as app:
        model = app.service.snapshot.model
        app.ask("PUT", "/v1/configs/mine", json={"rules": RULES})
        (configs / "lenient.yaml").write_text(config_text("lenient", 1.0, "2"))
        (configs / "strict.yaml").unlink()
        assert app.run(app.service.reload())
        answer = app.post("/v1/score", {"messages": CHAT}).json()
        assert (answer["config_version"], answer["verdict"]) == ("2", "violation")
        listed = app.ask("GET", "/v1/configs").json()["configs"]
        assert {one["id"] for one in listed} == {"lenient", "mine"}
        assert app.service.snapshot.model is model


@pytest.mark.parametrize("damage", ["broken", "twice", "gone"])
def test_reload_bad_files_leave_the_old_serving(
    serve_artifact: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    configs = write_configs(tmp_path / "c")
    with RunningApp(options_for(serve_artifact, configs, default_config="lenient")).ready() as app:
        before = app.service.snapshot
        if damage == "broken":
            (configs / "lenient.yaml").write_text("rules: [secret-text")
        elif damage == "twice":
            (configs / "other.yaml").write_text(config_text("strict", 0.5))
        else:
            (configs / "lenient.yaml").unlink()
        assert not app.run(app.service.reload())
        assert app.service.snapshot is before
        assert app.post("/v1/score", {"messages": CHAT}).status_code == 200
        assert 'csrm_reloads_total{result="failed"} 1.0' in app.ask("GET", "/metrics").text
    (record,) = [record for record in caplog.records if record.msg == "reload_failed"]
    assert record.levelno == logging.ERROR
    assert vars(record)["csrm"]["message"]
    assert "secret-text" not in JsonFormatter().format(record)


def test_reload_swaps_the_model_while_requests_go_on(serve_artifact: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    shutil.copytree(serve_artifact, artifact)
    options = options_for(artifact, write_configs(tmp_path / "c"), default_config="lenient")
    with RunningApp(options).ready() as app:
        old = app.service.snapshot.model
        under_way = [
            app.start(app.send("POST", "/v1/score", json={"messages": LONG})) for _ in range(6)
        ]
        wait_for(lambda: app.service.n_in_flight == 6)
        toy.make_toy_model.write_toy_artifact(artifact, seed=1)
        assert app.run(app.service.reload())
        new = app.service.snapshot.model
        assert new.digest != old.digest
        answers = [future.result(WAIT_S).json() for future in under_way]
        assert {answer["artifact_digest"] for answer in answers} == {old.digest}
        after = app.post("/v1/score", {"messages": CHAT}).json()
        assert after["artifact_digest"] == new.digest
        (artifact / "model.onnx").write_bytes(b"no model")
        assert not app.run(app.service.reload())
        again = app.post("/v1/score", {"messages": CHAT}).json()
        assert again["reward"] == after["reward"]


def test_reload_model_folder_behind_a_link_is_swapped_by_the_link(
    serve_artifact: Path, tmp_path: Path
) -> None:
    toy.make_toy_model.write_toy_artifact(tmp_path / "next", seed=1)
    link, other = tmp_path / "model", tmp_path / "other"
    link.symlink_to(serve_artifact)
    options = options_for(link, write_configs(tmp_path / "c"), default_config="lenient")
    with RunningApp(options).ready() as app:
        before = app.service.files()
        old = app.post("/v1/score", {"messages": CHAT}).json()
        other.symlink_to(tmp_path / "next")
        other.replace(link)
        assert app.service.files() != before
        assert app.run(app.service.reload())
        new = app.post("/v1/score", {"messages": CHAT}).json()
    assert new["artifact_digest"] != old["artifact_digest"]
    assert new["reward"] != old["reward"]


def test_watch_reloads_a_changed_file_by_itself(serve_artifact: Path, tmp_path: Path) -> None:
    configs = write_configs(tmp_path / "c")
    options = options_for(serve_artifact, configs, default_config="lenient", poll_s=0.02)
    with RunningApp(options).ready() as app:
        (configs / "lenient.yaml").write_text(config_text("lenient", 0.0, "version-2"))
        wait_for(lambda: app.service.snapshot.configs.get("lenient").config.version == "version-2")


def test_audit_key_adds_keyed_digests_of_conversations(
    serve_artifact: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="csrm.serve")
    options = options_for(serve_artifact, write_configs(tmp_path / "c"), default_config="strict")
    for key in ("audit-key-number-1", "audit-key-number-2"):
        with RunningApp(options, {"CSRM_AUDIT_KEY": key}).ready() as app:
            app.post("/v1/score", {"conversations": [CHAT, CHAT, CHAT[:1]]})
            given = {"input_type": "request", "structured_messages": CHAT[:1]}
            app.post("/beta/litellm_basic_guardrail_api", given)
    lines = [vars(record)["csrm"] for record in caplog.records if record.msg == "request"]
    found = [line["conversation_digests"] for line in lines]
    (one, same, other), (by_litellm,), (under_other_key, *_), _ = found
    assert one == same
    assert other == by_litellm
    assert len({one, other, under_other_key}) == 3
    with pytest.raises(BadArgument):
        Service(options, {"CSRM_AUDIT_KEY": "short"})
