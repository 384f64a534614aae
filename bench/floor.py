"""The floors: FLOPs of a case, and bytes of a cached token, that nobody can avoid.

FLOPs divided by the fp32 peak measured in the same run are a time: the floor of csrm's way of
working, where only the turn's tokens are new over a cached config. An engine without a cache is
shown beside the same floor, because the question it answers is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csrm.bench.machine import fp32_peak
from csrm.bench.texts import parse_case


@dataclass(frozen=True)
class EncoderSize:
    """Sizes that fix the FLOPs; defaults are MiniLM-L6's."""

    layers: int = 6
    hidden: int = 384
    intermediate: int = 1536


def encoder_size(artifact: Path) -> EncoderSize:
    """Sizes of the artifact's model."""
    model = json.loads((artifact / "manifest.json").read_text())["model"]
    hidden = model["kv_heads"] * model["head_dim"]
    return EncoderSize(model["layers"], hidden, 4 * hidden)


def kv_bytes_per_token(artifact: Path) -> int:
    """Bytes of one token's keys and values of all layers in fp32, in the artifact's model."""
    model = json.loads((artifact / "manifest.json").read_text())["model"]
    return 4 * 2 * int(model["layers"] * model["kv_heads"] * model["head_dim"])


def floor_flops(size: EncoderSize, n_config: int, n_turn: int, batch: int) -> int:
    """FLOPs of `batch` turns of `n_turn` new tokens over `n_config` cached ones.

    A full layer costs each token 2 * (4 H^2 + 2 H I) in its linear layers (10.6 M weights in all
    for MiniLM-L6) and 4 H * (config + turn) in attention. The last layer needs only keys and values
    of every token, and everything else of the one token that the head reads. Norms, softmax, GELU
    and the head are left out: a floor may be too low, never too high.
    """
    hidden = size.hidden
    linear = 2 * (4 * hidden**2 + 2 * hidden * size.intermediate)
    attention = 4 * hidden * (n_config + n_turn)
    keys_values = 2 * 2 * hidden**2
    full = (size.layers - 1) * n_turn * (linear + attention)
    last = n_turn * keys_values + (linear - keys_values) + attention
    return batch * (full + last)


def set_floors(
    rows: list[dict[str, Any]], flops_of: Callable[[dict[str, Any]], int], peak: float
) -> None:
    """Sets the field floor_ms of every row: its FLOPs at `peak` FLOP/s.

    Called again whenever a run has seen a higher peak: all rows of a report stand on one.
    """
    for row in rows:
        row["floor_ms"] = round(flops_of(row) / peak * 1e3, 3)


class CpuFloor:
    """floor_ms of latency rows at the highest peak that the run has seen."""

    def __init__(self, size: EncoderSize, threads: int) -> None:
        self._size = size
        self._threads = threads
        self._peak = fp32_peak(threads)

    def set(self, rows: list[dict[str, Any]]) -> None:
        """Sets floor_ms of all rows; the peak is measured again, for a neighbour may be busy."""
        self._peak = max(self._peak, fp32_peak(self._threads))
        set_floors(rows, self._flops_of, self._peak)

    def facts(self) -> dict[str, Any]:
        """What a report says of it."""
        return {"peak_gflop_s": round(self._peak / 1e9, 1)}

    def _flops_of(self, row: dict[str, Any]) -> int:
        return floor_flops(self._size, *parse_case(row["case"]), row["batch"])
