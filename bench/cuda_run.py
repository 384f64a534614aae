"""What `csrm bench latency --device cuda` needs beside csrm.bench.latency: a GPU and its floor.

What it is: whether a GPU can be had at all (else the bench is skipped, not faked), and the roofline
of a case on the GPU at hand. Not: timing (csrm.bench.latency), not csrm's engines there
(own_engines.py) and not the compared ones (baselines/).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from csrm.bench.floor import Size, floor_bytes, floor_flops
from csrm.bench.texts import parse_case
from csrm.engine import devices
from csrm.errors import Unsupported

_SIZE = 8192  # of the matrices that measure the peak
_COPY_BYTES = 1 << 30


@dataclass(frozen=True)
class GpuPeaks:
    """Measured on the GPU at hand."""

    name: str
    flops: float  # of a bf16 matrix product with fp32 sums, per second
    bytes: float  # read and written by a copy within its memory, per second


class NoDevice(Unsupported):
    """This machine cannot run the bench on the device that was asked for."""


def require_cuda() -> None:
    """Errors: NoDevice, with the reason, when csrm's device "cuda" cannot be had here."""
    for device in devices():
        if device.name == "cuda" and not device.is_available:
            raise NoDevice(device.detail)


def gpu_peaks() -> GpuPeaks:
    """Peaks of the first GPU, the best of several goes each."""
    product_s, copy_s = _product_seconds(), _copy_seconds()
    torch.cuda.empty_cache()  # the engines need the memory
    return GpuPeaks(
        torch.cuda.get_device_name(), 2 * _SIZE**3 / product_s, 2 * _COPY_BYTES / copy_s
    )


class GpuFloor:
    """floor_ms of latency rows: the larger of the times that operations and bytes take at best."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._peaks = gpu_peaks()

    def set(self, rows: list[dict[str, Any]]) -> None:
        """Sets floor_flops, floor_bytes and floor_ms of every row."""
        for row in rows:
            n_config, n_turn = parse_case(row["case"])
            row["floor_flops"] = floor_flops(
                self._size, n_config, n_turn, row["batch"], is_cached=row["cached"]
            )
            row["floor_bytes"] = floor_bytes(self._size, n_config, n_turn, row["batch"])
            flops_s = row["floor_flops"] / self._peaks.flops
            row["floor_ms"] = round(max(flops_s, row["floor_bytes"] / self._peaks.bytes) * 1e3, 4)

    def facts(self) -> dict[str, Any]:
        """What a report says of it."""
        return {
            "gpu": self._peaks.name,
            "peak_gflop_s": round(self._peaks.flops / 1e9, 1),
            "peak_gb_s": round(self._peaks.bytes / 1e9, 1),
        }


def _product_seconds() -> float:
    left = torch.randn(_SIZE, _SIZE, device="cuda", dtype=torch.bfloat16)
    return min(_seconds(lambda: torch.mm(left, left)) for _ in range(10))


def _copy_seconds() -> float:
    data = torch.empty(_COPY_BYTES // 4, device="cuda")
    copied = torch.empty_like(data)
    return min(_seconds(lambda: copied.copy_(data)) for _ in range(10))


def _seconds(action: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    action()
    torch.cuda.synchronize()
    return time.perf_counter() - start
