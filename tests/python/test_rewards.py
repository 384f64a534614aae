"""`csrm.integrations.rewards.Rewarder`: what a sample may say, and what it gets without a score."""

from __future__ import annotations

import json
import logging
import pickle
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_guard import scorer

import csrm
from csrm import errors
from csrm.integrations.rewards import Rewarder, plain, sample_conversation
from csrm.integrations.trl import make_reward

fixtures = (scorer,)  # made known to pytest here

RULES = [{"name": "First", "text": "a b c d"}, {"name": "", "text": "e f g"}]
CHAT = [{"role": "user", "content": "a b c"}, {"role": "assistant", "content": "d e f g"}]
DEEP: Any = reduce(lambda inner, _: [inner], range(3000), [])
UNSCORABLE = [{"role": "user", "content": "a z b"}]  # an infinite reward in the toy artifact


@pytest.fixture
def config() -> csrm.SafetyConfig:
    return csrm.SafetyConfig.from_rules(RULES, id="policy")


def test_find_config_takes_every_form(
    scorer: csrm.Scorer, config: csrm.SafetyConfig, tmp_path: Path
) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(config.to_yaml())
    rewarder = Rewarder(config=config, configs={"named": RULES}, model=scorer)
    arrow = {"id": "policy", "version": None, "rules": np.array(RULES, dtype=object)}
    with_null = {"rules": [RULES[0], {"name": None, "text": "e f g"}]}
    forms: list[Any] = [None, "", config, str(path), path, config.to_yaml(), config.to_json()]
    forms += ["named", RULES, with_null, arrow, list(config.rules), {"rules": config.rules}]
    assert {rewarder.find_config(form).rules for form in forms} == {config.rules}


@pytest.mark.parametrize(
    ("stated", "kind"),
    [
        (None, errors.BadConfig),
        ("missing.yaml", errors.BadConfig),
        ({"rules": ["a"], "thresh": 0.9}, errors.BadConfig),
        ({"rules": ["a"], "threshold": 2}, errors.BadConfig),
        ({"rules": []}, errors.EmptyConfig),
        ([], errors.EmptyConfig),
        (7, errors.BadConfig),
        (object(), errors.BadConfig),
        ("rules: [a\n", errors.BadConfig),
        ({"rules": {"name": "a", "text": "b"}}, errors.BadConfig),
        ({"rules": ["a"], "threshold": 10**400}, errors.BadConfig),
        ({"rules": csrm.Rule("", "a"), "thresh": 1}, errors.BadConfig),
        (DEEP, errors.BadConfig),
        ({"rules": DEEP}, errors.BadConfig),
    ],
)
def test_find_config_bad_form_is_a_typed_error(
    scorer: csrm.Scorer, stated: object, kind: type[errors.Error]
) -> None:
    rewarder = Rewarder(model=scorer)
    with pytest.raises(kind) as raised:
        rewarder.find_config(stated)
    assert "missing" not in str(raised.value)
    assert isinstance(rewarder.answers([CHAT], [stated])[0], kind)


def test_find_config_folder_names_by_id_and_stem(
    scorer: csrm.Scorer, config: csrm.SafetyConfig, tmp_path: Path
) -> None:
    (tmp_path / "file.yaml").write_text(config.to_yaml())
    (tmp_path / "README.md").write_text("not a config")
    rewarder = Rewarder(configs=tmp_path, model=scorer)
    assert rewarder.find_config("file") == rewarder.find_config("policy") == config
    (tmp_path / "policy.txt").write_text("- a b\n")
    with pytest.raises(errors.BadConfig, match="same name"):
        Rewarder(configs=tmp_path, model=scorer)
    with pytest.raises(errors.BadConfig, match="no such"):
        Rewarder(configs=tmp_path / "none", model=scorer)


def test_answers_equal_the_scorers_in_order(scorer: csrm.Scorer) -> None:
    other = ["h i"]
    chats = [[{"role": "user", "content": text}] for text in ("a b", "c d e", "f", "g h i")]
    stated = [RULES, other, RULES, other]
    rewarder = Rewarder(model=scorer)
    expected = [
        scorer.score(csrm.SafetyConfig.from_rules(rules), chat)
        for rules, chat in zip(stated, chats, strict=True)
    ]
    answers = rewarder.answers(chats, stated)
    assert answers == expected
    assert rewarder.rewards(answers) == [score.reward for score in expected]
    probability = Rewarder(model=scorer, output="compliance")
    assert probability.rewards(answers) == [score.compliance for score in expected]


