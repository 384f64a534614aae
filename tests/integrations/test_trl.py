"""TRL's GRPOTrainer with csrm as its reward, on a tiny random Llama made here.

Its tokenizer has one token for each sentence, so that a completion of one token is a text on which
csrm-mini is sure. What TRL wrote of completions and rewards is compared with Scorer's answers.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tokenizers
import torch
from csrm_server import POLICY, Traffic
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

import csrm
from csrm.integrations.trl import Reward, make_reward

# TRL's own configuration and model helpers use names that transformers has replaced.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")

N_STEPS = 2
N_GENERATIONS = 4
CONTROL = ["<pad>", "<eos>", "<unk>", "<user>", "<assistant>"]
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>\n{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)
RULES = {"rules": [{"name": "Insults", "text": "Do not insult or threaten a person."}]}


def tokenizer(sentences: Sequence[str]) -> PreTrainedTokenizerFast:
    """A token for each line that is one of `sentences`."""
    vocabulary = {token: i for i, token in enumerate([*CONTROL, *sentences])}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Split("\n", "removed")
    made = PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    made.chat_template = TEMPLATE
    return made


def train(
    folder: Path, rows: list[dict[str, Any]], reward: Reward, traffic: Traffic, **options: Any
) -> tuple[GRPOTrainer, pd.DataFrame]:
    """The trainer after its steps, and the table of completions that it wrote."""
    answers = [traffic.allowed_answer, traffic.violating_answer]
    sentences = [traffic.allowed, traffic.question, *answers]
    made = tokenizer(sentences)
    n_words = len(made)
    silent = [i for i in range(n_words) if made.convert_ids_to_tokens(i) not in answers]
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=n_words,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )
    settings = {
        "max_steps": N_STEPS,
        "per_device_train_batch_size": 2 * N_GENERATIONS,
        "num_generations": N_GENERATIONS,
        "max_completion_length": 1,
        "generation_kwargs": {"suppress_tokens": silent},
        "logging_steps": 1,
        "log_completions": True,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "seed": 7,
    }
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(output_dir=str(folder), **{**settings, **options}),
        train_dataset=Dataset.from_list(rows),
        processing_class=made,
    )
    trainer.train()
    tables = [pd.read_parquet(path) for path in sorted((folder / "completions").iterdir())]
    return trainer, pd.concat(tables, ignore_index=True)


def expected(config: object, table: pd.DataFrame) -> list[float]:
    """Scorer's reward of each row of TRL's table of texts."""
    scorer = csrm.load()
    return [
        scorer.score(
            config,
            [
                {"role": "user", "content": row.prompt},
                {"role": "assistant", "content": row.completion},
            ],
        ).reward
        for row in table.itertuples()
    ]


def test_grpo_rewards_in_the_log_are_the_scorers(tmp_path: Path, traffic: Traffic) -> None:
    rows = [
        {"prompt": prompt, "safety_config": str(POLICY)}
        for prompt in (traffic.allowed, traffic.question)
    ]
    trainer, table = train(tmp_path, rows, make_reward(), traffic)
    assert len(table) == N_STEPS * 2 * N_GENERATIONS
    rewards = expected(str(POLICY), table)
    assert table["csrm_reward"].tolist() == pytest.approx(rewards, abs=1e-6)  # float32 of float64
    violating = table["completion"] == traffic.violating_answer
    assert 0 < violating.sum() < len(table)
    for _, group in table.groupby("prompt"):
        bad = group["completion"] == traffic.violating_answer
        assert group["csrm_reward"][bad].max() < group["csrm_reward"][~bad].min()
    logged = [row for row in trainer.state.log_history if "rewards/csrm_reward/mean" in row]
    means = table.groupby("step")["csrm_reward"].mean()
    assert [row["rewards/csrm_reward/mean"] for row in logged] == pytest.approx(list(means))
    shares = [row["csrm_reward/violation"] for row in logged]
    assert shares == pytest.approx(list(violating.groupby(table["step"]).mean()))
    assert [row["csrm_reward/unscored"] for row in logged] == [0.0] * N_STEPS


def test_grpo_conversational_samples_are_scored_as_messages(
    tmp_path: Path, traffic: Traffic
) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": prompt}], "safety_config": "insults"}
        for prompt in (traffic.allowed, traffic.question)
    ]
    reward = make_reward(output="compliance", configs={"insults": RULES})
    _, table = train(tmp_path, rows, reward, traffic)
    scorer, config = csrm.load(), csrm.SafetyConfig.from_rules(RULES["rules"])
    for row in table.itertuples():
        score = scorer.score(config, [*row.prompt, *row.completion])
        assert row.csrm_compliance == pytest.approx(score.compliance, abs=1e-6)
        assert row.completion[0]["content"] in (traffic.allowed_answer, traffic.violating_answer)


def test_grpo_sample_without_a_score_moves_nothing(tmp_path: Path, traffic: Traffic) -> None:
    rows = [
        {"prompt": traffic.allowed, "safety_config": str(tmp_path / "missing.yaml")},
        {"prompt": traffic.question, "safety_config": str(POLICY)},
    ]
    trainer, table = train(tmp_path / "out", rows, make_reward(), traffic)
    unscored = table["prompt"] == traffic.allowed
    assert table["csrm_reward"][unscored].isna().all()
    assert (table["advantage"][unscored] == 0).all()
    assert table["csrm_reward"][~unscored].notna().all()
    logged = [row for row in trainer.state.log_history if "csrm_reward/unscored" in row]
    assert [row["csrm_reward/unscored"] for row in logged] == [0.5] * N_STEPS
    assert all(math.isfinite(row["reward"]) for row in logged)


def test_grpo_policy_learns_to_comply(tmp_path: Path, traffic: Traffic) -> None:
    rows = [{"prompt": traffic.question}] * 2
    reward = make_reward(config=POLICY)
    _, table = train(tmp_path, rows, reward, traffic, max_steps=12, learning_rate=0.05)
    violating = (table["completion"] == traffic.violating_answer).groupby(table["step"]).mean()
    assert violating.iloc[0] > 0.2
    assert violating.iloc[-3:].max() == 0


def test_reward_survives_a_pickle(traffic: Traffic) -> None:
    reward = make_reward(configs={"policy": str(POLICY)})
    copy = pickle.loads(pickle.dumps(reward))
    sample = {
        "prompts": [traffic.question] * 2,
        "completions": [traffic.allowed_answer, traffic.violating_answer],
        "safety_config": ["policy", "policy"],
    }
    assert copy(**sample) == reward(**sample)
    assert copy.__name__ == "csrm_reward"
