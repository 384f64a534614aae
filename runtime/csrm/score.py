"""`Score` and its parts: what a `Scorer` answers. Plain immutable data.

Not: computing it (C++) or printing it (cli/). A verdict has no default: a failure is an error,
which every report shows as "unknown" and never as "compliant".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["compliant", "violation", "unknown"]


@dataclass(frozen=True)
class TurnScore:
    """One judged turn; `turn` is its index in the conversation (from 0)."""

    turn: int
    reward: float
    compliance: float


@dataclass(frozen=True)
class RuleScore:
    """The judged turns under one rule alone; `index` is the rule's place in the config (from 0)."""

    index: int
    name: str
    reward: float
    compliance: float
    verdict: Verdict


@dataclass(frozen=True)
class Score:
    """The answer for one conversation.

    `reward` is the log-odds that the judged turns comply (the minimum over them), `compliance` the
    calibrated probability in [0, 1] of that minimum, `verdict` compliant if and only if
    compliance >= the config's threshold. `rules` is empty unless asked for (explain).
    `scored_tokens` counts the conversation tokens that were encoded, control ids included.
    """

    reward: float
    compliance: float
    verdict: Verdict
    turns: tuple[TurnScore, ...]
    rules: tuple[RuleScore, ...]
    scored_tokens: int
