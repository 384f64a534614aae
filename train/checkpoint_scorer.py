"""Scores a training checkpoint through PyTorch, in the form that `csrm.train.evaluate` asks for.

What it is: for comparisons between checkpoints, also those of ordinary full attention, which have
no artifact. Not: the runtime (csrm.load), which csrm.export.parity compares with the same model. A
judged turn of several blocks is refused here, where the runtime takes the minimum over them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from csrm.errors import BadArtifact, Error, LimitExceeded
from csrm.train.batch import BatchBuilder, Example, Family, rewards
from csrm.train.calibration.platt import Calibration, apply_platt
from csrm.train.model import load_checkpoint
from csrm.train.records import Turn
from csrm.train.template import TEMPLATE, make_renderer

Rule = tuple[str, str]


@dataclass(frozen=True, slots=True)
class CheckpointScore:
    """Reward (log-odds of compliance), calibrated compliance in [0, 1] and the judged turns."""

    reward: float
    compliance: float
    turns: tuple[CheckpointScore, ...] = ()


class CheckpointScorer:
    """A `csrm.train.evaluate.RuleScorer` on the folder of a finished checkpoint. Not thread-safe.

    Errors: BadArtifact when a file of the checkpoint is missing or damaged.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.model = load_checkpoint(checkpoint)
        try:
            self.builder = BatchBuilder(make_renderer((checkpoint / "tokenizer.json").read_bytes()))
            provenance = json.loads((checkpoint / "provenance.json").read_bytes())
            self.calibration = Calibration(
                **json.loads((checkpoint / "calibration.json").read_bytes())
            )
        except (OSError, ValueError, TypeError) as error:
            raise BadArtifact(f"checkpoint cannot be read: {type(error).__name__}") from error
        self.is_full = provenance.get("attention") == "full"

    def score_rules(
        self,
        rules: Sequence[Rule],
        conversations: Sequence[Sequence[Turn]],
        judged: Literal["last", "assistant"],
    ) -> list[CheckpointScore | Error]:
        """See `RuleScorer`. LimitExceeded for what the checkpoint cannot read in one piece."""
        family = Family()
        places: list[list[int] | Error] = []
        for turns in conversations:
            ends = [len(turns) - 1]
            if judged == "assistant":
                ends = [i for i, (role, _) in enumerate(turns) if role == "assistant"]
            examples = [Example(tuple(rules), tuple(turns[: end + 1]), 1.0) for end in ends]
            error = next(filter(None, map(self.refusal, examples)), None)
            places.append(error or [family.add(example) for example in examples])
        if not family.examples:
            return [place for place in places if isinstance(place, Error)]
        batch = self.builder.build_full(family) if self.is_full else self.builder.build(family)
        with torch.no_grad():
            reward = rewards(self.model, batch).double().numpy()
        compliance = apply_platt(self.calibration, reward)
        single = [
            CheckpointScore(*pair)
            for pair in zip(reward.tolist(), compliance.tolist(), strict=True)
        ]
        return [
            place if isinstance(place, Error) else worst([single[i] for i in place])
            for place in places
        ]

    def refusal(self, example: Example) -> LimitExceeded | None:
        """Why `example` cannot be scored, if so."""
        blocks = self.builder.turn_blocks(example.turns)
        last = self.builder.renderer.turn(*example.turns[-1], len(example.turns) - 1)
        if len(last) > 1:
            return LimitExceeded("the judged turn has several blocks; score the artifact instead")
        if self.is_full:
            rules = [block for rule in example.rules for block in self.builder.rule_blocks(rule)]
            n_tokens = sum(len(ids) for ids, _ in [*rules, *blocks])
            limit = TEMPLATE["max_block_tokens"]
            if n_tokens > limit:
                return LimitExceeded(
                    f"the row has {n_tokens} tokens; full attention reads {limit} at most"
                )
        return None


def worst(turns: list[CheckpointScore]) -> CheckpointScore:
    """The score of a conversation: that of its lowest turn."""
    lowest = min(turns, key=lambda turn: turn.reward)
    return CheckpointScore(lowest.reward, lowest.compliance, tuple(turns))
