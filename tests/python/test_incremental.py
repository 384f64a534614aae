"""reuse_turns on the toy artifact: bit-identical whatever the cache holds, equal to an ordinary
score up to rounding, and only new turns encoded. Decoders: test_decoder_runtime.py; streams:
test_stream.py; the cache's bookkeeping: test_prefix_cache.cc.
"""

from __future__ import annotations

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import toy
from onnx import numpy_helper
from toy import MAX_CONTENT, Rules, ToyOptions, Turns, letters, make_toy_model, open_scorer

from csrm import _core

toy_artifact = toy.toy_artifact  # the fixture, made known to pytest here

# One row for each turn instead of one for all adds the same fp32 numbers in another order.
TOLERANCE = 1e-5
RULES: Rules = [("n a", letters(5)), ("", letters(9, 3)), ("b", letters(20, 11))]
N_CONFIG = sum(len(toy.rule_block(rule)) for rule in RULES)


def reused(scorer: _core.Scorer, turns: Turns, judged: str = "last", rules: Rules = RULES) -> Any:
    (answer,) = scorer.score_batch(rules, 0.5, [turns], judged, False, reuse_turns=True)
    return answer


def chat(n: int, seed: int = 0) -> Turns:
    """`n` turns of up to three blocks each; every third is the user's, some are empty."""
    rng = random.Random(seed)
    return [
        (
            "assistant" if t % 3 or t + 1 == n else "user",
            letters(rng.choice([1, 7, MAX_CONTENT, 2 * MAX_CONTENT + 5]), seed + t),
        )
        for t in range(n)
    ]


def n_tokens(turns: Turns) -> int:
    return sum(len(block) for turn in turns for block in toy.turn_blocks(turn))


@pytest.fixture(scope="module")
def uncached(toy_artifact: Path) -> _core.Scorer:
    return open_scorer(toy_artifact, ToyOptions(cache_tokens=0))


@pytest.mark.parametrize("judged", ["last", "assistant"])
@pytest.mark.parametrize("cache_tokens", [4096, 400, 120])
def test_incremental_growing_conversation_is_bit_equal_to_uncached(
    toy_artifact: Path, uncached: _core.Scorer, judged: str, cache_tokens: int
) -> None:
    scorer = open_scorer(toy_artifact, ToyOptions(cache_tokens=cache_tokens))
    turns = chat(12)
    for n in range(2, len(turns) + 1):
        answer = reused(scorer, turns[:n], judged)
        assert answer == reused(uncached, turns[:n], judged)
        assert answer == reused(scorer, turns[:n], judged)
        (ordinary,) = uncached.score_batch(RULES, 0.5, [turns[:n]], judged, False)
        assert [turn for turn, _, _ in answer[3]] == [turn for turn, _, _ in ordinary[3]]
        for (_, reward, _), (_, expected, _) in zip(answer[3], ordinary[3], strict=True):
            assert reward == pytest.approx(expected, abs=TOLERANCE)
        assert answer[5] == ordinary[5]
        scorer.check_integrity()


def test_incremental_judged_may_change_between_calls(
    toy_artifact: Path, uncached: _core.Scorer
) -> None:
    scorer = open_scorer(toy_artifact)
    turns = chat(9, seed=4)
    reused(scorer, turns)
    assert reused(scorer, turns, "assistant") == reused(uncached, turns, "assistant")


def test_incremental_turn_joins_the_entry_of_its_conversation(toy_artifact: Path) -> None:
    scorer = open_scorer(toy_artifact)
    turns = chat(10)
    scorer.score_batch(RULES, 0.5, [turns[:1]], "last", False)
    config = scorer.cache_stats()
    for n in range(1, len(turns) + 1):
        before = scorer.cache_stats()
        reused(scorer, turns[:n])
        after = scorer.cache_stats()
        # The config is found each time and, from the second call on, the earlier turns.
        assert after["n_hits"] - before["n_hits"] == (1 if n == 1 else 2)
        assert after["n_entries"] == config["n_entries"] + 1
        assert after["n_tokens"] == config["n_tokens"] + N_CONFIG + n_tokens(turns[:n])
    scorer.check_integrity()


def test_incremental_other_ending_keeps_both_branches(
    toy_artifact: Path, uncached: _core.Scorer
) -> None:
    scorer = open_scorer(toy_artifact)
    turns = chat(6)
    other: Turns = [*turns[:5], ("assistant", letters(9, 8)), ("user", letters(4))]
    reused(scorer, turns)
    hits = scorer.cache_stats()["n_hits"]
    assert reused(scorer, other) == reused(uncached, other)
    assert scorer.cache_stats()["n_hits"] == hits + 2
    for branch in (turns, other, turns[:3], other[:6]):
        assert reused(scorer, branch) == reused(uncached, branch)
        scorer.check_integrity()


