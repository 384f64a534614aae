"""What this CPU can multiply at best, in each arithmetic that an engine computes in.

What it is: the highest peaks that a run has seen, on its number of threads, and which of them a row
stands on. Int8 is that of linear layers: attention has no int8 engine here, so its share counts in
bf16, or in fp32 where the processor lacks that. Not: operations (floor.py), single measurements
(machine.py) or a GPU (cuda_run.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from csrm.bench.engines import Arithmetic
from csrm.bench.machine import bf16_peak, fp32_peak, has_bf16, int8_peak
from csrm.errors import Unsupported

# Eight bits: what an instruction multiplies. csrm.LinearI8 rounds to twelve, which costs it more.
INT8_LEVELS = 127


class CpuPeaks:
    """Operations a second, by arithmetic. Not thread-safe."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._peaks: dict[Arithmetic, float] = {}

    def measure(self, arithmetics: Iterable[Arithmetic]) -> None:
        """Measures what rows of these arithmetics stand on, and fp32.

        Call it again with each measurement of an engine: a neighbour may have been busy.
        """
        for name in sorted({"fp32", *(part for a in arithmetics for part in parts(a))}):
            self._peaks[name] = max(self._peaks.get(name, 0.0), measured(name, self._threads))

    def ops_s(self, arithmetic: Arithmetic) -> float:
        """Operations a second, once measured."""
        return self._peaks[arithmetic]

    def facts(self) -> dict[str, Any]:
        """What a report says of them."""
        return {"peak_gflop_s": self.gop_s("fp32")}

    def gop_s(self, arithmetic: Arithmetic) -> float:
        """Billions of operations a second, as a report shows them."""
        return round(self._peaks[arithmetic] / 1e9, 1)


def parts(arithmetic: Arithmetic) -> tuple[Arithmetic, Arithmetic]:
    """In what an engine's linear layers and its attention are multiplied at best."""
    if arithmetic == "int8":
        return "int8", "bf16" if has_bf16() else "fp32"
    return arithmetic, arithmetic


def measured(arithmetic: Arithmetic, threads: int) -> float:
    """Operations a second: of PyTorch's product, of int8 that of the CPU's best instruction."""
    if arithmetic == "int8":
        try:
            return max(int8_peak("", INT8_LEVELS, threads), fp32_peak(threads))
        except Unsupported:
            return fp32_peak(threads)
    return bf16_peak(threads) if arithmetic == "bf16" else fp32_peak(threads)
