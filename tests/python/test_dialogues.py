"""Written policy dialogues: labels, balance, determinism and the content files."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

pytest.importorskip("torch")

from csrm.train.dialogues import FAMILY_NAMES, HELD_OUT_FILES, DialogueComposer, load_content
from csrm.train.dialogues.__main__ import records
from csrm.train.dialogues.content import Topic
from csrm.train.dialogues.harms import TOPIC_HARMS, written_conversations
from csrm.train.dialogues.labels import Config, Dialogue, Focus, Part, judge
from csrm.train.dialogues.styles import STYLES
from csrm.train.records import Policy, read_records
from csrm.train.wording import load_wording

EXAMPLES = Path(__file__).parents[2] / "configs" / "examples.jsonl"
SIZE = 32


def families(n: int, names: tuple[str, ...] | None = None, seed: int = 5) -> list:
    composer, rng = DialogueComposer(load_wording(), names), random.Random(seed)
    return [composer.family(rng, SIZE) for _ in range(n)]


def single(topic: str, rule: int, kind: str, tag: str) -> bool | None:
    content = load_content()
    focus = Focus(topic, content.topics[topic].rules[rule])
    part = Part(topic, frozenset({tag, f"{kind}/{tag}"}), "text")
    dialogue = Dialogue((("user", "question"), ("assistant", "text")), (part,))
    return judge(Config((focus,), (), ()), dialogue, {}, content.topics)


def test_family_same_seed_same_examples() -> None:
    assert families(5) == families(5)
    assert families(5) != families(5, seed=6)


def test_family_size_and_balance_near_request() -> None:
    made = families(150)
    examples = [example for family in made for example in family.examples]
    assert all(SIZE * 0.7 <= len(family.examples) <= SIZE + 2 for family in made)
    share = sum(example.target == 0.0 for example in examples) / len(examples)
    assert 0.45 < share < 0.57
    assert all(1 <= len(example.rules) <= 14 for example in examples)
    assert all(text.strip() for example in examples for _, text in example.rules)
    assert not any("{" in text for example in examples for _, text in example.turns)
    assert not any("{" in text for example in examples for _, text in example.rules)


def test_family_pairs_same_conversation_compliant_first() -> None:
    for family in families(60):
        for better, worse in family.pairs:
            good, bad = family.examples[better], family.examples[worse]
            assert (good.target, bad.target) == (1.0, 0.0)
            assert good.turns == bad.turns
            assert good.rules != bad.rules


def test_family_same_inputs_one_label() -> None:
    for family in families(60):
        labels: dict[object, float] = {}
        for example in family.examples:
            assert labels.setdefault((example.rules, example.turns), example.target) == (
                example.target
            )


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_family_restricted_to_one_name_has_both_labels(name: str) -> None:
    made = families(6, (name,))
    assert {example.target for family in made for example in family.examples} == {0.0, 1.0}
    assert any(family.pairs for family in made)


def test_breaking_replies_appear_with_both_labels() -> None:
    """A sentence that breaks a topic's first rule must not betray the label by itself."""
    seen: dict[str, set[float]] = {}
    for family in families(600):
        for example in family.examples:
            seen.setdefault(example.turns[-1][1].casefold(), set()).add(example.target)
    for topic in load_content().topics.values():
        for tag in sorted({key.rpartition("/")[2] for key in topic.rules[0].breaks}):
            for text in topic.replies[tag]:
                if "{" in text or "[" in text:
                    continue
                labels = [found for reply, found in seen.items() if text.casefold() in reply]
                if len(labels) >= 10:
                    assert set().union(*labels) == {0.0, 1.0}, (topic.name, text)


def test_conversations_violating_mostly_paired() -> None:
    labels: dict[object, set[float]] = {}
    for family in families(200):
        for example in family.examples:
            labels.setdefault(example.turns, set()).add(example.target)
    violating = [found for found in labels.values() if 0.0 in found]
    assert sum(len(found) == 2 for found in violating) > 0.6 * len(violating)


@pytest.mark.parametrize(
    ("topic", "rule", "kind", "tag", "expected"),
    [
        ("refunds", 0, "plain", "promise", True),
        ("refunds", 0, "plain", "near", False),
        ("refunds", 1, "plain", "promise", False),
        ("refunds", 1, "plain", "promise_large", True),
        ("refunds", 2, "plain", "comply", True),
        ("order_number", 0, "missing", "act", True),
        ("order_number", 0, "given", "act", False),
        ("minors", 0, "young", "sell", True),
        ("minors", 0, "grown", "sell", False),
        ("language", 1, "german", "english", True),
        ("order_number", 2, "missing", "near", None),
    ],
)
def test_judge_declared_tags_expected_verdict(
    topic: str, rule: int, kind: str, tag: str, expected: bool | None
) -> None:
    assert single(topic, rule, kind, tag) is expected


def test_judge_exception_lifts_only_what_it_covers() -> None:
    content = load_content()
    topic = content.topics["refunds"]
    exception = next(permit for permit in topic.permits if permit.exception)
    config = Config((Focus("refunds", topic.rules[0]),), (("refunds", exception),), ())
    for tag, expected in (("promise", False), ("promise_large", True)):
        part = Part("refunds", frozenset({tag, f"plain/{tag}"}), "text")
        dialogue = Dialogue((("assistant", "text"),), (part,))
        assert judge(config, dialogue, {}, content.topics) is expected


