"""The floor: operations and bytes of a case that nobody can avoid, in one layout or the other.

Operations divided by the peak measured in the same run are a time, and so are bytes divided by the
bandwidth. On a CPU the peak is that of the arithmetic which a row's engine computes in
(cpu_peaks.py). A row with a cached config has the floor of its turns alone, one without that of
config and turns, the config once however many turns it is read with. Norms, softmax, activations,
the head and embeddings are left out: a floor may be too low, never too high.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import onnx

from csrm.bench.cpu_peaks import CpuPeaks, parts
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


class Operations(NamedTuple):
    """Multiplications and additions, each one operation."""

    linear: int  # in products with weights
    attention: int  # in products of queries with keys, and of what they give with values


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


def floor_operations(
    size: Size, n_config: int, n_turn: int, batch: int, *, is_cached: bool = True
) -> Operations:
    """Those of `batch` turns of `n_turn` new tokens over `n_config` cached ones, or new ones too.

    A full layer costs each token two operations a weight and four a pair of tokens and channel. The
    last layer needs only keys and values of every token, and everything else of the one token that
    the head reads.
    """
    keys_values = 4 * size.hidden * size.kv_width  # of a token, in one layer
    linear = 2 * size.matrices
    full = size.layers - 1
    weights = batch * (full * n_turn * linear + n_turn * keys_values + (linear - keys_values))
    pairs = batch * (full * size.seen(n_config, n_turn) + n_config + n_turn)
    if not is_cached:
        weights += n_config * (full * linear + keys_values)
        pairs += full * size.seen_in_config(n_config)
    return Operations(weights, pairs * 4 * size.context_width)


def floor_flops(
    size: Size, n_config: int, n_turn: int, batch: int, *, is_cached: bool = True
) -> int:
    """All operations together."""
    return sum(floor_operations(size, n_config, n_turn, batch, is_cached=is_cached))


def floor_bytes(size: Size, n_config: int, n_turn: int, batch: int) -> int:
    """Bytes that a score must move: every matrix once, keys and values of the config once for the
    batch (read, or written where it is not cached), those of the turns once. fp16.
    """
    keys_values = 2 * size.kv_width * (n_config + batch * n_turn)
    return HALF * size.layers * (size.matrices + keys_values)


def set_floors(
    rows: list[dict[str, Any]],
    operations_of: Callable[[dict[str, Any]], Operations],
    peaks: CpuPeaks,
) -> None:
    """Sets floor_ms and floor_gop_s of every row, in the row's "arithmetic".

    floor_gop_s: the peaks that the time stands on. Called again whenever a run has seen a higher
    one: all rows of a report stand on the same.
    """
    for row in rows:
        linear, attention = parts(row["arithmetic"])
        operations = operations_of(row)
        seconds = operations.linear / peaks.ops_s(linear)
        seconds += operations.attention / peaks.ops_s(attention)
        row["floor_ms"] = round(seconds * 1e3, 3)
        row["floor_gop_s"] = {name: peaks.gop_s(name) for name in (linear, attention)}


class CpuFloor:
    """The floors of latency rows at the highest peaks that the run has seen."""

    def __init__(self, size: Size, threads: int) -> None:
        self._size = size
        self._peaks = CpuPeaks(threads)

    def set(self, rows: list[dict[str, Any]]) -> None:
        """Sets floor_ms and floor_gop_s of all rows."""
        self._peaks.measure(row["arithmetic"] for row in rows)
        set_floors(rows, self._operations_of, self._peaks)

    def facts(self) -> dict[str, Any]:
        """What a report says of it."""
        return self._peaks.facts()

    def _operations_of(self, row: dict[str, Any]) -> Operations:
        case = parse_case(row["case"])
        return floor_operations(self._size, *case, row["batch"], is_cached=row["cached"])