def test_incremental_chunks_of_one_turn_are_not_two_turns(
    toy_artifact: Path, uncached: _core.Scorer
) -> None:
    scorer = open_scorer(toy_artifact)
    first, second = letters(MAX_CONTENT), letters(6, 9)
    whole: Turns = [("user", f"{first} {second}"), ("assistant", "a b")]
    apart: Turns = [("user", first), ("user", second), ("assistant", "a b")]
    assert toy.turn_blocks(whole[0]) == [b for turn in apart[:2] for b in toy.turn_blocks(turn)]
    for turns in (whole, apart, whole):
        assert reused(scorer, turns) == reused(uncached, turns)
    assert reused(scorer, whole)[0] != reused(scorer, apart)[0]


def test_incremental_other_config_or_tenant_finds_nothing(toy_artifact: Path) -> None:
    scorer = open_scorer(toy_artifact)
    turns = chat(4)
    reused(scorer, turns)
    before = scorer.cache_stats()["n_misses"]
    reused(scorer, turns, rules=RULES[:2])
    assert scorer.cache_stats()["n_misses"] == before + 2  # the config and the run
    tenant = open_scorer(toy_artifact, ToyOptions(tenant_salt="other"))
    assert reused(tenant, turns) == reused(scorer, turns)


def test_incremental_batch_and_explain_equal_single_scores(
    toy_artifact: Path, uncached: _core.Scorer
) -> None:
    scorer = open_scorer(toy_artifact)
    chats = [chat(5, seed) for seed in range(4)]
    chats += [[("user", "")], chats[0][:3]]
    answers = scorer.score_batch(RULES, 0.5, chats, "last", True, reuse_turns=True)
    plain = uncached.score_batch(RULES, 0.5, chats, "last", True)
    for turns, answer, ordinary in zip(chats, answers, plain, strict=True):
        if answer[0] == "error":
            assert answer == ordinary
            continue
        assert answer[:4] == reused(uncached, turns)[:4]
        for one, other in zip(answer[4], ordinary[4], strict=True):
            assert one[1] == pytest.approx(other[1], abs=TOLERANCE)


def test_incremental_many_threads_on_one_conversation_agree(
    toy_artifact: Path, uncached: _core.Scorer
) -> None:
    scorer = open_scorer(toy_artifact, ToyOptions(cache_tokens=1500))
    turns = chat(8)
    branches = [[*turns[:n], ("assistant", letters(5, s))] for n in (3, 5, 8) for s in (1, 2)]
    expected = [reused(uncached, branch, "assistant") for branch in branches]

    def work(seed: int) -> list[tuple[int, Any]]:
        order = list(range(len(branches))) * 3
        random.Random(seed).shuffle(order)
        return [(i, reused(scorer, branches[i], "assistant")) for i in order]

    with ThreadPoolExecutor(4) as pool:
        for answers in pool.map(work, range(4)):
            assert all(answer == expected[i] for i, answer in answers)
    scorer.check_integrity()


def test_incremental_non_finite_turn_keeps_nothing(toy_artifact: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_artifact, tmp_path / "toy"))
    model = onnx.load(folder / "model.onnx")
    embedding = numpy_helper.to_array(model.graph.initializer[0]).copy()
    embedding[make_toy_model.FIRST_LETTER + 25] = np.inf  # the word "z"
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(embedding, model.graph.initializer[0].name)
    )
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    make_toy_model.write_manifest(folder, ["model.onnx", "tokenizer.json"])
    scorer = open_scorer(folder)
    rules: Rules = [("", "a b"), ("", "c")]
    good: Turns = [("user", "b"), ("assistant", "c d")]
    answer = reused(scorer, good, rules=rules)
    before = scorer.cache_stats()
    for bad in ([*good, ("user", "z")], [("user", "z"), *good]):
        assert reused(scorer, bad, rules=rules)[:2] == ("error", "NonFinite")
        after = scorer.cache_stats()
        assert (after["n_entries"], after["n_tokens"]) == (before["n_entries"], before["n_tokens"])
    assert reused(scorer, good, rules=rules) == answer
    longer = reused(scorer, [*good, ("user", "e"), ("assistant", "f")], rules=rules)
    assert longer[2] in ("compliant", "violation")
    scorer.check_integrity()


def test_incremental_limits_are_those_of_an_ordinary_score(toy_artifact: Path) -> None:
    limits = {"max_turns": 4, "max_conversation_tokens": 60}
    scorer = open_scorer(toy_artifact, ToyOptions(limits=limits))
    assert reused(scorer, [("user", "a")] * 5)[:2] == ("error", "LimitExceeded")
    assert reused(scorer, [("user", letters(20))] * 3)[:2] == ("error", "LimitExceeded")
    assert reused(scorer, [("user", "a")])[2] in ("compliant", "violation")
