"""csrm bench latency --shape: its rows and report, engines that fail, and what a GPU's run has.

Tiny shapes on the CPU. Not: the engines one by one (test_bench_shapes.py, test_bench_engines.py).
"""

from __future__ import annotations

import gc
import json
import sys
import weakref
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("matplotlib")

import torch
from click.testing import CliRunner
from tiny_shapes import TINY, write_all

import csrm
from csrm.bench import compared, cuda_run, latency, shapes
from csrm.bench.baselines import pytorch_engine
from csrm.bench.baselines.interface import Rewards
from csrm.bench.baselines.pytorch_engine import PytorchEngine
from csrm.bench.compared import Compared, Subject
from csrm.bench.cuda_run import GpuFloor, GpuPeaks
from csrm.bench.engines import (
    BF16,
    CUDA_ENGINES,
    FP32,
    EngineSpec,
    engine_named,
    refusal,
)
from csrm.bench.floor import DecoderSize
from csrm.bench.latency import summarised
from csrm.cli import main
from csrm.engine import devices
from csrm.errors import BadArgument, EngineFailed, EngineUnavailable

CASES = {"decoder": "160+40", "encoder": "96+40"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("shapes"))


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


def run_decoder(
    folders: dict[str, Path], report: Path, *engines: str, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Rows of one round of the tiny decoder."""
    return latency.run(
        None,
        cases=["160+40"],
        threads=1,
        rounds=1,
        json_path=str(report),
        progress=False,
        engines=engines,
        device=device,
        shape="decoder",
        shape_folder=str(folders["decoder"].parent),
    )


def reported_despite(message: str, folders: dict[str, Path], tmp_path: Path) -> set[str]:
    """The engines in the report of a run that ends with EngineFailed and this message."""
    report = tmp_path / "latency.json"
    with pytest.raises(EngineFailed, match=message):
        run_decoder(folders, report, "pytorch-eager", "onnxruntime-fp32")
    return {row["engine"] for row in json.loads(report.read_text())["rows"]}


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
    assert written["reference"] == "csrm-fused"
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


def test_latency_on_a_gpu_has_its_own_engines_and_floor(
    tiny_shapes: None, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A GPU's run on a CPU: csrm's fused variant stands for cuda, one peer for all.
    load = csrm.load

    def on_cpu(artifact: Path, *, n_threads: int, variant: str, device: str) -> csrm.Scorer:
        assert device == "cuda"
        return load(artifact, n_threads=1, variant={"cuda": "fused"}.get(variant, variant))

    monkeypatch.setattr(compared.csrm, "load", on_cpu)
    monkeypatch.setattr(latency, "require_cuda", lambda: None)
    monkeypatch.setattr(latency, "with_variant", lambda folder, *_: folder)
    monkeypatch.setattr(cuda_run, "gpu_peaks", lambda: GpuPeaks("a GPU", 1e12, 1e11))
    report = tmp_path / "latency.json"
    rows = run_decoder(folders, report, "pytorch-eager", device="cuda")
    assert [row["engine"] for row in rows] == [
        "csrm-cuda-fp32",
        "csrm-cuda",
        "csrm-cuda-uncached",
        "pytorch-eager",
        "pytorch-eager-cached",
    ]
    assert all(row["floor_flops"] > 0 and row["floor_bytes"] > 0 for row in rows)
    written = json.loads(report.read_text())
    assert (written["device"], written["gpu"]) == ("cuda", "a GPU")
    assert written["engines"]["csrm-cuda"]["reward_rms"] < FP32
    (entry,) = written["summary"]
    assert entry["cached_peer"] == "pytorch-eager-cached"
    assert entry["uncached_over_cached"] > 1


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
    engines = reported_despite(
        r"pytorch-eager: failed: pytorch-eager-cached answers", folders, tmp_path
    )
    assert {"csrm-fused", "onnxruntime-fp32", "onnxruntime-fp32-cached"} <= engines
    assert "pytorch-eager" not in engines
    assert [one.is_closed for one in made] == [True, True]


def test_latency_of_a_server_that_does_not_come_up_reports_the_rest(
    tiny_shapes: None,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def remote(spec: EngineSpec, python: Path, artifact: Path, threads: int) -> Off:
        if spec.name == "pytorch-eager":
            raise EngineUnavailable("the server did not start within 180 s")
        return Off(artifact, 0.0)

    monkeypatch.setattr(compared, "RemoteBaseline", remote)
    message = "pytorch-eager: failed: the server did not start"
    assert {"csrm-fused", "onnxruntime-fp32"} <= reported_despite(message, folders, tmp_path)


class Fragile(Off):
    """A stand-in that fails at its third timed call."""

    n_calls = 0

    def measure(self) -> object:
        self.n_calls += 1
        if self.n_calls == 3:
            raise EngineFailed("pytorch-eager: its process ended with 1")
        return super().measure()


def test_latency_of_an_engine_that_fails_while_timed_is_dropped_and_the_rest_reported(
    tiny_shapes: None,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def remote(spec: EngineSpec, python: Path, artifact: Path, threads: int) -> Off:
        return (Fragile if spec.name == "pytorch-eager" else Off)(artifact, 0.0)

    monkeypatch.setattr(compared, "RemoteBaseline", remote)
    engines = reported_despite(
        r"pytorch-eager 160\+40 x1: failed: .* ended with 1", folders, tmp_path
    )
    assert {"csrm-fused", "onnxruntime-fp32", "onnxruntime-fp32-cached"} <= engines
    assert not {"pytorch-eager", "pytorch-eager-cached"} & engines


class Graph:
    """A CUDA graph's stand-in: counts its replays."""

    n_replays = 0

    def replay(self) -> None:
        self.n_replays += 1


def test_captured_run_keeps_what_its_graph_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph()
    for name in ("Stream", "current_stream", "stream", "graph"):
        monkeypatch.setattr(pytorch_engine.torch.cuda, name, MagicMock())
    monkeypatch.setattr(pytorch_engine.torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(pytorch_engine.torch.cuda, "CUDAGraph", lambda: graph)
    ids = torch.ones(3)
    alive = weakref.ref(ids)

    def run(read: torch.Tensor = ids) -> torch.Tensor:
        return read * 2

    replay = pytorch_engine.captured(run)
    del run, ids
    gc.collect()
    assert alive() is not None
    assert replay().tolist() == [2, 2, 2]
    assert graph.n_replays == 1


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
    own = {"csrm-fused": 4.0, "csrm-fused-uncached": 50.0}
    default = {"csrm-int8": 2.0, "csrm-int8-uncached": 30.0}
    medians = {**own, **default, "a": 90.0, "b": 60.0, "a-cached": 5}
    rows = [
        {
            "engine": engine,
            "case": "64+64",
            "batch": 1,
            "median_ms": median,
            "cached": engine.endswith("-cached") or engine in ("csrm-fused", "csrm-int8"),
        }
        for engine, median in medians.items()
    ]
    assert summarised(rows, "csrm-int8") == [
        {
            "case": "64+64",
            "batch": 1,
            "engine": "csrm-int8",
            "cached_ms": 2.0,
            "uncached_over_cached": 15.0,
            "cached_peer": "a-cached",
            "cached_peer_over_csrm": 2.5,
            "uncached_peer": "b",
            "uncached_peer_over_csrm": 2.0,
        }
    ]
