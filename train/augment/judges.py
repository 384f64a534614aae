"""Who says whether a rated conversation breaks a guideline: its labels, or a trained artifact.

What it is: the `Judge` of Algorithm 1 (arXiv 2605.30487, 1.6) and its two implementations. Not:
what follows from the answers (csrm.train.augment.dominance).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import csrm
from csrm.errors import Error
from csrm.train.augment.severity import Guideline, violates
from csrm.train.records import Severity

_BATCH = 64


class Judge(Protocol):
    """Labels conversations under one guideline."""

    def unsafe(self, guide: Guideline, rows: Sequence[Severity]) -> list[bool | None]:
        """For each row whether its last turn breaks `guide`; None where that is open."""
        ...


class LabelJudge:
    """The severity ratings themselves, which cannot contradict the order of the guidelines.

    With it the dominance test checks one thing: whether there are conversations enough.
    """

    def unsafe(self, guide: Guideline, rows: Sequence[Severity]) -> list[bool | None]:
        """See `Judge`; a row that the ratings do not settle is open."""
        return [violates(guide, row) for row in rows]


class ArtifactJudge:
    """A trained model that reads the guideline as its whole config. Thread-safe."""

    def __init__(self, artifact: str | Path | None = None) -> None:
        """artifact: its folder, None for the shipped one. Errors: those of `csrm.load`."""
        self._scorer = csrm.load(artifact)

    def unsafe(self, guide: Guideline, rows: Sequence[Severity]) -> list[bool | None]:
        """See `Judge`: unsafe below a compliance of 0.5; a row that cannot be scored is open.

        Errors: those of a whole call to `Scorer.score_batch`.
        """
        config = csrm.SafetyConfig.from_rules([guide.rule])
        labels: list[bool | None] = []
        for start in range(0, len(rows), _BATCH):
            conversations = [
                [{"role": role, "content": content} for role, content in row.conversation]
                for row in rows[start : start + _BATCH]
            ]
            scores = self._scorer.score_batch(config, conversations, errors="return")
            labels += [None if isinstance(s, Error) else s.compliance < 0.5 for s in scores]
        return labels
