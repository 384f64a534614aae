"""The case table of the CUDA kernels' C++ checks is the one of csrm.kernels, and what the emulator
needs of translate.py. The kernels themselves: tests/cpp/cuda.
"""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHECKS = ROOT / "tests" / "cpp" / "cuda"


def test_kernel_cases_golden_file_equals_tables() -> None:
    text = runpy.run_path(str(CHECKS / "make_cases.py"))["text"]()
    assert text == (ROOT / "tests" / "golden" / "kernel_cases.h").read_text()


def test_translate_launch_with_template_arguments_becomes_call() -> None:
    translated = runpy.run_path(str(CHECKS / "emulator" / "translate.py"))["translated"]
    assert translated("  f<T, g<4>>\n      <<<grid, 8 * n, 0, s>>>(p, q);") == (
        "  ::emulator::launch(f<T, g<4>>, grid, 8 * n, 0, s)(p, q);"
    )


def test_translate_every_kernel_leaves_no_launch() -> None:
    translated = runpy.run_path(str(CHECKS / "emulator" / "translate.py"))["translated"]
    sources = sorted((ROOT / "kernels" / "cuda").glob("*.cu*"))
    assert len(sources) > 5
    for source in sources:
        text = translated(source.read_text())
        assert "<<<" not in text
        assert "extern __shared__" not in text
