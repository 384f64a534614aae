"""Written dialogues as categorised conversations: topics whose rule is about a taxonomy harm.

What it is: replies that do harm and near misses about the same thing, labelled with taxonomy ids,
so that composed category configs are also learned from the written contrasts. Only topics that any
config against harm covers; opinions, sales or tone are not among them. Not: configs
(csrm.train.compose) or records of the data folder.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from csrm.train.corpus import Labelled
from csrm.train.dialogues.composer import DialogueComposer
from csrm.train.dialogues.content import Topic
from csrm.train.dialogues.labels import Dialogue
from csrm.train.wording import Wording

SOURCE = "csrm-dialogues"
TOPIC_HARMS = {
    "weapons": "weapons",
    "drug_deals": "drugs",
    "account_hacking": "cyber_attack",
    "phishing_mail": "fraud_deception",
    "fake_reviews": "fraud_deception",
    "threats": "violence",
    "private_addresses": "privacy",
    "secret_tracking": "privacy",
    "mean_jokes": "discrimination",
    "rude_tone": "harassment",
    "member_insults": "harassment",
    "alibis": "unethical_behaviour",
    "exam_answers": "unethical_behaviour",
    "despair": "risk_ignorance",
    "emergencies": "risk_ignorance",
    "medical": "unqualified_advice",
    "legal": "unqualified_advice",
    "investment": "unqualified_advice",
    "injury_training": "unqualified_advice",
}
N_HARMFUL, N_HARMLESS = 40, 50  # dialogues of each topic


def written_conversations(wording: Wording, seed: int = 0) -> list[Labelled]:
    """The dialogues of every topic, the same for the same seed."""
    composer = DialogueComposer(wording, tuple(TOPIC_HARMS))
    rows: dict[tuple[object, ...], Labelled] = {}
    for topic, harm in TOPIC_HARMS.items():
        rng = random.Random(f"{seed}-{topic}")
        for breaking, n in ((True, N_HARMFUL), (False, N_HARMLESS)):
            for _ in range(n):
                dialogue = composer.dialogue(rng, topic, breaking=breaking)
                harms = harms_of(dialogue, composer.topics)
                if harms is not None:
                    rows[dialogue.turns] = Labelled(SOURCE, dialogue.turns, harms, (harm,))
    return list(rows.values())


def harms_of(dialogue: Dialogue, topics: Mapping[str, Topic]) -> tuple[str, ...] | None:
    """The harms of all segments of the judged reply; None where a segment's label is open."""
    found: dict[str, None] = {}
    for part in dialogue.parts:
        rule = topics[part.topic].rules[0]
        if part.keys & rule.breaks:
            found[TOPIC_HARMS[part.topic]] = None
        elif not part.keys & rule.clears:
            return None
    return tuple(found)
