"""csrm.export.tensorrt with a stand-in for NVIDIA's packages: options, files, manifest and errors.

Not: the graph that is built (test_typed_graph.py) and not a real engine
(tests/integrations/test_tensorrt.py).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny
from click.testing import CliRunner
from fake_tensorrt import Architecture, Compatibility, ErrorCode, FakeTensorRt

from csrm import errors
from csrm.cli import main
from csrm.export import tensorrt
from csrm.export.artifact import export_checkpoint
from csrm.export.tensorrt import TensorRtOptions, add_tensorrt_engine
from csrm.export.tensorrt_profiles import DEFAULT_PROFILES, Profile, parse_profile
from csrm.export.typed_graph import Precision

SMALL = "batch=1:2:4 tokens=1:8:32 prefix=0:8:64 judged=1"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    checkpoint = tiny.write_checkpoint(folder / "checkpoint", tiny.encoder())
    return export_checkpoint(checkpoint, folder / "artifact", name="tiny").parent


@pytest.fixture
def artifact(shared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shared, tmp_path / "artifact"))


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    """TensorRT for RTX in place of whatever is installed."""
    fake = FakeTensorRt()
    monkeypatch.setattr(tensorrt, "installed_package", lambda wish: fake)
    return fake


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    """TensorRT itself, on a machine with an H100."""
    fake = FakeTensorRt("tensorrt")
    monkeypatch.setattr(tensorrt, "installed_package", lambda wish: fake)
    monkeypatch.setattr(tensorrt, "gpu_architecture", lambda: "sm90")
    return fake


def manifest_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_bytes()))


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_engine_is_listed_with_its_digest_and_what_it_is_for(
    artifact: Path, package: FakeTensorRt
) -> None:
    before = manifest_of(artifact)
    path = add_tensorrt_engine(artifact, artifact, TensorRtOptions(architectures=("sm89", "sm80")))
    manifest = manifest_of(artifact)
    data = path.read_bytes()
    assert manifest["files"][path.name] == {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    [entry] = manifest.pop("tensorrt")
    assert entry == {
        "file": path.name,
        "package": "tensorrt_rtx",
        "version": "1.7.1.116",
        "precision": "fp16",
        "architectures": ["sm80", "sm89"],
        "is_version_compatible": False,
        "graph_sha256": hashlib.sha256(package.graph).hexdigest(),
        "profiles": [profile.json() for profile in DEFAULT_PROFILES],
    }
    del manifest["files"][path.name]
    assert manifest == before
    assert files_of(artifact) == {*before["files"], "manifest.json", path.name}
    graph = onnx.load_from_string(package.graph)
    assert graph.graph.input[5].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert package.config is not None
    assert package.config.architectures == {0: Architecture.SM80, 1: Architecture.SM89}
    assert package.config.num_compute_capabilities == 2


def test_engine_in_a_new_folder_leaves_the_artifact_alone(
    artifact: Path, tmp_path: Path, package: FakeTensorRt
) -> None:
    before = {name: (artifact / name).read_bytes() for name in files_of(artifact)}
    path = add_tensorrt_engine(artifact, tmp_path / "new" / "one")
    assert {name: (artifact / name).read_bytes() for name in files_of(artifact)} == before
    assert files_of(path.parent) == {*before, path.name}
    with pytest.raises(errors.BadArgument, match="an artifact already"):
        add_tensorrt_engine(artifact, path.parent)


def test_engine_of_the_same_kind_is_replaced_and_of_another_kept(
    artifact: Path, package: FakeTensorRt
) -> None:
    first = add_tensorrt_engine(artifact, artifact)
    other = add_tensorrt_engine(artifact, artifact, TensorRtOptions(precision="bf16"))
    package.graph = b""
    small = TensorRtOptions(profiles=(parse_profile(SMALL),))
    again = add_tensorrt_engine(artifact, artifact, small)
    assert again == first  # the stand-in's engine is the graph's digest, which is the same
    model = onnx.load(artifact / "model.onnx")
    model.producer_version = "changed"
    (artifact / "model.onnx").write_bytes(model.SerializeToString())
    manifest = manifest_of(artifact)
    manifest["files"]["model.onnx"] = describe(artifact / "model.onnx")
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    changed = add_tensorrt_engine(artifact, artifact, small)
    assert changed != first
    assert not first.exists()
    listed = [entry["file"] for entry in manifest_of(artifact)["tensorrt"]]
    assert listed == [other.name, changed.name]
    assert {first.name} & set(manifest_of(artifact)["files"]) == set()


def describe(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def test_profiles_reach_the_builder_as_shapes(artifact: Path, package: FakeTensorRt) -> None:
    add_tensorrt_engine(artifact, artifact, TensorRtOptions(profiles=(parse_profile(SMALL),)))
    assert package.config is not None
    [profile] = package.config.profiles
    layers, heads, dim = tiny.SHAPE.layers, tiny.SHAPE.heads, tiny.SHAPE.head_dim
    assert profile.shapes["input_ids"] == ((1, 1), (2, 8), (4, 32))
    assert profile.shapes["pooled_at"] == ((1, 1), (2, 1), (4, 1))
    assert profile.shapes["prefix_value"] == tuple((layers, heads, p, dim) for p in (0, 8, 64))
    assert len(profile.shapes) == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lacks batch, tokens, prefix, judged"),
        ("batch=1 tokens=8 judged=1", "lacks prefix"),
        ("batch=1 batch=2 tokens=8 prefix=0 judged=1", "once each"),
        ("batch=1 tokens=8 prefix=0 judged=1 heads=2", "once each"),
        ("batch=1:2 tokens=8 prefix=0 judged=1", "once each"),
        ("batch=4:2:8 tokens=8 prefix=0 judged=1", "must rise"),
        ("batch=0 tokens=8 prefix=0 judged=1", "must rise"),
        ("batch=1 tokens=8 prefix=0:0:9999999 judged=1", "must rise"),
    ],
)
def test_parse_profile_malformed_is_bad_argument(text: str, words: str) -> None:
    with pytest.raises(errors.BadArgument, match=words):
        parse_profile(text)


def test_parse_profile_one_number_is_all_three() -> None:
    assert parse_profile("judged=2 batch=1:3:9 prefix=0 tokens=16") == Profile(
        (1, 3, 9), (16, 16, 16), (0, 0, 0), (2, 2, 2)
    )


def test_architecture_that_the_package_lacks_is_unsupported(
    artifact: Path, package: FakeTensorRt
) -> None:
    before = files_of(artifact), (artifact / "manifest.json").read_bytes()
    with pytest.raises(errors.Unsupported, match="sm80, sm89, sm120, not for sm90"):
        add_tensorrt_engine(artifact, artifact, TensorRtOptions(architectures=("sm80", "sm90")))
    assert (files_of(artifact), (artifact / "manifest.json").read_bytes()) == before


def test_operator_that_the_parser_lacks_is_unsupported(
    artifact: Path, package: FakeTensorRt
) -> None:
    package.refuses_node = ErrorCode.UNSUPPORTED_NODE
    with pytest.raises(errors.Unsupported, match="operator Einsum: in the parser!!") as caught:
        add_tensorrt_engine(artifact, artifact)
    assert len(caught.value.message) < 400
    package.refuses_node = ErrorCode.INVALID_NODE
    with pytest.raises(errors.EngineFailed, match="at operator Einsum"):
        add_tensorrt_engine(artifact, artifact)


def test_builder_that_fails_is_engine_failed_with_its_first_error(
    artifact: Path, package: FakeTensorRt
) -> None:
    package.fails_to_build = True
    with pytest.raises(errors.EngineFailed, match="no kernel fits"):
        add_tensorrt_engine(artifact, artifact)
    package.fails_to_build = False
    package.refuses_profiles = True
    with pytest.raises(errors.BadArgument, match="refuses the profile"):
        add_tensorrt_engine(artifact, artifact)
    package.refuses_to_start = True
    with pytest.raises(errors.EngineUnavailable, match="no device"):
        add_tensorrt_engine(artifact, artifact)
    assert "tensorrt" not in manifest_of(artifact)


def test_version_compatible_rtx_engine_is_bad_argument(
    artifact: Path, package: FakeTensorRt
) -> None:
    with pytest.raises(errors.BadArgument, match="no version-compatible"):
        add_tensorrt_engine(artifact, artifact, TensorRtOptions(is_version_compatible=True))


def test_no_profile_is_bad_argument(artifact: Path, package: FakeTensorRt) -> None:
    with pytest.raises(errors.BadArgument, match="at least one profile"):
        add_tensorrt_engine(artifact, artifact, TensorRtOptions(profiles=()))


def test_tensorrt_without_gpu_is_engine_unavailable(
    artifact: Path, full: FakeTensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "gpu_architecture", lambda: "")
    with pytest.raises(errors.EngineUnavailable, match="TensorRT for RTX"):
        add_tensorrt_engine(artifact, artifact)


def test_tensorrt_timing_cache_is_read_and_kept(
    artifact: Path, full: FakeTensorRt, tmp_path: Path
) -> None:
    cache = tmp_path / "caches" / "h100"
    options = TensorRtOptions(timing_cache=cache, is_version_compatible=True)
    add_tensorrt_engine(artifact, artifact, options)
    assert cache.read_bytes() == b"+"
    add_tensorrt_engine(artifact, artifact, options)
    assert cache.read_bytes() == b"++"
    assert full.config is not None
    assert full.config.flags == [7]
    assert manifest_of(artifact)["tensorrt"][0]["is_version_compatible"] is True
    cache.write_bytes(b"of another GPU")
    with pytest.raises(errors.BadArtifact, match="another TensorRT or GPU"):
        add_tensorrt_engine(artifact, artifact, options)
    assert cache.read_bytes() == b"of another GPU"


def test_tensorrt_builds_for_its_own_gpu_or_later_ones(artifact: Path, full: FakeTensorRt) -> None:
    add_tensorrt_engine(artifact, artifact)
    assert manifest_of(artifact)["tensorrt"][0]["architectures"] == ["sm90"]
    add_tensorrt_engine(artifact, artifact, TensorRtOptions(architectures=("sm90",)))
    assert len(manifest_of(artifact)["tensorrt"]) == 1
    add_tensorrt_engine(artifact, artifact, TensorRtOptions(architectures=("ampere+",)))
    assert full.config is not None
    assert full.config.hardware_compatibility_level == Compatibility.AMPERE_PLUS
    with pytest.raises(errors.Unsupported, match=r"this machine \(sm90\)"):
        add_tensorrt_engine(artifact, artifact, TensorRtOptions(architectures=("sm80",)))


def test_model_that_differs_from_its_digest_is_digest_mismatch(
    artifact: Path, package: FakeTensorRt
) -> None:
    with (artifact / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(errors.DigestMismatch, match=r"model\.onnx"):
        add_tensorrt_engine(artifact, artifact)


def test_model_that_is_no_onnx_is_bad_artifact(artifact: Path, package: FakeTensorRt) -> None:
    (artifact / "model.onnx").write_bytes(b"no model")
    manifest = manifest_of(artifact)
    manifest["files"]["model.onnx"] = describe(artifact / "model.onnx")
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(errors.BadArtifact, match="is no ONNX model"):
        add_tensorrt_engine(artifact, artifact)
    del manifest["variants"]
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(errors.BadArtifact, match="no portable variant"):
        add_tensorrt_engine(artifact, artifact)


def test_graph_over_two_gibibytes_is_unsupported() -> None:
    class Graph:
        def SerializeToString(self, deterministic: bool) -> bytes:  # noqa: N802
            raise ValueError("what protobuf raises, without making two gibibytes")

    with pytest.raises(errors.Unsupported, match="2 GiB"):
        tensorrt.serialised(Graph())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"files": {}}', '{"files": {"../x": {}}, "model": {}}', '{"files": 1}']
)
def test_malformed_manifest_is_bad_artifact(
    artifact: Path, package: FakeTensorRt, text: str
) -> None:
    (artifact / "manifest.json").write_text(text)
    with pytest.raises(errors.BadArtifact):
        add_tensorrt_engine(artifact, artifact)


def test_package_missing_is_engine_unavailable_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: None)
    with pytest.raises(errors.EngineUnavailable, match=r"csrm\[tensorrt\]"):
        tensorrt.installed_package()
    with pytest.raises(errors.BadArgument, match="tensorrt_rtx"):
        tensorrt.installed_package("onnx")


def test_package_that_cannot_be_imported_is_engine_unavailable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tensorrt.py").write_text("raise RuntimeError('a placeholder')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(errors.EngineUnavailable, match="RuntimeError"):
        tensorrt.installed_package("tensorrt")


def test_command_adds_an_engine_to_a_checkpoints_or_an_artifacts_folder(
    artifact: Path, shared: Path, package: FakeTensorRt, tmp_path: Path
) -> None:
    run = CliRunner().invoke
    done = run(
        main,
        [
            *("export", str(artifact), str(artifact), "--tensorrt"),
            *("--tensorrt-precision", "bf16", "--tensorrt-profile", SMALL),
            *("--tensorrt-arch", "sm120"),
        ],
    )
    assert done.exit_code == 0, done.output
    [entry] = manifest_of(artifact)["tensorrt"]
    assert entry["precision"] == "bf16"
    assert entry["architectures"] == ["sm120"]
    assert entry["profiles"] == [parse_profile(SMALL).json()]
    assert entry["file"] in done.output
    out = tmp_path / "exported"
    done = run(main, ["export", str(shared.parent / "checkpoint"), str(out), "--tensorrt"])
    assert done.exit_code == 0, done.output
    assert len(manifest_of(out)["tensorrt"]) == 1
    done = run(main, ["export", str(artifact), str(artifact), "--tensorrt", "--int8"])
    assert done.exit_code == 2
    done = run(
        main,
        ["export", str(artifact), str(artifact), "--tensorrt", "--tensorrt-profile", "batch=1"],
    )
    assert done.exit_code == 2
    assert "lacks" in done.output


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_real_tensorrt_rtx_builds_a_tiny_engine(artifact: Path, precision: Precision) -> None:
    pytest.importorskip(
        "tensorrt_rtx", reason="TensorRT for RTX is not installed: run make test-tensorrt"
    )
    options = TensorRtOptions(
        precision=precision,
        architectures=("sm89",),
        profiles=(parse_profile(SMALL),),
        package="tensorrt_rtx",
    )
    path = add_tensorrt_engine(artifact, artifact, options)
    assert path.stat().st_size > 10_000
    assert manifest_of(artifact)["tensorrt"][0]["precision"] == precision
