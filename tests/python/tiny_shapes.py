"""Tiny shapes for csrm.bench, and artifacts of random weights of them."""

from __future__ import annotations

from pathlib import Path

from csrm.bench.random_artifact import write_random_artifact
from csrm.bench.shapes import Sizes
from csrm.train.decoder import DecoderShape
from csrm.train.model import ModelShape

TINY: dict[str, Sizes] = {
    "decoder": DecoderShape(30522, 48, 3, 6, 2, 16, 80, 4096, 3, 3, has_qkv_bias=True),
    "encoder": ModelShape(30522, hidden=48, layers=3, heads=4, intermediate=192),
}


def write_all(folder: Path) -> dict[str, Path]:
    """The artifact folder of each."""
    return {name: write_random_artifact(TINY[name], folder / name, name) for name in TINY}
