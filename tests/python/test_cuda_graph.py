"""model.cuda.onnx: what is in it, and, with the emulated operators, that it gives the CPU's scores.

CSRM_CUDA_EMULATED names libcsrm_cuda_emulated.so (`make emulate-cuda`): the operators' sources and
kernels for CUDA, run on the CPU. Not: a GPU (csrm.bench.gpu_parity).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("onnx")

import onnx
import onnxruntime
import tiny
from onnx import TensorProto

import csrm
from csrm.bench.gpu_parity import cases, compare, report, scores
from csrm.errors import BadArgument, BadArtifact, Unsupported
from csrm.export.add_variants import add_variants
from csrm.export.artifact import export_checkpoint
from csrm.paths import default_artifact

EMULATED = os.environ.get("CSRM_CUDA_EMULATED", "")
CONFIGS = Path(__file__).parents[2] / "configs"
# Nodes that run on the GPU in fp16 and need no shape from the CPU (export/cuda_graph.py).
ALLOWED = {"Add", "AddNorm", "Cast", "Concat", "DequantizeLinear", "Gather", "Gelu", "MatMul"}
ALLOWED |= {"KeysValues", "PrefixAttention", "RewardHead"}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_variants(default_artifact(), tmp_path_factory.mktemp("cuda"), ["cuda"]).parent


def graph_of(folder: Path) -> onnx.ModelProto:
    return onnx.load(folder / "model.cuda.onnx", load_external_data=False)


def test_cuda_graph_holds_only_what_a_captured_graph_may_hold(artifact: Path) -> None:
    graph = graph_of(artifact).graph
    assert {node.op_type for node in graph.node} <= ALLOWED
    types = {item.name: item.type.tensor_type.elem_type for item in (*graph.input, *graph.output)}
    halves = {name for name, kind in types.items() if kind == TensorProto.FLOAT16}
    assert halves == {"prefix_key", "prefix_value"}
    assert types["key"] == types["reward"] == TensorProto.FLOAT
    assert types["input_ids"] == TensorProto.INT64


def test_cuda_graph_shares_the_portable_graphs_weights(artifact: Path) -> None:
    shared = [
        tensor
        for tensor in graph_of(artifact).graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    ]
    portable = onnx.load(artifact / "model.onnx")
    n_int8 = sum(tensor.data_type == TensorProto.INT8 for tensor in portable.graph.initializer)
    assert len(shared) == n_int8 > 20
    assert (artifact / "model.cuda.onnx").stat().st_size < 2_000_000


def test_cuda_variant_is_listed_and_changes_no_score_on_a_cpu(artifact: Path) -> None:
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert manifest["variants"]["cuda"] == "model.cuda.onnx"
    scorer, shipped = csrm.load(artifact, device="cpu"), csrm.load(device="cpu")
    asked = cases(CONFIGS, 3)
    assert np.array_equal(scores(scorer, asked, 1), scores(shipped, asked, 1))
    with pytest.raises(Unsupported, match="GPU only"):
        csrm.load(artifact, device="cpu", variant="cuda")


def test_cuda_variant_auto_without_a_gpu_says_why(artifact: Path) -> None:
    info = csrm.load(artifact).info()
    if info["device"] == "cuda":
        pytest.skip("a GPU is here")
    own = csrm.load(artifact, device="cpu").info()["variant"]
    assert (info["device"], info["variant"]) == ("cpu", own)
    assert "cannot be had" in info["device_note"]


def test_cuda_variant_file_that_was_changed_is_refused(artifact: Path, tmp_path: Path) -> None:
    for path in artifact.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with (tmp_path / "model.cuda.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BadArtifact, match=r"model\.cuda\.onnx"):
        csrm.load(tmp_path)


def test_export_cuda_writes_the_variant(tmp_path: Path) -> None:
    checkpoint = tiny.write_checkpoint(tmp_path / "checkpoint", tiny.encoder())
    path = export_checkpoint(checkpoint, tmp_path / "out", name="tiny", cuda=True)
    assert json.loads(path.read_text())["variants"]["cuda"] == "model.cuda.onnx"
    assert csrm.load(path.parent, device="cpu").info()["variant"] == "fused"


def test_gpu_parity_same_variant_is_alike_and_another_model_is_not() -> None:
    asked = cases(CONFIGS, 6)
    assert len(cases(CONFIGS, 500)) == 500
    with pytest.raises(BadArgument):
        cases(CONFIGS, 10_000)
    expected = scores(csrm.load(variant="portable", device="cpu"), asked, 1)
    alike = compare(default_artifact(), "cpu", "fused", asked, expected)
    assert alike.is_alike
    assert alike.n == 6
    assert alike.compliance_max < 1e-5
    off = compare(default_artifact(), "cpu", "fused", asked, expected + 0.01)
    assert not off.is_alike
    assert off.compliance_max == pytest.approx(0.01, abs=1e-4)
    table = report([alike, off]).splitlines()
    assert ["NOT ALIKE" in row for row in table] == [False, False, True]


def feeds(n_tokens: int, seed: int) -> dict[str, NDArray[np.int64]]:
    """One row of random tokens, judged at its first."""
    rng = np.random.default_rng(seed)
    return {
        "input_ids": rng.integers(1000, 20000, (1, n_tokens)),
        "position_ids": np.arange(n_tokens)[None],
        "segment_ids": np.ones((1, n_tokens), np.int64),
        "visible": np.full((1, n_tokens), n_tokens),
        "pooled_at": np.array([[0, -1]]),
    }


OUTPUTS = ["key", "value", "reward", "compliance"]


def session_of(path: Path, *, emulated: bool = False) -> onnxruntime.InferenceSession:
    """The graph in ONNX Runtime's CPU provider.

    That computes in fp32 what it has no fp16 kernel for, and what stands between two such nodes,
    our operators among them. An output of the graph is left as it is: so each tensor is one here,
    and every rounding to fp16 happens.
    """
    options = onnxruntime.SessionOptions()
    if emulated:
        options.register_custom_ops_library(EMULATED)
        model = onnx.load(path, load_external_data=False)
        computed = {item.name for item in model.graph.input}  # of a call, not at load
        for node in model.graph.node:
            if computed & set(node.input):
                computed |= set(node.output)
                made = [onnx.ValueInfoProto(name=name) for name in node.output]
                model.graph.output.extend(value for value in made if value.name not in OUTPUTS)
        path = path.with_suffix(".exposed.onnx")
        path.write_bytes(model.SerializeToString())
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # as csrm does
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.skipif(not EMULATED, reason="needs CSRM_CUDA_EMULATED (make emulate-cuda)")
@pytest.mark.parametrize(("n_prefix", "n_tokens"), [(0, 9), (19, 24), (70, 33)])
def test_cuda_graph_with_emulated_kernels_gives_the_cpus_scores(
    artifact: Path, n_prefix: int, n_tokens: int
) -> None:
    emulated = session_of(artifact / "model.cuda.onnx", emulated=True)
    portable = session_of(artifact / "model.onnx")
    prefix = dict.fromkeys(("prefix_key", "prefix_value"), np.zeros((6, 12, 0, 32), np.float32))
    if n_prefix:
        key, value = portable.run(["key", "value"], {**feeds(n_prefix, n_prefix), **prefix})
        prefix = {"prefix_key": key[0], "prefix_value": value[0]}
    row = feeds(n_tokens, n_tokens)
    expected = portable.run(None, {**row, **prefix})
    row.update({name: array.astype(np.float16) for name, array in prefix.items()})
    got = emulated.run(OUTPUTS, row)
    for one, other in zip(got[:2], expected[:2], strict=True):  # keys and values
        assert (one.shape, one.dtype) == (other.shape, np.float32)
        assert np.abs(one - other).max() < 0.01 * np.abs(other).max()
    assert np.isnan([got[2][0, 1], got[3][0, 1]]).all()
    assert abs(got[3][0, 0] - expected[3][0, 0]) < 5e-3  # compliance in fp16
    again = emulated.run(OUTPUTS, row)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(got, again, strict=True))


@pytest.mark.skipif(not EMULATED, reason="needs CSRM_CUDA_EMULATED (make emulate-cuda)")
def test_cuda_operators_refuse_shapes_that_do_not_fit(artifact: Path) -> None:
    session = session_of(artifact / "model.cuda.onnx", emulated=True)
    prefix = {
        "prefix_key": np.zeros((6, 12, 3, 32), np.float16),
        "prefix_value": np.zeros((6, 12, 4, 32), np.float16),
    }
    with pytest.raises(Exception, match="PrefixAttention: input prefix_value has 4 along axis 2"):
        session.run(["reward"], {**feeds(9, 0), **prefix})
