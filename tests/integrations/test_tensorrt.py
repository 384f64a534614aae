"""The shipped model through TensorRT for RTX itself, ahead of time: no GPU is needed to build.

Where the machine has a GPU, the engine is run there through NVIDIA's package and, if csrm was
compiled for it, through csrm; else the tests of that skip. What is built of which options:
tests/python/test_tensorrt_export.py.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from engine_on_gpu import Arrays, run_engine

import csrm
from csrm import errors
from csrm.engine import devices, tensorrt_engines
from csrm.export.tensorrt import (
    EngineBuilder,
    TensorRtOptions,
    add_tensorrt_engine,
    gpu_architecture,
)
from csrm.export.tensorrt_profiles import parse_profile
from csrm.export.typed_graph import typed_graph
from csrm.paths import default_artifact

tensorrt_rtx = pytest.importorskip("tensorrt_rtx", reason="run make test-tensorrt")

SMALL = TensorRtOptions(
    profiles=(parse_profile("batch=1:1:4 tokens=1:64:128 prefix=0:64:512 judged=1:1:4"),),
    package="tensorrt_rtx",
)
RULES = [("Insults", "Do not insult or threaten a person.")]
TALK = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "You are a fool."}]
# fp16 moves compliance by less than this (docs/gpu.md).
TOLERANCE = 5e-3


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped model with an fp16 engine, made by the command."""
    out = tmp_path_factory.mktemp("built") / "artifact"
    command = [sys.executable, "-m", "csrm", "export", str(default_artifact()), str(out)]
    done = subprocess.run([*command, "--tensorrt"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def entry_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_bytes())["tensorrt"][0])


def test_export_builds_the_shipped_model(built: Path) -> None:
    entry = entry_of(built)
    data = (built / entry["file"]).read_bytes()
    listed = json.loads((built / "manifest.json").read_bytes())["files"][entry["file"]]
    assert listed == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert len(data) > 40e6  # 22 million parameters of two bytes
    assert (entry["package"], entry["version"]) == ("tensorrt_rtx", tensorrt_rtx.__version__)
    [engine] = tensorrt_engines(built)
    assert engine.file == entry["file"]


def test_export_leaves_scores_on_the_cpu_alone(built: Path) -> None:
    ours = csrm.load(built, device="cpu").score(RULES, TALK)
    shipped = csrm.load(device="cpu").score(RULES, TALK)
    assert ours == shipped


def test_export_again_is_of_the_same_graph(built: Path, tmp_path: Path) -> None:
    again = add_tensorrt_engine(default_artifact(), tmp_path / "again", SMALL).parent
    assert entry_of(again)["graph_sha256"] == entry_of(built)["graph_sha256"]
    with pytest.raises(errors.Unsupported, match="not for sm90"):
        add_tensorrt_engine(again, again, TensorRtOptions(architectures=("sm90",)))


def test_operator_that_the_parser_lacks_is_unsupported() -> None:
    graph = typed_graph(onnx.load(default_artifact() / "model.onnx"), "fp16")
    next(node for node in graph.graph.node if node.op_type == "Gelu").op_type = "CsrmUnknown"
    manifest = json.loads((default_artifact() / "manifest.json").read_bytes())
    with pytest.raises((errors.Unsupported, errors.EngineFailed), match="CsrmUnknown"):
        EngineBuilder(tensorrt_rtx, SMALL).build(graph.SerializeToString(), manifest["model"])


def test_graph_that_is_malformed_is_a_typed_error() -> None:
    with pytest.raises(errors.EngineFailed, match="cannot read the graph"):
        EngineBuilder(tensorrt_rtx, SMALL).build(b"no graph", {"layers": 1})


@pytest.mark.parametrize("n_prefix", [0, 100])
def test_engine_computes_the_portable_function_on_a_gpu(built: Path, n_prefix: int) -> None:
    if not gpu_architecture():
        pytest.skip("1 test needs a GPU")
    model = json.loads((built / "manifest.json").read_bytes())["model"]
    layers, heads, dim = (model[name] for name in ("layers", "kv_heads", "head_dim"))
    random = np.random.default_rng(0)
    feeds: Arrays = {
        "input_ids": random.integers(1000, 20000, (1, 48)),
        "position_ids": np.arange(48)[None],
        "segment_ids": np.ones((1, 48), dtype=np.int64),
        "visible": np.full((1, 48), 48),
        "pooled_at": np.array([[0, 20, -1]]),
    }
    for name in ("prefix_key", "prefix_value"):
        feeds[name] = random.normal(size=(layers, heads, n_prefix, dim)).astype(np.float16)
    results: Arrays = {
        name: np.zeros((1, layers, heads, 48, dim), dtype=np.float32) for name in ("key", "value")
    }
    results |= {name: np.zeros((1, 3), dtype=np.float32) for name in ("reward", "compliance")}
    data = (built / entry_of(built)["file"]).read_bytes()
    if not run_engine(tensorrt_rtx, data, feeds, results):
        pytest.skip(f"TensorRT for RTX does not run its engine on {gpu_architecture()}")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(str(built / "model.onnx"), options)
    wide = {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in feeds.items()}
    expected = dict(zip(results, session.run(list(results), wide), strict=True))
    np.testing.assert_allclose(results["compliance"], expected["compliance"], atol=TOLERANCE)
    assert np.isnan(results["reward"][0, 2])
    largest = np.abs(expected["key"]).max()
    assert np.abs(results["key"] - expected["key"]).max() < 0.02 * largest


def test_engine_scores_as_the_cpu_does(built: Path) -> None:
    report = next(report for report in devices() if report.name == "tensorrt")
    if not report.is_available:
        with pytest.raises(errors.EngineUnavailable) as caught:
            csrm.load(built, device="tensorrt")
        assert caught.value.message == report.detail
        pytest.skip(f"1 test needs a GPU: {report.detail}")
    try:
        scorer = csrm.load(built, device="tensorrt")
    except (errors.EngineFailed, errors.Unsupported) as error:
        pytest.skip(f"TensorRT for RTX does not run on this GPU: {error.message}")
    for conversation in (TALK, TALK[:1], TALK * 20):
        expected = csrm.load(device="cpu").score(RULES, conversation)
        got = scorer.score(RULES, conversation)
        assert abs(got.compliance - expected.compliance) < TOLERANCE
