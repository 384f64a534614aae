"""Fast explanations: the same computation done by hand with the toy graph, and what may not change
them. Their agreement with exact ones is a figure of the shipped model (docs/datapath.md), measured
and not tested; that it is there at all is tested on it.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from numpy.typing import NDArray
from toy import Rules, ToyOptions, Turns, letters, make_toy_model, open_scorer, rule_block

import csrm
from csrm import _core, errors

toy_artifact = toy.toy_artifact  # the fixture, made known to pytest here

TOLERANCE = 1e-5
FEW_RULES = 4  # up to here an explanation is exact
TOKENS_PER_REREAD = 8
EXACT_COMPLIANT = 2  # the lowest rules are exact until so many of them comply
RULES: Rules = [
    ("n a", letters(5)),
    ("", letters(9, 3)),
    ("b", letters(20, 11)),
    ("", letters(4, 17)),
    ("c d", letters(12, 5)),
]
CHATS: list[Turns] = [
    [("assistant", letters(6, 2))],
    [("user", letters(9)), ("assistant", letters(14, 2)), ("user", letters(11, 5))],
    [("user", letters(70, 1)), ("assistant", letters(80, 7))],
    [("user", ""), ("assistant", "a"), ("tool", letters(3, 9)), ("assistant", letters(25, 4))],
]
LONG: Turns = [("assistant" if i % 3 else "user", letters(29 - i % 4, i)) for i in range(95)]
Float = NDArray[np.float32]
Cache = tuple[Float, Float]  # keys and values [L, H, tokens, D]


class FastOracle:
    """The definition in docs/datapath.md, on the toy graph in Python's own onnxruntime."""

    def __init__(self, artifact: Path) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(str(artifact / "model.onnx"))

    def rewards(self, rules: Rules, turns: Turns, judged: set[int]) -> list[float]:
        """The reward of the conversation under each rule."""
        caches = [self._block(rule_block(rule)) for rule in rules]
        whole = _join(*caches)
        blocks = [(i, block) for i, turn in enumerate(turns) for block in _blocks(turn)]
        bare, informed = self._all(blocks, None), self._all(blocks, whole)
        half = make_toy_model.LAYERS // 2
        change = ((informed[1] - bare[1])[half:] ** 2).sum(axis=(0, 1, 3))
        mean = ((bare[0] + informed[0]) / 2, (bare[1] + informed[1]) / 2)
        chosen = _chosen([(len(block), i in judged) for i, block in blocks], change)
        fast = [self._under(cache, blocks, judged, mean, chosen) for cache in caches]
        n_compliant = 0
        for rule in sorted(range(len(rules)), key=fast.__getitem__):
            everything = set(range(len(change)))
            fast[rule] = self._under(caches[rule], blocks, judged, mean, everything)
            calibration = make_toy_model.CALIBRATION
            n_compliant += calibration["a"] * fast[rule] + calibration["b"] >= 0  # threshold 0.5
            if n_compliant == EXACT_COMPLIANT:
                break
        return fast

    def _under(
        self,
        rule: Cache,
        blocks: list[tuple[int, list[int]]],
        judged: set[int],
        mean: Cache,
        chosen: set[int],
    ) -> float:
        seen, first, rewards = rule, 0, []
        for turn, block in blocks:
            anew = [i for i in range(len(block)) if first + i in chosen]
            rest = [first + i for i in range(len(block)) if first + i not in chosen]
            seen = _join(seen, (mean[0][:, :, rest], mean[1][:, :, rest]))
            first += len(block)
            if not anew:
                continue
            own = [(block[i], i, _segment(turn)) for i in anew]
            key, value, reward = self._run(own, [len(own)] * len(own), seen)
            seen = _join(seen, (key, value))
            if turn in judged:
                rewards.append(reward)
        return min(rewards)

    def _block(self, block: list[int]) -> Cache:
        tokens = [(id, i, 0) for i, id in enumerate(block)]
        return self._run(tokens, [len(block)] * len(block), None)[:2]

    def _all(self, blocks: list[tuple[int, list[int]]], prefix: Cache | None) -> Cache:
        tokens, visible = [], []
        for turn, block in blocks:
            tokens += [(id, i, _segment(turn)) for i, id in enumerate(block)]
            visible += [len(tokens)] * len(block)
        return self._run(tokens, visible, prefix)[:2]

    def _run(
        self, tokens: list[tuple[int, int, int]], visible: list[int], prefix: Cache | None
    ) -> tuple[Float, Float, float]:
        m = make_toy_model
        empty = np.zeros((m.LAYERS, m.HEADS, 0, m.DIM), dtype=np.float32)
        ids, positions, segments = (np.array([column]) for column in zip(*tokens, strict=True))
        feeds = {
            "input_ids": ids,
            "position_ids": positions,
            "segment_ids": segments,
            "visible": np.array([visible]),
            "pooled_at": np.array([[0]]),
            "prefix_key": empty if prefix is None else prefix[0],
            "prefix_value": empty if prefix is None else prefix[1],
        }
        key, value, reward = self._session.run(["key", "value", "reward"], feeds)
        return key[0], value[0], float(reward[0, 0])


