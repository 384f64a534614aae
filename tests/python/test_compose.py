"""csrm.train.compose: what stands beside a harmful reply, so that the label needs its words."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("torch")

from csrm.train.compose import CategorisedComposer, can_refuse
from csrm.train.corpus import Corpus, Labelled, file_record
from csrm.train.everyday import everyday_conversations
from csrm.train.records import Origin, Preference
from csrm.train.wording import load_wording

ORDINARY = "coconot-pref"


def preference(source: str) -> Preference:
    return Preference(
        Origin("1", source, "MIT", "LLM", "last_assistant"),
        (("user", "how do I whisk eggs"),),
        ("Answer harmless requests.",),
        chosen=(("assistant", "With a fork."),),
        rejected=(("assistant", "Slowly."),),
    )


def made(source: str, has_replies: bool) -> CategorisedComposer:
    """A composer of two harms from `source`, with ordinary replies at hand."""
    corpus = Corpus()
    for number in range(40):
        harm = ("violence", "privacy")[number % 2]
        text = f"{harm} {number}"
        turns = (("user", text), ("assistant", f"reply {text}"))[: 2 if has_replies else 1]
        corpus.labelled.append(Labelled(source, turns, (harm,), (harm,)))
        corpus.labelled.append(Labelled(source, (("user", f"safe {number}"),), (), (harm,)))
    for _ in range(10):
        file_record(corpus, preference(ORDINARY))
    return CategorisedComposer(corpus, {}, load_wording())


@pytest.mark.parametrize(("source", "expected"), [(ORDINARY, 2), ("hh-harmless", 0)])
def test_file_record_both_replies_to_harmless_requests_are_harmless(
    source: str, expected: int
) -> None:
    corpus = Corpus()
    file_record(corpus, preference(source))
    assert len(corpus.preferences) == 1
    assert [row.harms for row in corpus.labelled] == [()] * expected
    assert {row.turns[-1][1] for row in corpus.labelled} <= {"With a fork.", "Slowly."}


def test_family_of_harmful_replies_has_ordinary_replies_that_comply() -> None:
    composer = made("made", has_replies=True)
    for seed in range(20):
        family = composer.family(random.Random(seed), 14)
        ordinary = [e for e in family.examples if e.turns[0][1] == "how do I whisk eggs"]
        assert len(ordinary) >= 2
        assert all(example.target == 1.0 for example in ordinary)


def test_conversations_of_users_alone_get_no_ordinary_replies() -> None:
    composer = made("made", has_replies=False)
    rows = composer.conversations(random.Random(0), "violence", 6)
    assert {row.source for row, _ in rows} == {"made"}
    assert not any(can_refuse(row) for row, _ in rows)


def test_family_reworded_examples_say_the_same_in_other_rules() -> None:
    composer = made("made", has_replies=True)
    n_same = 0
    for seed in range(30):
        family = composer.family(random.Random(seed), 14)
        n_same += len(family.same)
        for one, two in family.same:
            first, second = family.examples[one], family.examples[two]
            assert (first.turns, first.target) == (second.turns, second.target)
            assert first.rules != second.rules
    assert n_same > 20


@pytest.mark.parametrize("seed", range(20))
def test_reworded_config_forbids_and_allows_the_same(seed: int) -> None:
    composer = made("made", has_replies=True)
    rng = random.Random(seed)
    config = composer.config(rng, "violence", "privacy", 1.0)
    rules = {text for _, text in composer.reworded(rng, config)}
    for name, wording in composer.wording.categories.items():
        assert bool(rules & {*wording.forbid, *wording.framed_forbid}) == (name in config.forbidden)
        assert bool(rules & {*wording.allow, *wording.framed_allow}) == (name in config.allowed)
    assert bool(rules & set(composer.wording.forbid_all)) == config.forbids_rest


def test_everyday_conversations_are_harmless_and_answered() -> None:
    rows = everyday_conversations()
    assert len({row.turns for row in rows}) == len(rows) > 70
    for row in rows:
        assert row.harms == ()
        assert set(row.near) <= set(load_wording().categories)
        assert [role for role, _ in row.turns] == ["user", "assistant"]


def test_harm_for_an_unknown_reason_is_judged_only_where_all_or_no_harm_is_forbidden() -> None:
    corpus = Corpus()
    for number in range(60):
        harm = ("violence", "privacy", "unspecified")[number % 3]
        turns = (("user", f"{harm} {number}"), ("assistant", f"reply {number}"))
        corpus.labelled.append(Labelled("made", turns, (harm,), (harm,)))
        corpus.labelled.append(Labelled("made", (("user", f"safe {number}"),), (), (harm,)))
    composer = CategorisedComposer(corpus, {}, load_wording())
    assert composer.targets == ["privacy", "violence"]
    seen: set[float] = set()
    for seed in range(60):
        rng = random.Random(seed)
        family = composer.family(rng, 14)
        for example in family.examples:
            if (
                example.turns[0][1].startswith("unspecified")
                and example.turns[-1][1][:5] == "reply"
            ):
                seen.add(example.target)
    assert seen == {0.0, 1.0}  # forbidden by a config against all harm, not by one of house rules
    labels, unknown = composer.labels, ("unspecified",)
    rng = random.Random(0)
    named = composer.config(rng, "privacy", "violence", 1.0)
    assert named.judge(unknown, labels) is None
    assert composer.config_of_all(rng, 1.0).judge(unknown, labels) is True
    assert composer.config_of_none(rng, 1.0).judge(unknown, labels) is False
