"""The installed package: exactly the files of the golden list, and an import that loads little.

`python tests/python/test_packaging.py > tests/golden/wheel_files.txt` writes the list anew from the
installed package, after a change of files that is meant.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path

import csrm

GOLDEN = Path(__file__).parents[1] / "golden" / "wheel_files.txt"
ARTIFACT = "csrm/artifacts/csrm-mini"
ARTIFACT_FILES = {
    f"{ARTIFACT}/{name}"
    for name in (
        "manifest.json",
        "tokenizer.json",
        "model.onnx",
        "model.fused.onnx",
        "model.int8.onnx",
        "MODEL_CARD.md",
    )
}
MAX_ARTIFACT_BYTES = 30_000_000
HEAVY = ("torch", "onnxruntime", "onnx", "transformers", "accelerate", "safetensors", "csrm._core")


def installed_files() -> list[str]:
    """Files of the package csrm, without caches; the module's platform tag is left out."""
    files = distribution("csrm").files or []
    names = [path.as_posix() for path in files if path.parts[0] == "csrm"]
    return sorted(
        re.sub(r"_core\..*\.(so|pyd|dylib)$", r"_core.\1", name)
        for name in names
        if "__pycache__" not in name
    )


def test_package_holds_exactly_the_golden_files() -> None:
    found, golden = installed_files(), GOLDEN.read_text().split()
    lost, extra = sorted(set(golden) - set(found)), sorted(set(found) - set(golden))
    assert not lost, f"files that the installed package lost: {lost}"
    assert not extra, f"files that are not in the golden list: {extra}"
    assert found == golden, "a file is listed twice, or the golden list is not sorted"


def test_package_golden_list_has_the_model() -> None:
    golden = GOLDEN.read_text().split()
    assert {name for name in golden if name.startswith("csrm/artifacts/")} == ARTIFACT_FILES


def test_package_model_is_small() -> None:
    folder = Path(csrm.__file__).parent / "artifacts" / "csrm-mini"
    n_bytes = sum(path.stat().st_size for path in folder.iterdir())
    assert n_bytes < MAX_ARTIFACT_BYTES


def test_package_is_imported_from_site_packages() -> None:
    places = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    assert Path(csrm.__file__).resolve().parents[1] in places


def test_package_import_loads_nothing_heavy() -> None:
    code = f"import sys, csrm; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_package_native_files_are_where_paths_says() -> None:
    assert csrm.get_library().name == "libcsrm.so"
    assert (csrm.get_include() / "csrm" / "csrm.h").is_file()
    assert (csrm.get_cmake_dir() / "csrmConfig.cmake").is_file()
    assert (csrm.get_pkgconfig_dir() / "csrm.pc").is_file()


if __name__ == "__main__":
    print("\n".join(sorted({*installed_files(), *ARTIFACT_FILES})))
