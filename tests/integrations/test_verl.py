"""verl's own reward loop with csrm: as a custom reward function, and over /classify.

Real: RewardLoopManager with its actors on a local Ray, RewardLoopWorker, verl's loader of custom
functions, both generations of its naive reward manager, DataProto. Not real: the rollout (responses
are written here) and RewardModelManager, which starts vLLM on GPUs; the worker is given the address
of `csrm serve` in its place.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from byte_tokenizer import byte_tokenizer
from csrm_server import POLICY, Server, Traffic
from local_ray import local_ray

import csrm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # verl's, Ray's and their dependencies' own
    import torch
    from omegaconf import DictConfig, OmegaConf
    from verl import DataProto
    from verl.experimental.reward_loop import RewardLoopManager, RewardLoopWorker
    from verl.workers.reward_manager.naive import NaiveRewardManager

    from csrm.integrations.verl import compute_score

pytestmark = pytest.mark.filterwarnings("ignore")
RULES = [{"name": "Insults", "text": "Do not insult or threaten a person."}]


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[None]:
    with local_ray():
        yield


def config(
    tokenizer_folder: str, name: str = "compute_score", **reward_kwargs: object
) -> DictConfig:
    """What verl's trainer configuration says of rewards, as far as the reward loop reads it."""
    return OmegaConf.create(
        {
            "actor_rollout_ref": {"model": {"path": tokenizer_folder, "tokenizer_path": None}},
            "reward": {
                "num_workers": 1,
                "custom_reward_function": {
                    "path": "pkg://csrm.integrations.verl",
                    "name": name,
                    "reward_kwargs": reward_kwargs,
                },
                "reward_manager": {"source": "register", "name": "naive"},
                "reward_model": {"enable": False},
            },
        }
    )


