"""csrm bench latency --shape: random artifacts, engines over a given prefix, rows and failures.

Tiny shapes on the CPU, through the code that runs on a GPU. Not: a GPU (bench/gpu_check.sh).
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("matplotlib")

import torch
from click.testing import CliRunner

import csrm
from csrm.bench import compared, cuda_run, latency, shapes
from csrm.bench.agreement import Agreement, rewards_of
from csrm.bench.baselines.interface import CachingBaseline, Rewards, causal_rows, plain_rows
from csrm.bench.baselines.onnxruntime_cuda import OnnxruntimeCuda, OnnxruntimeCudaFp16
from csrm.bench.baselines.onnxruntime_fp32 import OnnxruntimeFp32
from csrm.bench.baselines.pytorch_engine import PytorchEngine
from csrm.bench.compared import Compared, Subject
from csrm.bench.cuda_run import GpuFloor, GpuPeaks
from csrm.bench.engines import (
    BF16,
    CUDA_ENGINES,
    FP16,
    FP32,
    EngineSpec,
    engine_named,
    refusal,
)
from csrm.bench.floor import DecoderSize
from csrm.bench.latency import summarised
from csrm.bench.prompts import open_prompts
from csrm.bench.random_artifact import write_random_artifact
from csrm.bench.remote import RemoteBaseline
from csrm.bench.shapes import SHAPES, Sizes, shape_named
from csrm.cli import main
from csrm.engine import devices
from csrm.errors import BadArgument, EngineFailed, Internal, Unsupported
from csrm.export.weights_file import FiledBuilder, WeightsFile
from csrm.train.decoder import DecoderShape
from csrm.train.model import ModelShape

TINY: dict[str, Sizes] = {
    "decoder": DecoderShape(30522, 48, 3, 6, 2, 16, 80, 4096, 3, 3, has_qkv_bias=True),
    "encoder": ModelShape(30522, hidden=48, layers=3, heads=4, intermediate=192),
}
NORMED = DecoderShape(30522, 48, 2, 4, 4, 12, 80, 4096, 2, 3, has_qk_norm=True)
CASES = {"decoder": "160+40", "encoder": "96+40"}
CPU = {"provider": "CPUExecutionProvider", "device": "cpu"}
MAKERS: dict[str, tuple[Callable[[Path], CachingBaseline], float]] = {
    "pytorch": (lambda folder: PytorchEngine(folder, 1), FP32),
    "pytorch-bf16": (lambda folder: PytorchEngine(folder, 1, dtype=torch.bfloat16), BF16),
    "onnxruntime": (lambda folder: OnnxruntimeFp32(folder, 1), FP32),
    "onnxruntime-bound": (lambda folder: OnnxruntimeCuda(folder, 1, **CPU), FP32),
    "onnxruntime-fp16": (lambda folder: OnnxruntimeCudaFp16(folder, 1, **CPU), FP16),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("shapes")
    return {name: write_random_artifact(TINY[name], folder / name, name) for name in TINY}


@pytest.fixture
def tiny_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, sizes in TINY.items():
        monkeypatch.setitem(shapes.SHAPES, name, sizes)


@pytest.fixture(params=list(TINY))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class Off:
    """A RemoteBaseline's stand-in: csrm's rewards are missed by `error` from case `since` on."""

    rss_mb = 1.0

    def __init__(self, folder: Path, error: float) -> None:
        self.versions = {"torch": "0"}
        self.engine = PytorchEngine(folder, 1)
        self.error = error
        self.is_closed = False

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)

    def run_cached(self) -> Rewards:
        return self.engine.run_cached() + self.error

    def measure(self) -> object:
        return self.engine.run()

    def measure_cached(self) -> object:
        return self.engine.run_cached()

    def close(self) -> None:
        self.is_closed = True


def test_shapes_have_the_sizes_of_their_models() -> None:
    def weights(sizes: Sizes) -> int:
        layer = sizes.hidden * (
            2 * sizes.heads * sizes.head_dim
            + 2 * sizes.kv_heads * sizes.head_dim
            + (3 if isinstance(sizes, DecoderShape) else 2) * sizes.intermediate
        )
        return sizes.layers * layer

    millions = {name: round(weights(sizes) / 1e6) for name, sizes in SHAPES.items()}
    assert millions == {
        "minilm-l6": 11,
        "mpnet-base": 85,
        "smollm2-135m": 106,
        "qwen2.5-0.5b": 358,
        "qwen2.5-1.5b": 1310,
        "llama3-8b": 6979,
    }


def test_shape_named_unknown_is_a_bad_argument() -> None:
    with pytest.raises(BadArgument, match="llama3-8b"):
        shape_named("llama9")


def test_random_artifact_is_the_same_each_time_and_kept(
    folders: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    again = write_random_artifact(TINY[kind], tmp_path / "again", kind)
    manifest = (again / "manifest.json").read_text()
    assert manifest == (folders[kind] / "manifest.json").read_text()
    (again / "model.weights").unlink()
    assert write_random_artifact(TINY[kind], again, kind) == again
    assert not (again / "model.weights").exists()
    assert json.loads(manifest)["provenance"]["weights"] == "random"


def test_random_artifact_variants_agree_and_rewards_differ(
    folders: dict[str, Path], kind: str
) -> None:
    agreement = Agreement(folders[kind], csrm.load(folders[kind], n_threads=1, variant="fused"))
    portable = csrm.load(folders[kind], n_threads=1, variant="portable")
    assert agreement.check_scorer("portable", portable, FP32) < FP32
    assert agreement.spread > 2 * BF16  # else another model could not be told from this one


def test_weights_file_refuses_a_name_of_two_shapes(tmp_path: Path) -> None:
    with WeightsFile(tmp_path / "weights") as file:
        for _ in range(2):
            FiledBuilder(file).constant("a", np.ones((3, 5), np.int8))
        assert file.n_bytes == 15
        FiledBuilder(file).constant("b", np.ones(2, np.int8))
        assert file.places["b"].offset == 4096
        with pytest.raises(Internal, match="two shapes"):
            FiledBuilder(file).constant("a", np.ones((5, 3), np.int8))
    assert (tmp_path / "weights").stat().st_size == 4098


@pytest.mark.parametrize("case", ["160+40", "257+33", "1000+128"])
def test_decoder_case_has_exactly_its_tokens(folders: dict[str, Path], case: str) -> None:
    prompts = open_prompts(folders["decoder"])
    texts = prompts.case(case, seed=3)
    n_config, n_turn = map(int, case.split("+"))
    rng = random.Random(0)
    rows = prompts.plain_rows(texts, [texts.turn, texts.permuted(rng)])
    cached = prompts.cached_rows(texts, [texts.turn])
    assert rows["input_ids"].shape == (2, n_config + n_turn)
    assert cached.n_prefix == n_config
    assert cached.turns["position_ids"][0].tolist() == [*range(n_config, n_config + n_turn)]
    assert cached.turns["pooled_at"].tolist() == [[n_turn - 1]]
    assert len(texts.rules) == pytest.approx((n_config - 56) / 36, rel=0.2)


@pytest.mark.parametrize("maker", list(MAKERS))
def test_baseline_gives_the_rewards_of_csrm_cached_and_not(
    folders: dict[str, Path], kind: str, maker: str
) -> None:
    folder = folders[kind]
    scorer = csrm.load(folder, n_threads=1, variant="fused")
    make, tolerance = MAKERS[maker]
    baseline = make(folder)
    agreement = Agreement(folder, scorer)
    assert agreement.check(maker, baseline, tolerance) <= tolerance
    assert agreement.check_cached(maker, baseline, tolerance) <= tolerance
    # A config of several rules, which a decoder reads exactly in both ways, an encoder cached.
    prompts = open_prompts(folder)
    texts = prompts.case("300+40")
    rng = random.Random(5)
    turns = [texts.permuted(rng) for _ in range(3)]
    expected = rewards_of(scorer, texts.rules, turns)
    baseline.prepare_cached(prompts.cached_rows(texts, turns))
    assert baseline.run_cached() == pytest.approx(expected, abs=2 * tolerance)
    baseline.prepare(prompts.plain_rows(texts, turns))
    whole = baseline.run()
    if kind == "decoder":
        assert whole == pytest.approx(expected, abs=2 * tolerance)
    assert baseline.run_cached() == pytest.approx(expected, abs=2 * tolerance)


def test_pytorch_decoder_with_norms_of_queries_and_keys_equals_csrm(tmp_path: Path) -> None:
    folder = write_random_artifact(NORMED, tmp_path / "normed", "normed")
    agreement = Agreement(folder, csrm.load(folder, n_threads=1))
    engine = PytorchEngine(folder, 1)
    assert agreement.check("pytorch", engine, FP32) < FP32
    assert agreement.check_cached("pytorch", engine, FP32) < FP32
    assert engine.notes == {"attention over a cache": "masked"}


@pytest.mark.slow
def test_pytorch_engine_compiled_gives_the_rewards_of_csrm(
    folders: dict[str, Path], kind: str
) -> None:
    agreement = Agreement(folders[kind], csrm.load(folders[kind], n_threads=1))
    engine = PytorchEngine(folders[kind], 1, is_compiled=True)
    assert agreement.check("compiled", engine, FP32) < FP32
    assert agreement.check_cached("compiled", engine, FP32) < FP32


def test_pytorch_engine_refuses_rows_of_the_other_kind(folders: dict[str, Path]) -> None:
    with pytest.raises(Unsupported, match="without padding"):
        PytorchEngine(folders["decoder"], 1).prepare(plain_rows([1, 2], [[3, 4]]))
    padded = plain_rows([1, 2], [[3, 4]])
    padded["visible"][0, -1] = 0
    with pytest.raises(Unsupported, match="without padding"):
        PytorchEngine(folders["encoder"], 1).prepare(padded)


def test_pytorch_engine_without_a_gpu_is_unsupported(folders: dict[str, Path]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for spec in CUDA_ENGINES:
        with pytest.raises(Unsupported):
            spec.load(folders["decoder"], 1)


@pytest.fixture(scope="module")
def remote(folders: dict[str, Path]) -> Iterator[RemoteBaseline]:
    spec = engine_named("pytorch-eager")
    with RemoteBaseline(spec, Path(sys.executable), folders["decoder"], 1) as baseline:
        yield baseline


def test_remote_baseline_over_a_prefix_equals_the_whole_row(
    remote: RemoteBaseline, folders: dict[str, Path]
) -> None:
    prompts = open_prompts(folders["decoder"])
    texts = prompts.case("160+40")
    remote.prepare(prompts.plain_rows(texts, [texts.turn]))
    remote.prepare_cached(prompts.cached_rows(texts, [texts.turn]))
    assert remote.run_cached() == pytest.approx(remote.run(), abs=FP32)
    assert 0 < remote.measure_cached().seconds < 60
    assert "attention over a cache" in remote.versions


def test_remote_baseline_that_cannot_read_rows_says_so(remote: RemoteBaseline) -> None:
    with pytest.raises(Unsupported, match="pytorch-eager: this baseline"):
        remote.prepare(plain_rows([1, 2], [[3, 4]]))
    remote.prepare(causal_rows([1, 2], [[3, 4]]))
    assert len(remote.run()) == 1


def test_latency_of_a_shape_has_rows_of_peers_cached_and_not(
    tiny_shapes: None, kind: str, tmp_path: Path
) -> None:
    report = tmp_path / "latency.json"
    names = ["pytorch-eager", "onnxruntime-int8", "torch-compile"][: 2 if kind == "encoder" else 3]
    rows = latency.run(
        None,
        cases=["8+8", CASES[kind]],
        batch=[2],
        threads=1,
        rounds=1,
        json_path=str(report),
        progress=False,
        engines=names,
        shape=kind,
        shape_folder=str(tmp_path / "kept"),
    )
    engines = {row["engine"]: row["cached"] for row in rows if row["case"] == CASES[kind]}
    assert engines == {
        "csrm-portable": True,
        "csrm-fused": True,
        "csrm-fused-uncached": False,
        "pytorch-eager": False,
        "pytorch-eager-cached": True,
    }
    assert {(row["shape"], row["weights"]) for row in rows} == {(kind, "random")}
    floors = {row["cached"]: row["floor_ms"] for row in rows if row["case"] == CASES[kind]}
    assert 0 < floors[True] < floors[False]
    written = json.loads(report.read_text())
    facts = written["engines"]["pytorch-eager"]
    assert max(facts["reward_rms"], facts["cached_rms"]) < FP32 < facts["reward_std"]
    assert written["engines"]["csrm-portable"]["reward_rms"] < FP32
    if kind == "decoder":
        assert "not compared on decoders" in written["skipped"]["torch-compile"]
        assert "at least 16 more" in written["skipped"]["8+8"]
    else:
        assert "int8" in written["skipped"]["onnxruntime-int8"]
    (entry,) = (one for one in written["summary"] if one["case"] == CASES[kind])
    assert (entry["cached_peer"], entry["uncached_peer"]) == (
        "pytorch-eager-cached",
        "pytorch-eager",
    )
    assert (tmp_path / "kept" / kind / "manifest.json").is_file()
    assert report.with_suffix(".png").stat().st_size > 0


def test_latency_of_an_engine_that_disagrees_is_dropped_and_the_rest_reported(
    tiny_shapes: None,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Off] = []

    def remote(spec: EngineSpec, python: Path, artifact: Path, threads: int) -> Off:
        one = Off(artifact, 10 * FP32 if spec.name == "pytorch-eager" else 0.0)
        made.append(one)
        return one

    monkeypatch.setattr(compared, "RemoteBaseline", remote)
    report = tmp_path / "latency.json"
    with pytest.raises(EngineFailed, match=r"pytorch-eager: failed: pytorch-eager-cached answers"):
        latency.run(
            None,
            cases=["160+40"],
            threads=1,
            rounds=1,
            json_path=str(report),
            progress=False,
            engines=["pytorch-eager", "onnxruntime-fp32"],
            shape="decoder",
            shape_folder=str(folders["decoder"].parent),
        )
    written = json.loads(report.read_text())
    engines = {row["engine"] for row in written["rows"]}
    assert {"csrm-fused", "onnxruntime-fp32", "onnxruntime-fp32-cached"} <= engines
    assert "pytorch-eager" not in engines
    assert [one.is_closed for one in made] == [True, True]


def test_latency_of_a_shape_and_an_artifact_is_a_bad_argument(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="not both"):
        latency.run(str(tmp_path), shape="minilm-l6")
    with pytest.raises(BadArgument, match="known are"):
        latency.run(None, shape="minilm")


def test_latency_without_any_case_that_fits_is_a_bad_argument(
    tiny_shapes: None, folders: dict[str, Path]
) -> None:
    kept = str(folders["decoder"].parent)
    with pytest.raises(BadArgument, match="no case"):
        latency.run(
            None,
            ["8+8"],
            threads=1,
            rounds=1,
            progress=False,
            engines=["torch-compile"],
            shape="decoder",
            shape_folder=kept,
        )


def test_bench_command_of_a_shape_without_a_gpu_is_skipped_before_it_is_made(
    tmp_path: Path,
) -> None:
    if next(report for report in devices() if report.name == "cuda").is_available:
        pytest.skip("there is a GPU")
    command = ["bench", "latency", "--device", "cuda", "--shape", "llama3-8b"]
    done = CliRunner().invoke(main, [*command, "--shape-folder", str(tmp_path)])
    assert done.exit_code == 77
    assert "SKIPPED --device cuda" in done.output
    assert not list(tmp_path.iterdir())


def test_refusal_names_what_an_engine_cannot_read() -> None:
    assert "decoders" in refusal(engine_named("optimum-o2"), "decoder", is_random=False)
    assert "int8" in refusal(engine_named("openvino-int8"), "encoder", is_random=True)
    assert refusal(engine_named("openvino-int8"), "encoder", is_random=False) == ""
    assert all(refusal(spec, "decoder", is_random=True) == "" for spec in CUDA_ENGINES)


def test_compared_on_a_gpu_leaves_out_fp32_of_a_model_that_is_too_large(
    folders: dict[str, Path],
) -> None:
    small, large = (
        Compared(Subject(folders["decoder"], size, "decoder", "x"), 1, "cuda")
        for size in (
            DecoderSize(24, 896, 14, 2, 64, 4864),
            DecoderSize(32, 4096, 32, 8, 128, 14336),
        )
    )
    assert [name for name, _, _ in small.own] == [
        "csrm-cuda-fp32",
        "csrm-cuda",
        "csrm-cuda-uncached",
    ]
    assert (small.exact, small.least_tolerance) == ("portable", FP32)
    assert [name for name, _, _ in large.own] == ["csrm-cuda", "csrm-cuda-uncached"]
    assert (large.exact, large.least_tolerance) == ("cuda", BF16)
    spec, python = engine_named("onnxruntime-cuda"), Path(sys.executable)
    assert small.refusal(spec, python) == ""
    assert "no room" in large.refusal(spec, python)
    assert large.refusal(engine_named("torch-compile-cuda"), python) == ""


def test_gpu_floor_is_the_larger_of_operations_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    size = DecoderSize(32, 4096, 32, 8, 128, 14336)
    rows = [
        {"case": "4096+128", "batch": batch, "cached": cached}
        for batch, cached in ((1, True), (64, True), (1, False))
    ]
    monkeypatch.setattr(cuda_run, "gpu_peaks", lambda: GpuPeaks("a GPU", 1e15, 2e12))
    GpuFloor(size).set(rows)
    one, many, whole = rows
    assert one["floor_bytes"] == whole["floor_bytes"] < many["floor_bytes"]
    assert one["floor_flops"] * 64 == many["floor_flops"]
    assert one["floor_flops"] * 20 < whole["floor_flops"]
    assert one["floor_ms"] == pytest.approx(one["floor_bytes"] / 2e12 * 1e3, rel=1e-3)
    assert many["floor_ms"] == pytest.approx(many["floor_flops"] / 1e15 * 1e3, rel=1e-3)


def test_summary_gives_ratios_to_the_best_peer_of_each_kind() -> None:
    medians = {"csrm-fused": 2.0, "csrm-fused-uncached": 30.0, "a": 90.0, "b": 60.0, "a-cached": 5}
    rows = [
        {
            "engine": engine,
            "case": "64+64",
            "batch": 1,
            "median_ms": median,
            "cached": engine.endswith("-cached") or engine == "csrm-fused",
        }
        for engine, median in medians.items()
    ]
    assert summarised(rows, "cpu") == [
        {
            "case": "64+64",
            "batch": 1,
            "cached_ms": 2.0,
            "uncached_over_cached": 15.0,
            "cached_peer": "a-cached",
            "cached_peer_over_csrm": 2.5,
            "uncached_peer": "b",
            "uncached_peer_over_csrm": 2.0,
        }
    ]
