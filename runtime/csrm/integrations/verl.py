"""`compute_score`: csrm as verl's custom reward function, in the process of a reward worker.

Not: verl's reward-model server, whose /classify `csrm serve` answers (csrm.serve.reward_servers).
verl hands over the response of one sample with the columns of its row, and options from
`reward_kwargs`; it gets a number, with what is worth logging beside it.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from csrm.errors import BadArgument
from csrm.integrations.rewards import Rewarder, plain, sample_conversation
from csrm.score import Score

_LOADING = threading.Lock()
_OPTIONS = {"config", "configs", "model", "output", "judged", "unscored", "n_threads"}
# What verl adds on its own when a reward model runs beside.
_OF_VERL = ("reward_router_address", "reward_model_tokenizer")


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: object,
    extra_info: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, float]:
    """{"score", "compliance", "violation", "unscored"} of the response `solution_str`.

    Its config is extra_info["safety_config"], else `ground_truth`, else the option config; the
    messages before it are extra_info["messages"], without which it is judged alone. options:
    config, configs, model, output, judged, unscored and n_threads as of
    csrm.integrations.rewards.Rewarder, in the plain values of a YAML file. The model is loaded at
    the first call. compliance is 0 without a score.
    Errors: those of csrm.errors; without the option unscored, also of a sample that cannot be
    scored, because verl needs a number for each. Thread-safe.
    """
    rewarder = _rewarder({key: value for key, value in options.items() if key not in _OF_VERL})
    info = {} if extra_info is None else extra_info
    stated = info.get("safety_config")
    messages = info.get("messages")
    conversation = sample_conversation("" if messages is None else messages, solution_str)
    answers = rewarder.answers([conversation], [ground_truth if stated is None else stated])
    reward, answer = rewarder.required_rewards(answers)[0], answers[0]
    score = answer if isinstance(answer, Score) else None
    return {
        "score": reward,
        "compliance": 0.0 if score is None else score.compliance,
        "violation": float(score is not None and score.verdict == "violation"),
        "unscored": float(score is None),
    }


async def compute_score_async(
    data_source: str,
    solution_str: str,
    ground_truth: object,
    extra_info: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, float]:
    """The same without holding up the event loop."""
    arguments = (data_source, solution_str, ground_truth, extra_info)
    return await asyncio.to_thread(compute_score, *arguments, **options)


def _rewarder(options: Mapping[str, Any]) -> Rewarder:
    """The one of these options. Errors: BadArgument, BadConfig, those of `csrm.load`."""
    try:
        canonical = json.dumps(plain(options), sort_keys=True)
    except (TypeError, ValueError):
        raise BadArgument("reward_kwargs must hold plain values, as a YAML file does") from None
    with _LOADING:  # verl calls from several threads, and the model is to be loaded once
        return _of_options(canonical)


@lru_cache(maxsize=8)
def _of_options(canonical: str) -> Rewarder:
    options = json.loads(canonical)
    if not options.keys() <= _OPTIONS:
        names = ", ".join(sorted(_OPTIONS))
        raise BadArgument(f"unknown option in reward_kwargs; the options are {names}")
    return Rewarder(**options)
