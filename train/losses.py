"""The joint objective of the paper: classification on the label, Bradley-Terry on config pairs;
and two terms of ours: one holds rewards of reworded configs together, one follows a teacher.

Not: calibration, which is fitted afterwards on held-out data (csrm.train.calibration.platt).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Loss:
    """The parts of one batch's loss, each a scalar."""

    total: Tensor
    classification: Tensor
    pairwise: Tensor


def joint_loss(reward: Tensor, target: Tensor, weight: Tensor, pairs: Tensor, gamma: float) -> Loss:
    """classification + gamma * pairwise (arXiv 2605.30487, 3.2; margin 0; sign corrected).

    reward, target, weight [N]; pairs [M, 2] of (better, worse) indices. The classification term is
    the cross-entropy of the verbalizer mass, -log sigmoid(reward) for a compliant label; the
    pairwise term is -log sigmoid(reward[lenient] - reward[strict]) for one conversation under two
    configs, or for two replies under one config.
    """
    per_example = functional.binary_cross_entropy_with_logits(reward, target, reduction="none")
    classification = (per_example * weight).sum() / weight.sum().clamp(min=1e-6)
    if len(pairs):
        pairwise = functional.softplus(reward[pairs[:, 1]] - reward[pairs[:, 0]]).mean()
    else:
        pairwise = reward.new_zeros(())
    return Loss(classification + gamma * pairwise, classification, pairwise)


def distillation_loss(reward: Tensor, soft: Tensor) -> Tensor:
    """Cross-entropy of sigmoid(reward) [N] against a teacher's probabilities `soft` [N], a scalar.

    Over all examples, those without a label of their own included.
    """
    return functional.binary_cross_entropy_with_logits(reward, soft)


def rewording_loss(reward: Tensor, same: Tensor) -> Tensor:
    """How far the rewards of examples that mean the same lie apart: a scalar, 0 without any.

    reward [N]; same [K, 2] example indices. Huber with a width of 1 log-odd, so that a pair far
    apart (one wording not understood at all) pulls no harder than the classification does.
    """
    if not len(same):
        return reward.new_zeros(())
    return functional.smooth_l1_loss(reward[same[:, 0]], reward[same[:, 1]])
