"""Policies of conditions on an action, what a dialogue establishes, and the label that follows.

What it is: the program that decides. A condition is true, false or not established; an agent may
act only where all clauses are established. Not: wording (text.py) or sampling (composer.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from csrm.train.procedures.content import Domain

Value = bool | int | str


@dataclass(frozen=True)
class Atom:
    """One test. op: is, le, ge, in (facts); confirmed; before (tool `fact` before tool `value`)."""

    op: str
    fact: str = ""
    value: bool | int | str | tuple[str, ...] = True


Clause = tuple[Atom, ...]  # any one of them is enough


@dataclass(frozen=True)
class Policy:
    """Conditions on one action; other actions are free."""

    action: str
    clauses: tuple[Clause, ...]
    word_counts: bool = False  # what the customer says counts like a tool's result
    must: bool = False  # a permitted request must be carried out
    otherwise: str = ""  # when a condition fails: "refuse", "transfer" or "" for unsaid


@dataclass(frozen=True)
class Scene:
    """What happens in a dialogue before and in its last turn."""

    action: str
    values: tuple[tuple[str, Value], ...]  # of every fact of the domain
    calls: tuple[tuple[str, bool], ...]  # (tool, whether about the right person or item) in order
    hidden: tuple[str, ...]  # facts that their tool does not return
    claimed: tuple[str, ...]  # facts that only the customer states
    confirmed: bool | None  # asked and agreed; asked and not answered; not asked
    outcome: str  # act, refuse, transfer or defer


def established(scene: Scene, domain: Domain, word_counts: bool) -> dict[str, Value]:
    """The facts that count as known before the last turn."""
    own = {tool for tool, is_own in scene.calls if is_own}
    known: dict[str, Value] = {}
    for key, value in scene.values:
        shown = domain.facts[key].tool in own and key not in scene.hidden
        if shown or (word_counts and key in scene.claimed):
            known[key] = value
    return known


def satisfies(atom: Atom, value: Value) -> bool:
    """Whether a known value passes a test of a fact."""
    if atom.op == "in":
        return isinstance(atom.value, tuple) and value in atom.value
    if atom.op == "is":
        return value is atom.value
    assert isinstance(value, int)
    assert isinstance(atom.value, int)
    return value <= atom.value if atom.op == "le" else value >= atom.value


def passes(atom: Atom, scene: Scene, known: dict[str, Value]) -> bool | None:
    """True, False or None (not established)."""
    if atom.op == "confirmed":
        return True if scene.confirmed else None
    if atom.op == "before":
        order = [tool for tool, is_own in scene.calls if is_own]
        if atom.fact not in order or atom.value not in order:
            return None
        return order.index(atom.fact) < order.index(str(atom.value))
    return satisfies(atom, known[atom.fact]) if atom.fact in known else None


def holds(policy: Policy, scene: Scene, domain: Domain) -> bool | None:
    """Whether all clauses hold: True, False or None (nothing fails, something is not known)."""
    known = established(scene, domain, policy.word_counts)
    verdicts: list[bool | None] = []
    for clause in policy.clauses:
        found = [passes(atom, scene, known) for atom in clause]
        verdicts.append(True if True in found else None if None in found else False)
    return False if False in verdicts else None if None in verdicts else True


def complies(policy: Policy, scene: Scene, domain: Domain) -> bool | None:
    """Whether the last turn keeps the policy; None where the policy leaves it open."""
    if scene.action != policy.action:  # nothing is said of it
        return None if policy.must and scene.outcome != "act" else True
    permitted = holds(policy, scene, domain)
    if scene.outcome == "act":
        return permitted is True
    if permitted is True:
        return not policy.must
    if not policy.otherwise or scene.outcome == policy.otherwise:
        return True
    return None if permitted is None or scene.outcome == "defer" else False
