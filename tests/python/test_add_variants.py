"""python -m csrm.export.add_variants: the same files as an export with the variants writes.

Not: what a variant computes (test_int8_variant.py, test_half_variant.py, test_cuda_graph.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_decoder

import csrm
from csrm.errors import BadArgument, BadArtifact
from csrm.export.add_variants import FILES, add_variants
from csrm.export.artifact import export_checkpoint

PARITY = {"compliance_p99": 0.002, "f1_change": 0.0}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", tiny.encoder())


@pytest.fixture(scope="module")
def plain(checkpoint: Path) -> Path:
    return export_checkpoint(checkpoint, checkpoint.parent / "plain", name="tiny").parent


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def changed(artifact: Path, folder: Path, **fields: Any) -> Path:
    """A copy whose manifest has other fields."""
    folder.mkdir()
    for file in artifact.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest_of(artifact) | fields))
    return folder


@pytest.mark.parametrize("variants", [["int8"], ["half"], ["half", "int8"]])
def test_add_variants_writes_what_an_export_with_them_does(
    checkpoint: Path, plain: Path, tmp_path: Path, variants: list[str]
) -> None:
    wanted = {name: name in variants for name in ("int8", "half")}
    exported = export_checkpoint(checkpoint, tmp_path / "exported", name="tiny", **wanted).parent
    out = add_variants(plain, tmp_path / "out", variants).parent
    for file in plain.iterdir():
        if file.name != "manifest.json":
            assert (out / file.name).read_bytes() == file.read_bytes()
    for variant in variants:
        assert (out / FILES[variant]).read_bytes() == (exported / FILES[variant]).read_bytes()
    found, expected = manifest_of(out), manifest_of(exported)
    assert found["variants"] == expected["variants"]
    assert set(found["files"]) == set(expected["files"])
    for variant in variants:
        chat = [{"role": role, "content": content} for role, content in tiny.CHAT]
        scorers = [csrm.load(path, n_threads=1, variant=variant) for path in (out, exported)]
        assert len({scorer.score(list(tiny.RULES), chat).reward for scorer in scorers}) == 1


def test_add_variants_forgets_what_was_measured_of_the_older_file_alone(
    plain: Path, tmp_path: Path
) -> None:
    both = add_variants(plain, tmp_path / "both", ["half", "int8"]).parent
    measured = changed(both, tmp_path / "measured", int8_parity=PARITY, half_parity=PARITY)
    manifest = manifest_of(add_variants(measured, tmp_path / "out", ["int8"]).parent)
    assert "int8_parity" not in manifest
    assert manifest["half_parity"] == PARITY


def test_add_variants_in_place_or_of_another_name_is_a_bad_argument(
    plain: Path, tmp_path: Path
) -> None:
    before = (plain / "manifest.json").read_bytes()
    with pytest.raises(BadArgument, match="in place"):
        add_variants(plain, plain, ["int8"])
    with pytest.raises(BadArgument, match="int8, half, cuda"):
        add_variants(plain, tmp_path / "out", ["int8", "fused"])
    assert (plain / "manifest.json").read_bytes() == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("variant", ["int8", "half"])
def test_add_variants_without_an_encoders_fused_graph_is_a_bad_artifact(
    plain: Path, tmp_path: Path, variant: str
) -> None:
    portable = changed(plain, tmp_path / "portable", variants={"portable": "model.onnx"})
    with pytest.raises(BadArtifact, match="no fused variant"):
        add_variants(portable, tmp_path / "out", [variant])
    model = tiny_decoder.decoder(tmp_path / "backbone")
    checkpoint = tiny_decoder.write_checkpoint(tmp_path / "checkpoint", model)
    decoder = export_checkpoint(checkpoint, tmp_path / "decoder", name="tiny").parent
    with pytest.raises(BadArtifact, match="for an encoder"):
        add_variants(decoder, tmp_path / "out", [variant])


def test_add_variants_of_weights_in_floats_has_no_int8(checkpoint: Path, tmp_path: Path) -> None:
    path = export_checkpoint(checkpoint, tmp_path / "fp32", name="tiny", storage="fp32")
    with pytest.raises(BadArtifact, match="stored as int8"):
        add_variants(path.parent, tmp_path / "out", ["int8"])


def test_add_variants_command_without_a_variant_says_what_it_takes(plain: Path) -> None:
    command = [sys.executable, "-P", "-m", "csrm.export.add_variants", str(plain), "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "ARTIFACT OUT int8|half|cuda" in done.stderr
