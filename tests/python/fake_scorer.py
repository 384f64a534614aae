"""`FakeNative`: stands for `csrm._core.Scorer` in tests of the Python layer and the command line.

Not: a model. The reward is +1 unless the judged turn holds the word "bad" (-1); the word "crash"
gives EngineFailed for that conversation and an empty turn EmptyConversation.
"""

from __future__ import annotations

import math
from typing import Any

REWARD = 1.0


class FakeNative:
    def __init__(self) -> None:
        self.batches: list[int] = []
        self.reused: list[bool] = []
        self.explained: list[bool | str] = []

    def score_batch(
        self,
        rules: list[tuple[str, str]],
        threshold: float,
        conversations: list[list[tuple[str, str]]],
        judged: str,
        explain: bool | str,
        reuse_turns: bool = False,
    ) -> list[tuple[Any, ...]]:
        self.batches.append(len(conversations))
        self.reused.append(reuse_turns)
        self.explained.append(explain)
        return [self._answer(rules, threshold, c, judged, explain) for c in conversations]

    def _answer(
        self,
        rules: list[tuple[str, str]],
        threshold: float,
        conversation: list[tuple[str, str]],
        judged: str,
        explain: bool | str,
    ) -> tuple[Any, ...]:
        places = [len(conversation) - 1]
        if judged == "assistant":
            places = [i for i, (role, _) in enumerate(conversation) if role == "assistant"]
        if not places or not conversation[places[-1]][1]:
            return ("error", "EmptyConversation", "the judged turn has no text")
        if any("crash" in text for _, text in conversation):
            return ("error", "EngineFailed", "the engine returned an error")
        turns = []
        for place in places:
            reward = -REWARD if "bad" in conversation[place][1] else REWARD
            turns.append((place, reward, 1 / (1 + math.exp(-reward))))
        reward, compliance = min(turn[1:] for turn in turns)
        verdict = "compliant" if compliance >= threshold else "violation"
        parts = [(i, reward, compliance, verdict) for i in range(len(rules))] if explain else []
        return (reward, compliance, verdict, turns, parts, 8 * len(turns))

    def info(self) -> dict[str, Any]:
        return {"name": "fake", "variant": "portable"}

    def cache_stats(self) -> dict[str, int]:
        return {"n_entries": 0}

    def clear_cache(self) -> None:
        self.batches.clear()

    def check_integrity(self) -> None:
        return None
