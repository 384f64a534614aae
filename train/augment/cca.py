"""Families of configuration augmentation: a conversation under p and under p' (kind "cca").

What it is: draws conversations and a config p, changes p for each of them, and words both in one of
several styles. Each category has one text in a family, so that families share rules. Not: the
relabelling (csrm.train.augment.configuration).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from csrm.train.augment.configuration import change, judge, relabel, settle
from csrm.train.augment.proposer import (
    UNSPECIFIED,
    Clause,
    OfflineProposer,
    Proposer,
    RulebookProposer,
    Subject,
    TaxonomyProposer,
)
from csrm.train.batch import Example, Family, RuleText
from csrm.train.compose import CategorisedComposer, draw_count, draw_source, sample
from csrm.train.compose_rules import RuledComposer
from csrm.train.wording import Wording

STYLES = ("deny", "allow", "mixed", "business", "numbered", "prose")
FLIPS = 0.75  # share of the violating conversations whose label changes
RULEBOOK_SHARE = 0.4
PARAGRAPH = 3  # clauses in a paragraph of prose

BUSINESS = (
    "This assistant serves the customers of a regional bus company.",
    "You help visitors of a garden centre to find their way around the range.",
    "We publish a weekly magazine about cooking, and readers write to this chat.",
    "The chat belongs to a housing association with about nine hundred flats.",
    "Our studio makes board games, and this assistant answers its community.",
    "A public library offers this service at its information desk.",
    "This is the internal help desk of an insurance broker.",
    "The bot accompanies an evening course for adults who learn a language.",
)
EMPTY = "Friendly small talk is welcome."
PROSE = (
    "How we handle this: {text}",
    "In short, the following applies. {text}",
    "{text}",
    "Our terms say on this point: {text}",
)


@dataclass(frozen=True, slots=True)
class Voice:
    """How the configs of a family are worded."""

    style: str
    proposer: OfflineProposer
    clauses: Mapping[str, Clause]  # of every key
    opening: str  # first rule, "" for none
    closing: str  # last rule, "" for none
    fillers: tuple[str, ...]
    invented: Mapping[str, Clause] = field(default_factory=dict)  # what a proposer made up


class ConfigurationComposer:
    """Families from labelled conversations, by taxonomy or by rulebook."""

    def __init__(
        self,
        categorised: CategorisedComposer,
        ruled: RuledComposer,
        proposer: Proposer | None = None,
    ) -> None:
        """proposer: whom to ask for p+ and p-; None answers from the labels."""
        self.proposer = proposer
        self.categorised = categorised
        self.ruled = ruled
        self.wording: Wording = categorised.wording
        self.taxonomy = TaxonomyProposer(categorised.labels, categorised.wording)
        self.violated = {
            body: [h for h in sorted(rows) if any(row.violates for row in rows[h])]
            for body, rows in ruled.by_body.items()
        }
        self.rulebooks = {
            body: RulebookProposer(ruled, body) for body in ruled.bodies if self.violated[body]
        }

    @property
    def has_supply(self) -> bool:
        """Whether the corpus has conversations for it."""
        return bool(self.categorised.targets)

    def family(self, rng: random.Random, size: int, breadth: float = 1.0) -> Family:
        """About `size` examples, half of them violations."""
        if self.rulebooks and rng.random() < RULEBOOK_SHARE:
            return self.by_rulebook(rng, size, breadth)
        return self.by_taxonomy(rng, size, breadth)

    def by_taxonomy(self, rng: random.Random, size: int, breadth: float) -> Family:
        """A family around one harm; one of unknown harm stays under configs that forbid all."""
        chosen = self.categorised
        target = rng.choices(chosen.targets, chosen.target_weights)[0]
        source = draw_source(rng, chosen.by_harm[target])
        harmful = sample(rng, chosen.by_harm[target][source], max(2, size * 4 // 10))
        near = chosen.by_near.get(target, {}).get(source, [])
        calm = near or chosen.harmless_by_source.get(source) or chosen.harmless
        harmless = sample(rng, calm, (len(harmful) + 1) // 2)
        subjects = [self.taxonomy.subject(row) for row in (*harmful, *harmless)]
        if target == UNSPECIFIED:
            style = "deny" if breadth == 1 and rng.random() < 0.25 else "allow"
            listed = frozenset(self.taxonomy.keys)
        else:
            style = rng.choice(STYLES)
            listed = self.draw_listed(rng, target, style, breadth)
        return self.fill(rng, subjects, listed, self.voice(rng, self.taxonomy, style, breadth))

    def draw_listed(
        self, rng: random.Random, target: str, style: str, breadth: float
    ) -> frozenset[str]:
        """p of a family: a few categories, all but a few under "allow"; half with `target`."""
        parts = frozenset(self.categorised.labels.parts(target))
        touches = frozenset(key for part in parts for key in self.taxonomy.relatives(part))
        spare = [key for key in self.taxonomy.keys if key not in touches]
        drawn = frozenset(sample(rng, spare, draw_count(rng, (0, 1, 2, 4), breadth)))
        is_listed = rng.random() < 0.5
        if style == "allow":
            return frozenset(self.taxonomy.keys) - drawn - (frozenset() if is_listed else touches)
        return drawn | parts if is_listed else drawn

    def by_rulebook(self, rng: random.Random, size: int, breadth: float) -> Family:
        """A family around one heading of a rulebook."""
        ruled = self.ruled
        weights = [
            weight
            for body, weight in zip(ruled.bodies, ruled.body_weights, strict=True)
            if body in self.rulebooks
        ]
        body = rng.choices(list(self.rulebooks), weights)[0]
        proposer = self.rulebooks[body]
        rows = ruled.by_body[body]
        heading = rng.choice(self.violated[body])
        n = max(2, size * 4 // 10)
        harmful = sample(rng, [row for row in rows[heading] if row.violates], n)
        twins = [row for row in rows[heading] if not row.violates]
        harmless = sample(rng, twins, (len(harmful) + 1) // 2)
        subjects = [proposer.subject(row) for row in (*harmful, *harmless)]
        touches = frozenset(key for subject in subjects for key in subject.touches)
        spare = [key for key in proposer.keys if key not in touches]
        listed = frozenset(sample(rng, spare, draw_count(rng, (0, 1, 2, 4, 8), breadth)))
        if rng.random() < 0.5:
            listed |= {row.rule for row in harmful}
        style = rng.choice([style for style in STYLES if style != "allow"])
        return self.fill(rng, subjects, listed, self.voice(rng, proposer, style, breadth))

    def voice(
        self,
        rng: random.Random,
        proposer: OfflineProposer,
        style: str,
        breadth: float,
    ) -> Voice:
        """One text for every key, and what stands around the list."""
        clauses = {key: proposer.clause(rng, key) for key in proposer.keys}
        closing = ""
        if style == "allow":
            closing = rng.choice(self.wording.forbid_all)
        elif rng.random() < 0.3:
            closing = rng.choice(self.wording.allow_rest)
        opening = rng.choice(BUSINESS) if style == "business" else ""
        n_fillers = draw_count(rng, (0, 0, 1, 2), breadth)
        fillers = rng.sample(self.wording.fillers, n_fillers)
        return Voice(style, proposer, clauses, opening, closing, tuple(fillers))

    def fill(
        self, rng: random.Random, subjects: Sequence[Subject], base: frozenset[str], voice: Voice
    ) -> Family:
        """The violating subjects under p and p', the harmless ones after them under one config."""
        family = Family()
        permits_rest = voice.style == "allow"
        for subject in subjects:
            if not subject.breaks:
                self.add_harmless(rng, family, subject, base, voice)
                continue
            if any(len(keys) == len(voice.proposer.keys) for keys in subject.breaks):
                # An unknown harm: only a config that lists everything settles it.
                if base == frozenset(voice.proposer.keys):
                    family.add(Example(worded(rng, base, subject, voice), subject.turns, 0.0))
                continue
            listed = settle(subject, base)
            flips = rng.random() < FLIPS
            if not flips and not relabel(subject.breaks, listed):
                # Half of all examples violate, so those with one label have this one.
                listed |= rng.choice(subject.breaks)
            if permits_rest and relabel(subject.breaks, listed):
                listed |= subject.touches
            proposer = self.proposer or voice.proposer
            changed = change(rng, subject, listed, proposer, flips, permits_rest)
            voice = replace(voice, invented={c.key: c for c in changed.clauses})
            placed: dict[bool, int] = {}
            outcomes = ((listed, judge(subject, listed)), (changed.listed, changed.is_unsafe))
            for keys, is_unsafe in outcomes:
                if is_unsafe is not None:
                    rules = worded(rng, keys, subject, voice)
                    target = 0.0 if is_unsafe else 1.0
                    placed[is_unsafe] = family.add(Example(rules, subject.turns, target))
            if len(placed) == 2:
                family.pairs.append((placed[False], placed[True]))
        return family

    def add_harmless(
        self,
        rng: random.Random,
        family: Family,
        subject: Subject,
        base: frozenset[str],
        voice: Voice,
    ) -> None:
        """`subject` under a config that another conversation violates, or under a p' of its own."""
        violated = [example.rules for example in family.examples if example.target == 0]
        if violated and rng.random() < 0.5:
            family.add(Example(rng.choice(violated), subject.turns, 1.0))
            return
        changed = change(rng, subject, base, voice.proposer, flips=False)
        family.add(Example(worded(rng, changed.listed, subject, voice), subject.turns, 1.0))


