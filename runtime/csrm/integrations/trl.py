"""`make_reward`: csrm as a reward function of TRL's GRPOTrainer and its kin.

Not: scoring (rewards.py), nor TRL itself, which calls what is made here with lists of prompts and
completions and every other column of the data set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from csrm.errors import BadArgument
from csrm.integrations.rewards import Output, Rewarder, sample_conversation
from csrm.score import Score
from csrm.scorer import Judged, Scorer


class Reward:
    """A reward function. `make_reward` makes it; `__name__` is what TRL logs it under.

    Thread-safe; picklable (the copy loads the model again).
    """

    def __init__(self, rewarder: Rewarder, config_column: str, name: str) -> None:
        self.__name__ = name
        self._rewarder = rewarder
        self._config_column = config_column

    def __call__(
        self, prompts: Sequence[object], completions: Sequence[object], **columns: Any
    ) -> list[float | None]:
        """The reward of each completion, in order; None where there is no score.

        prompts, completions: texts, or lists of messages for conversational data. Into TRL's log go
        the shares of violations (of what was scored) and of samples without a score.
        Errors: BadArgument without the config column or a default config; what the engine fails at.
        """
        stated = columns.get(self._config_column)
        if stated is None:
            if not self._rewarder.has_default:
                raise BadArgument(
                    "the data set has no column of configs; give it one, name it as config_column, "
                    "or give make_reward a config for all samples"
                )
            stated = [None] * len(completions)
        conversations = [
            sample_conversation(prompt, completion)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        answers = self._rewarder.answers(conversations, stated)
        rewards = self._rewarder.rewards(answers)
        log = columns.get("log_metric")
        if log is not None and answers:
            verdicts = [answer.verdict for answer in answers if isinstance(answer, Score)]
            log(f"{self.__name__}/unscored", 1 - len(verdicts) / len(answers))
            if verdicts:
                log(f"{self.__name__}/violation", verdicts.count("violation") / len(verdicts))
        return rewards


def make_reward(
    model: Scorer | str | os.PathLike[str] | None = None,
    config_column: str = "safety_config",
    output: Output = "reward",
    *,
    config: object = None,
    configs: Mapping[str, object] | str | os.PathLike[str] | None = None,
    judged: Judged = "last",
    unscored: float | None = None,
    n_threads: int = 0,
    name: str | None = None,
) -> Reward:
    """A function for TRL's `reward_funcs`, which loads the model now.

    config_column: the data set's column of configs; what may stand in it, and all other arguments:
    `csrm.integrations.rewards.Rewarder`. name: for TRL's log, None = csrm_reward (csrm_compliance).
    Errors: BadArgument, BadConfig and those of `csrm.load`.
    """
    rewarder = Rewarder(
        config=config,
        configs=configs,
        model=model,
        output=output,
        judged=judged,
        unscored=unscored,
        n_threads=n_threads,
    )
    return Reward(rewarder, config_column, name or f"csrm_{output}")
