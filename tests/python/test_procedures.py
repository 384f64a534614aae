"""Procedure dialogues: labels, balance, pairs, limits, determinism and no shortcut."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")

from csrm.train.procedures import DOMAIN_NAMES, ProcedureComposer
from csrm.train.procedures.composer import Case

SIZE = 14
DIGEST = """
import hashlib, random
from csrm.train.procedures import ProcedureComposer
rng, composer = random.Random(3), ProcedureComposer({"pet_hotel", "gym_membership", "boat_marina"})
print(hashlib.sha256(repr([composer.family(rng, 14) for _ in range(4)]).encode()).hexdigest())
"""


def made(n: int, breadth: float = 1.0, seed: int = 5) -> list[tuple[list[Case], list]]:
    composer, rng = ProcedureComposer(), random.Random(seed)
    return [composer.cases(rng, SIZE, breadth) for _ in range(n)]


def read_value(text: str, fact) -> object:
    """A value as a tool or a customer words it."""
    if fact.kind == "date":
        return datetime.date.fromisoformat(text).toordinal()
    if fact.kind == "choice":
        return text
    if fact.kind == "flag":
        return {"true": True, "false": False, fact.yes: True, fact.no: False}[
            text if text in (fact.yes, fact.no) else text.lower()
        ]
    return int(text.split()[0])


def read_record(text: str, facts) -> tuple[str, dict[str, object]]:
    """(subject, values) of a tool result in any of its three forms."""
    if text.startswith("{"):
        raw = json.loads(text)
        return raw.pop("record"), {k: read_value(str(v), facts[k]) for k, v in raw.items()}
    if text.startswith("record = "):
        raw = dict(part.split(" = ") for part in text.split(", "))
        return raw.pop("record"), {k: read_value(v, facts[k]) for k, v in raw.items()}
    subject, said = re.fullmatch(r"Record of ([^:]+): (.*)\.", text).groups()
    return subject, read_prose(said.split("; "), facts)


def read_prose(sentences: list[str], facts) -> dict[str, object]:
    found: dict[str, object] = {}
    for fact in facts.values():
        for sentence in sentences:
            start = fact.say + (" " if fact.kind == "flag" else " is ")
            rest = sentence[len(start) :]
            if sentence.startswith(start) and (fact.kind != "flag" or rest in (fact.yes, fact.no)):
                found[fact.key] = read_value(rest, fact)
    return found


def verdict(case: Case) -> bool:
    """Compliance from the words of the conversation and the structured policy."""
    domain, policy, turns = case.domain, case.policy, case.example.turns
    opening, last = turns[0][1], turns[-1][1]
    person = re.search(r"(?:Hello, )?([A-Z]\w+ [A-Z]\w+) (?:here|speaking)", opening).group(1)
    item = re.search(rf"{domain.code}-\d+", opening).group()
    known: dict[str, object] = {}
    if policy.word_counts and "I can tell you that " in opening:
        said = opening.split("I can tell you that ")[1].removesuffix(".")
        known |= read_prose(said.split(" and "), domain.facts)
    calls = []
    for (_, call), (role, result) in itertools.pairwise(turns):
        if role == "tool":
            subject, values = read_record(result, domain.facts)
            if subject in (person, item):
                calls.append(next(k for k, t in domain.tools.items() if t.call in call))
                known |= values
    agreed = any(text == "Yes, go ahead." for role, text in turns if role == "user")
    asked = re.search(r"(?:Please|could you) (.*?)[.?](?: I can tell|$)", opening).group(1)
    action = next(a for a in domain.actions if a.this.format(id=item) == asked)
    is_refusal = last.startswith(("I'm sorry", "That is not", "I have to say no"))
    is_transfer = "colleague" in last or "transfer the chat" in last
    is_act = not (is_refusal or is_transfer or "Nothing is changed" in last or "a note" in last)
    if action.call != policy.action:
        return True

    def check(atom) -> bool | None:
        if atom.op == "confirmed":
            return agreed or None
        if atom.op == "before":
            both = atom.fact in calls and atom.value in calls
            return calls.index(atom.fact) < calls.index(atom.value) if both else None
        if atom.fact not in known:
            return None
        value = known[atom.fact]
        return {
            "is": lambda: value == atom.value,
            "in": lambda: value in atom.value,
            "le": lambda: value <= atom.value,
            "ge": lambda: value >= atom.value,
        }[atom.op]()

    results = []
    for clause in policy.clauses:
        found = [check(atom) for atom in clause]
        results.append(True if any(found) else None if None in found else False)
    if is_act:
        return all(results)
    if all(results):
        return not policy.must
    if False in results and policy.otherwise:
        return (policy.otherwise == "refuse") == is_refusal
    return True


def test_cases_labels_match_independent_reading() -> None:
    cases = [case for found, _ in made(60) for case in found]
    assert len(cases) > 500
    for case in cases:
        assert verdict(case) is (case.example.target == 1.0), case.example


def test_family_balanced_and_within_limits() -> None:
    labels = []
    for cases, _ in made(60):
        targets = [case.example.target for case in cases]
        assert SIZE // 2 <= len(targets) <= SIZE
        assert sum(targets) * 2 == pytest.approx(len(targets), abs=3)
        labels += targets
        for case in cases:
            assert 2 <= len(case.example.turns) <= 14
            assert case.example.turns[-1][0] == "assistant"
            assert 1 <= len(case.example.rules) <= 20
            assert sum(len(text) for _, text in case.example.turns) <= 1400
            assert sum(len(text) for _, text in case.example.rules) <= 2200
            said = [t for _, t in case.example.turns] + [t for _, t in case.example.rules]
            assert not any(re.search(r"\{\w+\}", text) for text in said)
    assert 0.47 < np.mean(labels) < 0.53


def test_family_pairs_compliant_first() -> None:
    for cases, pairs in made(40):
        assert pairs
        for better, worse in pairs:
            good, bad = cases[better].example, cases[worse].example
            assert (good.target, bad.target) == (1.0, 0.0)
            assert (good.turns == bad.turns) != (good.rules == bad.rules)


def test_family_breadth_scales_rules() -> None:
    narrow = [len(c.example.rules) for found, _ in made(40, 0.1) for c in found]
    broad = [len(c.example.rules) for found, _ in made(40, 1.0) for c in found]
    assert np.mean(broad) > 1.4 * np.mean(narrow)


def test_family_any_hash_seed_same_examples() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("part", ["all", "last"])
def test_conversation_alone_words_do_not_tell_label(part: str) -> None:
    train = [c.example for found, _ in made(150, seed=1) for c in found]
    test = [c.example for found, _ in made(80, seed=2) for c in found]
    assert 0.4 < shortcut_auc(train, test, part) < 0.6


def shortcut_auc(train, test, part: str) -> float:
    """AUC of a bag-of-words logistic regression, with the length and number of turns."""

    def features(examples):
        rows = np.zeros((len(examples), 514))
        for row, example in zip(rows, examples, strict=True):
            said = example.turns if part == "all" else example.turns[-1:]
            for word in re.findall(r"[a-z_]+|\d", " ".join(t for _, t in said).lower()):
                row[int(hashlib.md5(word.encode()).hexdigest(), 16) % 512] = 1
            row[512:] = len(example.turns) / 10, sum(len(t) for _, t in said) / 1000
        return rows, np.array([example.target for example in examples])

    x, y = features(train)
    weights, bias = np.zeros(x.shape[1]), 0.0
    for _ in range(300):
        error = 1 / (1 + np.exp(-(x @ weights + bias))) - y
        weights -= 0.5 * (x.T @ error / len(y) + 1e-3 * weights)
        bias -= 0.5 * error.mean()
    x, y = features(test)
    scores = x @ weights
    good, bad = scores[y == 1][:, None], scores[y == 0][None]
    return float((good > bad).mean() + 0.5 * (good == bad).mean())


def test_composer_restricted_uses_only_its_domains() -> None:
    composer, rng = ProcedureComposer(["pet_hotel"]), random.Random(1)
    assert {c.domain.name for _ in range(5) for c in composer.cases(rng, SIZE)[0]} == {"pet_hotel"}
    assert len(DOMAIN_NAMES) >= 12


@pytest.mark.parametrize("names", [[], ["no such domain"]])
def test_composer_unknown_domain_raises(names: list[str]) -> None:
    with pytest.raises(ValueError, match="DOMAIN_NAMES"):
        ProcedureComposer(names)
