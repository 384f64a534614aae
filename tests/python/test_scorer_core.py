"""The native Scorer on the toy artifact: the same input gives the same score, whatever the cache,
the batch and the pieces; every failure is typed. Attacks on the folder: test_artifact.py.
"""

from __future__ import annotations

import itertools
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from toy import MAX_CONTENT, Oracle, Rules, ToyOptions, Turns, letters, make_toy_model, open_scorer

from csrm import _core, errors

toy_artifact = toy.toy_artifact  # the fixture, made known to pytest here

TOLERANCE = 1e-5
RULES: Rules = [("n a", letters(5)), ("", letters(9, 3)), ("b", letters(20, 11))]
CHAT: Turns = [("user", letters(4)), ("assistant", letters(6, 2)), ("user", letters(3, 5))]


def score(scorer: _core.Scorer, turns: Turns, rules: Rules = RULES, judged: str = "last") -> Any:
    return scorer.score_batch(rules, 0.5, [turns], judged, False)[0]


def many_chats(n: int) -> list[Turns]:
    rng = random.Random(n)
    return [
        [
            (rng.choice(["user", "assistant", "tool"]), letters(rng.randint(1, 25), i + t))
            for t in range(rng.randint(1, 6))
        ]
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def scorer(toy_artifact: Path) -> _core.Scorer:
    return open_scorer(toy_artifact)


@pytest.fixture(scope="module")
def oracle(toy_artifact: Path) -> Oracle:
    return Oracle(toy_artifact)


def test_scorer_every_turn_equals_graph_run_directly(scorer: _core.Scorer, oracle: Oracle) -> None:
    turns: Turns = [("assistant", letters(3 + 2 * i, i)) for i in range(11)]
    reward, compliance, verdict, scores, rules, n_tokens = score(scorer, turns, judged="assistant")
    expected = oracle.rewards(RULES, turns)
    assert [turn for turn, _, _ in scores] == list(range(11))
    assert [r for _, r, _ in scores] == pytest.approx(expected, abs=TOLERANCE)
    assert np.std(expected) > 0.05, "the toy rewards must differ or this compares nothing"
    assert reward == pytest.approx(min(expected), abs=TOLERANCE)
    a, b = make_toy_model.CALIBRATION["a"], make_toy_model.CALIBRATION["b"]
    assert compliance == pytest.approx(1 / (1 + np.exp(-(a * reward + b))), abs=TOLERANCE)
    assert verdict == ("compliant" if compliance >= 0.5 else "violation")
    assert rules == []
    assert n_tokens == sum(3 + 3 + 2 * i for i in range(11))


def test_scorer_portable_variant_equals_fused(toy_artifact: Path, scorer: _core.Scorer) -> None:
    portable = open_scorer(toy_artifact, ToyOptions(variant="portable"))
    assert portable.info()["variant"] == "portable"
    assert scorer.info()["variant"] == "fused"
    chats = many_chats(16)
    answers = [s.score_batch(RULES, 0.5, chats, "assistant", True) for s in (portable, scorer)]
    for one, other in zip(*answers, strict=True):
        if one[0] == "error":
            assert one == other
        else:
            assert other[:2] == pytest.approx(one[:2], abs=TOLERANCE)


def test_scorer_fused_variant_not_in_artifact_is_unsupported(
    toy_artifact: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(toy_artifact, tmp_path / "toy"))
    make_toy_model.write_manifest(folder, ["model.onnx", "tokenizer.json"])
    with pytest.raises(errors.Unsupported):
        open_scorer(folder, ToyOptions(variant="fused"))
    assert open_scorer(folder).info()["variant"] == "portable"


def test_scorer_long_conversation_in_pieces_equals_single_row(
    scorer: _core.Scorer, oracle: Oracle
) -> None:
    turns: Turns = [
        ("assistant" if i % 3 else "user", letters(MAX_CONTENT - i % 4, i)) for i in range(95)
    ]
    for judged in ("last", "assistant"):
        answer = score(scorer, turns, judged=judged)
        expected = oracle.rewards(RULES, turns)
        assert answer[5] > 2 * 1024, "the conversation must need three rows"
        for turn, reward, _ in answer[3]:
            assert reward == pytest.approx(expected[turn], abs=TOLERANCE)
        assert answer[0] == min(reward for _, reward, _ in answer[3])


def test_scorer_turn_longer_than_block_folds_to_minimum(
    scorer: _core.Scorer, oracle: Oracle
) -> None:
    for start in range(6):
        turns: Turns = [("assistant", letters(200, start)), ("assistant", letters(50, start))]
        answer = score(scorer, turns, judged="assistant")
        assert [turn for turn, _, _ in answer[3]] == [0, 1]
        assert [r for _, r, _ in answer[3]] == pytest.approx(
            oracle.rewards(RULES, turns), abs=TOLERANCE
        )
        assert answer[5] == 200 + 50 + 3 * (7 + 2)


def test_scorer_cold_warm_and_refilled_cache_give_equal_scores(toy_artifact: Path) -> None:
    scorer = open_scorer(toy_artifact, ToyOptions(cache_tokens=100))
    cold = score(scorer, CHAT)
    assert scorer.cache_stats()["n_hits"] == 0
    warm = score(scorer, CHAT)
    assert scorer.cache_stats()["n_hits"] == 1
    for i in range(20):
        score(scorer, CHAT, [("", letters(20, i)), ("", letters(12, i))])
    assert scorer.cache_stats()["n_evictions"] > 0
    refilled = score(scorer, CHAT)
    scorer.clear_cache()
    assert scorer.cache_stats()["n_tokens"] == 0
    cleared = score(scorer, CHAT)
    uncached = score(open_scorer(toy_artifact, ToyOptions(cache_tokens=0)), CHAT)
    for other in (warm, refilled, cleared, uncached):
        assert other[0] == pytest.approx(cold[0], abs=TOLERANCE)
    scorer.check_integrity()


def test_scorer_changed_rule_reuses_the_other_blocks(toy_artifact: Path) -> None:
    scorer = open_scorer(toy_artifact)
    score(scorer, CHAT)
    before = scorer.cache_stats()
    score(scorer, CHAT, [*RULES[:2], ("c", letters(4, 9))])
    after = scorer.cache_stats()
    assert after["n_hits"] - before["n_hits"] == 2
    assert after["n_entries"] - before["n_entries"] == 2  # the new block and the new whole


@pytest.mark.parametrize("n", [1, 2, 7, 32])
@pytest.mark.parametrize("batch_tokens", [1, 200, 4096])
def test_scorer_batch_equals_single_scores(toy_artifact: Path, n: int, batch_tokens: int) -> None:
    scorer = open_scorer(toy_artifact, ToyOptions(batch_tokens=batch_tokens))
    chats = many_chats(n)
    together = scorer.score_batch(RULES, 0.5, chats, "last", False)
    for chat, answer in zip(chats, together, strict=True):
        alone = score(scorer, chat)
        assert answer[0] == pytest.approx(alone[0], abs=TOLERANCE)
        assert answer[2:4][0] == alone[2]


def test_scorer_rule_order_does_not_change_score(scorer: _core.Scorer) -> None:
    rewards = [score(scorer, CHAT, list(rules))[0] for rules in itertools.permutations(RULES)]
    assert rewards == pytest.approx([rewards[0]] * len(rewards), abs=TOLERANCE)
    assert score(scorer, CHAT, [*RULES, RULES[0]])[0] != "error"


def test_scorer_explain_equals_config_of_that_rule(scorer: _core.Scorer) -> None:
    chats = [CHAT, [("user", "")], many_chats(3)[2]]
    answers = scorer.score_batch([*RULES, ("", letters(70))], 0.5, chats, "last", True)
    assert answers[1][:2] == ("error", "EmptyConversation")
    for chat, answer in ((CHAT, answers[0]), (chats[2], answers[2])):
        assert [rule for rule, _, _, _ in answer[4]] == [0, 1, 2, 3]
        for rule, reward, compliance, verdict in answer[4]:
            alone = score(scorer, chat, [[*RULES, ("", letters(70))][rule]])
            assert reward == pytest.approx(alone[0], abs=TOLERANCE)
            assert verdict == ("compliant" if compliance >= 0.5 else "violation")


def test_scorer_threshold_equal_to_compliance_is_compliant(scorer: _core.Scorer) -> None:
    compliance = score(scorer, CHAT)[1]
    for threshold, expected in (
        (compliance, "compliant"),
        (float(np.nextafter(compliance, 2.0)), "violation"),
        (0.0, "compliant"),
    ):
        (answer,) = scorer.score_batch(RULES, threshold, [CHAT], "last", False)
        assert answer[2] == expected


def test_scorer_turns_after_last_assistant_turn_change_nothing(scorer: _core.Scorer) -> None:
    alone = score(scorer, CHAT[:2], judged="assistant")
    followed = score(scorer, CHAT, judged="assistant")
    assert followed[0] == pytest.approx(alone[0], abs=TOLERANCE)
    assert followed[5] == alone[5]
    assert score(scorer, [*CHAT, ("user", "\ud800")], judged="assistant")[1] == "BadUtf8"


def test_scorer_tenant_salts_and_threads_do_not_change_scores(toy_artifact: Path) -> None:
    scorer = open_scorer(
        toy_artifact, ToyOptions(cache_tokens=90, tenant_salt="other", n_threads=2)
    )
    expected = [score(scorer, chat)[0] for chat in many_chats(8)]

    def work(seed: int) -> list[float]:
        rewards = []
        for chat in many_chats(8):
            rewards.append(score(scorer, chat)[0])
            score(scorer, CHAT, [("", letters(15, seed)), ("", letters(15, seed + 1))])
        return rewards

    with ThreadPoolExecutor(4) as pool:
        for rewards in pool.map(work, range(8)):
            assert rewards == pytest.approx(expected, abs=TOLERANCE)
    scorer.check_integrity()


@pytest.mark.parametrize(
    ("turns", "judged", "code"),
    [
        ([], "last", "EmptyConversation"),
        ([], "assistant", "EmptyConversation"),
        ([("user", "a")], "assistant", "EmptyConversation"),
        ([("user", "a"), ("assistant", " ")], "last", "EmptyConversation"),
        ([("assistant", ""), ("user", "a")], "assistant", "EmptyConversation"),
        ([("user", "a \udcff secret")], "last", "BadUtf8"),
        ([("secret", "a")], "last", "UnknownRole"),
        ([("User", "a")], "last", "UnknownRole"),
        ([("user", "a")] * 9, "last", "LimitExceeded"),
        ([("user", letters(40))] * 8, "last", "LimitExceeded"),
        ([("user", "secret " * 200)], "last", "LimitExceeded"),
    ],
)
def test_scorer_bad_conversation_gets_its_own_error(
    toy_artifact: Path, turns: Turns, judged: str, code: str
) -> None:
    limits = {"max_turns": 8, "max_text_bytes": 1000, "max_conversation_tokens": 300}
    scorer = open_scorer(toy_artifact, ToyOptions(limits=limits))
    good: Turns = [("assistant", "a b")]
    answers = scorer.score_batch(RULES, 0.5, [good, turns, good], judged, False)
    assert answers[1][:2] == ("error", code)
    assert "secret" not in answers[1][2]
    assert answers[0][0] == pytest.approx(score(scorer, good)[0], abs=TOLERANCE)
    assert answers[2][0] == pytest.approx(answers[0][0], abs=TOLERANCE)


@pytest.mark.parametrize(
    ("rules", "threshold", "n", "judged", "error"),
    [
        ([], 0.5, 1, "last", errors.EmptyConfig),
        ([("", " ")], 0.5, 1, "last", errors.EmptyConfig),
        ([("", "a"), ("", "\ud800")], 0.5, 1, "last", errors.BadUtf8),
        ([("", "a")] * 5, 0.5, 1, "last", errors.LimitExceeded),
        ([("", "a " * 30)] * 4, 0.5, 1, "last", errors.LimitExceeded),
        ([("", "a " * 300)], 0.5, 1, "last", errors.LimitExceeded),
        ([("", "a")], 1.5, 1, "last", errors.BadArgument),
        ([("", "a")], -0.1, 1, "last", errors.BadArgument),
        ([("", "a")], float("nan"), 1, "last", errors.BadArgument),
        ([("", "a")], 0.5, 4, "last", errors.LimitExceeded),
        ([("", "a")], 0.5, 1, "first", errors.BadArgument),
    ],
)
def test_scorer_bad_call_raises(
    toy_artifact: Path, rules: Rules, threshold: float, n: int, judged: str, error: type[Exception]
) -> None:
    limits = {"max_rules": 4, "max_text_bytes": 500, "max_config_tokens": 100, "max_batch": 3}
    scorer = open_scorer(toy_artifact, ToyOptions(limits=limits))
    with pytest.raises(error):
        scorer.score_batch(rules, threshold, [CHAT] * n, judged, False)
    assert score(scorer, CHAT, [("", "a")])[2] in ("compliant", "violation")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (ToyOptions(n_threads=-1), errors.BadArgument),
        (ToyOptions(batch_tokens=0), errors.BadArgument),
        (ToyOptions(variant="best"), errors.BadArgument),
        (ToyOptions(limits={"max_cats": 1}), errors.BadArgument),
        (ToyOptions(library="no-such-library.so"), errors.EngineUnavailable),
        (ToyOptions(library="libm.so.6"), errors.EngineUnavailable),
    ],
)
def test_scorer_bad_option_raises(
    toy_artifact: Path, options: ToyOptions, error: type[Exception]
) -> None:
    with pytest.raises(error):
        open_scorer(toy_artifact, options)


def test_scorer_empty_batch_is_empty(scorer: _core.Scorer) -> None:
    assert scorer.score_batch(RULES, 0.5, [], "last", False) == []


def test_scorer_non_finite_model_output_is_never_a_score(
    toy_artifact: Path, tmp_path: Path
) -> None:
    folder = toy.without_finite_z(toy_artifact, tmp_path / "toy")
    scorer = open_scorer(folder)
    answers = scorer.score_batch([("", "a")], 0.5, [[("user", "b")], [("user", "z")]], "last", True)
    assert answers[0][2] in ("compliant", "violation")
    assert answers[1][:2] == ("error", "NonFinite")
    long_chat: Turns = [("user", "z")] + [("user", letters(20))] * 60
    assert score(scorer, long_chat, [("", "a")])[:2] == ("error", "NonFinite")
    with pytest.raises(errors.NonFinite):
        score(scorer, [("user", "b")], [("", "a"), ("", "z")])
    scorer.check_integrity()