def _blocks(turn: tuple[str, str]) -> list[list[int]]:
    t = make_toy_model.TEMPLATE
    return toy.turn_blocks(turn) or [[t["cls"], t["roles"][turn[0]], t["sep"]]]


def _segment(turn: int) -> int:
    return 1 + min(turn, make_toy_model.N_TURN_INDICES - 1)


def _join(*caches: Cache) -> Cache:
    key = np.concatenate([key for key, _ in caches], axis=2)
    return key, np.concatenate([value for _, value in caches], axis=2)


def _chosen(blocks: list[tuple[int, bool]], change: Float) -> set[int]:
    """Tokens to encode anew; `blocks` are their lengths and whether the head reads them."""
    chosen, first = set[int](), 0
    for length, is_judged in blocks:
        if is_judged:
            chosen |= {first, first + 1, first + length - 1}
        first += length
    order = sorted(set(range(first)) - chosen, key=lambda t: (-change[t], t))
    return chosen | set(order[: first // TOKENS_PER_REREAD])


def explained(
    scorer: _core.Scorer, turns: Turns, judged: str = "last", how: object = "fast"
) -> Any:
    (answer,) = scorer.score_batch(RULES, 0.5, [turns], judged, how)  # type: ignore[arg-type]
    return answer[4]


@pytest.fixture(scope="module")
def scorer(toy_artifact: Path) -> _core.Scorer:
    return open_scorer(toy_artifact)


@pytest.mark.parametrize("turns", [*CHATS, LONG], ids=range(len(CHATS) + 1))
@pytest.mark.parametrize("judged", ["last", "assistant"])
def test_fast_explain_equals_the_graph_run_by_hand(
    toy_artifact: Path, scorer: _core.Scorer, turns: Turns, judged: str
) -> None:
    places = {len(turns) - 1}
    if judged == "assistant":
        places = {i for i, (role, _) in enumerate(turns) if role == "assistant"}
    expected = FastOracle(toy_artifact).rewards(RULES, turns[: max(places) + 1], places)
    rules = explained(scorer, turns, judged)
    assert [index for index, *_ in rules] == list(range(len(RULES)))
    assert [reward for _, reward, _, _ in rules] == pytest.approx(expected, abs=TOLERANCE)
    for _, _, compliance, verdict in rules:
        assert verdict == ("compliant" if compliance >= 0.5 else "violation")


def test_fast_explain_is_an_approximation_that_reads_the_rule(scorer: _core.Scorer) -> None:
    differences, spread = [], []
    for turns in CHATS[1:3]:
        exact, fast = (
            np.array([rule[1] for rule in explained(scorer, turns, how=how)])
            for how in (True, "fast")
        )
        differences.append(np.abs(exact - fast).max())
        spread.append(np.std(fast))
    assert max(differences) > 100 * TOLERANCE, "it must not be the exact one in disguise"
    assert min(spread) > 100 * TOLERANCE, "rules must differ or nothing is read of them"


def test_fast_explain_does_not_change_the_score(scorer: _core.Scorer) -> None:
    for turns in CHATS:
        fast, plain = (
            scorer.score_batch(RULES, 0.5, [turns], "last", how)[0] for how in ("fast", False)
        )
        assert fast[:4] == plain[:4]


@pytest.mark.parametrize("n", range(1, FEW_RULES + 1))
def test_fast_explain_of_few_rules_is_exact(scorer: _core.Scorer, n: int) -> None:
    fast, exact = (
        scorer.score_batch(RULES[:n], 0.5, [CHATS[1]], "last", how)[0] for how in ("fast", True)
    )
    assert fast == exact


def test_fast_explain_does_not_depend_on_cache_batch_or_neighbours(
    toy_artifact: Path, scorer: _core.Scorer
) -> None:
    alone = [explained(scorer, turns) for turns in CHATS]
    for options in (
        ToyOptions(cache_tokens=0),
        ToyOptions(batch_tokens=1),
        ToyOptions(n_threads=2),
    ):
        other = open_scorer(toy_artifact, options)
        for _ in range(2):
            order = random.Random(7).sample(range(len(CHATS)), len(CHATS))
            batch: list[Turns] = [[], *(CHATS[i] for i in order)]
            answers = other.score_batch(RULES, 0.5, batch, "last", "fast")
            assert answers[0][:2] == ("error", "EmptyConversation")
            for i, answer in zip(order, answers[1:], strict=True):
                for one, two in zip(answer[4], alone[i], strict=True):
                    assert one[1] == pytest.approx(two[1], abs=TOLERANCE)


def test_fast_explain_reuse_turns_gives_the_same_rules(scorer: _core.Scorer) -> None:
    for turns in CHATS:
        (kept,) = scorer.score_batch(RULES, 0.5, [turns], "last", "fast", reuse_turns=True)
        assert kept[4] == explained(scorer, turns)


def test_fast_explain_not_finite_key_is_an_error(toy_artifact: Path, tmp_path: Path) -> None:
    damaged = open_scorer(toy.without_finite_z(toy_artifact, tmp_path / "z"))
    bad: Turns = [("user", "a z"), ("assistant", "b")]
    answers = damaged.score_batch(RULES, 0.5, [bad, CHATS[0]], "last", "fast")
    assert answers[0][:2] == ("error", "NonFinite")
    assert len(answers[1][4]) == len(RULES)


@pytest.mark.parametrize("explain", ["slow", "", "Fast"])
def test_explain_of_another_word_is_a_bad_argument(toy_artifact: Path, explain: str) -> None:
    scorer = csrm.load(toy_artifact, n_threads=1)
    chat = [{"role": "user", "content": "a"}]
    with pytest.raises(errors.BadArgument, match="explain"):
        scorer.score(["a"], chat, explain=explain)  # type: ignore[arg-type]
    with csrm.Scheduler(scorer) as scheduler, pytest.raises(errors.BadArgument, match="explain"):
        scheduler.submit(["a"], chat, explain=explain).result(60)  # type: ignore[arg-type]
    with pytest.raises(errors.BadArgument, match="explain"):
        scorer.native.score_batch([("", "a")], 0.5, [[("user", "a")]], "last", explain)


def messages(turns: Turns) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def test_fast_explain_of_the_scheduler_equals_that_of_the_scorer(toy_artifact: Path) -> None:
    scorer = csrm.load(toy_artifact, n_threads=1)
    chats = [messages(turns) for turns in [*CHATS, LONG] * 3]
    with csrm.Scheduler(scorer, max_begun=2) as scheduler:
        ways: list[csrm.scorer.Explain] = ["fast", False, True]
        futures = [
            scheduler.submit(RULES, chat, explain=ways[i % 3]) for i, chat in enumerate(chats)
        ]
        for i, (future, chat) in enumerate(zip(futures, chats, strict=True)):
            found, alone = future.result(60), scorer.score(RULES, chat, explain=ways[i % 3])
            assert found.reward == pytest.approx(alone.reward, abs=TOLERANCE)
            assert len(found.rules) == (0 if ways[i % 3] is False else len(RULES))
            for one, other in zip(found.rules, alone.rules, strict=True):
                assert one.reward == pytest.approx(other.reward, abs=TOLERANCE)


def test_fast_explain_of_the_shipped_model_is_bit_equal_whatever_runs_beside() -> None:
    rules = [
        *("No medical advice.", "Never promise a refund.", "Do not insult people."),
        *("Do not reveal passwords.", "Answer politely."),
    ]
    chats = [
        messages([("user", "Where is my order?"), ("assistant", "It is late, you idiot. " * n)])
        for n in (1, 9, 30)
    ]
    scorers = [
        csrm.load(n_threads=1),
        csrm.load(n_threads=2, cache_tokens=0, batch_tokens=256),
    ]
    alone = [scorers[0].score(rules, chat, explain="fast") for chat in chats]
    for scorer in scorers:
        assert scorer.score_batch(rules, chats, explain="fast") == alone
        with csrm.Scheduler(scorer) as scheduler:
            futures = [scheduler.submit(rules, chat, explain="fast") for chat in chats]
            assert [future.result(60) for future in futures] == alone
    exact = scorers[0].score(rules, chats[1], explain=True).rules
    for one, other in zip(alone[1].rules, exact, strict=True):
        assert one.reward == pytest.approx(other.reward, abs=2.0)
