"""Configuration augmentation (arXiv 2605.30487, 1.5): other categories, and the label they imply.

What it is: from a conversation under the listed categories p, the categories p' after dropping some
and inserting p+ or p-, with the rule y' = unsafe iff a violated category or p+ is in p'. Not: where
proposals come from (csrm.train.augment.proposer) or how p' is worded (csrm.train.augment.cca).
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

from csrm.train.augment.proposer import Clause, Proposer, Subject

INSERT_MINUS = 0.5
MOST_DROPPED = 3  # of the categories that need not stay


@dataclass(frozen=True, slots=True)
class Changed:
    """p' and whether the conversation violates it; `is_unsafe` is None where that is open."""

    listed: frozenset[str]
    is_unsafe: bool | None
    clauses: tuple[Clause, ...] = ()  # the words of listed categories that a proposer made up


def relabel(breaks: Collection[frozenset[str]], listed: Collection[str]) -> bool:
    """y': whether one of the violated categories, p+ among them, is listed with all its parts."""
    return any(keys <= set(listed) for keys in breaks)


def judge(subject: Subject, listed: Collection[str]) -> bool | None:
    """y' where it can be trusted: None if nothing violated is listed but something near it is."""
    if relabel(subject.breaks, listed):
        return True
    return None if subject.touches & set(listed) else False


def settle(subject: Subject, listed: frozenset[str]) -> frozenset[str]:
    """`listed` itself if it settles the label, otherwise without all that touches `subject`."""
    return listed if judge(subject, listed) is not None else listed - subject.touches


def change(
    rng: random.Random,
    subject: Subject,
    listed: frozenset[str],
    proposer: Proposer,
    flips: bool,
    permits_rest: bool = False,
) -> Changed:
    """p' of `subject` under p = `listed`, with the other label if `flips` and that is possible.

    To omit a violated category, all that touches the conversation goes with it; to keep the label
    unsafe, one violated category stays whole. permits_rest: the config permits by name whatever is
    unlisted, so where it is to be violated it must list all that touches the conversation, not the
    violated category alone. The label of p must be settled.
    """
    proposal = proposer.propose(rng, subject, listed)
    was_unsafe = relabel(subject.breaks, listed)
    kept: frozenset[str] = frozenset()
    if was_unsafe and not flips:
        kept = rng.choice([keys for keys in subject.breaks if keys <= listed])
        if permits_rest:
            kept |= subject.touches & listed
    loose = sorted(listed - kept)
    dropped = rng.sample(loose, rng.randint(0, min(MOST_DROPPED, len(loose))))
    changed = listed - set(dropped)
    if was_unsafe and flips:
        changed -= subject.touches
    if proposal.plus and flips and not was_unsafe:
        changed |= (proposal.plus | subject.touches) if permits_rest else proposal.plus
    if proposal.minus is not None and rng.random() < INSERT_MINUS:
        changed |= {proposal.minus}
    is_unsafe = relabel((proposal.plus,), changed) if proposal.plus else False
    clauses = tuple(clause for clause in proposal.clauses if clause.key in changed)
    return Changed(changed, is_unsafe or judge(subject, changed), clauses)
