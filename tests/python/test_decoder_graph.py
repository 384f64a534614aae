"""csrm.export.decoder_graph equals csrm.train.decoder in ONNX Runtime, whatever the variant.

Tiny random models and id arrays. Not: files or the C++ runtime (test_decoder_runtime.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import tiny_decoder
import torch
from test_decoder import ids_of, prefix_of, rows_of

from csrm.export.decoder_graph import build_decoder_graph
from csrm.export.graph import build_graph
from csrm.export.parity import OnnxEngine
from csrm.export.storage import rounded
from csrm.train.decoder import Decoder
from csrm.train.model import Prefix

pytest.importorskip("transformers")

TOLERANCE = 1e-4  # fp32 through three layers of wide weights, another order of sums


def engine_of(model: Decoder, folder: Path) -> OnnxEngine:
    graph = build_decoder_graph(model, tiny.CALIBRATION)
    onnx.checker.check_model(graph, full_check=True)
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    return OnnxEngine(folder / "model.onnx")


def stacked(layers: list[torch.Tensor], model: Decoder) -> np.ndarray:
    """Layers x [1, P, kv_heads * D] -> [L, kv_heads, P, D]."""
    shape = model.shape
    parts = [x[0].view(-1, shape.kv_heads, shape.head_dim).transpose(0, 1) for x in layers]
    return torch.stack(parts).contiguous().numpy()


@pytest.mark.parametrize("kind", tiny_decoder.KINDS)
@torch.no_grad()
def test_decoder_graph_equals_pytorch(kind: str, tmp_path: Path) -> None:
    model = rounded(tiny_decoder.decoder(tmp_path, kind))
    engine = engine_of(model, tmp_path)
    rows = rows_of([ids_of(21), ids_of(8, seed=3)], [[20, 4], [7, -1]], first=13)
    prefix = prefix_of(model, ids_of(13, seed=4))
    shape = (model.shape.layers, model.shape.kv_heads, 0, model.shape.head_dim)
    none = np.zeros(shape, dtype=np.float32)
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
    decoder = build_decoder_graph(tiny_decoder.decoder(tmp_path), tiny.CALIBRATION)
    encoder = build_graph(tiny.encoder(), tiny.CALIBRATION)
    for mine, theirs in (
        (decoder.graph.input, encoder.graph.input),
        (decoder.graph.output, encoder.graph.output),
    ):
        assert [i.name for i in mine] == [i.name for i in theirs]
        assert [i.type.tensor_type.elem_type for i in mine] == [
            i.type.tensor_type.elem_type for i in theirs
        ]
    assert {node.domain for node in decoder.graph.node} == {""}


@torch.no_grad()
def test_decoder_graph_masks_what_visible_hides(tmp_path: Path) -> None:
    """A token beyond `visible` changes nothing before it: the graph reads the mask it is given."""
    model = tiny_decoder.decoder(tmp_path)
    engine = engine_of(model, tmp_path)
    none = np.zeros((model.shape.layers, model.shape.kv_heads, 0, model.shape.head_dim), np.float32)
    ids = ids_of(12)
    other = ids.clone()
    other[9:] = (other[9:] + 1) % tiny_decoder.SIZES["vocab_size"]
    first, second = (engine.run(rows_of([x], [[8, 11]]), none, none)[2][0] for x in (ids, other))
    assert first[0] == second[0]
    assert abs(first[1] - second[1]) > 1e-3
