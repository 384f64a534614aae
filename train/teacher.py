"""Distillation: a finished checkpoint's soft labels for the batches of another model's run.

What it is: a larger model of either kind (csrm.train.backbone) that reads the same families through
its own tokenizer and layout, and answers with calibrated probabilities of compliance. Not: the loss
(csrm.train.losses.distillation_loss) or the loop.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from csrm.errors import BadArgument, BadArtifact
from csrm.train.backbone import checkpoint_renderer, load_model
from csrm.train.batch import Batch, rewards
from csrm.train.calibration.platt import Calibration


class Teacher:
    """The model in a checkpoint folder. Not thread-safe.

    Errors: BadArtifact when a file of the folder is missing or damaged; BadArgument for a teacher
    under full attention, which batches of blocks cannot feed.
    """

    def __init__(self, checkpoint: Path, device: torch.device) -> None:
        self.model = load_model(checkpoint).to(device).requires_grad_(False)
        self.renderer = checkpoint_renderer(checkpoint)
        try:
            provenance = json.loads((checkpoint / "provenance.json").read_bytes())
            self.sources: tuple[str, ...] = tuple(provenance["sources"])
            self.calibration = Calibration(
                **json.loads((checkpoint / "calibration.json").read_bytes())
            )
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BadArtifact(f"teacher cannot be read: {type(error).__name__}") from error
        if provenance.get("attention") == "full":
            raise BadArgument("the teacher was trained under full attention; give one of blocks")

    @torch.no_grad()
    def compliance(self, batch: Batch) -> Tensor:
        """Calibrated probability of compliance, fp32 [N], of a batch on the teacher's device."""
        reward = rewards(self.model, batch)
        return torch.sigmoid(self.calibration.a * reward + self.calibration.b)
