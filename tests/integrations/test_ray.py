"""Ray Data and Ray Serve on a real local Ray with two CPUs; shut down at the end."""

from __future__ import annotations

import json
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from csrm_server import POLICY, Server, Traffic
from local_ray import local_ray

import csrm
from csrm.errors import BadArgument

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own use of pydantic
    import ray.data
    from ray import serve

    from csrm.integrations.ray import BatchScorer
    from csrm.integrations.ray_serve import serve_app

N_ROWS = 2000
N_ACTORS = 2
# Ray warns of its own settings, and leaves sockets to the collector.
pytestmark = pytest.mark.filterwarnings("ignore")
CONFIG = csrm.SafetyConfig.from_rules(
    [("Insults", "Do not insult or threaten a person."), ("Refunds", "Promise no refunds.")],
    id="short",
)


@pytest.fixture(scope="module", autouse=True)
def two_cpus() -> Iterator[None]:
    with local_ray():
        yield
        serve.shutdown()


def text_rows(traffic: Traffic) -> list[dict[str, Any]]:
    """Conversations of one to three turns; every 50th cannot be scored."""
    rows: list[dict[str, Any]] = []
    for i in range(N_ROWS):
        ask = {"role": "user", "content": f"{traffic.question} {i}"}
        text = traffic.violating_answer if i % 3 else traffic.allowed_answer
        chat = [ask, {"role": "assistant", "content": f"{text} {i}"}]
        rows.append({"id": i, "messages": chat if i % 2 else [*chat, ask]})
    bad: list[Any] = [None, [], [{"role": "martian", "content": "x"}]]
    for n, i in enumerate(range(0, N_ROWS, 50)):
        rows[i]["messages"] = bad[n % len(bad)]
    return rows


KINDS = ("BadConversation", "EmptyConversation", "UnknownRole")


