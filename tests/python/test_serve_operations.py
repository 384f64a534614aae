"""Operations of csrm.serve: keys, quotas, backpressure, deadlines, gone clients, drain, reload,
limits.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import toy
import yaml
from serve_client import (
    CHAT,
    RULES,
    WAIT_S,
    RunningApp,
    config_text,
    options_for,
    serve_artifact,
    shared_app,
    write_configs,
)

from csrm.errors import BadArgument, BadArtifact, BadConfig
from csrm.serve import Limits, Service, create_app
from csrm.serve.configs import default_of, read_files
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


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def wait_for(what: Any) -> None:
    until = time.monotonic() + WAIT_S
    while not what() and time.monotonic() < until:
        time.sleep(0.01)
    assert what()


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


async def raw_call(app: Any, messages: list[dict[str, Any]], path: str = "/v1/score") -> list[Any]:
    """An ASGI call with these received messages, the last of them again and again."""
    sent: list[Any] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(b"content-type", b"application/json")],
    }
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.sleep(WAIT_S)
        return left.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def test_client_gone_withdraws_what_it_queued(shared_app: RunningApp) -> None:
    scheduler = shared_app.service.snapshot.model.lanes[0].scheduler
    before = scheduler.stats()
    body = json.dumps({"conversations": [LONG] * 20, "deadline_ms": 60000}).encode()
    messages = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]
    shared_app.run(raw_call(shared_app.app, messages))
    wait_for(lambda: scheduler.stats()["n_running"] == scheduler.stats()["n_queued"] == 0)
    after = scheduler.stats()
    assert after["n_accepted"] - before["n_accepted"] == 20
    assert after["n_cancelled"] - before["n_cancelled"] >= 15  # a few were in an engine call
    assert shared_app.service.n_in_flight == 0
    assert 'outcome="abandoned"' in shared_app.ask("GET", "/metrics").text


def test_client_slow_body_is_408(serve_artifact: Path, tmp_path: Path) -> None:
    configs = write_configs(tmp_path / "configs")
    with RunningApp(options_for(serve_artifact, configs, body_timeout_s=0.05)).ready() as app:
        part = {"type": "http.request", "body": b"{", "more_body": True}
        sent = app.run(raw_call(app.app, [part]))
        assert sent[0]["status"] == 408


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


def test_watch_reloads_a_changed_file_by_itself(serve_artifact: Path, tmp_path: Path) -> None:
    configs = write_configs(tmp_path / "c")
    options = options_for(serve_artifact, configs, default_config="lenient", poll_s=0.02)
    with RunningApp(options).ready() as app:
        (configs / "lenient.yaml").write_text(config_text("lenient", 0.0, "version-2"))
        wait_for(lambda: app.service.snapshot.configs.get("lenient").config.version == "version-2")


@pytest.mark.parametrize(
    ("content", "status", "kind"),
    [
        (b"", 400, "BadJson"),
        (b"[]", 400, "BadJson"),
        (b'{"messages": NaN}', 400, "BadJson"),
        (b'{"messages": [], "messages": []}', 400, "BadJson"),
        (b'{"messages": 1' + b"0" * 5000 + b"}", 400, "BadJson"),
        (b'{"messages": "\xff"}', 400, "BadUtf8"),
        (b'{"messages": ' + b"[" * 33 + b"]" * 33 + b"}", 413, "LimitExceeded"),
        (b'{"messages": ' + b"[" * 250_000 + b"]" * 250_000 + b"}", 413, "LimitExceeded"),
        (b'{"messages": "' + b"a" * (1 << 20) + b'"}', 413, "BodyTooLarge"),
    ],
    ids=range(9),
)
def test_limits_bad_bodies_are_typed(
    shared_app: RunningApp, content: bytes, status: int, kind: str
) -> None:
    assert code(shared_app.ask("POST", "/v1/score", content=content)) == (status, kind)


def test_limits_body_without_a_length_is_bounded(shared_app: RunningApp) -> None:
    async def parts() -> Any:
        for _ in range(40):
            yield b" " * (1 << 16)

    async def send() -> httpx.Response:
        return await shared_app.send("POST", "/v1/score", content=parts())

    assert code(shared_app.run(send())) == (413, "BodyTooLarge")


def test_limits_turns_batch_and_encoding(shared_app: RunningApp) -> None:
    limits = Limits()
    many = [{"role": "user", "content": "a"}] * (limits.max_turns + 1)
    assert code(shared_app.post("/v1/score", {"messages": many})) == (413, "LimitExceeded")
    assert shared_app.post("/v1/score", {"messages": many[1:]}).status_code == 200
    batch = {"conversations": [CHAT] * (limits.max_batch + 1)}
    assert code(shared_app.post("/v1/score", batch)) == (413, "LimitExceeded")
    body = gzip.compress(json.dumps({"messages": CHAT}).encode())
    headers = {"content-encoding": "gzip"}
    found = shared_app.ask("POST", "/v1/score", content=body, headers=headers)
    assert code(found) == (415, "UnsupportedEncoding")


def test_limits_tokens_of_the_model_are_413(shared_app: RunningApp) -> None:
    long = [{"role": "user", "content": toy.letters(40_000)}]
    assert code(shared_app.post("/v1/score", {"messages": long})) == (413, "LimitExceeded")


def test_limits_in_flight_is_429(serve_artifact: Path, tmp_path: Path) -> None:
    options = options_for(serve_artifact, write_configs(tmp_path / "c"), max_in_flight=1)
    with RunningApp(options).ready() as app:
        path = "/configs/lenient/v1/score"
        assert app.post(path, {"messages": CHAT}).status_code == 200
        waiting = app.start(raw_call(app.app, [{"type": "http.request", "more_body": True}], path))
        wait_for(lambda: app.service.n_in_flight == 1)
        assert code(app.post(path, {"messages": CHAT})) == (429, "Overloaded")
        waiting.cancel()
        wait_for(lambda: app.service.n_in_flight == 0)
        assert app.post(path, {"messages": CHAT}).status_code == 200


def test_configs_folder_reads_config_files_only(tmp_path: Path) -> None:
    folder = write_configs(tmp_path / "c")
    (folder / "README.md").write_text("# About\n\nText.\n")
    (folder / "examples.jsonl").write_text("{}\n")
    (folder / ".hidden.yaml").write_text("rules: [a]")
    (folder / "plain.md").write_text("- Never a b c.\n")
    found = read_files(folder, 10)
    assert set(found) == {"lenient", "strict", "plain"}
    assert default_of(found, "plain") == "plain"
    assert default_of(found, "") == ""
    assert default_of({"plain": found["plain"]}, "") == "plain"
    with pytest.raises(BadArgument):
        default_of(found, "absent")
    with pytest.raises(BadArgument):
        read_files(folder, 2)
    (folder / "twice.yaml").write_text(config_text("strict", 0.5))
    with pytest.raises(BadConfig, match="same id"):
        read_files(folder, 10)


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
