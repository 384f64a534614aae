"""`Judgement` -> the fields of csrm's own JSON answers, flat so that one template line reads them.

Not: the peers' formats. Numbers keep the 7 digits of a 32-bit float.
"""

from __future__ import annotations

from csrm.score import RuleScore
from csrm.serve.call import Call
from csrm.serve.judging import Judgement


def identity(call: Call) -> dict[str, object]:
    """What answered: the request's id and the model's digest."""
    return {"id": call.id, "artifact_digest": call.snapshot.model.digest}


def fields_of(judgement: Judgement, *, turns: bool = False) -> dict[str, object]:
    """The fields of one judgement; "flagged" is all that a gateway needs."""
    base: dict[str, object] = {
        "flagged": judgement.verdict != "compliant",
        "verdict": judgement.verdict,
    }
    score = judgement.score
    if score is None:
        if judgement.failure is not None:
            base["error"] = judgement.failure.fields()
        return {**base, **judgement.named.fields()}
    base["reason"] = _reason(judgement)
    base["reward"] = digits(score.reward)
    base["compliance"] = digits(score.compliance)
    base["scored_tokens"] = score.scored_tokens
    base.update(judgement.named.fields())
    if score.rules:
        base["rules"] = [_rule(rule) for rule in score.rules]
    if turns:
        base["turns"] = [
            {
                "turn": turn.turn,
                "reward": digits(turn.reward),
                "compliance": digits(turn.compliance),
            }
            for turn in score.turns
        ]
    return base


def rule_names(judgement: Judgement) -> list[str]:
    """A distinct name for each rule of the config: its own, or its number."""
    names: list[str] = []
    for number, rule in enumerate(judgement.named.config.rules, start=1):
        name = rule.name or f"rule-{number}"
        names.append(name if name not in names else f"{name} ({number})")
    return names


def digits(value: float) -> float:
    """`value` with 7 significant digits."""
    return float(f"{value:.7g}")


def _reason(judgement: Judgement) -> str:
    what = "violates" if judgement.verdict == "violation" else "complies with"
    return f"{what} the config {judgement.named.id}"


def _rule(rule: RuleScore) -> dict[str, object]:
    return {
        "index": rule.index,
        "name": rule.name,
        "reward": digits(rule.reward),
        "compliance": digits(rule.compliance),
        "verdict": rule.verdict,
    }
