"""csrm.export: the ONNX graphs equal the PyTorch model, and the artifact's folder is as stated.

A tiny random model. Files that an attacker changed: test_artifact.py; figures of the real model:
csrm.export.parity.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
import torch
from numpy.typing import NDArray
from onnx import TensorProto

import csrm
from csrm import errors
from csrm.export.artifact import export_checkpoint
from csrm.export.fused_graph import build_fused_graph
from csrm.export.graph import build_graph
from csrm.export.parity import OnnxEngine, onnx_rewards, torch_rewards
from csrm.export.shared_weights import share_weights
from csrm.export.storage import quantise, rounded
from csrm.train.batch import Family, pack_rows
from csrm.train.model import Encoder, Prefix, Rows
from csrm.train.template import TEMPLATE

# fp32 through two layers, another order of sums.
TOLERANCE = 1e-4
HEAD_TOLERANCE = 1e-5  # the same graph up to the head
FILES = ("model.onnx", "model.fused.onnx", "tokenizer.json", "MODEL_CARD.md")
L, H, D = tiny.SHAPE.layers, tiny.SHAPE.heads, tiny.SHAPE.head_dim


@pytest.fixture(scope="module")
def model() -> Encoder:
    return tiny.encoder()


@pytest.fixture(scope="module")
def stored(model: Encoder) -> Encoder:
    """The model that an int8-stored artifact computes with."""
    return rounded(model)


@pytest.fixture(scope="module")
def artifact(model: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    checkpoint = tiny.write_checkpoint(folder / "checkpoint", model)
    return export_checkpoint(checkpoint, folder / "artifact", name="tiny").parent


@pytest.fixture(scope="module")
def engines(artifact: Path) -> dict[str, OnnxEngine]:
    return {name: OnnxEngine(artifact / name) for name in FILES[:2]}


def checkpoint_copy(model: Encoder, tmp_path: Path) -> Path:
    return tiny.write_checkpoint(tmp_path / "checkpoint", model)


def inputs_and_outputs(graph: onnx.GraphProto) -> dict[str, tuple[int, list[str | int]]]:
    return {
        info.name: (
            info.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim],
        )
        for info in (*graph.input, *graph.output)
    }


def test_export_portable_model_is_valid_standard_and_self_contained(artifact: Path) -> None:
    loaded = onnx.load(artifact / "model.onnx", load_external_data=False)
    onnx.checker.check_model(loaded, full_check=True)
    assert {opset.domain for opset in loaded.opset_import} == {""}
    assert {node.domain for node in loaded.graph.node} == {""}
    stored_apart = [t.name for t in loaded.graph.initializer if t.external_data]
    assert stored_apart == []


@pytest.mark.parametrize("file", FILES[:2])
def test_export_signature_is_exact(artifact: Path, file: str) -> None:
    int64, real = TensorProto.INT64, TensorProto.FLOAT
    tokens: list[Any] = ["batch", "tokens"]
    judged: list[Any] = ["batch", "judged"]
    own: list[Any] = ["batch", L, H, "tokens", D]
    graph = onnx.load(artifact / file, load_external_data=False).graph
    assert inputs_and_outputs(graph) == {
        **dict.fromkeys(("input_ids", "position_ids", "segment_ids", "visible"), (int64, tokens)),
        "pooled_at": (int64, judged),
        **dict.fromkeys(("prefix_key", "prefix_value"), (real, [L, H, "prefix", D])),
        **dict.fromkeys(("key", "value"), (real, own)),
        **dict.fromkeys(("reward", "compliance"), (real, judged)),
    }


def test_export_fused_model_is_of_csrm_operators_and_shares_weights(artifact: Path) -> None:
    fused = onnx.load(artifact / "model.fused.onnx", load_external_data=False)
    own = [node for node in fused.graph.node if node.domain]
    assert {node.domain for node in own} == {"csrm"}
    operators = {"AddNorm", "Linear", "PrefixAttention", "RewardHead"}
    assert {node.op_type for node in own} == operators
    assert [list(n.output) for n in own if n.op_type == "RewardHead"] == [["reward", "compliance"]]
    linear = [node for node in own if node.op_type == "Linear"]
    assert len(linear) == 4 * L + 1  # the last layer's query is apart
    assert sum(b"gelu" in n.SerializeToString() for n in linear) == L
    replaced = {"MatMul", "Gelu", "DequantizeLinear", "Softmax", "LayerNormalization"}
    assert not replaced & {node.op_type for node in fused.graph.node}
    assert {o.domain: o.version for o in fused.opset_import}["csrm"] == 1
    host = (artifact / "model.onnx").read_bytes()
    shared = {t.name: t for t in fused.graph.initializer if t.external_data}
    assert "tokens.weight" in shared
    assert any(name.endswith("up.weight") for name in shared)
    weights = {t.name: t.raw_data for t in onnx.load(artifact / "model.onnx").graph.initializer}
    for name, tensor in shared.items():
        entries = {entry.key: entry.value for entry in tensor.external_data}
        offset, length = int(entries["offset"]), int(entries["length"])
        assert entries["location"] == "model.onnx"
        assert host[offset : offset + length] == weights[name]
        assert not tensor.raw_data


@torch.no_grad()
def torch_outputs(
    model: Encoder, rows: Rows, prefix: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """key, value [B, L, H, T, D], reward, compliance [B, J] of an Encoder, like a graph's."""
    n = prefix[0].shape[2]
    flat = [torch.from_numpy(x.transpose(0, 2, 1, 3).reshape(L, 1, n, H * D)) for x in prefix]
    present = torch.ones(1, n, dtype=torch.bool)
    found = model(rows, Prefix(list(flat[0]), list(flat[1]), present) if n else None)
    batch, tokens = rows.input_ids.shape
    caches = [
        torch.stack(part, 1).view(batch, L, tokens, H, D).transpose(2, 3).numpy()
        for part in (found.key, found.value)
    ]
    logit = tiny.CALIBRATION.a * found.reward + tiny.CALIBRATION.b
    return [*caches, found.reward.numpy(), logit.sigmoid().numpy()]


