"""Adds model.cuda.onnx to an artifact that has none: python -m csrm.export.cuda_variant FROM TO

What it is: a copy of the artifact with the graph of csrm.export.cuda_graph, or of
csrm.export.cuda_decoder_graph, made from the weights in its portable graph, which stay where they
are. Not: an export of a checkpoint (`csrm export
--cuda`), and not a change of any score on a CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from csrm.errors import BadArtifact
from csrm.export.artifact import CUDA, add_variant, read_json, write_cuda
from csrm.export.signature_graph import Storage
from csrm.export.unpack import encoder_from, stored_model
from csrm.export.unpack_decoder import decoder_from
from csrm.train.calibration.platt import Calibration


def add_cuda_variant(artifact: str | Path, out: str | Path) -> Path:
    """Writes `artifact` with the cuda variant into the folder `out`; the path of its manifest.

    Errors: BadArtifact (a file cannot be read), BadArgument (`out` is the artifact itself),
    Unsupported (csrm.export.artifact.write_cuda).
    """
    source = Path(artifact)
    try:
        fit = read_json(source / "manifest.json")["calibration"]
        calibration = Calibration(
            a=fit["a"], b=fit["b"], n=fit["n"], nll_before=float("nan"), nll_after=float("nan")
        )
    except (KeyError, TypeError) as error:
        raise BadArtifact(f"manifest.json lacks a field: {type(error).__name__}") from error
    described, stored = stored_model(source)
    is_decoder = described["backbone"] == "decoder"
    model = (decoder_from if is_decoder else encoder_from)(described, stored)
    storage: Storage = "int8" if stored["tokens.weight"].dtype == np.int8 else "fp32"

    def write(folder: Path) -> None:
        write_cuda(model, calibration, folder, storage)

    return add_variant(artifact, out, "cuda", CUDA, write)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m csrm.export.cuda_variant ARTIFACT OUT")
    print(add_cuda_variant(sys.argv[1], sys.argv[2]))
