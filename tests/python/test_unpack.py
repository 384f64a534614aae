"""csrm.export.unpack: an exported model comes back as the weights its artifact computes with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from csrm import errors
from csrm.export.artifact import write_graphs
from csrm.export.storage import rounded
from csrm.export.unpack import encoder_of
from csrm.train.calibration.platt import Calibration
from csrm.train.model import Encoder


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    model = tiny.encoder()
    write_graphs(model, Calibration(1.0, 0.0, 2, 0.5, 0.5), tmp_path, "int8")
    described = {
        "backbone": "encoder",
        "layers": model.shape.layers,
        "kv_heads": model.shape.heads,
        "verbalizers": {"safe": model.shape.n_safe, "unsafe": model.shape.n_unsafe},
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"model": described}))
    return tmp_path


def test_unpack_exported_model_gives_its_rounded_weights(artifact: Path) -> None:
    expected = rounded(tiny.encoder()).state_dict()
    found = encoder_of(artifact)
    assert found.shape.heads == tiny.SHAPE.heads
    assert found.state_dict().keys() == expected.keys()
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=0, rtol=0)


def test_unpack_gives_the_epsilon_of_the_norms(tmp_path: Path, artifact: Path) -> None:
    model = Encoder(replace(tiny.SHAPE, norm_epsilon=1e-5))
    write_graphs(model, Calibration(1.0, 0.0, 2, 0.5, 0.5), tmp_path, "int8")
    assert encoder_of(artifact).embedding_norm.eps == pytest.approx(1e-5)


def test_unpack_missing_tensor_is_bad_artifact(artifact: Path) -> None:
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["model"]["layers"] += 1
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(errors.BadArtifact, match="KeyError"):
        encoder_of(artifact)


def test_unpack_decoder_is_bad_artifact(artifact: Path) -> None:
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["model"]["backbone"] = "decoder"
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(errors.BadArtifact, match="no encoder"):
        encoder_of(artifact)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_unpack_damaged_folder_is_bad_artifact(artifact: Path, damage: str) -> None:
    graph = artifact / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:1000]) if damage == "cut" else graph.unlink()
    with pytest.raises(errors.BadArtifact):
        encoder_of(artifact)
