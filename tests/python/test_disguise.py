"""csrm.train.disguise: training messages that say the same in disguise."""

from __future__ import annotations

import random
from collections import Counter

import pytest

pytest.importorskip("torch")

from csrm.bench.attacks import ATTACKS
from csrm.train.batch import Example, Family
from csrm.train.disguise import load_disguises, with_disguises
from csrm.train.preamble import load_preambles, with_preambles

RULES = (("", "No insults."),)
TURNS = [
    (("user", f"which question is number {i}"), ("assistant", f"the answer to question {i} here"))
    for i in range(8)
]


def family() -> Family:
    """Each conversation under two configs, one pair a conversation."""
    made = Family()
    for turns in TURNS:
        forbidden = made.add(Example(RULES, turns, 0.0))
        free = made.add(Example((), turns, 1.0))
        made.pairs.append((free, forbidden))
    return made


def test_with_disguises_change_the_last_turn_alone_and_keep_labels_pairs_and_an_original() -> None:
    before = family()
    n_changed = 0
    for seed in range(40):
        after = with_disguises(random.Random(seed), before, load_disguises(), 1.0)
        assert after.pairs == before.pairs
        for old, new in zip(before.examples, after.examples, strict=False):
            assert new.turns[:-1] == old.turns[:-1]
            assert new.turns[-1][0] == old.turns[-1][0]
            assert (new.rules, new.target) == (old.rules, old.target)
        for changed, original in after.same:
            assert after.examples[original] == before.examples[changed]
            assert after.examples[original].turns != after.examples[changed].turns
        # Both examples of a conversation look alike, or the disguise would tell the labels apart.
        assert all(after.examples[a].turns == after.examples[b].turns for a, b in after.pairs)
        n_changed += len(after.same)
    assert n_changed > 0.9 * 40 * len(TURNS)  # now and then no word is drawn for another spelling


def test_with_disguises_share_of_zero_changes_nothing() -> None:
    before = family()
    assert with_disguises(random.Random(0), before, load_disguises(), 0.0) == before


def test_as_it_was_undoes_a_disguise_behind_a_preamble() -> None:
    before, rng = family(), random.Random(3)
    disguised = with_disguises(rng, before, load_disguises(), 0.7)
    after = with_preambles(rng, disguised, load_preambles(), 0.7, may_talk=True)
    n = len(before.examples)
    assert sum(e.turns[0][0] == "system" for e in after.examples[:n]) > 0
    was = after.as_it_was()
    assert was.examples[:n] == before.examples
    assert {e.turns for e in was.examples[n:]} <= set(TURNS)  # those kept beside are plain too
    assert (was.pairs, was.same) == (after.pairs, after.same)


def test_with_disguises_comes_as_often_as_stated() -> None:
    n = sum(
        len(with_disguises(random.Random(seed), family(), load_disguises(), 0.5).same)
        for seed in range(200)
    )
    assert 0.42 < n / (200 * len(TURNS)) < 0.55


def test_draw_has_every_kind_and_one_disguise_repeats_itself() -> None:
    text = "Several words of a sentence that is long enough to be spelled otherwise"
    found = load_disguises()
    kinds: Counter[str] = Counter()
    for seed in range(400):
        disguise = found.draw(random.Random(seed))
        changed = disguise(text)
        assert changed == disguise(text)
        kinds["around" if text in changed else "spelled"] += 1
    assert 0.28 < kinds["spelled"] / 400 < 0.42


def test_the_attacks_that_are_measured_are_not_those_that_are_trained() -> None:
    found = load_disguises()
    trained = {*found.before, *found.after, *found.asides}
    for attack in ATTACKS.values():
        assert not [text for text in trained if text in attack("x")]
