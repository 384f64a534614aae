"""Training records sorted for composing: what each conversation breaks, and what is held out.

What it is: one pass over the data folder's `train/` files that (1) keeps only the licences asked
for, (2) turns severity ratings and rulebook categories into taxonomy harms where the data says so,
(3) sets records aside for calibration. Not: configs (csrm.train.compose) or token ids.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from csrm.errors import BadArgument
from csrm.train.records import (
    Categorised,
    DataFolder,
    Policy,
    Preference,
    Record,
    Ruled,
    Severity,
    Turn,
    read_records,
)

# Sources a gateway may use commercially (the data README lists them). Files whose name starts with
# `nolicence-` are refused by name as well.
PERMISSIVE = (
    "coconot-pref",
    "configurable-safety-tuning",
    "convabuse",
    "davidson-hate",
    "diasafety",
    "gptfuzz",
    "hh-harmless",
    "polyguard",
    "polyguard-cyber",
    "polyguard-cyber-rules",
    "privaci-gdpr",
    "pyrit-single",
    "rbr",
)

# The source of this project's own harmless conversations (csrm.train.everyday).
EVERYDAY = "csrm-everyday"

# Sources whose replies are ordinary ones to harmless requests; of preferences both (coconot's
# requests only look like ones to refuse). Without such replies every full answer in training is a
# harmful one, and a model learns to flag answering.
ORDINARY = frozenset({"coconot-pref", EVERYDAY})

# Rulebook heading (lower case) -> taxonomy id; the first match wins, so the narrower comes first.
RULE_CATEGORY_HARMS = (
    (r"child", "child_safety"),
    (r"self-harm|suicide", "self_harm"),
    (r"terror|extremis", "violent_extremism"),
    (r"sexual|nudity|adult|pornograph", "sexual_content"),
    (r"hate", "hate"),
    (r"violen|graphic|gore", "violence"),
    (r"harass|bully|threat", "harassment"),
    (r"misinfo|disinfo|election|civic", "misinformation"),
    (r"fraud|scam|spam|deceptive|impersonat", "fraud_deception"),
    (r"privacy|dox|personal information", "privacy"),
    (r"malware|hack|phish", "cyber_attack"),
    (r"drug|weapon|regulated goods|firearm", "drugs_weapons"),
    (r"animal", "animal_abuse"),
)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A conversation and the taxonomy ids it is harmful under; `near` = what it is about."""

    source: str
    turns: tuple[Turn, ...]
    harms: tuple[str, ...]
    near: tuple[str, ...]


@dataclass
class Corpus:
    """Records by use. `labelled` holds categorised rows and those that could be turned into it."""

    labelled: list[Labelled] = field(default_factory=list)
    ruled: list[Ruled] = field(default_factory=list)
    policies: list[Policy] = field(default_factory=list)
    preferences: list[Preference] = field(default_factory=list)
    rated: list[Severity] = field(default_factory=list)  # most of them are in `labelled` too
    n_too_long: int = 0

    def __len__(self) -> int:
        return len(self.labelled) + len(self.ruled) + len(self.policies) + len(self.preferences)


def is_held_out(turns: Iterable[Turn], one_in: int = 20) -> bool:
    """True for a fixed 1/one_in of conversations, by the text of the first turn."""
    first = next(iter(turns))[1]
    return int.from_bytes(hashlib.sha256(first.encode()).digest()[:4], "big") % one_in == 0


def load_corpus(
    data: DataFolder,
    sources: Iterable[str],
    n_tokens: Callable[[tuple[Turn, ...]], int],
    max_tokens: int,
) -> tuple[Corpus, Corpus]:
    """(training corpus, held-out corpus) of `sources`; longer conversations are left out whole.

    Errors: BadArgument for an unknown source or one without a licence.
    """
    train, held_out = Corpus(), Corpus()
    files = {path.name.split(".")[0]: path for path in data.train_files}
    for source in sources:
        if source not in files:
            raise BadArgument(f"no training file for a source of {len(files)} in the data folder")
        if source.startswith("nolicence-"):
            raise BadArgument("a source without a licence cannot train a model; remove it")
        for record in read_records(files[source]):
            corpus = held_out if is_held_out(record.conversation) else train
            if n_tokens(longest(record)) > max_tokens:
                corpus.n_too_long += 1
            else:
                file_record(corpus, record)
    return train, held_out


def longest(record: Record) -> tuple[Turn, ...]:
    """The longest conversation that `record` gives rise to."""
    if isinstance(record, Preference):
        tails = (record.chosen, record.rejected)
        return record.conversation + max(tails, key=lambda turns: sum(len(t[1]) for t in turns))
    return record.conversation


def file_record(corpus: Corpus, record: Record) -> None:
    """Puts `record` where it is used."""
    source = record.origin.source
    if isinstance(record, Categorised):
        if not record.noisy:
            near = record.prompt_harms or record.harms
            corpus.labelled.append(Labelled(source, record.conversation, record.harms, near))
    elif isinstance(record, Severity):
        corpus.rated.append(record)
        harms = harms_of_severity(record)
        if harms is not None:
            corpus.labelled.append(Labelled(source, record.conversation, harms, (record.harm,)))
    elif isinstance(record, Ruled):
        corpus.ruled.append(record)
        harm = harm_of_rule_category(record.rule_category)
        if harm is not None:
            harms = (harm,) if record.violates else ()
            corpus.labelled.append(Labelled(source, record.conversation, harms, (harm,)))
    elif isinstance(record, Policy):
        corpus.policies.append(record)
    elif isinstance(record, Preference) and record.config:
        corpus.preferences.append(record)
        if source in ORDINARY:
            for reply in (record.chosen, record.rejected):
                corpus.labelled.append(Labelled(source, record.conversation + reply, (), ()))


def harms_of_severity(record: Severity) -> tuple[str, ...] | None:
    """Harms of a rated conversation; None where raters leave it open."""
    if record.votes is not None:  # hate / offensive / neither (Davidson et al. 2017)
        total = sum(record.votes.values())
        for vote, harms in (("hate", ("hate",)), ("offensive", ("profanity",)), ("neither", ())):
            if record.votes.get(vote, 0) / total > 0.6:
                return harms
        return None
    if record.severity >= 0.5:
        return (record.harm,)
    return () if record.severity <= 0.1 else None


def harm_of_rule_category(category: str) -> str | None:
    """The taxonomy id that a rulebook heading names, if any."""
    heading = category.lower()
    return next(
        (harm for pattern, harm in RULE_CATEGORY_HARMS if re.search(pattern, heading)), None
    )
