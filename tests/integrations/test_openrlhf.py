"""OpenRLHF's own reward client with csrm, as a file and over HTTP.

Real: SingleTurnAgentExecutor.execute, which decodes the sample, loads the file or asks the server,
and SamplesGenerator's step from its response to an Experience. Not real: the engine that generates
(its answers are written here), and vllm, which cannot be installed here, so that an empty module
stands in its place for the import of SamplesGenerator. Training itself needs GPUs.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from byte_tokenizer import END, START, byte_tokenizer
from csrm_server import POLICY, Server, Traffic
from openrlhf.utils.agent import SingleTurnAgentExecutor
from transformers import PreTrainedTokenizerFast

import csrm
import csrm.integrations.openrlhf

OURS = csrm.integrations.openrlhf.__file__


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


class Engine:
    """Stands for vLLM: "generates" one answer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, answer: str) -> None:
        self._ids = tokenizer(answer + END, add_special_tokens=False)["input_ids"]

    async def generate(self, ids: list[int], params: object, **_: object) -> SimpleNamespace:
        output = SimpleNamespace(token_ids=self._ids, finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[output])


def run(
    tokenizer: PreTrainedTokenizerFast, url: str, prompt: str, label: object, answer: str
) -> dict[str, Any]:
    """What OpenRLHF's executor makes of one sample."""
    params = SimpleNamespace(max_tokens=None, logprobs=None)
    executor = SingleTurnAgentExecutor([url])
    work = executor.execute(prompt, label, params, 4096, tokenizer, Engine(tokenizer, answer))
    return asyncio.run(work)


def experience(response: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """OpenRLHF's Experience of a response."""
    for name in ("vllm", "vllm.inputs", "vllm.utils"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

    generator = SamplesGenerator.__new__(SamplesGenerator)
    return generator._process_response_into_experience(response, max_len=4096)


def score_of(prompt: str, answer: str, config: object = POLICY) -> csrm.score.Score:
    return csrm.load().score(
        config, [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    )


def test_reward_file_gives_the_scorers_reward(
    tokenizer: PreTrainedTokenizerFast, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewards = []
    for answer in (traffic.allowed_answer, traffic.violating_answer):
        response = run(tokenizer, OURS, traffic.question, str(POLICY), answer)
        score = score_of(traffic.question, answer + END)  # no end_texts were given
        made = experience(response, monkeypatch)
        assert made.rewards.shape == made.scores.shape == (1,)
        assert made.rewards.item() == pytest.approx(score.reward, abs=1e-6)
        assert made.scores.item() == pytest.approx(score.compliance, abs=1e-6)
        assert made.info["violation"].item() == float(score.verdict == "violation")
        assert made.info["unscored"].item() == 0
        rewards.append(made.rewards.item())
    assert rewards[1] < rewards[0]


@pytest.fixture
def reward_file(tmp_path: Path) -> str:
    """A file as the page docs/integrations/openrlhf.md shows it."""
    path = tmp_path / "reward.py"
    path.write_text(
        "from csrm.integrations.openrlhf import make_reward_func\n"
        f"reward_func = make_reward_func(configs={str(POLICY.parent)!r}, end_texts=[{END!r}],\n"
        '    config="general-default", unscored=-20.0)\n'
    )
    return str(path)


def test_reward_file_with_options_reads_messages_of_the_label(
    tokenizer: PreTrainedTokenizerFast, traffic: Traffic, reward_file: str
) -> None:
    prompt = f"{START}user\n{traffic.question}{END}\n{START}assistant\n"
    messages = [{"role": "user", "content": traffic.question}]
    rules = ["Do not insult or threaten a person."]
    cases: list[tuple[object, object]] = [
        ("", POLICY),
        ("childrens-game", POLICY.parent / "childrens-game.yaml"),
        ({"rules": rules}, rules),
    ]
    answer = traffic.violating_answer
    for label, config in cases:
        whole = json.dumps({"safety_config": label, "messages": messages})
        response = run(tokenizer, reward_file, prompt, whole, answer)
        assert response["reward"].item() == pytest.approx(
            score_of(traffic.question, answer, config).reward, abs=1e-6
        )
        plain = run(tokenizer, reward_file, prompt, label, answer)
        assert plain["reward"].item() == pytest.approx(
            score_of(prompt, answer, config).reward, abs=1e-6
        )


def test_reward_file_sample_without_a_score_gets_what_was_stated(
    tokenizer: PreTrainedTokenizerFast,
    traffic: Traffic,
    reward_file: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for label, answer in (("", ""), ("absent", traffic.allowed_answer)):
        response = run(tokenizer, reward_file, traffic.question, label, answer)
        made = experience(response, monkeypatch)
        assert made.rewards.item() == -20
        assert (made.scores.item(), made.info["unscored"].item()) == (0, 1)
    response = run(tokenizer, OURS, traffic.question, "absent", traffic.allowed_answer)
    assert response["reward"] is response["scores"] is None


def test_reward_func_query_without_its_prompt_is_refused(traffic: Traffic) -> None:
    with pytest.raises(csrm.errors.BadConversation, match="does not hold its prompt"):
        csrm.integrations.openrlhf.reward_func(["b"], ["a"], [str(POLICY)])


def test_http_gives_the_scorers_reward(
    tokenizer: PreTrainedTokenizerFast,
    csrm_server: Server,
    traffic: Traffic,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rewards = []
    for label, answer in (
        ("", traffic.allowed_answer),
        ("general-default", traffic.violating_answer),
    ):
        url = f"{csrm_server.url}/get_reward"
        response = run(tokenizer, url, traffic.question, label, answer)
        score = score_of(traffic.question, answer + END)
        made = experience(response, monkeypatch)
        assert made.rewards.item() == pytest.approx(score.reward, abs=1e-6)
        assert made.scores.item() == pytest.approx(score.compliance, abs=1e-6)
        assert made.info["violation"].item() == float(score.verdict == "violation")
        rewards.append(made.rewards.item())
    assert rewards[1] < rewards[0]


def test_http_unknown_or_wrong_config_is_no_reward(
    tokenizer: PreTrainedTokenizerFast,
    csrm_server: Server,
    late_server: Server,
    traffic: Traffic,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def at_once(_: float) -> None:
        return None

    # OpenRLHF waits a second before each of its five tries.
    monkeypatch.setattr("openrlhf.utils.agent.asyncio.sleep", at_once)
    for server, label in ((late_server, ""), (csrm_server, "absent")):
        url = f"{server.url}/get_reward"
        response = run(tokenizer, url, traffic.question, label, traffic.allowed_answer)
        assert response["reward"] is response["scores"] is None