def permitted(
    rng: random.Random, listed: frozenset[str], subject: Subject, voice: Voice
) -> list[Clause]:
    """What a config that lists `listed` permits by name; it never overlaps what is forbidden.

    Under "allow" everything unlisted. Under "mixed" what the conversation would violate where
    nothing like it is listed, and else where categories that have to do with neither.
    """
    if voice.style == "allow":
        return [voice.clauses[key] for key in sorted(set(voice.clauses) - listed)]
    if voice.style != "mixed" or voice.invented.keys() & listed:  # unknown overlaps
        return []
    if subject.breaks and not subject.touches & listed and rng.random() < 0.6:
        broken = sorted({key for keys in subject.breaks for key in keys})
        return [voice.clauses[key] for key in broken]
    other = [
        key
        for key in sample(rng, sorted(voice.clauses), 6)
        if key not in subject.touches and not voice.proposer.relatives(key) & listed
    ]
    return [voice.clauses[key] for key in other[:2]]


def worded(
    rng: random.Random, listed: frozenset[str], subject: Subject, voice: Voice
) -> tuple[RuleText, ...]:
    """A config that lists `listed`, in the style of `voice`, for `subject`."""
    stated: list[RuleText] = []
    if voice.style == "allow":
        forbidden = [voice.invented[key] for key in sorted(listed & voice.invented.keys())]
    else:
        known = {**voice.clauses, **voice.invented}
        forbidden = [known[key] for key in sorted(listed)]
    stated += [(c.name, c.forbid) for c in forbidden]
    stated += [(c.name, c.allow) for c in permitted(rng, listed, subject, voice)]
    rng.shuffle(stated)
    if voice.style == "numbered":
        rules = [
            ("", f"S{number}: {name}. {text}" if name else f"S{number}: {text}")
            for number, (name, text) in enumerate(stated, 1)
        ]
    elif voice.style == "prose":
        parts = [stated[i : i + PARAGRAPH] for i in range(0, len(stated), PARAGRAPH)]
        joined = [" ".join(text for _, text in part) for part in parts]
        rules = [("", rng.choice(PROSE).format(text=text)) for text in joined]
    else:
        is_named = voice.style in ("deny", "mixed")
        rules = [(name if is_named else "", text) for name, text in stated]
    rules += [("", text) for text in voice.fillers]
    if voice.closing:
        rules.append(("", voice.closing))
    if voice.opening:
        rules.insert(0, ("", voice.opening))
    # A config has a rule at least; this one forbids nothing.
    return tuple(rules) or (("", EMPTY),)
