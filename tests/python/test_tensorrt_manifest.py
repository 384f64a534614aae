"""The manifest's list "tensorrt" as the runtime reads it, and what is said of each engine here.

Not: what is written into it (test_tensorrt_export.py) and not a GPU: where one is there with
TensorRT, the tests of what is missing skip.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy
from click.testing import CliRunner

import csrm
from csrm import errors
from csrm.cli import main
from csrm.engine import devices, tensorrt_engines
from csrm.export.artifact_files import add_file, read_manifest

toy_artifact = toy.toy_artifact  # the fixture, made known to pytest here
PROFILE = {"batch": [1, 2, 4], "tokens": [1, 8, 32], "prefix": [0, 8, 64], "judged": [1, 1, 1]}
NAME = "model.tensorrt.fp16.0123456789ab.engine"
ENTRY = {
    "file": NAME,
    "package": "tensorrt",
    "version": "10.14.1.48",
    "precision": "fp16",
    "architectures": ["sm80", "sm89"],
    "is_version_compatible": False,
    "graph_sha256": "0" * 64,
    "profiles": [PROFILE],
}
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(toy_artifact: Path, tmp_path: Path) -> Path:
    """The toy artifact with a file that passes for an engine."""
    copy = Path(shutil.copytree(toy_artifact, tmp_path / "toy"))
    add_file(copy, read_manifest(copy), b"no engine", dict(ENTRY))
    return copy


def change_engine(folder: Path, change: Change) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest["tensorrt"][0])
    path.write_text(json.dumps(manifest))


def test_tensorrt_engines_lists_what_the_manifest_says(folder: Path) -> None:
    [engine] = tensorrt_engines(folder)
    assert (engine.file, engine.package, engine.version) == (NAME, "tensorrt", "10.14.1.48")
    assert (engine.precision, engine.architectures) == ("fp16", ("sm80", "sm89"))
    assert csrm.load(folder, device="cpu").info()["device"] == "cpu"  # it is in nobody's way


def test_tensorrt_engines_without_any_is_empty(toy_artifact: Path, tmp_path: Path) -> None:
    assert tensorrt_engines(toy_artifact) == ()
    with pytest.raises(errors.BadArtifact, match="FileNotFoundError"):
        tensorrt_engines(tmp_path)


def test_tensorrt_device_that_is_missing_says_what(folder: Path) -> None:
    report = next(report for report in devices() if report.name == "tensorrt")
    if report.is_available:
        pytest.skip("a GPU and TensorRT are here")
    assert tensorrt_engines(folder)[0].problem == report.detail
    with pytest.raises(errors.EngineUnavailable) as caught:
        csrm.load(folder, device="tensorrt")
    assert caught.value.message == report.detail
    assert 'device "tensorrt" cannot be had' in report.detail


def test_tensorrt_engine_of_a_package_that_this_build_lacks_says_so(folder: Path) -> None:
    change_engine(folder, lambda engine: engine.update(package="some_other"))
    problem = tensorrt_engines(folder)[0].problem
    assert "the engine is of some_other" in problem or "no TensorRT engine" in problem


def test_info_command_lists_engines(folder: Path) -> None:
    done = CliRunner().invoke(main, ["info", "--model", str(folder), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    [line] = [line for line in done.output.splitlines() if line.startswith("tensorrt engine")]
    assert f"{NAME}: fp16, built by tensorrt 10.14.1.48 for sm80, sm89; " in line
    done = CliRunner().invoke(main, ["info", "--model", str(folder), "--device", "cpu", "--json"])
    [engine] = json.loads(done.output)["tensorrt_engines"]
    assert engine["file"] == NAME


def test_engine_file_that_is_damaged_is_digest_mismatch(folder: Path) -> None:
    (folder / NAME).write_bytes(b"No engine")
    with pytest.raises(errors.DigestMismatch, match="engine differs"):
        csrm.load(folder, device="cpu")


BAD: dict[str, tuple[Change, str]] = {
    "no file": (lambda e: e.pop("file"), "file is missing"),
    "file not listed": (lambda e: e.update(file="other.engine"), "does not list"),
    "no package": (lambda e: e.pop("package"), "package is missing"),
    "empty version": (lambda e: e.update(version=""), "version must be"),
    "precision a number": (lambda e: e.update(precision=16), "precision must be"),
    "architectures a text": (lambda e: e.update(architectures="sm80"), "architectures must be"),
    "architecture a number": (lambda e: e.update(architectures=[80]), "architectures must be"),
    "flag a number": (lambda e: e.update(is_version_compatible=1), "true or false"),
    "no profiles": (lambda e: e.update(profiles=[]), "must not be empty"),
    "too many profiles": (lambda e: e.update(profiles=[PROFILE] * 65), "at most 64"),
    "profile a number": (lambda e: e.update(profiles=[1]), "must be an object"),
    "axis missing": (lambda e: e["profiles"][0].pop("prefix"), "prefix is missing"),
    "two sizes": (lambda e: e["profiles"][0].update(batch=[1, 2]), "three rising sizes"),
    "falling sizes": (lambda e: e["profiles"][0].update(batch=[1, 4, 2]), "three rising sizes"),
    "no rows": (lambda e: e["profiles"][0].update(batch=[0, 1, 2]), "three rising sizes"),
    "huge": (lambda e: e["profiles"][0].update(tokens=[1, 2, 2**40]), "three rising sizes"),
    "a fraction": (lambda e: e["profiles"][0].update(judged=[1, 1, 1.5]), "three rising sizes"),
}


@pytest.mark.parametrize("case", BAD)
def test_engine_entry_malformed_is_bad_artifact(folder: Path, case: str) -> None:
    change, words = BAD[case]
    change_engine(folder, change)
    with pytest.raises(errors.BadArtifact, match=words):
        tensorrt_engines(folder)
    with pytest.raises(errors.BadArtifact, match=r"manifest\.json: tensorrt"):
        csrm.load(folder, device="cpu")


def test_engine_list_of_another_kind_is_bad_artifact(folder: Path) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for wrong in ({}, "x", [ENTRY] * 33):
        path.write_text(json.dumps({**manifest, "tensorrt": wrong}))
        with pytest.raises(errors.BadArtifact, match="at most 32 objects"):
            csrm.load(folder, device="cpu")


def test_engine_field_that_nobody_knows_is_ignored(folder: Path) -> None:
    change_engine(folder, lambda engine: engine.update(newer={"a": 1}))
    assert len(tensorrt_engines(folder)) == 1
