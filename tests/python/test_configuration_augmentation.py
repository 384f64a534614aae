"""Configuration augmentation: relabelling, soundness, wording and families."""

from __future__ import annotations

import itertools
import os
import random
import re
import subprocess
import sys
from collections import Counter
from functools import cache

import pytest

pytest.importorskip("torch")

from csrm.train.augment.cca import BUSINESS, STYLES, ConfigurationComposer, permitted
from csrm.train.augment.configuration import change, judge, relabel, settle
from csrm.train.augment.proposer import UNSPECIFIED, Proposal, Subject
from csrm.train.compose import CategorisedComposer, CategoryConfig
from csrm.train.compose_rules import RuledComposer
from csrm.train.corpus import Corpus, Labelled
from csrm.train.records import BookRule, Category, Origin, Ruled
from csrm.train.wording import load_wording

TAXONOMY = {
    "hate_offensive": Category("hate_offensive", "both", "both", ("hate", "profanity")),
    UNSPECIFIED: Category(UNSPECIFIED, "unknown", "unknown", ()),
}
HARMS = ("violence", "privacy", "hate_offensive", "politics", UNSPECIFIED)
BOOK = tuple(
    BookRule(str(number), heading, text)
    for number, (heading, text) in enumerate(
        [
            ("Tone", "Never shout at a reader."),
            ("Tone", "Avoid sarcasm and mockery."),
            ("Facts", "Cite every number quoted."),
            ("Facts", "Dates need four digits."),
            ("Trade", "Readers must never be shouted down, so never shout at any reader."),
            ("Trade", "Sell nothing on Sundays."),
            ("Pets", "Dogs stay outside."),
        ]
    )
)
DIGEST = """
import hashlib, random, sys
sys.path.insert(0, sys.argv[1])
from test_configuration_augmentation import made
rng, composer = random.Random(3), made()
print(hashlib.sha256(repr([composer.family(rng, 14) for _ in range(40)]).encode()).hexdigest())
"""


@cache
def made(harms: tuple[str, ...] = HARMS, has_rules: bool = True) -> ConfigurationComposer:
    """A composer of made-up conversations; each text names its harms or its rule."""
    corpus = Corpus()
    for harm, number in itertools.product(harms, range(12)):
        more = ("drugs",) if number == 0 and harm == "violence" else ()
        text = f"harm {harm} {number}"
        corpus.labelled.append(Labelled("made", (("user", text),), (harm, *more), (harm,)))
    for harm, number in itertools.product(harms, range(6)):
        text = f"calm {harm} {number}"
        corpus.labelled.append(Labelled("made", (("user", text),), (), (harm,)))
    for rule, number in itertools.product(BOOK if has_rules else (), range(6)):
        text = f"{'calm' if number >= 4 else 'rule'} {rule.id} {number}"
        origin = Origin(text, "rules", "MIT", "human", "last_user")
        corpus.ruled.append(
            Ruled(origin, (("user", text),), rule.text, rule.category, "made", number < 4)
        )
    categorised = CategorisedComposer(corpus, TAXONOMY, load_wording())
    return ConfigurationComposer(categorised, RuledComposer(corpus, {"made": BOOK}, []))


def subject(harms: tuple[str, ...]) -> Subject:
    return made().taxonomy.subject(Labelled("made", (("user", "a"),), harms, harms))


class OneProposal:
    """Proposes what it is given."""

    def __init__(self, plus: frozenset[str], minus: str | None):
        self.proposal = Proposal(plus, minus)

    def propose(self, rng, subject, listed):
        return self.proposal


def test_relabel_every_small_case_is_the_formula():
    keys = "abcd"
    subsets = [frozenset(c) for n in range(5) for c in itertools.combinations(keys, n)]
    for broken, listed in itertools.product(subsets, repeat=2):
        singles = [frozenset(key) for key in broken]
        assert relabel(singles, listed) is bool(broken & listed)
    assert relabel([frozenset("ab")], "ab") is True
    assert relabel([frozenset("ab")], "ac") is False


def test_judge_every_config_of_eight_agrees_with_the_category_labels():
    keys = ("violence", "weapons", "drugs", "hate", "profanity", "privacy", "politics", "self_harm")
    atoms = ("violence", "hate_offensive", "privacy", "politics", "drugs")
    labels = made().categorised.labels
    rows = [c for n in range(3) for c in itertools.combinations(atoms, n)]
    seen = Counter()
    for n in range(len(keys) + 1):
        for listed in itertools.combinations(keys, n):
            config = CategoryConfig((), frozenset(listed), frozenset(), False)
            for harms in rows:
                verdict = judge(subject(harms), listed)
                assert verdict is config.judge(harms, labels)
                seen[verdict] += 1
    assert min(seen[verdict] for verdict in (True, False, None)) > 100


