"""The floor: FLOPs and bytes of a case that nobody can avoid, in one layout or the other.

FLOPs divided by the peak measured in the same run are a time, and so are bytes divided by the
bandwidth. A row with a cached config has the floor of its turns alone, one without that of config
and turns, the config once however many turns it is read with. Norms, softmax, activations, the head
and embeddings are left out: a floor may be too low, never too high.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from csrm.bench.machine import fp32_peak
from csrm.bench.texts import parse_case
from csrm.errors import BadArtifact

HALF = 2  # bytes of fp16 and bf16


@dataclass(frozen=True)
class EncoderSize:
    """Sizes that fix the FLOPs; defaults are MiniLM-L6's."""

    layers: int = 6
    hidden: int = 384
    intermediate: int = 1536

    @property
    def context_width(self) -> int:
        """Width of the queries of all heads."""
        return self.hidden

    @property
    def kv_width(self) -> int:
        """Width of the keys of all heads."""
        return self.hidden

    @property
    def matrices(self) -> int:
        """Weights in the matrices of a layer (of all MiniLM-L6: 10.6 million)."""
        return 4 * self.hidden**2 + 2 * self.hidden * self.intermediate

    def seen(self, n_before: int, n_new: int) -> int:
        """Pairs of tokens in a row's attention over a prefix: everything is seen."""
        return n_new * (n_before + n_new)

    def seen_in_config(self, n_config: int) -> int:
        """Pairs in the config's own attention: a rule sees itself alone, at least its own token."""
        return n_config


@dataclass(frozen=True)
class DecoderSize:
    """Sizes of a decoder that fix the FLOPs."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int

    @property
    def context_width(self) -> int:
        """Width of the queries of all heads."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of the keys of all heads."""
        return self.kv_heads * self.head_dim

    @property
    def matrices(self) -> int:
        """Weights in the matrices of a layer."""
        attention = 2 * self.hidden * (self.context_width + self.kv_width)
        return attention + 3 * self.hidden * self.intermediate

    def seen(self, n_before: int, n_new: int) -> int:
        """Pairs of tokens in a row's attention over a prefix: nothing later is seen."""
        return n_new * n_before + n_new * (n_new + 1) // 2

    def seen_in_config(self, n_config: int) -> int:
        """Pairs in the config's own attention."""
        return self.seen(0, n_config)


Size = EncoderSize | DecoderSize


def encoder_size(artifact: Path) -> EncoderSize:
    """Sizes of the artifact's model, which is an encoder."""
    model = json.loads((artifact / "manifest.json").read_text())["model"]
    hidden = model["kv_heads"] * model["head_dim"]
    return EncoderSize(model["layers"], hidden, 4 * hidden)


def model_size(artifact: Path) -> Size:
    """Sizes of the artifact's model. Errors: BadArtifact."""
    try:
        manifest = json.loads((artifact / "manifest.json").read_text())
        model = manifest["model"]
        if model["backbone"] != "decoder":
            return encoder_size(artifact)
        file = artifact / manifest["variants"]["portable"]
        graph = onnx.load(file, load_external_data=False).graph
        shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        last = f"layers.{model['layers'] - 1}"
        return DecoderSize(
            layers=model["layers"],
            hidden=shapes["tokens.weight"][1],
            heads=shapes[f"{last}.query.weight"][1] // model["head_dim"],
            kv_heads=model["kv_heads"],
            head_dim=model["head_dim"],
            intermediate=shapes[f"{last}.down.weight"][0],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadArtifact(f"the model cannot be read: {type(error).__name__}") from error


def floor_flops(
    size: Size, n_config: int, n_turn: int, batch: int, *, is_cached: bool = True
) -> int:
    """FLOPs of `batch` turns of `n_turn` new tokens over `n_config` cached ones, or new ones too.

    A full layer costs each token two operations a weight and four a pair of tokens and channel. The
    last layer needs only keys and values of every token, and everything else of the one token that
    the head reads.
    """
    keys_values = 4 * size.hidden * size.kv_width  # of a token, in one layer
    linear = 2 * size.matrices
    pair = 4 * size.context_width
    full = n_turn * linear + size.seen(n_config, n_turn) * pair
    last = n_turn * keys_values + (linear - keys_values) + (n_config + n_turn) * pair
    flops = batch * ((size.layers - 1) * full + last)
    if not is_cached:
        of_layer = n_config * linear + size.seen_in_config(n_config) * pair
        flops += (size.layers - 1) * of_layer + n_config * keys_values
    return flops


def floor_bytes(size: Size, n_config: int, n_turn: int, batch: int) -> int:
    """Bytes that a score must move: every matrix once, keys and values of the config once for the
    batch (read, or written where it is not cached), those of the turns once. fp16.
    """
    keys_values = 2 * size.kv_width * (n_config + batch * n_turn)
    return HALF * size.layers * (size.matrices + keys_values)


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

    def __init__(self, size: Size, threads: int) -> None:
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
        case = parse_case(row["case"])
        return floor_flops(self._size, *case, row["batch"], is_cached=row["cached"])