def test_map_batches_every_row_equals_the_scorers(traffic: Traffic) -> None:
    rows = text_rows(traffic)
    data = ray.data.from_arrow(pa.Table.from_pylist(rows)).repartition(8)
    scored = data.map_batches(
        BatchScorer,
        fn_constructor_kwargs={"config": CONFIG},
        batch_format="pyarrow",
        batch_size=128,
        num_cpus=0.5,
        concurrency=N_ACTORS,
    ).take_all()
    assert sorted(row["id"] for row in scored) == list(range(N_ROWS))
    scorer = csrm.load()
    good = [row for row in rows if row["id"] % 50]
    expected = dict(
        zip(
            (row["id"] for row in good),
            scorer.score_batch(CONFIG, [row["messages"] for row in good]),
            strict=True,
        )
    )
    for row in scored:
        i = row["id"]
        assert row["messages"] == rows[i]["messages"]
        if i % 50:
            score = expected[i]
            assert (row["csrm_reward"], row["csrm_compliance"]) == (score.reward, score.compliance)
            assert (row["csrm_verdict"], row["csrm_error"]) == (score.verdict, None)
            assert row["csrm_scored_tokens"] == score.scored_tokens
        else:
            assert row["csrm_verdict"] == "unknown"
            assert row["csrm_error"] == KINDS[i // 50 % 3]
            assert row["csrm_reward"] is row["csrm_compliance"] is None


def test_map_batches_config_of_each_row_and_json_text(traffic: Traffic, tmp_path: Path) -> None:
    chat = [{"role": "user", "content": traffic.violating}]
    rows = [
        {"text": json.dumps(chat), "policy": "strict"},
        {"text": json.dumps(chat), "policy": "lenient"},
        {"text": "not JSON", "policy": "strict"},
        {"text": json.dumps(chat), "policy": "absent"},
    ]
    configs = {
        "strict": {"rules": ["Insult nobody."], "threshold": 1.0},
        "lenient": {"rules": ["Insult nobody."], "threshold": 0.0},
    }
    options = {"configs": configs, "messages": "text", "config_column": "policy", "prefix": "c_"}
    scored = (
        ray.data.from_arrow(pa.Table.from_pylist(rows))
        .map_batches(
            BatchScorer,
            fn_constructor_kwargs=options,
            batch_format="pyarrow",
            num_cpus=0.5,
            concurrency=1,
        )
        .take_all()
    )
    found = {(row["text"][:3], row["policy"]): (row["c_verdict"], row["c_error"]) for row in scored}
    assert found == {
        ('[{"', "strict"): ("violation", None),
        ('[{"', "lenient"): ("compliant", None),
        ("not", "strict"): ("unknown", "BadConversation"),
        ('[{"', "absent"): ("unknown", "BadConfig"),
    }


def test_batch_scorer_wrong_use_is_a_typed_error(traffic: Traffic) -> None:
    table = pa.table({"prompt": [traffic.question], "answer": [traffic.violating_answer]})
    pairs = BatchScorer(CONFIG, prompt="prompt", completion="answer", n_threads=1)
    scored = pairs(table)
    assert scored.column("csrm_verdict").to_pylist() == ["violation"]
    for bad in (scored, {"prompt": ["a"]}, table.drop_columns(["answer"])):
        with pytest.raises(BadArgument):
            pairs(bad)
    with pytest.raises(BadArgument):
        BatchScorer()
    with pytest.raises(BadArgument):
        BatchScorer(CONFIG, prompt="prompt")


@pytest.fixture(scope="module")
def serve_url() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    half = {"ray_actor_options": {"num_cpus": 0.5}}
    serve.run(
        serve_app(POLICY, deployment={**half, "num_replicas": 2}), name="csrm", route_prefix="/"
    )
    serve.run(
        serve_app(POLICY, deadline_s=1e-6, deployment=half), name="late", route_prefix="/late"
    )
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def ask(url: str, text: str) -> httpx.Response:
    messages = [{"role": "user", "content": text}]
    return httpx.post(f"{url}/v1/score", json={"messages": messages}, timeout=60)


def test_serve_answers_as_csrm_serve_does(
    serve_url: str, csrm_server: Server, traffic: Traffic
) -> None:
    for text, verdict in ((traffic.allowed, "compliant"), (traffic.violating, "violation")):
        answer, other = ask(serve_url, text), ask(csrm_server.url, text)
        assert answer.status_code == 200
        fields, others = answer.json(), other.json()
        assert (fields["verdict"], fields["flagged"]) == (verdict, verdict == "violation")
        assert {**fields, "id": ""} == {**others, "id": ""}


def test_serve_all_replicas_are_used_and_agree(serve_url: str, traffic: Traffic) -> None:
    with httpx.Client(timeout=60) as client:
        answers = [
            client.post(
                f"{serve_url}/v1/score",
                json={"messages": [{"role": "user", "content": traffic.violating}]},
            ).json()
            for _ in range(16)
        ]
        assert len({answer["reward"] for answer in answers}) == 1
    replicas = serve.status().applications["csrm"].deployments["csrm"].replica_states
    assert replicas == {"RUNNING": 2}


def test_serve_unknown_is_flagged_and_no_success(serve_url: str, traffic: Traffic) -> None:
    for url, text, status in (
        (f"{serve_url}/late", traffic.allowed, 504),
        (serve_url, "", 422),
    ):
        answer = ask(url, text)
        assert answer.status_code == status
        assert (answer.json()["verdict"], answer.json()["flagged"]) == ("unknown", True)


def test_serve_model_that_cannot_be_loaded_is_never_ready(serve_url: str, tmp_path: Path) -> None:
    deployment = {"ray_actor_options": {"num_cpus": 0.5}, "max_constructor_retry_count": 1}
    app = serve_app(POLICY, model=tmp_path, deployment=deployment)
    with pytest.raises(RuntimeError, match=r"broken"):
        serve.run(app, name="broken", route_prefix="/broken")
    serve.delete("broken")


def test_serve_app_bad_config_or_option_fails_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("rules: 7\n")
    with pytest.raises(csrm.errors.BadConfig):
        serve_app(tmp_path)
    with pytest.raises(TypeError):
        serve_app(POLICY, n_threds=2)
