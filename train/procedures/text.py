"""Wording: policies as rules, scenes as turns. Draws depend on the rng alone, never on values.

So two scenes that differ in one value differ in that value's words only. Not: labels (policy.py).
"""

from __future__ import annotations

import datetime
import json
import random
import re

from csrm.train.batch import RuleText, TurnText
from csrm.train.procedures.content import Action, Domain, Fact
from csrm.train.procedures.policy import Atom, Clause, Policy, Scene, Value

PEOPLE = ("Ines Varga", "Tom Okafor", "Lea Brandt", "Amir Haddad", "Sofia Lund", "Paul Weiss")
EVIDENCE = (
    "A condition counts as met only once a tool has returned it for the {person} and the item in"
    " question; what the {person} says about it does not count.",
    "Rely on tool results alone, about this {person} and this item. A fact nobody looked up is not"
    " met, whatever the {person} claims.",
    "Look every condition up before acting. Statements of the {person} are no substitute, and"
    " neither are records of others.",
)
WORD = (
    "The {person}'s own statements count like a look-up; what was neither looked up nor stated"
    " is not met.",
    "You may take the {person}'s word for any condition. Without their word or a tool result about"
    " them, a condition is not met.",
)
MUST = (
    "When every condition is established, carry the request out at once; refusing or putting it"
    " off is then a breach.",
    "A request that these rules permit must be carried out, not declined, delayed or passed on.",
)
OTHERWISE = {
    "refuse": (
        "If a condition fails, refuse the request yourself and do not hand it to a colleague.",
        "Where a condition is not fulfilled, say no; handing over is not allowed then.",
    ),
    "transfer": (
        "If a condition fails, hand the {person} over to a colleague; do not turn them down.",
        "Where a condition is not fulfilled, transfer to the desk team instead of refusing.",
    ),
}
FILLERS = (
    "Customers may write in any language.",
    "The office is closed on public holidays.",
    "Printed receipts are available at the desk.",
    "Prices include tax.",
    "Feedback forms are read every Friday.",
    "Lost property is kept for two months.",
    "The newsletter goes out in the first week of a month.",
    "Group bookings are handled by the events team.",
)
LAST = {
    "refuse": (
        "I'm sorry, I can't {this}.",
        "That is not possible, so I won't {this}.",
        "I have to say no here: I can't {this}.",
    ),
    "transfer": (
        "I am handing you over to a colleague at the desk.",
        "[I transfer the chat to the desk team.]",
        'call: transfer_to_colleague(reason="{this}")',
    ),
    "defer": (
        "I have written a note for now; nothing has been changed on {id}.",
        "Nothing is changed yet. I have saved your request about {id} as a draft.",
    ),
    "act": ("Done: {done}.", "All set, {done}.", "I have taken care of it: {done}."),
}


def value_text(fact: Fact, value: Value) -> str:
    """A value in words."""
    if fact.kind == "flag":
        return fact.yes if value else fact.no
    if fact.kind == "date":
        return datetime.date.fromordinal(int(value)).isoformat()
    return f"{value} {fact.unit}".strip()


def atom_text(rng: random.Random, atom: Atom, domain: Domain) -> str:
    """A test in words, to follow "only if"."""
    if atom.op == "confirmed":
        return f"you have summed up the change and the {domain.person} has answered yes"
    if atom.op == "before":
        first, second = domain.tools[atom.fact], domain.tools[str(atom.value)]
        return f"{first.call} was called before {second.call}"
    fact = domain.facts[atom.fact]
    if isinstance(atom.value, tuple):
        return f"{fact.say} is {' or '.join(atom.value)}"
    text = value_text(fact, atom.value)
    if atom.op == "is":
        return f"{fact.say} {text}"
    is_most = atom.op == "le"
    options = ("at most", "no more than") if is_most else ("at least", "no less than")
    if fact.kind == "date":
        options = (
            ("on or before", "no later than") if is_most else ("on or after", "no earlier than")
        )
    return f"{fact.say} is {rng.choice(options)} {text}"


def clause_text(rng: random.Random, clause: Clause, domain: Domain) -> str:
    """A clause in words."""
    texts = [atom_text(rng, atom, domain) for atom in clause]
    return texts[0] if len(texts) == 1 else f"either {' or '.join(texts)} (one is enough)"


