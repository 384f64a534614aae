"""csrm's own engines in a latency run: which of an artifact's variants are timed, and how.

What it is: which variants are timed on a device, which one csrm takes there by itself, and an
artifact with one variant more for a run. Not: the compared engines (engines.py), nor the loading of
either (compared.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple, cast

import csrm
from csrm.bench.engines import FP16, FP32, Arithmetic
from csrm.scorer import Device

UNCACHED = "-uncached"  # ends the name of an engine whose config is encoded in each call


class OwnEngine(NamedTuple):
    """A variant with the config cached between scores, or not."""

    name: str
    variant: str
    is_cached: bool


PORTABLE = {"cpu": "csrm-portable", "cuda": "csrm-cuda-fp32"}
OPTIMISED = {"cpu": "fused", "cuda": "cuda"}  # the variant that every artifact has there
FURTHER = {"cpu": ("half", "int8"), "cuda": ()}  # those that some have
EXACT = {"cpu": "fused", "cuda": "portable"}  # the variant whose rewards the others must give
# Root mean square difference from the exact variant's rewards, log-odds.
TOLERANCE = {"half": FP16, "int8": FP16, "cuda": FP16}
# How matrices are multiplied, which makes the floor (floor.py); fp32 where nothing stands here.
ARITHMETIC: dict[str, Arithmetic] = {"int8": "int8", "cuda": "fp16"}


def own_engines(artifact: Path, device: str) -> list[OwnEngine]:
    """csrm's engines of an artifact on a device, in the order of their rows."""
    engines = [OwnEngine(PORTABLE[device], "portable", True)]
    for variant in (OPTIMISED[device], *further(artifact, device)):
        name = f"csrm-{variant}"
        engines += [OwnEngine(name, variant, True), OwnEngine(f"{name}{UNCACHED}", variant, False)]
    return engines


def further(artifact: Path, device: str) -> list[str]:
    """The variants of FURTHER that the artifact has."""
    listed = variants_of(artifact)
    return [variant for variant in FURTHER[device] if variant in listed]


def default_variant(artifact: Path, device: str) -> str:
    """The variant that csrm takes by itself on this machine. Errors: those of csrm.load."""
    if not further(artifact, device):  # nothing to ask: a large model is not loaded once more
        return OPTIMISED[device]
    return str(csrm.load(artifact, n_threads=1, device=cast("Device", device)).info()["variant"])


def variants_of(artifact: Path) -> dict[str, str]:
    """The manifest's variants and their files."""
    listed: dict[str, str] = json.loads((artifact / "manifest.json").read_text())["variants"]
    return listed


def tolerance_of(variant: str) -> float:
    """How far its rewards may be from the exact variant's, log-odds."""
    return TOLERANCE.get(variant, FP32)


def arithmetic_of(variant: str) -> Arithmetic:
    """How a variant multiplies matrices."""
    return ARITHMETIC.get(variant, "fp32")


def with_variant(artifact: Path, folder: Path, variant: str) -> Path:
    """`artifact` if it has the variant, else a copy in `folder` that has it.

    Errors: those of csrm.export.add_variants.
    """
    if variant in variants_of(artifact):
        return artifact
    from csrm.export.add_variants import add_variants

    return add_variants(artifact, folder, [variant]).parent