def test_settle_every_config_of_five_settles_the_label():
    keys = ("violence", "weapons", "hate", "profanity", "privacy")
    for n, harms in itertools.product(
        range(6), [(), ("violence",), ("hate_offensive",), ("privacy", "hate_offensive")]
    ):
        for listed in itertools.combinations(keys, n):
            one = subject(harms)
            settled = settle(one, frozenset(listed))
            assert judge(one, settled) is relabel(one.breaks, listed)
            assert settled <= set(listed)


@pytest.mark.parametrize("permits_rest", [False, True])
def test_change_every_start_gives_a_settled_label_and_flips_on_demand(permits_rest):
    composer = made()
    proposer, keys = composer.taxonomy, composer.taxonomy.keys
    rng = random.Random(0)
    for harms in (("violence",), ("hate_offensive",), ("privacy", "politics")):
        one = subject(harms)
        for start in (frozenset(), frozenset(keys) - one.touches, frozenset(keys)):
            for flips, _ in itertools.product((False, True), range(60)):
                was_unsafe = judge(one, start)
                changed = change(rng, one, start, proposer, flips, permits_rest)
                assert changed.is_unsafe is (was_unsafe ^ flips)
                assert changed.is_unsafe is judge(one, changed.listed)
                if permits_rest and changed.is_unsafe:
                    assert one.touches <= changed.listed


def test_change_omitted_category_takes_neighbours_and_combined_ids():
    one = subject(("hate_offensive",))
    labels = made().categorised.labels
    listed = frozenset(made().taxonomy.keys)
    changed = change(random.Random(1), one, listed, made().taxonomy, flips=True)
    around = {"hate", "profanity"} | labels.neighbours("hate") | labels.neighbours("profanity")
    assert not changed.listed & around


def test_change_novel_category_of_a_proposer_decides():
    calm = Subject((("user", "a"),), (), frozenset())
    plus = OneProposal(frozenset({"new"}), "other")
    for seed in range(20):
        assert change(random.Random(seed), calm, frozenset("a"), plus, True).is_unsafe is True
        assert change(random.Random(seed), calm, frozenset("a"), plus, False).is_unsafe is False
    minus = OneProposal(frozenset(), "other")
    results = [change(random.Random(s), calm, frozenset("a"), minus, True) for s in range(20)]
    assert {result.is_unsafe for result in results} == {False}
    assert {"other" in result.listed for result in results} == {True, False}


def test_propose_is_true_of_the_subject_and_unlisted():
    composer, rng = made(), random.Random(2)
    cases = [(composer.taxonomy, subject((harm,))) for harm in HARMS[:4]]
    cases.append((composer.taxonomy, subject(())))
    book = composer.rulebooks["made"]
    cases += [(book, book.subject(row)) for row in composer.ruled.by_body["made"]["Tone"]]
    for proposer, one in cases:
        for _ in range(30):
            listed = frozenset(rng.sample(proposer.keys, rng.randrange(len(proposer.keys))))
            proposal = proposer.propose(rng, one, listed)
            assert not proposal.plus or proposal.plus in one.breaks
            assert not proposal.plus & listed
            assert proposal.minus is None or proposal.minus not in listed | one.touches


def test_rulebook_subject_touches_heading_and_similar_rules():
    book = made().rulebooks["made"]
    row = next(row for row in made().ruled.by_body["made"]["Tone"] if row.rule == BOOK[0].text)
    assert book.subject(row).touches == {BOOK[0].text, BOOK[1].text, BOOK[4].text}


def taxonomy_index():
    """(text -> category) of prohibitions and of permissions."""
    categories = load_wording().categories
    forbid = {text: name for name, c in categories.items() for text in c.forbid}
    allow = {text: name for name, c in categories.items() for text in c.allow}
    return forbid, allow


def read_config(rules):
    """(listed, permitted, whether everything is forbidden) read back from the words alone."""
    forbid, allow = taxonomy_index()
    whole = "\n".join(text for _, text in rules)
    return (
        frozenset(name for text, name in forbid.items() if text in whole),
        frozenset(name for text, name in allow.items() if text in whole),
        any(text in whole for text in load_wording().forbid_all),
    )