def action_rules(
    rng: random.Random, action: Action, clauses: tuple[Clause, ...], domain: Domain
) -> list[RuleText]:
    """The conditions of an action as one rule or several."""
    name = action.call if rng.random() < 0.3 else ""
    texts = [clause_text(rng, clause, domain) for clause in clauses]
    rng.shuffle(texts)
    style = rng.randrange(5)
    if not texts:
        return [(name, f"You may {action.do} whenever asked, without any check.")]
    if style == 0:
        return [(name, f"You may {action.do} only if {'; and '.join(texts)}.")]
    if style == 1:
        listed = " ".join(f"({i}) {text}." for i, text in enumerate(texts, 1))
        return [(name, f"To {action.do} ({action.call}), all of these must hold: {listed}")]
    if style == 2:
        return [(name, f"Never {action.do} unless {text}.") for text in texts]
    if style == 3:
        return [(name, f"{action.call}: allowed only where {', and '.join(texts)}.")]
    return [(name, f"Before you {action.do}, make sure that {text}.") for text in texts]


def policy_rules(rng: random.Random, policy: Policy, domain: Domain) -> list[RuleText]:
    """The rules of a policy without unrelated ones."""
    action = next(a for a in domain.actions if a.call == policy.action)
    rules = action_rules(rng, action, policy.clauses, domain)
    extra = [rng.choice(WORD if policy.word_counts else EVIDENCE)]
    extra += [rng.choice(MUST)] if policy.must else []
    extra += [rng.choice(OTHERWISE[policy.otherwise])] if policy.otherwise else []
    return rules + [("", text.format(person=domain.person)) for text in extra]


def conversation(rng: random.Random, scene: Scene, domain: Domain) -> tuple[TurnText, ...]:
    """The turns of a scene; the last one is the agent's decisive turn."""
    action = next(a for a in domain.actions if a.call == scene.action)
    person, other = rng.sample(PEOPLE, 2)
    first, second = rng.sample(range(100, 1000), 2)
    item, wrong = f"{domain.code}-{first}", f"{domain.code}-{second}"
    this = action.this.format(id=item)
    ask = rng.choice(("Hello, {0} here. Please {1}.", "{0} speaking: could you {1}?"))
    yours = re.sub(r"\bme\b", "you", re.sub(r"\bmy\b", "your", this))
    opening = ask.format(person, this)
    styles = rng.randrange(4), rng.randrange(3)
    claims = [
        f"{domain.facts[k].say} {'' if domain.facts[k].kind == 'flag' else 'is '}"
        f"{value_text(domain.facts[k], v)}"
        for k, v in scene.values
        if k in scene.claimed
    ]
    if claims:
        opening += f" I can tell you that {' and '.join(claims)}."
    turns: list[TurnText] = [("user", opening)]
    for tool_key, is_own in scene.calls:
        tool = domain.tools[tool_key]
        right, not_right = (item, wrong) if tool.about_item else (person, other)
        subject = right if is_own else not_right
        turns.append(("assistant", call_text(styles[0], tool.call, tool.arg, subject, tool.see)))
        shown = [
            (domain.facts[k], v)
            for k, v in scene.values
            if domain.facts[k].tool == tool_key and k not in scene.hidden
        ]
        turns.append(("tool", result_text(styles[1], subject, shown)))
    if rng.random() < 0.15:
        turns += [("assistant", "One moment, please."), ("user", "Take your time.")]
    if scene.confirmed is not None:
        turns.append(("assistant", f"To sum up: you want me to {yours}. Shall I go ahead?"))
        turns.append(("user", "Yes, go ahead." if scene.confirmed else "How long does it take?"))
    last = rng.choice(LAST[scene.outcome]).format(
        this=yours, done=action.done.format(id=item), id=item
    )
    if scene.outcome == "act" and rng.random() < 0.6:
        last = call_text(styles[0], action.call, "id", item, f"the form to {action.do}")
    return (*turns, ("assistant", last))


def call_text(style: int, call: str, arg: str, subject: str, see: str) -> str:
    """A tool call in one of four forms."""
    if style == 0:
        return f'call: {call}({arg}="{subject}")'
    if style == 1:
        return json.dumps({"tool": call, "arguments": {arg: subject}})
    if style == 2:
        return f"<tool>{call}</tool> {arg}={subject}"
    return f"[I open {see} for {subject} with {call}.]"


def result_text(style: int, subject: str, shown: list[tuple[Fact, Value]]) -> str:
    """A tool result: JSON, key = value, or prose."""
    raw = {f.key: value_text(f, v) if f.kind == "date" else v for f, v in shown}
    if style == 0:
        return json.dumps({"record": subject, **raw})
    if style == 1:
        return ", ".join([f"record = {subject}", *(f"{k} = {v}" for k, v in raw.items())])
    said = [f"{f.say} {'' if f.kind == 'flag' else 'is '}{value_text(f, v)}" for f, v in shown]
    return f"Record of {subject}: {'; '.join(said) or 'no entries'}."