def rows_of(turns: int, pooled_at: list[list[int]]) -> Rows:
    """Two rows of `turns` turns each, of unequal length, so that one has padding."""
    blocks = tiny.builder().turn_blocks(tiny.CHAT[:turns])
    longer = tiny.builder().turn_blocks([("tool", tiny.letters(5 + i, i)) for i in range(turns)])
    return replace(pack_rows([blocks, longer]), pooled_at=torch.tensor(pooled_at))


def random_prefix(n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(n)
    key, value = (rng.normal(size=(L, H, n, D)).astype(np.float32) for _ in range(2))
    return key, value


@pytest.mark.parametrize("n_prefix", [0, 1, 13])
@pytest.mark.parametrize(
    ("turns", "pooled_at"),
    [(1, [[0], [0]]), (3, [[0, 4, 16], [0, -1, 8]]), (2, [[-1, 3, -1], [-1, -1, -1]])],
)
def test_export_graphs_equal_pytorch_with_rounded_weights(
    stored: Encoder,
    engines: dict[str, OnnxEngine],
    turns: int,
    pooled_at: list[list[int]],
    n_prefix: int,
) -> None:
    rows, prefix = rows_of(turns, pooled_at), random_prefix(n_prefix)
    expected = torch_outputs(stored, rows, prefix)
    portable = engines["model.onnx"].run(rows, *prefix)
    fused = engines["model.fused.onnx"].run(rows, *prefix)
    sees = (rows.visible > 0).numpy()
    for i, (mine, theirs, head) in enumerate(zip(expected, portable, fused, strict=True)):
        assert mine.shape == theirs.shape == head.shape
        if i < 2:  # keys and values of padding tokens mean nothing
            mine, theirs, head = (x.transpose(0, 3, 1, 2, 4)[sees] for x in (mine, theirs, head))
        else:
            assert np.isnan(mine).tolist() == (rows.pooled_at < 0).tolist()
        np.testing.assert_allclose(theirs, mine, atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(head, theirs, atol=HEAD_TOLERANCE, rtol=0)


def test_export_portable_graph_needs_no_optimisation_to_be_valid(artifact: Path) -> None:
    rows, (key, value) = rows_of(2, [[0], [3]]), random_prefix(5)
    feeds = {name: tensor.numpy() for name, tensor in vars(rows).items()}
    feeds |= {"prefix_key": key, "prefix_value": value}
    found = []
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = onnxruntime.InferenceSession(artifact / "model.onnx", options)
        found.append(session.run(["reward"], feeds)[0])
    np.testing.assert_allclose(found[0], found[1], atol=HEAD_TOLERANCE, rtol=0)


def test_export_rewards_over_encoded_rules_equal_pytorch(
    stored: Encoder, engines: dict[str, OnnxEngine]
) -> None:
    batch = tiny.builder(4).build(Family(tiny.examples(9)))
    expected = torch_rewards(stored, batch)
    assert expected.std() > 100 * TOLERANCE
    for engine in engines.values():
        np.testing.assert_allclose(onnx_rewards(engine, batch, stored), expected, atol=TOLERANCE)


@pytest.mark.parametrize("build", [build_graph, build_fused_graph])
def test_export_fp32_storage_equals_unrounded_model(
    model: Encoder, tmp_path: Path, build: Any
) -> None:
    graph = build(model, tiny.CALIBRATION, storage="fp32")
    assert not [n for n in graph.graph.node if n.op_type == "DequantizeLinear"]
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    rows, prefix = rows_of(3, [[0, 4, 16], [0, -1, 8]]), random_prefix(7)
    found = OnnxEngine(tmp_path / "model.onnx").run(rows, *prefix)
    expected = torch_outputs(model, rows, prefix)
    np.testing.assert_allclose(found[2], expected[2], atol=TOLERANCE)
    np.testing.assert_allclose(found[3], expected[3], atol=TOLERANCE)


def test_quantise_error_is_at_most_that_of_plain_rounding() -> None:
    weight = np.random.default_rng(0).standard_t(3, size=(40, 64)).astype(np.float32)
    found = quantise(weight)
    assert found.values.dtype == np.int8
    assert found.scale.shape == (40,)
    assert np.abs(found.values.astype(np.int32)).max() <= 127
    step = np.abs(weight).max(axis=1, keepdims=True) / 127
    plain = np.rint(weight / step) * step
    error = np.square(found.dense() - weight).sum(axis=1)
    assert (error <= np.square(plain - weight).sum(axis=1) * (1 + 1e-5)).all()
    gaussian = np.random.default_rng(1).normal(size=(40, 64)).astype(np.float32)
    assert np.abs(quantise(gaussian).dense() - gaussian).max() <= np.abs(gaussian).max() * 0.21


def test_quantise_zero_row_stays_zero() -> None:
    weight = np.array([[0, 0, 0], [1, -2, 0.5], [1e-30, 0, -1e-30]], dtype=np.float32)
    dense = quantise(weight).dense()
    assert dense[0].tolist() == [0, 0, 0]
    np.testing.assert_allclose(dense[1], weight[1], atol=2 / 127)
    assert np.isfinite(dense).all()


def test_rounded_leaves_the_model_itself_alone(model: Encoder, stored: Encoder) -> None:
    before = tiny.encoder().state_dict()
    changed = {name for name, x in stored.state_dict().items() if not torch.equal(x, before[name])}
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert "tokens.weight" in changed
    assert not {name for name in changed if name.endswith("bias") or "norm" in name}


def test_share_weights_with_another_models_file_is_internal(model: Encoder) -> None:
    fused = build_fused_graph(model, tiny.CALIBRATION)
    foreign = build_graph(tiny.encoder(seed=1), tiny.CALIBRATION)
    with pytest.raises(errors.Internal):
        share_weights(fused, foreign.SerializeToString(), "model.onnx")


def test_export_manifest_states_files_and_template(artifact: Path) -> None:
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert sorted(manifest["files"]) == sorted(FILES)
    assert sorted(path.name for path in artifact.iterdir()) == sorted((*FILES, "manifest.json"))
    for name, entry in manifest["files"].items():
        data = (artifact / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert manifest["schema_version"] == 1
    assert manifest["template"] == TEMPLATE
    assert manifest["variants"] == {"portable": "model.onnx", "fused": "model.fused.onnx"}
    assert manifest["model"] == {
        "backbone": "encoder",
        "layers": L,
        "kv_heads": H,
        "head_dim": D,
        "vocab_size": tiny.SHAPE.vocab_size,
        "verbalizers": {"safe": 1, "unsafe": 1},
    }
    assert manifest["calibration"] == {"a": 1.25, "b": -0.4, "method": "platt", "n": 10}
    assert "CC-BY" not in (artifact / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("name", ["", "A", "a/b", "../a", ".a", "a b", "a" * 65, "a\n"])
def test_export_bad_name_is_refused_before_anything_is_written(
    model: Encoder, tmp_path: Path, name: str
) -> None:
    checkpoint = checkpoint_copy(model, tmp_path)
    with pytest.raises(errors.BadArgument):
        export_checkpoint(checkpoint, tmp_path / "out", name=name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "calibration",
    [
        None,
        "not json",
        "[]",
        '{"a": 1.0}',
        json.dumps({**asdict(tiny.CALIBRATION), "more": 1}),
        json.dumps(asdict(replace(tiny.CALIBRATION, is_floored=True))),
        json.dumps(asdict(replace(tiny.CALIBRATION, a=-1.0))),
        json.dumps(asdict(replace(tiny.CALIBRATION, b=float("nan")))),
        json.dumps({**asdict(tiny.CALIBRATION), "a": "1"}),
    ],
)
def test_export_bad_calibration_is_refused(
    model: Encoder, tmp_path: Path, calibration: str | None
) -> None:
    checkpoint = checkpoint_copy(model, tmp_path)
    (checkpoint / "calibration.json").unlink()
    if calibration is not None:
        (checkpoint / "calibration.json").write_text(calibration)
    with pytest.raises(errors.BadArtifact):
        export_checkpoint(checkpoint, tmp_path / "out", name="tiny")


@pytest.mark.parametrize("file", ["tokenizer.json", "provenance.json", "shape.json"])
def test_export_incomplete_checkpoint_is_bad_artifact(
    model: Encoder, tmp_path: Path, file: str
) -> None:
    checkpoint = checkpoint_copy(model, tmp_path)
    (checkpoint / file).unlink()
    with pytest.raises(errors.BadArtifact):
        export_checkpoint(checkpoint, tmp_path / "out", name="tiny")


def test_export_shape_that_the_template_does_not_fit_is_bad_artifact(tmp_path: Path) -> None:
    small = tiny.encoder(replace(tiny.SHAPE, max_block_tokens=256))
    with pytest.raises(errors.BadArtifact):
        export_checkpoint(tiny.write_checkpoint(tmp_path / "c", small), tmp_path / "out")


@pytest.mark.parametrize("variant", ["portable", "fused"])
def test_export_artifact_loads_and_scores_as_pytorch(
    artifact: Path, stored: Encoder, variant: str
) -> None:
    scorer = csrm.load(artifact, variant=variant, n_threads=1)
    assert scorer.info()["variant"] == variant
    conversations = [tiny.CHAT, *(e.turns for e in tiny.examples(6, seed=3))]
    for turns in conversations:
        messages = [{"role": role, "content": content} for role, content in turns]
        batch = tiny.builder().build(Family([tiny.Example(tiny.RULES, turns, 1.0)]))
        expected = torch_rewards(stored, batch)[0]
        found = scorer.score(list(tiny.RULES), messages)
        assert found.reward == pytest.approx(expected, abs=TOLERANCE)
        logit = tiny.CALIBRATION.a * expected + tiny.CALIBRATION.b
        assert found.compliance == pytest.approx(1 / (1 + np.exp(-logit)), abs=TOLERANCE)
