"""Opening an artifact: what was changed, left out or forged is refused with a typed error."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import toy
from toy import make_toy_model, open_scorer

from csrm import errors

toy_artifact = toy.toy_artifact  # the fixture, made known to pytest here


@pytest.fixture
def folder(toy_artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_artifact, tmp_path / "toy"))


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def edit_model(folder: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(folder / "model.onnx")
    change(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    make_toy_model.write_manifest(folder, ["model.onnx", "tokenizer.json"])


def test_artifact_untouched_copy_loads(folder: Path) -> None:
    assert open_scorer(folder).info()["name"] == "toy"


def test_artifact_behind_folder_link_loads(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    assert open_scorer(tmp_path / "link").info()["name"] == "toy"


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_artifact_flipped_bit_is_digest_mismatch(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(errors.DigestMismatch, match=name):
        open_scorer(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "manifest.json"])
def test_artifact_missing_file_is_bad_artifact(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(errors.BadArtifact, match=name):
        open_scorer(folder)


@pytest.mark.parametrize("extra", [b"", b"x"])
def test_artifact_other_size_is_bad_artifact(folder: Path, extra: bytes) -> None:
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data + extra if extra else data[:-1])
    with pytest.raises(errors.BadArtifact, match="bytes"):
        open_scorer(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "manifest.json"])
def test_artifact_symbolic_link_is_bad_artifact(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(errors.BadArtifact, match="symbolic link"):
        open_scorer(folder)


def test_artifact_named_pipe_or_folder_is_bad_artifact(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    with pytest.raises(errors.BadArtifact, match="not a regular file"):
        open_scorer(folder)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    with pytest.raises(errors.BadArtifact, match="not a regular file"):
        open_scorer(folder)


@pytest.mark.parametrize(
    "name", ["../model.onnx", "a/b", "/etc/hostname", "..", ".", "", "a\\b", "a\0b", "x" * 300]
)
def test_artifact_file_name_outside_folder_is_bad_artifact(folder: Path, name: str) -> None:
    edit_manifest(folder, lambda m: m["files"].update({name: m["files"]["model.onnx"]}))
    with pytest.raises(errors.BadArtifact, match="not a plain file name"):
        open_scorer(folder)


def test_artifact_no_folder_is_bad_artifact(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "a\0b", ""):
        with pytest.raises(errors.BadArtifact):
            open_scorer(path)


def test_artifact_oversize_manifest_is_bad_artifact(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text() + " " * (1 << 20))
    with pytest.raises(errors.BadArtifact, match="1048576"):
        open_scorer(folder)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"nul",
        b'{"schema_version": 1}',
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b'{"schema_version": 1, "name": "\xff"}',
    ],
)
def test_artifact_malformed_manifest_is_bad_artifact(folder: Path, text: bytes) -> None:
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(errors.BadArtifact, match=r"manifest\.json"):
        open_scorer(folder)


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("schema_version", 2, errors.Unsupported),
        ("schema_version", 0, errors.BadArtifact),
        ("schema_version", "1", errors.BadArtifact),
        ("schema_version", 1.0, errors.BadArtifact),
        ("schema_version", None, errors.BadArtifact),
        ("name", 5, errors.BadArtifact),
        ("licence", "", errors.BadArtifact),
        ("files", [], errors.BadArtifact),
        ("files", {}, errors.BadArtifact),
        ("files/model.onnx", "x", errors.BadArtifact),
        ("files/model.onnx/bytes", -1, errors.BadArtifact),
        ("files/model.onnx/bytes", 1e30, errors.BadArtifact),
        ("files/model.onnx/sha256", "0" * 63, errors.BadArtifact),
        ("files/model.onnx/sha256", "Z" * 64, errors.BadArtifact),
        ("files/model.onnx/sha256", "0" * 64, errors.DigestMismatch),
        ("template", [], errors.BadArtifact),
        ("template/id", "csrm-blocks-2", errors.Unsupported),
        ("template/cls", 64, errors.BadArtifact),
        ("template/cls", -1, errors.BadArtifact),
        ("template/cls", 9, errors.BadArtifact),
        ("template/roles/tool", None, errors.BadArtifact),
        ("template/roles/tool", "6", errors.BadArtifact),
        ("template/max_block_tokens", 15, errors.BadArtifact),
        ("template/max_block_tokens", 1 << 40, errors.BadArtifact),
        ("template/n_turn_indices", 0, errors.BadArtifact),
        ("model/backbone", "decoder", errors.Unsupported),
        ("model/layers", 0, errors.BadArtifact),
        ("model/layers", 3, errors.BadArtifact),
        ("model/head_dim", 8, errors.BadArtifact),
        ("model/vocab_size", 63, errors.BadArtifact),
        ("model/verbalizers/safe", 0, errors.BadArtifact),
        ("calibration/a", 0, errors.BadArtifact),
        ("calibration/a", -1.0, errors.BadArtifact),
        ("calibration/b", "0", errors.BadArtifact),
        ("variants/portable", "other.onnx", errors.BadArtifact),
        ("variants/portable", None, errors.BadArtifact),
        ("variants/fused", "other.onnx", errors.BadArtifact),
        ("threshold", 1.01, errors.BadArtifact),
        ("threshold", True, errors.BadArtifact),
    ],
)
def test_artifact_bad_manifest_field_is_refused(
    folder: Path, path: str, value: object, error: type[Exception]
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        *parents, key = path.split("/")
        for parent in parents:
            manifest = manifest[parent]
        if value is None:
            del manifest[key]
        else:
            manifest[key] = value

    edit_manifest(folder, change)
    with pytest.raises(error):
        open_scorer(folder)


def test_artifact_repeated_manifest_field_is_bad_artifact(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"name"', '"threshold": 0.0, "name"', 1))
    with pytest.raises(errors.BadArtifact, match="twice"):
        open_scorer(folder)


def test_artifact_unknown_manifest_field_is_ignored(folder: Path) -> None:
    edit_manifest(folder, lambda m: m.update(later={"x": [1]}))
    assert open_scorer(folder).info()["name"] == "toy"


def test_artifact_model_with_other_signature_is_bad_artifact(folder: Path) -> None:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.output[2].name = "rewards"
        for node in model.graph.node:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == "reward":
                        names[i] = "rewards"

    edit_model(folder, rename)
    with pytest.raises(errors.BadArtifact, match="signature"):
        open_scorer(folder)


def test_artifact_model_with_missing_output_is_bad_artifact(folder: Path) -> None:
    edit_model(folder, lambda model: model.graph.output.pop(0))
    with pytest.raises(errors.BadArtifact, match="3 outputs"):
        open_scorer(folder)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"not a model", errors.BadArtifact),
        (b"\x3a\xff\xff\xff\xff\x0f", errors.BadArtifact),
        (b"", errors.EngineFailed),
    ],
)
def test_artifact_file_that_is_no_model_is_refused(
    folder: Path, data: bytes, error: type[Exception]
) -> None:
    (folder / "model.onnx").write_bytes(data)
    make_toy_model.write_manifest(folder, ["model.onnx", "tokenizer.json"])
    with pytest.raises(error):
        open_scorer(folder)


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/hostname"])
@pytest.mark.parametrize("place", ["initializer", "attribute"])
def test_artifact_weights_in_unlisted_file_are_refused(
    folder: Path, location: str, place: str
) -> None:
    def move_out(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        if place == "attribute":
            node = onnx.helper.make_node("Constant", [], ["unused"], value=tensor)
            model.graph.node.insert(0, node)
            tensor = model.graph.node[0].attribute[0].t
        (folder / "weights.bin").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    edit_model(folder, move_out)
    with pytest.raises(errors.BadArtifact, match="does not list"):
        open_scorer(folder)
    if (location, place) == ("weights.bin", "initializer"):
        make_toy_model.write_manifest(folder, ["model.onnx", "tokenizer.json", "weights.bin"])
        assert open_scorer(folder).info()["name"] == "toy"
