"""The device a model runs on: named, refused with what is missing, shown, and never replaced.

Not: a GPU (csrm.bench.gpu_parity). Where one is there, what must fail here is skipped.
"""

from __future__ import annotations

import json
import pickle
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import csrm
from csrm import engine
from csrm.cli import main
from csrm.engine import devices
from csrm.errors import BadArgument, EngineUnavailable, Unsupported

CONFIG = ["Never promise a refund."]
TURN = [{"role": "assistant", "content": "You will get your money back."}]


def missing(name: str) -> str:
    """Why the device cannot be had; skips where it can."""
    report = next(report for report in devices() if report.name == name)
    if report.is_available:
        pytest.skip(f"{name} can be had here")
    return report.detail


def test_devices_cpu_is_always_there_and_each_says_something() -> None:
    found = devices()
    assert [report.name for report in found] == ["cpu", "cuda", "tensorrt"]
    assert found[0].is_available
    assert "ONNX Runtime" in found[0].detail
    assert all(report.detail for report in found)


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_load_device_that_is_missing_is_refused_with_what_to_do(name: Any) -> None:
    reason = missing(name)
    with pytest.raises(EngineUnavailable) as caught:
        csrm.load(device=name)
    assert caught.value.message == reason
    assert f'"{name}"' in reason
    assert '"cpu"' in reason


def test_load_cuda_without_driver_names_driver_and_package() -> None:
    reason = missing("cuda")
    if "no NVIDIA driver" not in reason:
        pytest.skip("a driver is installed here")
    assert "libcuda.so.1" in reason
    assert "install the driver" in reason
    try:
        metadata.version("onnxruntime-gpu")
    except metadata.PackageNotFoundError:
        assert "pip install 'csrm[gpu]'" in reason
    else:
        assert "csrm[gpu]" not in reason


def test_load_cpu_and_auto_give_the_same_scorer_without_a_gpu_graph() -> None:
    named, auto = csrm.load(device="cpu"), csrm.load(device="auto")
    assert named.info() == auto.info()
    assert named.info()["device"] == "cpu"
    assert named.info()["device_note"] == ""
    assert named.score(CONFIG, TURN) == auto.score(CONFIG, TURN)
    assert pickle.loads(pickle.dumps(named)).info()["device"] == "cpu"


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:1", " cpu"])
def test_load_unknown_device_is_a_bad_argument(name: Any) -> None:
    with pytest.raises(BadArgument, match="device"):
        csrm.load(device=name)


def test_load_device_that_is_no_string_is_a_bad_argument() -> None:
    with pytest.raises(BadArgument, match="device must be a string"):
        csrm.load(device=0)  # type: ignore[arg-type]


def test_load_variant_of_another_device_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="GPU only"):
        csrm.load(device="cpu", variant="cuda")
    with pytest.raises(Unsupported, match="CPU only"):
        csrm.load(device="cuda", variant="fused")
    with pytest.raises(Unsupported, match="no cuda variant"):
        csrm.load(device="auto", variant="cuda")


def test_info_command_shows_every_device() -> None:
    done = CliRunner().invoke(main, ["info", "--json"])
    assert done.exit_code == 0
    facts = json.loads(done.output)
    assert facts["device"] == "cpu"
    assert [report["name"] for report in facts["devices"]] == ["cpu", "cuda", "tensorrt"]
    text = CliRunner().invoke(main, ["info", "--device", "cpu"]).output
    assert "device cpu         yes: ONNX Runtime" in text
    assert "device tensorrt" in text
    assert "[" not in text.split("operating_points")[0]


def test_score_command_with_a_missing_device_ends_with_status_2(tmp_path: Path) -> None:
    missing("cuda")
    config = tmp_path / "config.txt"
    config.write_text("- Never promise a refund.\n")
    command = ["score", "--device", "cuda", "--config", str(config), "-"]
    done = CliRunner().invoke(main, command, input=json.dumps({"messages": TURN}))
    assert done.exit_code == 2
    assert "EngineUnavailable" in done.output


def test_bench_command_with_a_missing_device_is_skipped_aloud() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    reason = missing("cuda")
    done = CliRunner().invoke(main, ["bench", "latency", "--device", "cuda"])
    assert done.exit_code == 77
    assert "SKIPPED --device cuda" in done.output
    assert reason in done.output


def test_engine_library_of_the_gpu_package_is_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "onnxruntime" / "capi"
    folder.mkdir(parents=True)
    (tmp_path / "onnxruntime" / "__init__.py").touch()
    for version in ("1.31.1", "1.32.0"):
        (folder / f"libonnxruntime.so.{version}").touch()

    class Spec:
        submodule_search_locations = (str(tmp_path / "onnxruntime"),)

    monkeypatch.setattr(engine, "find_spec", lambda _: Spec)
    for own, expected in ((None, "1.31.1"), ("1.32.0", "1.32.0"), ("1.31.1", "1.31.1")):
        monkeypatch.setattr(engine, "_version_of_gpu_package", lambda own=own: own)
        assert engine.engine_library().name == f"libonnxruntime.so.{expected}"
