"""csrm.bench: baselines give csrm's rewards, in processes of their own; wrong ones are refused."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import csrm
from csrm.bench import compared, latency
from csrm.bench.agreement import Agreement
from csrm.bench.baselines.interface import Rewards, Rows, bert_rows, block_rows, plain_rows
from csrm.bench.baselines.onnxruntime_fp32 import OnnxruntimeFp32
from csrm.bench.engines import (
    ENGINES,
    FP16,
    FP32,
    EngineSpec,
    engine_named,
    interpreter_of,
    selected,
)
from csrm.bench.memory import rss_mb, tree_rss_mb
from csrm.bench.remote import RemoteBaseline
from csrm.bench.texts import case_texts, open_renderer, turn_ids
from csrm.bench.timing import Measured, interleaved
from csrm.errors import BadArgument, EngineFailed, Unsupported
from csrm.paths import default_artifact

# fp32 engines sum in different orders; 5e-6 measured.
SAME = 1e-4


@pytest.fixture(scope="module")
def agreement() -> Agreement:
    return Agreement(default_artifact(), csrm.load(n_threads=1, variant="fused"))


@pytest.fixture(scope="module")
def remote() -> Iterator[RemoteBaseline]:
    spec = engine_named("onnxruntime-fp32")
    with RemoteBaseline(spec, Path(sys.executable), default_artifact(), 1) as baseline:
        yield baseline


@pytest.fixture(scope="module")
def rows() -> Rows:
    renderer = open_renderer(default_artifact())
    texts = case_texts(renderer, "40+20")
    rng = random.Random(0)
    turns = [turn_ids(renderer, texts.permuted(rng)) for _ in range(3)]
    return plain_rows(texts.config_ids, turns)


class Shifted:
    """A baseline whose rewards are off by a constant."""

    def __init__(self, shift: float) -> None:
        self.shift = shift
        self.engine = OnnxruntimeFp32(default_artifact(), 1)

    def prepare(self, rows: Rows) -> Rows:
        return self.engine.prepare(rows)

    def run(self) -> Rewards:
        return self.engine.run() + self.shift

    def close(self) -> None:
        self.engine.close()


@pytest.mark.slow
@pytest.mark.parametrize("spec", ENGINES, ids=lambda spec: spec.name)
def test_engine_installed_here_gives_the_rewards_of_csrm(
    spec: EngineSpec, agreement: Agreement
) -> None:
    python = interpreter_of(spec, None)
    if python is None:
        pytest.skip(f"{spec.name} is not installed in this environment")
    try:
        baseline = RemoteBaseline(spec, python, default_artifact(), 1)
    except Unsupported as error:
        pytest.skip(error.message)
    with baseline:
        assert agreement.check(spec.name, baseline, spec.tolerance) <= spec.tolerance
        assert baseline.versions


@pytest.mark.parametrize("shift", [2e-3, float("nan")])
def test_agreement_with_another_model_is_refused(agreement: Agreement, shift: float) -> None:
    with pytest.raises(EngineFailed, match="another model"):
        agreement.check("shifted", Shifted(shift), FP32)


def test_agreement_with_half_the_tolerance_is_accepted(agreement: Agreement) -> None:
    assert agreement.check("shifted", Shifted(FP32 / 2), FP32) == pytest.approx(FP32 / 2, rel=0.1)


def test_remote_run_equals_the_engine_in_this_process(remote: RemoteBaseline, rows: Rows) -> None:
    here = OnnxruntimeFp32(default_artifact(), 1)
    here.prepare(rows)
    taken = remote.prepare(rows)
    assert all(np.array_equal(taken[name], rows[name]) for name in rows)
    assert remote.run() == pytest.approx(here.run(), abs=SAME)


def test_remote_measure_gives_seconds_and_memory(remote: RemoteBaseline, rows: Rows) -> None:
    remote.prepare(rows)
    assert 0 < remote.measure().seconds < 60
    assert remote.rss_mb is not None
    assert 10 < remote.rss_mb < 2000


def test_remote_failure_is_typed_and_the_process_goes_on(
    remote: RemoteBaseline, rows: Rows
) -> None:
    remote.prepare({**rows, "position_ids": rows["position_ids"] + 100_000})
    with pytest.raises(EngineFailed, match="onnxruntime-fp32: the engine raised"):
        remote.run()
    remote.prepare(rows)
    assert len(remote.run()) == len(rows["input_ids"])


def test_remote_with_a_dead_process_raises_with_its_last_words(rows: Rows) -> None:
    broken = EngineSpec("no-such-engine", "", "", (), (), "bench", FP32)
    with pytest.raises(EngineFailed, match=r"(?s)ended with 1.*BadArgument"):
        RemoteBaseline(broken, Path(sys.executable), default_artifact(), 1)


def test_remote_with_a_wrong_artifact_raises_the_engines_error(tmp_path: Path) -> None:
    spec = engine_named("onnxruntime-fp32")
    with pytest.raises(csrm.errors.BadArtifact, match="onnxruntime-fp32: "):
        RemoteBaseline(spec, Path(sys.executable), tmp_path, 1)


def test_bert_folder_in_transformers_gives_the_rewards_of_its_rows(
    tmp_path: Path, rows: Rows
) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    from csrm.bench.baselines.bert_folder import write_bert

    head = write_bert(default_artifact(), tmp_path)
    bert = transformers.BertModel.from_pretrained(tmp_path).eval()
    taken = bert_rows(rows)
    with torch.inference_mode():
        states = bert(
            input_ids=torch.from_numpy(taken["input_ids"]),
            token_type_ids=torch.from_numpy(taken["segment_ids"]),
        ).last_hidden_state.numpy()
    pooled = states[np.arange(len(states)), taken["pooled_at"][:, 0]]
    reference = OnnxruntimeFp32(default_artifact(), 1)
    reference.prepare(taken)
    assert head.rewards(pooled) == pytest.approx(reference.run(), abs=SAME)
    directions = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    assert head.unnormalised(directions) == pytest.approx(pooled, abs=SAME)


def test_bert_rows_of_more_tokens_than_positions_are_unsupported() -> None:
    with pytest.raises(Unsupported, match="513 tokens"):
        bert_rows(plain_rows([1] * 500, [[2] * 13]))


def test_block_rows_hide_the_turn_from_the_rule() -> None:
    rows = block_rows([7, 8], [[9, 10, 11]])
    assert rows["visible"].tolist() == [[2, 2, 5, 5, 5]]
    assert rows["position_ids"].tolist() == [[0, 1, 0, 1, 2]]
    assert rows["segment_ids"].tolist() == [[0, 0, 1, 1, 1]]
    assert rows["pooled_at"].tolist() == [[2]]


def test_selected_by_name_keeps_the_order_and_refuses_unknown_ones() -> None:
    names = [spec.name for spec in selected(["torch-compile", "pytorch-eager", "torch-compile"])]
    assert names == ["torch-compile", "pytorch-eager"]
    assert selected(["all"]) == ENGINES
    with pytest.raises(BadArgument, match="openvino-int8"):
        selected(["tensorflow"])


def test_interpreter_of_missing_packages_is_that_of_their_environment(tmp_path: Path) -> None:
    spec = EngineSpec("x", "x", "X", ("no_such_package.part",), (), "bench-x", FP32)
    python = tmp_path / "bench-x" / "bin" / "python"
    assert interpreter_of(spec, None) is None
    assert interpreter_of(spec, tmp_path) is None
    python.parent.mkdir(parents=True)
    python.touch()
    assert interpreter_of(spec, tmp_path) == python


def test_interleaved_believes_an_action_that_measured_itself() -> None:
    seconds = interleaved({"a": lambda: Measured(7.0), "b": lambda: None}, rounds=2, warmup=0)
    assert seconds["a"].tolist() == [7.0, 7.0]
    assert (seconds["b"] < 1.0).all()


def test_interleaved_leads_each_timed_call_with_others_that_are_not() -> None:
    calls: list[str] = []
    times = iter(range(1000))

    def action(name: str) -> Measured:
        calls.append(name)
        return Measured(float(next(times)))

    seconds = interleaved(
        {"a": lambda: action("a"), "b": lambda: action("b")}, rounds=2, warmup=1, lead=2
    )
    assert "".join(calls) == "bbbaaa" + "aaabbb" + "bbbaaa"
    assert seconds["a"].tolist() == [8.0, 17.0]
    assert seconds["b"].tolist() == [11.0, 14.0]


def test_tree_rss_counts_a_started_process() -> None:
    own = rss_mb()
    if own is None:
        pytest.skip("there is no /proc")
    code = "block = bytes(range(256)) * 400_000; print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        tree, own = tree_rss_mb(), rss_mb()
        child.communicate(b"\n")
    assert tree is not None
    assert own is not None
    assert tree - own > 100


def test_latency_of_a_batch_has_cached_uncached_and_baseline_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(
        latency,
        "interpreter_of",
        lambda spec, _: None if "openvino" in spec.name else Path(sys.executable),
    )
    # As with an artifact that has the measurement on a CPU with VNNI.
    monkeypatch.setattr(compared, "default_variant", lambda *_: "int8")
    report = tmp_path / "latency.json"
    rows = latency.run(
        None,
        cases=["32+16"],
        batch=[2],
        threads=1,
        rounds=1,
        json_path=str(report),
        engines=["onnxruntime-fp32", "openvino-fp32"],
        int8=True,
    )
    assert {row["engine"]: (row["cached"], row["arithmetic"]) for row in rows} == {
        "csrm-portable": (True, "fp32"),
        "csrm-fused": (True, "fp32"),
        "csrm-fused-uncached": (False, "fp32"),
        "csrm-int8": (True, "int8"),
        "csrm-int8-uncached": (False, "int8"),
        "onnxruntime-fp32": (False, "fp32"),
        "onnxruntime-fp32-cached": (True, "fp32"),
    }
    (reference,) = (row for row in rows if row["engine"] == "csrm-int8")
    assert (reference["slower"], reference["slower_low"]) == (1.0, 1.0)
    for row in rows:
        assert (row["case"], row["batch"], row["threads"]) == ("32+16", 2, 1)
        assert 0 < row["median_ms"] <= row["p99_ms"]
        assert row["floor_ms"] > 0
        assert row["arithmetic"] in row["floor_gop_s"]
        assert (row["shape"], row["weights"]) == (None, "artifact")
        assert row["rss_mb"] is not None
    written = json.loads(report.read_text())
    assert written["rows"] == rows
    assert written["reference"] == "csrm-int8"
    assert [entry["engine"] for entry in written["summary"]] == ["csrm-int8"]
    assert 0 < written["engines"]["csrm-int8"]["reward_rms"] < FP16
    facts = written["engines"]["onnxruntime-fp32"]
    assert max(facts["reward_rms"], facts["cached_rms"]) <= FP32 < facts["reward_std"]
    assert "bench-openvino" in written["skipped"]["openvino-fp32"]
    assert "SKIPPED openvino-fp32: not installed" in capsys.readouterr().err
    assert report.with_suffix(".png").stat().st_size > 0