def test_rewards_bad_samples_have_none_and_the_others_theirs(
    scorer: csrm.Scorer, caplog: pytest.LogCaptureFixture
) -> None:
    secret = [{"role": "martian", "content": "attack at dawn"}]
    empty = [CHAT[0], {"role": "assistant", "content": ""}]
    chats: list[object] = [CHAT, UNSCORABLE, secret, "text", empty, CHAT, errors.BadUtf8("bad")]
    with caplog.at_level(logging.WARNING, "csrm.rewards"):
        rewarder = Rewarder(config=RULES, model=scorer)
        rewards = rewarder.rewards(rewarder.answers(chats, [*[None] * 5, "attack.yaml", None]))
    assert rewards == [scorer.score(RULES, CHAT).reward, *[None] * 6]
    assert "6 of 7 samples not scored" in caplog.text
    for kind in ("NonFinite 1", "UnknownRole 1", "BadConversation 1", "EmptyConversation 1"):
        assert kind in caplog.text
    assert "attack" not in caplog.text
    stated = Rewarder(config=RULES, model=scorer, unscored=-9)
    assert stated.rewards(stated.answers(chats, [None] * 7))[1:5] == [-9.0] * 4


def test_rewards_failure_of_the_engine_is_raised(
    scorer: csrm.Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise errors.EngineFailed("the engine returned an error")

    monkeypatch.setattr(scorer, "score_batch", fail)
    rewarder = Rewarder(config=RULES, model=scorer, unscored=0)
    answers = rewarder.answers([CHAT, CHAT], [None, None])
    assert [type(answer) for answer in answers] == [errors.EngineFailed] * 2
    with pytest.raises(errors.EngineFailed):
        rewarder.rewards(answers)


def test_required_rewards_raise_unless_the_operator_stated_one(scorer: csrm.Scorer) -> None:
    score = scorer.score(RULES, CHAT)
    rewarder = Rewarder(config=RULES, model=scorer)
    assert rewarder.required_rewards([score]) == [score.reward]
    answers = rewarder.answers([CHAT, UNSCORABLE], [None, None])
    with pytest.raises(errors.NonFinite):
        rewarder.required_rewards(answers)
    stated = Rewarder(model=scorer, unscored=-3)
    assert stated.required_rewards(answers) == [score.reward, -3.0]


def test_rewarder_pickle_brings_its_configs_along(
    scorer: csrm.Scorer, config: csrm.SafetyConfig, tmp_path: Path
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(config.to_yaml())
    data = pickle.dumps(Rewarder(config=path, configs=tmp_path, model=scorer))
    path.unlink()
    copy = pickle.loads(data)
    assert copy.answers([CHAT, CHAT], [None, "policy"]) == [scorer.score(config, CHAT)] * 2


@pytest.mark.parametrize(
    "options",
    [{"output": "logit"}, {"judged": "all"}, {"unscored": float("nan")}],
)
def test_rewarder_bad_option_is_refused(scorer: csrm.Scorer, options: dict[str, Any]) -> None:
    with pytest.raises(errors.BadArgument):
        Rewarder(model=scorer, **options)
    with pytest.raises(errors.BadArgument):
        Rewarder(model=scorer).answers([CHAT], [])


def test_sample_conversation_texts_and_messages() -> None:
    user, answer = CHAT
    assert sample_conversation("a b c", "d e f g") == CHAT
    assert sample_conversation("", "d e f g") == [answer]
    assert sample_conversation([user], [answer]) == CHAT
    assert sample_conversation(np.array([user], dtype=object), "d e f g") == CHAT
    assert sample_conversation(None, [answer]) == [None, answer]
    assert sample_conversation(DEEP, [answer]) == [None, answer]


def test_plain_takes_numpy_away() -> None:
    value = {"a": np.array([{"b": np.float32(0.5)}], dtype=object), "c": (np.int64(3), None)}
    assert json.dumps(plain(value)) == '{"a": [{"b": 0.5}], "c": [3, null]}'


def test_trl_reward_without_any_config_is_refused(scorer: csrm.Scorer) -> None:
    with pytest.raises(errors.BadArgument, match="column of configs"):
        make_reward(scorer)(prompts=["a"], completions=["b"])
    rewards = make_reward(scorer, config=RULES)(prompts=["a"], completions=["b"])
    chat = sample_conversation("a", "b")
    assert rewards == [scorer.score(RULES, chat).reward]