def samples(
    prompt: str, answers: Sequence[str], rows: Sequence[tuple[object, dict[str, object]]]
) -> DataProto:
    """A batch as verl's rollout leaves it: padded ids; (ground truth, extra_info) a row."""
    tokenizer = byte_tokenizer()
    asked = tokenizer(prompt)["input_ids"]
    answered = [tokenizer(answer)["input_ids"] for answer in answers]
    width = max(len(ids) for ids in answered) + 3
    responses = torch.full((len(answers), width), tokenizer.pad_token_id)
    mask = torch.zeros((len(answers), width), dtype=torch.long)
    for i, ids in enumerate(answered):
        responses[i, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        mask[i, : len(ids)] = 1
    prompts = torch.tensor([asked] * len(answers))
    return DataProto.from_dict(
        tensors={
            "prompts": prompts,
            "responses": responses,
            "attention_mask": torch.cat([torch.ones_like(prompts), mask], dim=1),
        },
        non_tensors={
            "data_source": np.array(["safety"] * len(answers), dtype=object),
            "reward_model": np.array([{"ground_truth": truth} for truth, _ in rows], dtype=object),
            "extra_info": np.array([info for _, info in rows], dtype=object),
            "raw_prompt": np.array(
                [np.array([{"role": "user", "content": prompt}], dtype=object)] * len(answers)
                + [0],
                dtype=object,
            )[:-1],
        },
    )


def two_samples(traffic: Traffic) -> DataProto:
    """An answer that is allowed, then one that violates, under POLICY and its question."""
    info = {"messages": [{"role": "user", "content": traffic.question}]}
    rows: list[tuple[object, dict[str, object]]] = [
        (str(POLICY), dict(info)),
        ("", {**info, "safety_config": str(POLICY)}),
    ]
    return samples(traffic.question, [traffic.allowed_answer, traffic.violating_answer], rows)


def expected(traffic: Traffic, policy: object = POLICY) -> list[csrm.score.Score]:
    ask = {"role": "user", "content": traffic.question}
    return csrm.load().score_batch(
        policy,
        [
            [ask, {"role": "assistant", "content": answer}]
            for answer in (traffic.allowed_answer, traffic.violating_answer)
        ],
    )


def last_values(scores: torch.Tensor, data: DataProto) -> list[float]:
    """The reward at each response's last token, after the check that there is no other."""
    lengths = data.batch["attention_mask"][:, data.batch["prompts"].shape[1] :].sum(1)
    values = [scores[i, n - 1].item() for i, n in enumerate(lengths)]
    assert int((scores != 0).sum()) == len(values)
    return values


def test_reward_loop_on_ray_gives_the_scorers_rewards(
    two_cpus: None, tokenizer_folder: str, traffic: Traffic
) -> None:
    manager = RewardLoopManager(config(tokenizer_folder, n_threads=1))
    data = two_samples(traffic)
    scored = manager.compute_rm_score(data)
    scores = expected(traffic)
    values = last_values(scored.batch["rm_scores"], data)
    assert values == pytest.approx([score.reward for score in scores], abs=1e-6)
    assert values[1] < values[0]
    assert scored.non_tensor_batch["compliance"].tolist() == [s.compliance for s in scores]
    assert scored.non_tensor_batch["violation"].tolist() == [0.0, 1.0]
    assert scored.non_tensor_batch["unscored"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", ["compute_score", "compute_score_async"])
def test_reward_loop_worker_takes_options_from_the_trainers_config(
    tokenizer_folder: str, traffic: Traffic, name: str
) -> None:
    options = {"configs": {"insults": {"rules": RULES}}, "output": "compliance"}
    worker = RewardLoopWorker(config(tokenizer_folder, name, **options))
    info = {"messages": [{"role": "user", "content": traffic.question}]}
    data = samples(
        traffic.question,
        [traffic.allowed_answer, traffic.violating_answer],
        [("insults", dict(info)), ("insults", dict(info))],
    )
    results = worker.loop.run_until_complete(worker.compute_score_batch(data))
    scores = expected(traffic, csrm.SafetyConfig.from_rules(RULES))
    assert [row["reward_score"] for row in results] == [score.compliance for score in scores]


def test_reward_loop_worker_sample_without_a_score(tokenizer_folder: str, traffic: Traffic) -> None:
    data = samples(traffic.question, [traffic.allowed_answer], [("absent", {})])
    worker = RewardLoopWorker(config(tokenizer_folder))
    with pytest.raises(csrm.errors.BadConfig):
        worker.loop.run_until_complete(worker.compute_score_batch(data))
    worker = RewardLoopWorker(config(tokenizer_folder, unscored=-5.0))
    (row,) = worker.loop.run_until_complete(worker.compute_score_batch(data))
    assert row["reward_score"] == -5
    assert row["reward_extra_info"]["unscored"] == 1


def test_older_reward_manager_gives_the_scorers_rewards(traffic: Traffic) -> None:
    data = two_samples(traffic)
    manager = NaiveRewardManager(byte_tokenizer(), num_examine=0, compute_score=compute_score)
    answer: Any = manager(data, return_dict=True)
    values = last_values(answer["reward_tensor"], data)
    rewards = [score.reward for score in expected(traffic)]
    assert values == pytest.approx(rewards, abs=1e-6)
    assert answer["reward_extra_info"]["violation"] == [0.0, 1.0]


def with_reward_model(tokenizer_folder: str) -> DictConfig:
    whole = config(tokenizer_folder)
    whole.reward.custom_reward_function.path = None
    whole.reward.reward_model = {
        "enable": True,
        "model_path": tokenizer_folder,
        "rollout": {"name": "vllm"},
    }
    return whole


def test_classify_is_verls_reward_model(
    tokenizer_folder: str, csrm_server: Server, traffic: Traffic
) -> None:
    address = csrm_server.url.removeprefix("http://") + "/configs/general-default"
    worker = RewardLoopWorker(with_reward_model(tokenizer_folder), address)
    data = two_samples(traffic)
    results = worker.loop.run_until_complete(worker.compute_score_batch(data))
    rewards = [row["reward_score"] for row in results]
    scorer = csrm.load()
    for i, reward in enumerate(rewards):
        text = asyncio.run(worker._preprocess_reward_inputs(data[i : i + 1]))
        score = scorer.score(POLICY, [{"role": "assistant", "content": text}])
        assert reward == pytest.approx(score.reward, abs=1e-6)
    assert rewards[1] < rewards[0]


def test_classify_unknown_is_no_reward(
    tokenizer_folder: str, late_server: Server, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = late_server.url.removeprefix("http://") + "/configs/general-default"
    worker = RewardLoopWorker(with_reward_model(tokenizer_folder), address)
    work = worker._post_request({"input": traffic.allowed}, "classify", max_retries=1)
    with pytest.raises(Exception, match="504"):
        worker.loop.run_until_complete(work)


def test_compute_score_unknown_option_is_refused(traffic: Traffic) -> None:
    with pytest.raises(csrm.errors.BadArgument, match="unknown option"):
        compute_score("safety", "text", str(POLICY), {}, n_threds=1)
    with pytest.raises(csrm.errors.BadArgument, match="plain values"):
        compute_score("safety", "text", str(POLICY), {}, model=object())
