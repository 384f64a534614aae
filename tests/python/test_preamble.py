"""csrm.train.preamble: turns without meaning before training conversations."""

from __future__ import annotations

import random
from collections import Counter

import pytest

pytest.importorskip("torch")

from csrm.train.batch import Example, Family
from csrm.train.preamble import load_preambles, with_preambles

RULES = (("", "No insults."),)
TURNS = [(("user", f"question {i}"), ("assistant", f"answer {i}")) for i in range(8)]


def family() -> Family:
    """Each conversation under two configs, one pair a conversation."""
    made = Family()
    for turns in TURNS:
        forbidden = made.add(Example(RULES, turns, 0.0))
        free = made.add(Example((), turns, 1.0))
        made.pairs.append((free, forbidden))
    return made


def test_with_preambles_all_get_one_and_keep_labels_pairs_and_an_original() -> None:
    before = family()
    after = with_preambles(random.Random(0), before, load_preambles(), 1.0, may_talk=True)
    n = len(before.examples)
    assert len(after.examples) == n + len(TURNS)
    assert after.pairs == before.pairs
    for old, new in zip(before.examples, after.examples, strict=False):
        assert new.turns[-2:] == old.turns
        assert len(new.turns) > len(old.turns)
        assert (new.rules, new.target) == (old.rules, old.target)
    assert len(after.same) == len(TURNS)
    for changed, original in after.same:
        assert after.examples[original] == before.examples[changed]
    # The examples of one conversation have the same preamble, or it would tell their labels apart.
    assert all(after.examples[a].turns == after.examples[b].turns for a, b in after.pairs)


def test_with_preambles_share_of_zero_changes_nothing() -> None:
    before = family()
    assert with_preambles(random.Random(0), before, load_preambles(), 0.0, may_talk=True) == before


def test_with_preambles_without_talk_are_system_turns_alone() -> None:
    for seed in range(50):
        after = with_preambles(random.Random(seed), family(), load_preambles(), 1.0, may_talk=False)
        heads = [example.turns[:-2] for example in after.examples[: 2 * len(TURNS)]]
        assert all([role for role, _ in head] == ["system"] for head in heads)


def test_with_preambles_talk_comes_as_often_as_stated() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(200):
        after = with_preambles(random.Random(seed), family(), load_preambles(), 0.5, may_talk=True)
        kinds["conversations"] += len(TURNS)
        for changed, _ in after.same:
            head = after.examples[changed].turns[:-2]
            kinds["system" if head[0][0] == "system" else "talk"] += 1
    assert 0.45 < (kinds["system"] + kinds["talk"]) / kinds["conversations"] < 0.55
    assert 0.35 < kinds["talk"] / (kinds["system"] + kinds["talk"]) < 0.45


def test_with_preambles_a_system_turn_of_its_own_is_left_alone() -> None:
    own = Family([Example(RULES, (("system", "x"), ("user", "y")), 1.0)])
    assert with_preambles(random.Random(0), own, load_preambles(), 1.0, may_talk=True) == own


def test_preambles_alternate_and_end_with_the_assistant() -> None:
    found = load_preambles()
    assert len(found.system) >= 30
    assert len(found.talk) >= 15
    for turns in found.talk:
        assert [role for role, _ in turns] == ["user", "assistant"] * (len(turns) // 2)
    texts = [turn for turns in (*found.system, *found.talk) for _, turn in turns]
    assert all(isinstance(text, str) and text for text in texts)
