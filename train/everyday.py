"""Harmless questions in alarming words, answered in full, as categorised conversations.

What it is: texts of this project (everyday.yaml) that stand beside harmful replies in training, so
that neither a word such as "kill" nor a full answer is what tells harm. Not: records of the data
folder, and no configs (csrm.train.compose).
"""

from __future__ import annotations

from importlib import resources

import yaml

from csrm.train.corpus import EVERYDAY, Labelled


def everyday_conversations() -> list[Labelled]:
    """One conversation per question, none harmful; `near` is what its words sound like."""
    text = resources.files(__package__).joinpath("everyday.yaml").read_text(encoding="utf-8")
    return [
        Labelled(EVERYDAY, (("user", question), ("assistant", answer)), (), (near,))
        for near, question, answer in yaml.safe_load(text)
    ]
