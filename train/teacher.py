"""Distillation: a finished checkpoint's soft labels for the batches of another model's run.

What it is: a larger model of either kind (csrm.train.backbone) that reads the same families through
its own tokenizer and layout, and answers with calibrated probabilities of compliance. Not: the loss
(csrm.train.losses.distillation_loss) or the loop.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csrm.errors import BadArgument, BadArtifact
from csrm.train.backbone import checkpoint_renderer, is_artifact, load_model
from csrm.train.batch import Batch, rewards
from csrm.train.calibration.platt import Calibration


class Teacher:
    """The model in a checkpoint folder, or the encoder in an artifact. Not thread-safe.

    Errors: BadArtifact when a file of the folder is missing or damaged; BadArgument for a teacher
    under full attention, which batches of blocks cannot feed, and for an artifact without onnx.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.model = load_model(folder).to(device).requires_grad_(False)
        self.renderer = checkpoint_renderer(folder)
        try:
            provenance, self.calibration = read_provenance(folder)
            self.sources: tuple[str, ...] = tuple(provenance["sources"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BadArtifact(f"teacher cannot be read: {type(error).__name__}") from error
        if provenance.get("attention") == "full":
            raise BadArgument("the teacher was trained under full attention; give one of blocks")

    @torch.no_grad()
    def compliance(self, batch: Batch) -> Tensor:
        """Calibrated probability of compliance, fp32 [N], of a batch on the teacher's device."""
        reward = rewards(self.model, batch)
        return torch.sigmoid(self.calibration.a * reward + self.calibration.b)


def read_provenance(folder: Path) -> tuple[dict[str, Any], Calibration]:
    """(provenance, calibration) of a checkpoint or an artifact.

    Errors: those of reading files, and KeyError, TypeError or ValueError for what is in them.
    """
    if is_artifact(folder):
        manifest = json.loads((folder / "manifest.json").read_bytes())
        fit = manifest["calibration"]
        unknown = math.nan  # an artifact does not say how well the fit was
        calibration = Calibration(fit["a"], fit["b"], fit["n"], unknown, unknown)
        return dict(manifest["provenance"]), calibration
    fit = json.loads((folder / "calibration.json").read_bytes())
    return json.loads((folder / "provenance.json").read_bytes()), Calibration(**fit)
