"""Families of procedure dialogues: one pair of policies, dialogues that tell them apart.

What it is: sampling. Most dialogues appear under both policies with opposite labels, so the
dialogue alone does not give the label away; the others are twins that differ in one fact and have
opposite labels under each policy. Not: labels (policy.py) or wording (text.py).
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, replace

from csrm.train.batch import Example, Family, RuleText
from csrm.train.compose import draw_count
from csrm.train.procedures.content import IDENTITY, Domain, Fact, load_domains
from csrm.train.procedures.policy import Atom, Clause, Policy, Scene, Value, complies, satisfies
from csrm.train.procedures.text import FILLERS, action_rules, conversation, policy_rules

MAX_RULES = 20
MAX_POLICY_CHARACTERS = 2000
MAX_CONVERSATION_CHARACTERS = 1400
TRIES = 400  # scenes drawn for one pair of labels
REDRAWS = 20  # policies drawn for one family
EDITS = ("replace", "replace", "limit", "limit", "drop", "word", "must", "otherwise", "action")


@dataclass(frozen=True)
class Case:
    """An example with what it was made from, for checks."""

    domain: Domain
    policy: Policy
    scene: Scene
    example: Example


class ProcedureComposer:
    """Families of agents with tools. Immutable, thread-safe with one rng per thread.

    `domains` restricts it to some of DOMAIN_NAMES. Errors: ValueError for an unknown name or none.
    """

    def __init__(self, domains: Collection[str] | None = None) -> None:
        known = load_domains()
        names = set(known if domains is None else domains)
        if not names or names - set(known):
            raise ValueError("unknown procedure domains; use names of DOMAIN_NAMES")
        self.domains = [domain for name, domain in known.items() if name in names]

    def family(self, rng: random.Random, size: int, breadth: float = 1.0) -> Family:
        """About `size` examples, half of them violations; breadth scales the number of rules."""
        cases, pairs = self.cases(rng, size, breadth)
        return Family([case.example for case in cases], pairs)

    def cases(
        self, rng: random.Random, size: int, breadth: float = 1.0
    ) -> tuple[list[Case], list[tuple[int, int]]]:
        """The examples with their policies and scenes, and the (better, worse) pairs."""
        for _ in range(REDRAWS):
            cases, pairs = self._draw(rng, size, breadth)
            if len(cases) >= size // 2:
                break
        return cases, pairs

    def _draw(
        self, rng: random.Random, size: int, breadth: float
    ) -> tuple[list[Case], list[tuple[int, int]]]:
        """One pair of policies; too few cases where no dialogue tells them apart."""
        domain = rng.choice(self.domains)
        policies = draw_policies(rng, domain, breadth)
        rules = draw_rules(rng, domain, policies, breadth)
        cases: list[Case] = []
        pairs: list[tuple[int, int]] = []
        wanted = max(1, size // 2)
        n_twins = wanted // 4
        ways = [(True, False), (False, True)]
        for i in range(3 * wanted):
            if len(cases) >= 2 * wanted:
                break
            is_twin = i < n_twins and wanted - len(cases) // 2 >= 2
            scenes = draw_twins(rng, domain, policies) if is_twin else []
            if not scenes:
                scene = None
                # A stricter and a laxer policy differ in one direction only.
                for labels in ways[:: 1 if i % 2 else -1]:
                    scene = draw_scene(rng, domain, policies, labels)
                    if scene is not None:
                        break
                    ways.remove(labels)
                if not ways:
                    break
                scenes = [scene] if scene else []
            seed = rng.random()
            turns = [conversation(random.Random(seed), scene, domain) for scene in scenes]
            if any(sum(len(t) for _, t in c) > MAX_CONVERSATION_CHARACTERS for c in turns):
                continue
            start = len(cases)
            for scene, said in zip(scenes, turns, strict=True):
                for policy, stated in zip(policies, rules, strict=True):
                    target = float(complies(policy, scene, domain) is True)
                    cases.append(Case(domain, policy, scene, Example(stated, said, target)))
            pairs += ranked(cases, start)
        return cases, pairs


def ranked(cases: list[Case], start: int) -> list[tuple[int, int]]:
    """(better, worse) of the newest cases: one dialogue under two policies, or twins under one."""
    new = range(start, len(cases))
    step = [(start, start + 1)] if len(new) == 2 else [(i, i + 2) for i in new[:2]]
    return [(a, b) if cases[a].example.target else (b, a) for a, b in step if new]


def draw_atom(rng: random.Random, fact: Fact) -> Atom:
    """A test of a fact on a side that a rule may ask for."""
    if fact.kind == "choice":
        return Atom("in", fact.key, tuple(rng.sample(fact.values, rng.randint(1, 2))))
    if fact.kind == "flag":
        wanted = rng.random() < 0.5 if fact.want == "either" else fact.want == "yes"
        return Atom("is", fact.key, wanted)
    op = rng.choice(("le", "ge")) if fact.want == "either" else fact.want
    span = fact.high - fact.low
    return Atom(op, fact.key, fact.low + round(span * rng.uniform(0.25, 0.75)))


def draw_clause(rng: random.Random, domain: Domain, taken: list[str]) -> Clause:
    """A clause on facts that are not in `taken`, which it extends."""
    kind = rng.random()
    if kind < 0.1 and "confirmed" not in taken:
        taken.append("confirmed")
        return (Atom("confirmed"),)
    if kind < 0.18 and "before" not in taken:
        taken.append("before")
        return (Atom("before", "verify", rng.choice(("account", "item"))),)
    free = [key for key in domain.facts if key not in taken]
    weights = [3.0 if key == IDENTITY else 1.0 for key in free]
    keys = [rng.choices(free, weights)[0]]
    if rng.random() < 0.15 and len(free) > 3:
        keys.append(rng.choice([key for key in free if key != keys[0]]))
    taken += keys
    return tuple(draw_atom(rng, domain.facts[key]) for key in keys)


def draw_policies(rng: random.Random, domain: Domain, breadth: float) -> tuple[Policy, Policy]:
    """Two policies that differ in one edit, in either order."""
    taken: list[str] = []
    count = 1 + draw_count(rng, (0, 1, 1, 2, 3), breadth)
    clauses = [draw_clause(rng, domain, taken) for _ in range(count)]
    action, other = rng.sample([a.call for a in domain.actions], 2)
    policy = Policy(
        action,
        tuple(clauses),
        rng.random() < 0.15,
        rng.random() < 0.4,
        rng.choice(("", "", "refuse", "transfer")),
    )
    edit = rng.choice(EDITS)
    place = rng.randrange(count)
    if edit == "word":
        twin = replace(policy, word_counts=not policy.word_counts)
    elif edit == "must":
        twin = replace(policy, must=not policy.must)
    elif edit == "otherwise":
        policy = replace(policy, otherwise="refuse")
        twin = replace(policy, otherwise="transfer")
    elif edit == "action":
        twin = replace(policy, action=other)
    elif edit == "drop":
        twin = replace(policy, clauses=(*clauses[:place], *clauses[place + 1 :]))
    else:
        fact = domain.facts.get(clauses[place][0].fact)
        if edit == "limit" and fact is not None and fact.kind != "flag":
            new: Clause = (draw_atom(rng, fact),)
        else:
            new = draw_clause(rng, domain, taken)
        twin = replace(policy, clauses=(*clauses[:place], new, *clauses[place + 1 :]))
    return (policy, twin) if rng.random() < 0.5 else (twin, policy)


def draw_rules(
    rng: random.Random, domain: Domain, policies: tuple[Policy, Policy], breadth: float
) -> list[tuple[RuleText, ...]]:
    """Both policies as rules, with the same unrelated rules, in an order of their own."""
    bound = [policy.action for policy in policies]
    free = [action for action in domain.actions if action.call not in bound]
    extras: list[RuleText] = []
    for action in free[: draw_count(rng, (0, 1, 1, 2), breadth)]:
        taken: list[str] = []
        clauses = tuple(draw_clause(rng, domain, taken) for _ in range(rng.randint(1, 3)))
        extras += action_rules(rng, action, clauses, domain)
    extras += [("", text) for text in rng.sample(FILLERS, draw_count(rng, (0, 1, 2, 4), breadth))]
    seed = rng.random()
    out = []
    for policy in policies:
        own = random.Random(seed) if rng.random() < 0.6 else rng
        rules = policy_rules(own, policy, domain)
        room = MAX_POLICY_CHARACTERS - sum(len(text) for _, text in rules)
        for extra in extras[: MAX_RULES - len(rules)]:
            room -= len(extra[1])
            rules += [extra] if room >= 0 else []
        rng.shuffle(rules)
        out.append(tuple(rules))
    return out


def draw_value(rng: random.Random, fact: Fact, atoms: list[Atom]) -> Value:
    """A value of a fact, often near a limit that a policy sets."""
    if fact.kind == "flag":
        return rng.random() < 0.5
    if fact.kind == "choice":
        return rng.choice(fact.values)
    limits = [atom.value for atom in atoms if isinstance(atom.value, int)]
    if limits and rng.random() < 0.5:
        near = rng.choice(limits) + rng.choice((-2, -1, 0, 1, 2))
        return min(max(near, fact.low), fact.high)
    return rng.randint(fact.low, fact.high)


def random_scene(rng: random.Random, domain: Domain, policies: tuple[Policy, Policy]) -> Scene:
    """A scene about the facts of both policies."""
    atoms = [atom for policy in policies for clause in policy.clauses for atom in clause]
    needed = list(dict.fromkeys(atom.fact for atom in atoms if atom.fact in domain.facts))
    order = [atom.fact for atom in atoms if atom.op == "before"]
    order += [str(atom.value) for atom in atoms if atom.op == "before"]
    used = [t for t in domain.tools if t in order or any(domain.facts[k].tool == t for k in needed)]
    calls = []
    for tool in domain.tools:
        if rng.random() < (0.9 if tool in used else 0.12):
            # A call for someone else leaves it open whether an order was kept.
            calls.append((tool, rng.random() < 0.94 or tool in order))
    if rng.random() < 0.5:
        rng.shuffle(calls)
    called = [tool for tool, _ in calls]
    values = []
    hidden: list[str] = []
    claimed = []
    for key, fact in domain.facts.items():
        mine = [atom for atom in atoms if atom.fact == key]
        value = draw_value(rng, fact, mine)
        values.append((key, value))
        if key != IDENTITY and rng.random() < (0.06 if key in needed else 0.65):
            hidden.append(key)
        # People state what speaks for their request.
        is_open = fact.tool not in called or key in hidden
        if is_open and any(satisfies(atom, value) for atom in mine) and rng.random() < 0.7:
            claimed.append(key)
    confirmed = rng.choice((True, True, None, False))
    if not any(atom.op == "confirmed" for atom in atoms) and rng.random() < 0.8:
        confirmed = None
    outcome = rng.choices(("act", "refuse", "transfer", "defer"), (6, 3, 2, 1))[0]
    action = rng.choice(policies).action
    return Scene(
        action, tuple(values), tuple(calls), tuple(hidden), tuple(claimed), confirmed, outcome
    )


def draw_scene(
    rng: random.Random, domain: Domain, policies: tuple[Policy, Policy], labels: tuple[bool, bool]
) -> Scene | None:
    """A scene with these labels under the two policies, or None if none was found."""
    for _ in range(TRIES):
        scene = random_scene(rng, domain, policies)
        if all(
            complies(policy, scene, domain) is label
            for policy, label in zip(policies, labels, strict=True)
        ):
            return scene
    return None


def draw_twins(rng: random.Random, domain: Domain, policies: tuple[Policy, Policy]) -> list[Scene]:
    """Two scenes one fact apart: the first keeps both policies, the second breaks both."""
    good = draw_scene(rng, domain, policies, (True, True))
    for _ in range(60 if good else 0):
        assert good is not None
        values = dict(good.values)
        key = rng.choice([key for key in values if key not in good.claimed])
        values[key] = draw_value(rng, domain.facts[key], [])
        bad = replace(good, values=tuple(values.items()))
        if all(complies(policy, bad, domain) is False for policy in policies):
            return [good, bad]
    return []
