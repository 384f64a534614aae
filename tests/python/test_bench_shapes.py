"""csrm.bench.shapes and what measures them: random artifacts, engines over a given prefix.

Tiny shapes on the CPU, through the code that runs on a GPU. Not: a GPU (bench/gpu_check.sh), and
not the command (test_bench_latency.py).
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
from test_cuda_graph import EMULATED, session_of
from tiny_shapes import TINY, write_all

import csrm
from csrm.bench.agreement import Agreement, rewards_of
from csrm.bench.baselines.interface import CachingBaseline, causal_rows, plain_rows
from csrm.bench.baselines.onnx_prefix import empty_prefix
from csrm.bench.baselines.onnxruntime_cuda import OnnxruntimeCuda, OnnxruntimeCudaFp16
from csrm.bench.baselines.onnxruntime_fp32 import OnnxruntimeFp32
from csrm.bench.baselines.pytorch_engine import PytorchEngine
from csrm.bench.engines import (
    BF16,
    CUDA_ENGINES,
    FP16,
    FP32,
    engine_named,
)
from csrm.bench.prompts import open_prompts
from csrm.bench.random_artifact import write_random_artifact
from csrm.bench.remote import RemoteBaseline
from csrm.bench.shapes import SHAPES, Sizes, shape_named
from csrm.errors import BadArgument, Internal, Unsupported
from csrm.export.weights_file import FiledBuilder, WeightsFile
from csrm.train.decoder import DecoderShape

NORMED = DecoderShape(30522, 48, 2, 4, 4, 12, 80, 4096, 2, 3, has_qk_norm=True)
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
    return write_all(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(params=list(TINY))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


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


@pytest.mark.skipif(not EMULATED, reason="needs CSRM_CUDA_EMULATED (make emulate-cuda)")
def test_random_artifact_cuda_graph_gives_the_rewards_of_the_portable_one(
    folders: dict[str, Path], kind: str
) -> None:
    folder = folders[kind]
    prompts = open_prompts(folder)
    texts = prompts.case(prompts.agreement_case)
    rows = prompts.exact_rows(texts, [texts.turn, texts.permuted(random.Random(0))])
    portable = OnnxruntimeFp32(folder, 1)
    portable.prepare(rows)
    empty = empty_prefix(folder, np.float16)
    session = session_of(folder / "model.cuda.onnx", emulated=True)
    (reward,) = session.run(["reward"], {**rows, **empty})
    assert reward[:, 0] == pytest.approx(portable.run(), abs=2 * FP16)


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


# Inductor's first import warns of torch itself.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
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
