"""Adds variants to an artifact: python -m csrm.export.add_variants ARTIFACT OUT int8|half|cuda...

What it is: a copy of the artifact in the folder OUT with graphs that it was exported without. They
are made from its own graphs, without the checkpoint; every other file is the same, byte for byte.
Not: the measurement of what int8 or half changes (csrm.export.variant_parity), without which the
runtime takes them only when they are asked for; run that on OUT next.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from csrm.errors import BadArgument, BadArtifact
from csrm.export.artifact import (
    CUDA,
    FUSED,
    HALF,
    INT8,
    describe,
    read_json,
    write_cuda,
    write_half,
    write_int8,
)
from csrm.export.signature_graph import Storage
from csrm.export.unpack import encoder_from, stored_model
from csrm.export.unpack_decoder import decoder_from
from csrm.train.calibration.platt import Calibration

FILES = {"int8": INT8, "half": HALF, "cuda": CUDA}
OF_FUSED: dict[str, Callable[[Path], None]] = {"int8": write_int8, "half": write_half}


def add_variants(artifact: str | Path, out: str | Path, variants: Sequence[str]) -> Path:
    """Writes `artifact` with `variants` of FILES into the folder `out`; the path of its manifest.

    What the manifest said of an older file of such a variant (its parity) goes. Errors: BadArgument
    (another variant, `out` is the artifact itself), BadArtifact (a file cannot be read; int8 of
    weights that are not stored so; int8 or half of a decoder or without a fused variant),
    Unsupported (csrm.export.artifact.write_cuda).
    """
    source, target = Path(artifact), Path(out)
    for variant in variants:
        if variant not in FILES:
            raise BadArgument(f"a variant that can be added is one of {', '.join(FILES)}")
    if target.resolve() == source.resolve():
        raise BadArgument("the artifact cannot be changed in place; name another folder")
    manifest = read_json(source / "manifest.json")
    files, listed = manifest.get("files"), manifest.get("variants")
    if not isinstance(files, dict) or not isinstance(listed, dict):
        raise BadArtifact("manifest.json lists no files; export the artifact again")
    target.mkdir(parents=True, exist_ok=True)
    for name in files:
        shutil.copyfile(source / name, target / name)
    for variant in variants:
        if variant in OF_FUSED:
            check_fused(manifest, variant)
            OF_FUSED[variant](target)
        else:
            write_stored_cuda(source, manifest, target)
        manifest.pop(f"{variant}_parity", None)
        listed[variant] = FILES[variant]
        files[FILES[variant]] = describe(target / FILES[variant])
    path = target / "manifest.json"
    path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return path


def check_fused(manifest: dict[str, Any], variant: str) -> None:
    """Errors: BadArtifact when there is no encoder's fused graph to make `variant` of."""
    if manifest["variants"].get("fused") != FUSED:
        raise BadArtifact(
            f"the artifact has no fused variant, whose graph the {variant} variant is"
        )
    model = manifest.get("model")
    if not isinstance(model, dict) or model.get("backbone") != "encoder":
        raise BadArtifact(f"the {variant} variant is for an encoder")


def write_stored_cuda(source: Path, manifest: dict[str, Any], target: Path) -> None:
    """model.cuda.onnx in `target` from the weights in the portable graph of `source`.

    Errors: as `add_variants`.
    """
    try:
        fit = manifest["calibration"]
        calibration = Calibration(
            a=fit["a"], b=fit["b"], n=fit["n"], nll_before=float("nan"), nll_after=float("nan")
        )
    except (KeyError, TypeError) as error:
        raise BadArtifact(f"manifest.json lacks a field: {type(error).__name__}") from error
    described, stored = stored_model(source)
    is_decoder = described["backbone"] == "decoder"
    model = (decoder_from if is_decoder else encoder_from)(described, stored)
    storage: Storage = "int8" if stored["tokens.weight"].dtype == np.int8 else "fp32"
    write_cuda(model, calibration, target, storage)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python -m csrm.export.add_variants ARTIFACT OUT int8|half|cuda...")
    print(add_variants(sys.argv[1], sys.argv[2], sys.argv[3:]))