def test_family_labels_follow_from_the_words_of_the_config():
    composer, rng = made(has_rules=False), random.Random(5)
    labels = composer.categorised.labels
    seen = Counter()
    for _ in range(250):
        family = composer.family(rng, 14, rng.choice((0.3, 1.0)))
        assert family.examples
        for example in family.examples:
            kind, harm, number = example.turns[0][1].split()
            harms = () if kind == "calm" else (harm,)
            if harm == "violence" and number == "0" and harms:
                harms = ("violence", "drugs")
            listed, allowed, forbids_rest = read_config(example.rules)
            if forbids_rest:
                listed |= set(composer.taxonomy.keys) - allowed
            is_unsafe = example.target == 0.0
            if harm == UNSPECIFIED and harms:
                assert listed == set(composer.taxonomy.keys)
                assert is_unsafe
                continue
            config = CategoryConfig((), listed, allowed, forbids_rest)
            assert config.judge(harms, labels) is is_unsafe
            assert not listed & allowed
            one = composer.taxonomy.subject(Labelled("made", example.turns, harms, (harm,)))
            assert not is_unsafe or not allowed & one.touches
            assert is_unsafe or not listed & one.touches
            seen[kind, is_unsafe] += 1
        for better, worse in family.pairs:
            a, b = family.examples[better], family.examples[worse]
            assert (a.turns, a.target, b.target) == (b.turns, 1.0, 0.0)
    assert seen["calm", True] == 0
    assert min(seen["harm", True], seen["harm", False], seen["calm", False]) > 200


def test_family_by_rulebook_labels_follow_from_the_rules_present():
    composer, rng = made(), random.Random(6)
    rules = {rule.id: rule.text for rule in BOOK}
    seen = Counter()
    for _ in range(200):
        for example in composer.by_rulebook(rng, 14, 1.0).examples:
            kind, key, _ = example.turns[0][1].split()
            texts = [text for _, text in example.rules]
            present = {
                text
                for text in rules.values()
                for said in texts
                if text in said and not re.search(r"withdrawn|Exception|enforce|Allowed,", said)
            }
            is_unsafe = example.target == 0.0
            assert is_unsafe is (kind == "rule" and rules[key] in present)
            if kind == "rule" and not is_unsafe:
                assert not composer.rulebooks["made"].relatives(rules[key]) & present
            seen[kind, is_unsafe] += 1
    assert min(seen["rule", True], seen["rule", False], seen["calm", False]) > 100


def test_family_half_of_the_examples_violate():
    composer, rng, counts = made(HARMS[:4]), random.Random(7), Counter()
    for _ in range(400):
        counts.update(example.target for example in composer.family(rng, 14).examples)
    assert 0.45 < counts[0.0] / counts.total() < 0.55


def test_family_every_style_of_wording_occurs():
    composer, rng = made(has_rules=False), random.Random(8)
    seen = Counter()
    for _ in range(150):
        for rules in {example.rules for example in composer.family(rng, 10).examples}:
            listed, allowed, forbids_rest = read_config(rules)
            seen["allow"] += forbids_rest and bool(allowed)
            seen["mixed"] += bool(listed and allowed)
            seen["deny"] += bool(listed) and any(name for name, _ in rules)
            seen["business"] += rules[0][1] in BUSINESS
            seen["numbered"] += any(text.startswith("S1: ") for _, text in rules)
            seen["prose"] += len(listed) > sum(bool(read_config((rule,))[0]) for rule in rules)
    assert set(seen) == set(STYLES)
    assert min(seen.values()) > 5


def test_permitted_mixed_never_overlaps_what_is_listed():
    composer, rng = made(), random.Random(9)
    for harm in HARMS[:4]:
        voice = composer.voice(rng, composer.taxonomy, "mixed", 1.0)
        for _ in range(50):
            listed = settle(subject((harm,)), frozenset(rng.sample(composer.taxonomy.keys, 4)))
            for clause in permitted(rng, listed, subject((harm,)), voice):
                assert not composer.taxonomy.relatives(clause.key) & listed


def test_family_other_hash_seeds_give_the_same_families():
    digests = set()
    for seed in ("0", "1", "77"):
        result = subprocess.run(
            [sys.executable, "-c", DIGEST, os.path.dirname(__file__)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(result.stdout)
    assert len(digests) == 1