@pytest.mark.parametrize("name", sorted(STYLES))
def test_style_rewriting_matches_its_check(name: str) -> None:
    rng, style = random.Random(1), STYLES[name]
    shared = load_content().shared
    slots = {slot: rng.choice(shared.slots[slot]) for slot in sorted(shared.bound)}
    for line in ("closing", "opening", "disclaimer"):
        slots[f"other_{line}"] = next(v for v in shared.slots[line] if v != slots[line])
    text = "I'm on it. You do not have to wait."
    for _ in range(20):
        assert style.broken(style.violate(rng, text, slots), slots) is True
        if style.broken(text, slots):
            assert style.broken(style.keep(rng, text, slots), slots) is not True or name == "length"


def test_composer_restricted_states_only_its_rules() -> None:
    names = ("refunds", "spoilers")
    topics = load_content().topics
    known = set(load_wording().fillers)
    patterns = [
        re.compile(re.sub(r"\\\{\w+\\\}", ".+", re.escape(text)))
        for name in names
        for rule in (*topics[name].rules, *topics[name].permits)
        for text in rule.texts
    ]
    for family in families(20, names):
        for example in family.examples:
            for _, text in example.rules:
                assert text in known or any(pattern.fullmatch(text) for pattern in patterns)


def test_composer_unknown_family_raises() -> None:
    with pytest.raises(ValueError, match="FAMILY_NAMES"):
        DialogueComposer(load_wording(), ["no such family"])
    with pytest.raises(ValueError, match="FAMILY_NAMES"):
        DialogueComposer(load_wording(), [])


def test_content_counts_enough_variety() -> None:
    topics = load_content().topics
    assert len(topics) >= 24
    assert len(FAMILY_NAMES) == len(set(FAMILY_NAMES)) == len(topics) + len(STYLES)
    assert all(topic.permits and len(topic.rules) >= 2 for topic in topics.values())
    assert set(load_content().shared.styles) == set(STYLES)
    assert all(len(style["texts"]) >= 6 for style in load_content().shared.styles.values())


def test_content_shares_no_sentence_with_the_examples() -> None:
    shown = set()
    for line in EXAMPLES.read_text(encoding="utf-8").splitlines():
        for message in json.loads(line)["messages"]:
            shown |= sentences(message["content"])
    for topic in load_content().topics.values():
        texts = [text for group in topic.replies.values() for text in group]
        texts += [t for group in topic.openings.values() for turns in group for t in turns]
        for text in texts:
            assert not sentences(text) & shown, text


def sentences(text: str) -> set[str]:
    """Sentences of three words or more, without case and punctuation."""
    parts = re.split(r"[.!?;:\n]+", text.casefold())
    found = {" ".join(re.findall(r"\w+", part)) for part in parts}
    return {part for part in found if part.count(" ") >= 2}


def test_held_out_topics_are_in_no_training_family() -> None:
    held_out = load_content(HELD_OUT_FILES)
    assert len(held_out.topics) >= 6
    assert not set(held_out.topics) & set(FAMILY_NAMES)
    known = {text for topic in load_content().topics.values() for text in topic.rules[0].texts}
    assert not known & {t for topic in held_out.topics.values() for t in topic.rules[0].texts}


@pytest.mark.parametrize("held_out", [False, True])
def test_records_are_documented_ones_with_both_labels(held_out: bool, tmp_path: Path) -> None:
    rows = list(records(120, 3, held_out=held_out))
    assert rows == list(records(120, 3, held_out=held_out))
    assert len({row["id"] for row in rows}) == 120
    path = tmp_path / "made.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = [record for record in read_records(path) if isinstance(record, Policy)]
    assert len(read) == 120
    assert 36 < sum(record.compliant for record in read) < 84
    by_text: dict[object, set[bool]] = {}
    for record in read:
        by_text.setdefault(record.conversation, set()).add(record.compliant)
    assert sum(len(labels) == 2 for labels in by_text.values()) > 10


def test_written_conversations_carry_the_label_of_the_sentence() -> None:
    rows = written_conversations(load_wording())
    topics = load_content().topics
    assert rows == written_conversations(load_wording())
    assert {row.near[0] for row in rows} <= set(load_wording().categories)
    broken = {
        text: harm
        for name, harm in TOPIC_HARMS.items()
        for key in topics[name].rules[0].breaks
        for text in plain(topics[name], key)
    }
    n_found = 0
    for row in rows:
        harms = {harm for text, harm in broken.items() if text in row.turns[-1][1]}
        assert harms <= set(row.harms), row.turns[-1][1]
        n_found += bool(harms)
    assert n_found > 100
    assert 0.35 < sum(bool(row.harms) for row in rows) / len(rows) < 0.55


def plain(topic: Topic, key: str) -> list[str]:
    """The replies of a tag that have no slots or choices, long enough to be told apart."""
    texts = topic.replies[key.rpartition("/")[2]]
    return [text for text in texts if not {"{", "["} & set(text) and len(text) > 25]
