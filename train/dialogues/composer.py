"""Families of policy dialogues: the same reply under configs that forbid, allow or demand it.

What it is: sampling. A family has up to three focus families of rules; each config leaves one of
them out (silent, permitted or reversed), so every breaking reply is a violation under some configs
and compliant under another. Not: the labels (labels.py), the texts (content.py).
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping

from csrm.train.batch import Example, Family, RuleText, TurnText
from csrm.train.compose import draw_count
from csrm.train.dialogues.content import CHOICE, SLOT, Content, Permit, Shared, Topic, load_content
from csrm.train.dialogues.labels import Config, Dialogue, Focus, Part, judge
from csrm.train.dialogues.rough import roughen, vary_case
from csrm.train.dialogues.styles import STYLES, expand
from csrm.train.wording import Wording

FAMILY_NAMES: tuple[str, ...] = (*load_content().topics, *STYLES)
MAX_RULES = 14
SENTENCE_START = re.compile(r"(?:^|[.!?] )[a-z]")


class DialogueComposer:
    """Families of written policy dialogues. Immutable, thread-safe with one rng per thread."""

    def __init__(
        self,
        wording: Wording,
        families: Collection[str] | None = None,
        content: Content | None = None,
    ) -> None:
        """families: which to draw from, all if None; content: default the topics of training."""
        content = load_content() if content is None else content
        known = (*content.topics, *STYLES)
        names = known if families is None else tuple(dict.fromkeys(families))
        unknown = sorted(set(names) - set(known))
        if unknown or not names:
            raise ValueError(f"unknown dialogue families {unknown}; use names of FAMILY_NAMES")
        self.shared: Shared = content.shared
        self.topics: Mapping[str, Topic] = {n: t for n, t in content.topics.items() if n in names}
        self.names = names
        # A restricted composer without topics of its own still needs replies for its form rules.
        self.carriers = [t for t in self.topics.values() if t.judged == "assistant"] or [
            content.topics["delivery_dates"]
        ]
        self.all_topics = content.topics
        self.fillers = [
            text
            for text in wording.fillers
            if not any(part in text for part in content.shared.conflicting_fillers)
        ]

    def family(self, rng: random.Random, size: int, breadth: float = 1.0) -> Family:
        """About `size` examples, half of them violations; breaking replies in pairs if possible.

        breadth scales the number of unrelated rules (csrm.train.compose.draw_count).
        """
        slots = {name: rng.choice(self.shared.slots[name]) for name in sorted(self.shared.bound)}
        self._distinct_lines(rng, slots)
        focuses = self._focuses(rng)
        configs = self._configs(rng, focuses, slots, breadth)
        family = Family()
        for i in range(2 * size):
            if len(family.examples) >= size:
                break
            violations = sum(example.target == 0.0 for example in family.examples)
            breaking = 2 * violations <= len(family.examples)
            focus = focuses[i % len(focuses)]
            foreign = not breaking and rng.random() < 0.1
            dialogue = (
                self._foreign(rng, focuses, slots)
                if foreign
                else self._dialogue(rng, focus, focuses, slots, breaking)
            )
            self._add(rng, family, dialogue, configs, slots, breaking)
        return family

    def dialogue(self, rng: random.Random, name: str, *, breaking: bool) -> Dialogue:
        """A dialogue that breaks, or keeps, the first rule of the topic `name`."""
        slots = {slot: rng.choice(self.shared.slots[slot]) for slot in sorted(self.shared.bound)}
        focus = Focus(name, self.topics[name].rules[0])
        return self._dialogue(rng, focus, [focus], slots, breaking)

    def _distinct_lines(self, rng: random.Random, slots: dict[str, str]) -> None:
        for name in ("closing", "opening", "disclaimer"):
            others = [line for line in self.shared.slots[name] if line != slots[name]]
            slots[f"other_{name}"] = rng.choice(others)

    def _focuses(self, rng: random.Random) -> list[Focus]:
        found: list[Focus] = []
        weights = [1.0 if name in self.all_topics else 0.4 for name in self.names]
        for _ in range(30):
            name = rng.choices(self.names, weights)[0]
            if len(found) == 3 or any(self._clash(name, other.name) for other in found):
                continue
            found.append(self._focus(rng, name))
        return found

    def _focus(self, rng: random.Random, name: str) -> Focus:
        topic = self.all_topics.get(name)
        if topic is None:
            return Focus(name, None)
        first = len(topic.rules) == 1 or rng.random() < 0.6
        return Focus(name, topic.rules[0] if first else rng.choice(topic.rules[1:]))

    def _clash(self, one: str, other: str) -> bool:
        """Whether rules of `one` and `other` cannot stand beside each other with known labels."""
        topic, second = self.all_topics.get(one), self.all_topics.get(other)
        if one == other or (topic is None and second is None):
            return True
        if topic is None or second is None:
            judged = {t.judged for t in (topic, second) if t is not None}
            return "user" in judged
        return other in topic.near or topic.judged != second.judged

    def _configs(
        self,
        rng: random.Random,
        focuses: list[Focus],
        slots: Mapping[str, str],
        breadth: float,
    ) -> list[Config]:
        wordings = {focus: self._word(rng, focus, slots) for focus in focuses}
        extras = self._extras(rng, focuses, breadth)
        configs = []
        left_out: list[Focus | None] = [*focuses, *([None] if len(focuses) < 3 else [])]
        for absent in left_out:
            stated = [focus for focus in focuses if focus != absent]
            texts = [
                wordings[f] if rng.random() < 0.5 else self._word(rng, f, slots) for f in stated
            ]
            permits: list[tuple[str, Permit]] = []
            if absent is not None:
                self._relax(rng, absent, stated, permits, texts, slots)
            for focus in stated:
                self._except(rng, focus, permits, texts, slots)
            more = rng.sample(extras, rng.randint(0, len(extras)))
            stated += more
            texts += [self._word(rng, focus, slots) for focus in more]
            room = MAX_RULES - len(texts)
            count = draw_count(rng, (0, 0, 1, 2, 3, 5), breadth)
            texts += [("", filler) for filler in rng.sample(self.fillers, min(room, count))]
            if rng.random() < 0.35:
                texts = [("", text) for _, text in texts]
            rng.shuffle(texts)
            if not texts:
                texts = [("", rng.choice(self.fillers))]
            configs.append(Config(tuple(stated), tuple(permits), tuple(texts)))
        return configs

    def _relax(
        self,
        rng: random.Random,
        absent: Focus,
        stated: list[Focus],
        permits: list[tuple[str, Permit]],
        texts: list[RuleText],
        slots: Mapping[str, str],
    ) -> None:
        """Says nothing of `absent`, permits it, or states a rule that its breaking replies keep."""
        topic = self.all_topics.get(absent.name)
        choice = rng.random()
        if topic is None or absent.rule is None or choice < 0.4:
            return
        rule = absent.rule
        reverse = [r for r in topic.rules if r is not rule and r.clears & rule.breaks]
        if reverse and choice > 0.65:
            focus = Focus(absent.name, rng.choice(reverse))
            stated.append(focus)
            texts.append(self._word(rng, focus, slots))
            return
        covering = [p for p in topic.permits if p.covers & rule.breaks and not p.exception]
        if covering:
            permit = rng.choice(covering)
            permits.append((absent.name, permit))
            texts.append(("", fill(rng, rng.choice(permit.texts), dict(slots), self.shared)))

    def _except(
        self,
        rng: random.Random,
        focus: Focus,
        permits: list[tuple[str, Permit]],
        texts: list[RuleText],
        slots: Mapping[str, str],
    ) -> None:
        """Sometimes states an exception beside a topic's first rule."""
        topic = self.all_topics.get(focus.name)
        if topic is None or focus.rule is not topic.rules[0] or rng.random() < 0.6:
            return
        exceptions = [permit for permit in topic.permits if permit.exception]
        if exceptions:
            permit = rng.choice(exceptions)
            permits.append((topic.name, permit))
            texts.append(("", fill(rng, rng.choice(permit.texts), dict(slots), self.shared)))

    def _extras(self, rng: random.Random, focuses: list[Focus], breadth: float) -> list[Focus]:
        """Unrelated rules that the focus dialogues do not break."""
        extras: list[Focus] = []
        wanted = draw_count(rng, (0, 0, 1, 2, 3, 5, 8), breadth)
        for name in rng.sample(self.names, min(len(self.names), 2 * wanted)):
            taken = [focus.name for focus in (*focuses, *extras)]
            if len(extras) < wanted and self._is_quiet(name, taken):
                topic = self.all_topics.get(name)
                extras.append(Focus(name, topic.rules[0] if topic is not None else None))
        return extras

    def _is_quiet(self, name: str, taken: list[str]) -> bool:
        """Whether ordinary replies of the topics `taken` keep the first rule of `name`."""
        topic = self.all_topics.get(name)
        if topic is None:
            judged = {self.all_topics[other].judged for other in taken if other in self.all_topics}
            loud = name in taken or "user" in judged or "required_list" in taken
            return STYLES[name].common and not loud
        return not ({name} | topic.near) & set(taken)

    def _word(self, rng: random.Random, focus: Focus, slots: Mapping[str, str]) -> RuleText:
        if focus.rule is None:
            style = self.shared.styles[focus.name]
            texts, names = style["texts"], style["names"]
        else:
            texts, names = focus.rule.texts, focus.rule.names
        name = rng.choice(names) if rng.random() < 0.6 else ""
        return name, fill(rng, rng.choice(texts), dict(slots), self.shared)

    def _dialogue(
        self,
        rng: random.Random,
        focus: Focus,
        focuses: list[Focus],
        slots: Mapping[str, str],
        breaking: bool,
    ) -> Dialogue:
        """A dialogue that breaks, or keeps, the rule of `focus`."""
        topic = self.all_topics.get(focus.name)
        rewrite = {f.name: rng.random() < 0.8 for f in focuses if f.rule is None}
        if topic is None or focus.rule is None:
            taken = [f.name for f in focuses]
            topics = [t for t in self.carriers if not t.near & set(taken) or t.name in taken]
            topic = rng.choice(topics or self.carriers)
            keys = self._harmless_keys(topic, focuses)
            rewrite[focus.name] = not breaking
            flawed = focus.name if breaking else None
        else:
            keys = sorted(focus.rule.breaks if breaking else focus.rule.clears)
            flawed = None
        kind, tag = self._place(rng, topic, keys)
        return self._build(rng, topic, kind, tag, focuses, slots, rewrite, flawed)

    def _harmless_keys(self, topic: Topic, focuses: list[Focus]) -> list[str]:
        rules = [focus.rule for focus in focuses if focus.name == topic.name and focus.rule]
        return sorted((rules[0] if rules else topic.rules[0]).clears)

    def _foreign(
        self, rng: random.Random, focuses: list[Focus], slots: Mapping[str, str]
    ) -> Dialogue:
        """A reply that would break some rule, which is not a focus here."""
        taken = {focus.name for focus in focuses}
        judged = {self.all_topics[name].judged for name in taken if name in self.all_topics}
        topics = [
            topic
            for topic in self.topics.values()
            if topic.name not in taken and not topic.near & taken and topic.judged in judged
        ]
        topic = rng.choice(topics or self.carriers)
        keys = sorted(rng.choice(topic.rules).breaks)
        kind, tag = self._place(rng, topic, keys)
        rewrite = {focus.name: True for focus in focuses if focus.rule is None}
        return self._build(rng, topic, kind, tag, focuses, slots, rewrite, None)

    def _place(self, rng: random.Random, topic: Topic, keys: list[str]) -> tuple[str, str]:
        """A kind of opening and a tag for one of `keys`."""
        key = rng.choices(keys, [len(topic.replies[k.rpartition("/")[2]]) for k in keys])[0]
        kind, _, tag = key.rpartition("/")
        if not kind:
            kinds = [k for k in topic.openings if tag in topic.fits[k]]
            kind = rng.choices(kinds, [len(topic.openings[k]) for k in kinds])[0]
        return kind, tag

    def _build(
        self,
        rng: random.Random,
        topic: Topic,
        kind: str,
        tag: str,
        focuses: list[Focus],
        slots: Mapping[str, str],
        rewrite: Mapping[str, bool],
        flawed: str | None,
    ) -> Dialogue:
        values = dict(slots)
        parts = [
            Part(topic.name, frozenset({tag, f"{kind}/{tag}"}), rng.choice(topic.replies[tag]))
        ]
        if topic.judged == "assistant" and rng.random() < 0.2:
            parts += self._aside(rng, topic, focuses)
        texts = [part.text for part in parts]
        if len(texts) == 2:
            texts = [texts[0], rng.choice(self.shared.joiners) + texts[1]]
        reply = self._dress(rng, topic, texts) if topic.judged == "assistant" else texts[0]
        reply = fill(rng, reply, values, self.shared)
        reply = SENTENCE_START.sub(lambda match: match.group().upper(), reply)
        if topic.judged == "user":
            reply = roughen(rng, reply)
        elif rng.random() < 0.2:
            reply = expand(reply)
        for name in sorted(rewrite):
            if name != flawed:
                style = STYLES[name]
                if rewrite[name] and style.broken(reply, values):
                    reply = style.keep(rng, reply, values)
        if flawed is not None:
            reply = STYLES[flawed].violate(rng, reply, values)
        turns = self._lead(rng, topic, kind, values)
        return Dialogue((*turns, (topic.judged, reply)), tuple(parts))

    def _aside(self, rng: random.Random, topic: Topic, focuses: list[Focus]) -> list[Part]:
        """A segment of another topic that can follow a reply, if one is at hand."""
        names = {focus.name for focus in focuses}
        others = [
            other
            for other in self.topics.values()
            if other.aside and other.name != topic.name and not other.near & (names | {topic.name})
        ]
        focused = [other for other in others if other.name in names]
        pool = focused if focused and rng.random() < 0.6 else others
        if not pool:
            return []
        other = rng.choice(pool)
        tag = rng.choice(sorted(other.aside))
        return [Part(other.name, frozenset({tag}), rng.choice(other.replies[tag]))]

    def _dress(self, rng: random.Random, topic: Topic, texts: list[str]) -> str:
        """Segments with a greeting and a closing phrase, sometimes."""
        pieces = list(texts)
        if rng.random() < 0.3 and topic.name != "language":
            pieces.insert(0, rng.choice(self.shared.greetings))
        if rng.random() < 0.2 and topic.name != "language":
            pieces.append(rng.choice(self.shared.closers))
        return " ".join(pieces)

    def _lead(
        self, rng: random.Random, topic: Topic, kind: str, values: dict[str, str]
    ) -> list[TurnText]:
        """The turns before the judged one: small talk, another topic, then the opening."""
        opening = rng.choice(topic.openings[kind])
        turns: list[TurnText] = []
        role = "user" if topic.judged == "assistant" else "assistant"
        for text in reversed(opening):
            shown = fill(rng, text, values, self.shared)
            turns.insert(
                0, (role, roughen(rng, shown) if role == "user" else vary_case(rng, shown))
            )
            role = "assistant" if role == "user" else "user"
        if not turns or turns[0][0] == "assistant":
            return turns
        for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
            turns = [*self._earlier(rng, topic), *turns]
        return turns

    def _earlier(self, rng: random.Random, topic: Topic) -> list[TurnText]:
        """One exchange before the matter at hand; it is not judged, whatever it says."""
        if topic.judged == "user" or rng.random() < 0.6:
            user, agent = rng.choice(self.shared.small_talk)
        else:
            others = [t for t in self.carriers if t.name not in topic.near and t is not topic]
            if not others:
                return []
            other = rng.choice(others)
            rule = other.rules[0]
            keys = sorted(rule.breaks if rng.random() < 0.15 else rule.clears)
            kind, tag = self._place(rng, other, keys)
            opening = rng.choice(other.openings[kind])
            if len(opening) != 1:
                return []
            user, agent = opening[0], rng.choice(other.replies[tag])
        values: dict[str, str] = {}
        return [
            ("user", roughen(rng, fill(rng, user, values, self.shared))),
            ("assistant", fill(rng, agent, values, self.shared)),
        ]

    def _add(
        self,
        rng: random.Random,
        family: Family,
        dialogue: Dialogue,
        configs: list[Config],
        slots: Mapping[str, str],
        breaking: bool,
    ) -> None:
        """A breaking dialogue under every config, another one once per label."""
        placed: dict[bool, list[int]] = {False: [], True: []}
        order = list(configs)
        rng.shuffle(order)
        related = {part.topic for part in dialogue.parts}
        order.sort(key=lambda config: not any(f.name in related for f in config.focuses))
        for config in order:
            violates = judge(config, dialogue, slots, self.all_topics)
            if violates is None or (not breaking and placed[violates]):
                continue
            example = Example(config.rules, dialogue.turns, 0.0 if violates else 1.0)
            placed[violates].append(family.add(example))
        family.pairs += [(good, bad) for good in placed[False] for bad in placed[True]]


def fill(rng: random.Random, text: str, values: dict[str, str], shared: Shared) -> str:
    """`text` with its slots filled; `values` remembers what was drawn."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in values:
            values[name] = rng.choice(shared.slots[name])
        return values[name]

    text = CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), text)
    return SLOT.sub(value, text)
