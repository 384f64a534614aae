"""The machine a result was taken on: names and versions, measured peaks.

Not: timing of candidates (timing.py) or memory (memory.py). Peaks are measured in the run that
reports them, on the same number of threads, because neighbours and clocks differ from run to run.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from csrm import _core

_PACKAGES = ("csrm", "numpy", "onnxruntime", "torch")


def environment() -> dict[str, str | int | None]:
    """CPU, cores, platform, package versions and git hash (None where unknown)."""
    env: dict[str, str | int | None] = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            env[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            env[package] = None
    env["git"] = _git_hash()
    return env


def fp32_peak(threads: int, *, size: int = 512, seconds: float = 0.5) -> float:
    """FLOP/s of the best of many square fp32 matrix products on `threads` threads.

    A product takes about a millisecond, so that a busy neighbour leaves some of them alone.
    """
    return _peak((size, size, size), torch.float32, threads, seconds)


def bf16_peak(threads: int, *, seconds: float = 0.5) -> float:
    """The same of bf16 products with fp32 sums; 0 where the processor has none (`has_bf16`).

    Of 1,024 x 384 by 384 x 1,536, with AMX the fastest of several shapes: small square ones do not
    gain by a second thread.
    """
    return _peak((1024, 384, 1536), torch.bfloat16, threads, seconds) if has_bf16() else 0.0


def has_bf16() -> bool:
    """Whether this processor multiplies bf16 (AVX-512 or AMX)."""
    return not _cpu_flags().isdisjoint({"avx512_bf16", "amx_bf16"})


def int8_peak(isa: str, levels: int, threads: int, *, seconds: float = 0.3) -> float:
    """OP/s of `threads` threads that multiply int8 in registers as that version of LinearI8 does.

    Two operations for each product of an activation of `levels` and a weight, however many the
    instructions take: AMX multiplies an activation of 12 bits as two bytes. Errors: Unsupported
    where this CPU lacks the version, or it has no such instruction.
    """
    with ThreadPoolExecutor(threads) as pool:
        rates = pool.map(lambda _: _core.int8_peak(isa, levels, seconds), range(threads))
        return sum(rates)


def memory_bandwidth(*, n_bytes: int = 1 << 27, seconds: float = 0.5) -> float:
    """Bytes read per second by one thread that sums an array larger than the caches."""
    array = np.ones(n_bytes // 8)
    return float(n_bytes / _best_seconds(array.sum, seconds))


def _peak(shape: tuple[int, int, int], dtype: torch.dtype, threads: int, seconds: float) -> float:
    """FLOP/s of products of [rows, inner] and [inner, columns]."""
    rows, inner, columns = shape
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        best = _best_seconds(partial(torch.mm, left, right), seconds)
    finally:
        torch.set_num_threads(before)
    return float(2 * rows * inner * columns / best)


def _best_seconds(action: Callable[[], object], budget: float) -> float:
    action()
    best = float("inf")
    end = time.perf_counter() + budget
    while time.perf_counter() < end:
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best


def _cpu_name() -> str:
    return _of_cpu("model name") or platform.processor()


def _cpu_flags() -> frozenset[str]:
    """Instruction sets of the processor as Linux names them; none where it does not say."""
    return frozenset(_of_cpu("flags").split())


def _of_cpu(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo; "" where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    values = [line.partition(":")[2].strip() for line in lines if line.startswith(field)]
    return values[0] if values else ""


def _git_hash() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
