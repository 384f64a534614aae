"""`reward_func`: csrm as OpenRLHF's reward function, in the process that generates.

Not: the HTTP route /get_reward, which `csrm serve` has (csrm.serve.reward_servers). OpenRLHF loads
this file, or one of yours with `reward_func = make_reward_func(...)`, by its path; it hands over
each sample as the whole text with its special tokens, the prompt in it, and the label.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from csrm.errors import BadArgument, BadConversation
from csrm.integrations.rewards import Output, Rewarder, sample_conversation
from csrm.score import Score
from csrm.scorer import Judged, Scorer

RewardFunc = Callable[..., dict[str, Any]]
_LOADING = threading.Lock()


def make_reward_func(
    *,
    config: object = None,
    configs: Mapping[str, object] | str | os.PathLike[str] | None = None,
    model: Scorer | str | os.PathLike[str] | None = None,
    output: Output = "reward",
    judged: Judged = "last",
    unscored: float | None = None,
    end_texts: Sequence[str] = (),
    n_threads: int = 0,
) -> RewardFunc:
    """A `reward_func(queries, prompts, labels)` for a file of yours; loads the model now.

    end_texts: what the tokenizer writes at the end of an answer ("<|im_end|>", "</s>"): not judged.
    The other arguments: csrm.integrations.rewards.Rewarder. OpenRLHF needs a reward for each
    sample: without `unscored` one that cannot be scored is an error, which ends the run.
    Errors: BadArgument, BadConfig and those of `csrm.load`.
    """
    if isinstance(end_texts, str) or not all(end_texts):
        raise BadArgument("end_texts must be a list of texts that are not empty")
    rewarder = Rewarder(
        config=config,
        configs=configs,
        model=model,
        output=output,
        judged=judged,
        unscored=unscored,
        n_threads=n_threads,
    )

    def reward_func(
        queries: Sequence[str], prompts: Sequence[str], labels: Sequence[object], **_: object
    ) -> dict[str, Any]:
        """Rewards, scores and extra_logs as float32 tensors [n].

        A label states the config of its sample, or as {"safety_config": ..., "messages": [...]} its
        conversation too, which then stands in place of the prompt with its template; either may be
        JSON text. scores are compliances, for dynamic filtering; 0 without a score.
        Errors: as of csrm.errors, for samples that have no reward. Thread-safe.
        """
        stated, conversations = [], []
        for query, prompt, label in zip(queries, prompts, labels, strict=True):
            value, messages = _read_label(label)
            stated.append(value)
            conversations.append(_conversation(query, prompt, messages, end_texts))
        answers = rewarder.answers(conversations, stated)
        rewards = rewarder.required_rewards(answers)
        scores = [answer if isinstance(answer, Score) else None for answer in answers]
        compliances = torch.tensor([0.0 if score is None else score.compliance for score in scores])
        violations = [score is not None and score.verdict == "violation" for score in scores]
        return {
            "rewards": torch.tensor(rewards),
            "scores": compliances,
            "extra_logs": {
                "compliance": compliances,
                "violation": torch.tensor(violations).float(),
                "unscored": torch.tensor([score is None for score in scores]).float(),
            },
        }

    return reward_func


def reward_func(
    queries: Sequence[str], prompts: Sequence[str], labels: Sequence[object], **_: object
) -> dict[str, Any]:
    """For `--reward.remote_url` with the path of this file: labels state the configs.

    The shipped model, loaded at the first call; otherwise that of `make_reward_func`.
    """
    with _LOADING:  # OpenRLHF calls from several threads
        default = _default()
    return default(queries, prompts, labels)


@lru_cache(maxsize=1)
def _default() -> RewardFunc:
    return make_reward_func()


def _read_label(label: object) -> tuple[object, object]:
    """What a label states of the config, and the messages before the answer or None."""
    value = label
    if isinstance(label, str) and label.lstrip().startswith("{"):
        try:
            value = json.loads(label)
        except (ValueError, RecursionError):
            return label, None  # its reader says where it is wrong
    if isinstance(value, Mapping) and ("safety_config" in value or "messages" in value):
        return value.get("safety_config"), value.get("messages")
    return label, None


def _conversation(
    query: str, prompt: str, messages: object, end_texts: Sequence[str]
) -> list[object] | BadConversation:
    # Something may stand before the prompt (a token for the beginning), but nothing of it be cut.
    _, found, answer = query.partition(prompt) if prompt else ("", "", query)
    if prompt and not found:
        return BadConversation("the query does not hold its prompt; OpenRLHF may have cut it")
    while ends := [end for end in end_texts if answer.endswith(end)]:
        answer = answer.removesuffix(ends[0])
    return sample_conversation(prompt if messages is None else messages, answer)
