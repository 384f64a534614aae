"""Both graphs of a decoder equal csrm.train.decoder in ONNX Runtime, whatever the model's kind.

Tiny random models and id arrays. Not: files or the C++ runtime (test_decoder_runtime.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import tiny_decoder
import torch
from test_decoder import ids_of, prefix_of, rows_of

from csrm.export.decoder_graph import build_decoder_graph
from csrm.export.fused_decoder_graph import build_fused_decoder_graph
from csrm.export.graph import build_graph
from csrm.export.parity import OnnxEngine
from csrm.export.storage import rounded
from csrm.train.decoder import Decoder
from csrm.train.model import Prefix

pytest.importorskip("transformers")

TOLERANCE = 1e-4  # fp32 through three layers of wide weights, another order of sums


BUILDS: dict[str, Callable[..., onnx.ModelProto]] = {
    "portable": build_decoder_graph,
    "fused": build_fused_decoder_graph,
}


def engine_of(model: Decoder, folder: Path, build: str) -> OnnxEngine:
    graph = BUILDS[build](model, tiny.CALIBRATION)
    onnx.checker.check_model(graph, full_check=build == "portable")
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    return OnnxEngine(folder / "model.onnx")


def no_prefix(model: Decoder) -> np.ndarray:
    shape = model.shape
    return np.zeros((shape.layers, shape.kv_heads, 0, shape.head_dim), dtype=np.float32)


def stacked(layers: list[torch.Tensor], model: Decoder) -> np.ndarray:
    """Layers x [1, P, kv_heads * D] -> [L, kv_heads, P, D]."""
    shape = model.shape
    parts = [x[0].view(-1, shape.kv_heads, shape.head_dim).transpose(0, 1) for x in layers]
    return torch.stack(parts).contiguous().numpy()


@pytest.mark.parametrize("kind", tiny_decoder.KINDS)
@pytest.mark.parametrize("build", BUILDS)
@torch.no_grad()
def test_decoder_graph_equals_pytorch(build: str, kind: str, tmp_path: Path) -> None:
    model = rounded(tiny_decoder.decoder(tmp_path, kind))
    engine = engine_of(model, tmp_path, build)
    rows = rows_of([ids_of(21), ids_of(8, seed=3)], [[20, 4], [7, -1]], first=13)
    prefix = prefix_of(model, ids_of(13, seed=4))
    none = no_prefix(model)
    shape = none.shape
    cases: list[tuple[Prefix | None, np.ndarray, np.ndarray]] = [
        (None, none, none),
        (prefix, stacked(prefix.key, model), stacked(prefix.value, model)),
    ]
    for seen, prefix_key, prefix_value in cases:
        expected = model(rows, seen)
        key, value, reward, compliance = engine.run(rows, prefix_key, prefix_value)
        wanted = expected.reward.numpy()
        np.testing.assert_allclose(reward, wanted, atol=TOLERANCE, rtol=0, equal_nan=True)
        logit = tiny.CALIBRATION.a * wanted + tiny.CALIBRATION.b
        np.testing.assert_allclose(compliance, 1 / (1 + np.exp(-logit)), atol=TOLERANCE)
        for mine, theirs in ((key, expected.key), (value, expected.value)):
            assert mine.shape == (2, *shape[:2], 21, shape[3])
            longest = stacked([layer[:1] for layer in theirs], model)
            np.testing.assert_allclose(mine[0], longest, atol=TOLERANCE, rtol=1e-4)


def test_decoder_graph_has_the_signature_of_an_encoder_graph(tmp_path: Path) -> None:
    model = tiny_decoder.decoder(tmp_path)
    encoder = build_graph(tiny.encoder(), tiny.CALIBRATION)
    for build in BUILDS.values():
        decoder = build(model, tiny.CALIBRATION)
        for mine, theirs in (
            (decoder.graph.input, encoder.graph.input),
            (decoder.graph.output, encoder.graph.output),
        ):
            assert [i.name for i in mine] == [i.name for i in theirs]
            assert [i.type.tensor_type.elem_type for i in mine] == [
                i.type.tensor_type.elem_type for i in theirs
            ]


def test_decoder_portable_graph_is_of_standard_operators(tmp_path: Path) -> None:
    graph = build_decoder_graph(tiny_decoder.decoder(tmp_path, "qwen3"), tiny.CALIBRATION).graph
    assert {node.domain for node in graph.node} == {""}


def test_decoder_fused_graph_is_of_csrm_operators(tmp_path: Path) -> None:
    model = tiny_decoder.decoder(tmp_path, "qwen3")
    graph = build_fused_decoder_graph(model, tiny.CALIBRATION)
    counts = Counter(node.op_type for node in graph.graph.node if node.domain == "csrm")
    n = model.shape.layers
    # The last layer's queries are those of the tokens that the head reads, so they are apart.
    assert counts == {
        "AddNorm": 2 * n,
        "Linear": 4 * n + 1,
        "PrefixAttention": n,
        "RewardHead": 1,
        "Rope": n + 1,
        "SwiGlu": n,
    }
    replaced = {"MatMul", "DequantizeLinear", "Softmax", "ReduceMean", "Sigmoid", "Cos", "Sin"}
    assert not replaced & {node.op_type for node in graph.graph.node}
    assert {o.domain: o.version for o in graph.opset_import}["csrm"] == 1


@pytest.mark.parametrize("kind", ["llama_bias", "qwen3"])
@torch.no_grad()
def test_decoder_fused_graph_gives_equal_bits_in_any_batch(kind: str, tmp_path: Path) -> None:
    model = tiny_decoder.decoder(tmp_path, kind)
    engine = engine_of(model, tmp_path, "fused")
    prefix = prefix_of(model, ids_of(13, seed=4))
    seen = stacked(prefix.key, model), stacked(prefix.value, model)
    sequences = [ids_of(21), ids_of(8, seed=3), ids_of(17, seed=5)]
    pooled = [[20, 4], [7, -1], [0, 16]]
    together = engine.run(rows_of(sequences, pooled, first=13), *seen)
    for b, (ids, at) in enumerate(zip(sequences, pooled, strict=True)):
        alone = engine.run(rows_of([ids], [at], first=13), *seen)
        for whole, one in zip(together, alone, strict=True):
            own = whole[b][..., : one.shape[3], :] if whole.ndim == 5 else whole[b]
            np.testing.assert_array_equal(own, one[0])
        # Nor does it matter which other tokens are judged.
        for j, place in enumerate(at):
            only = engine.run(rows_of([ids], [[place]], first=13), *seen)[2]
            np.testing.assert_array_equal(only[0, 0], together[2][b, j])


@pytest.mark.parametrize("build", BUILDS)
@torch.no_grad()
def test_decoder_graph_masks_what_visible_hides(build: str, tmp_path: Path) -> None:
    """A token beyond `visible` changes nothing before it: the graph reads the mask it is given."""
    model = tiny_decoder.decoder(tmp_path)
    engine = engine_of(model, tmp_path, build)
    none = no_prefix(model)
    ids = ids_of(12)
    other = ids.clone()
    other[9:] = (other[9:] + 1) % tiny_decoder.SIZES["vocab_size"]
    first, second = (engine.run(rows_of([x], [[8, 11]]), none, none)[2][0] for x in (ids, other))
    assert first[0] == second[0]
    assert abs(first[1] - second[1]) > 1e-3
