"""The stream of training batches: batch `i` of a run is a pure function of (seed, i).

What it is: the mixture of composers over one corpus, as a map-style dataset of ready batches, so a
resumed run sees exactly the families it would have seen. Not: losses or the optimiser.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from torch.utils.data import Dataset

from csrm._core import ChatRenderer, Renderer
from csrm.errors import BadArgument
from csrm.train.augment.cca import ConfigurationComposer
from csrm.train.augment.strictness import StrictnessComposer
from csrm.train.batch import Batch, BatchBuilder, Family, RuleText
from csrm.train.chat_batch import ChatBatchBuilder
from csrm.train.compose import CategorisedComposer, PolicyComposer, PreferenceComposer
from csrm.train.compose_rules import RuledComposer
from csrm.train.corpus import Corpus, load_corpus
from csrm.train.dialogues import DialogueComposer
from csrm.train.dialogues.harms import written_conversations
from csrm.train.disguise import DISGUISED, load_disguises, with_disguises
from csrm.train.everyday import everyday_conversations
from csrm.train.options import TrainOptions
from csrm.train.preamble import WITH_TALK, load_preambles, with_preambles
from csrm.train.procedures import ProcedureComposer
from csrm.train.records import DataFolder, Turn
from csrm.train.wording import load_wording

MAX_FAMILIES = 64  # families in a batch, those that had to be drawn again included
FULL_ROW_TOKENS = 512  # positions of the backbone; bounds a row of the full-attention comparison


class Composer(Protocol):
    """Makes families of one kind."""

    def family(self, rng: random.Random, size: int, breadth: float) -> Family:
        """About `size` examples; `breadth` in (0, 1] scales the number of rules."""
        ...


class FamilyDataset(Dataset[Batch]):
    """`n` batches of a few families each. Index -> Batch, deterministic; safe to fork."""

    def __init__(
        self,
        corpus: Corpus,
        data: DataFolder,
        renderer: Renderer | ChatRenderer,
        options: TrainOptions,
        n: int,
        seed: int,
        curriculum: float = 0.0,
        max_row_tokens: int = 0,
        teacher: Renderer | ChatRenderer | None = None,
    ) -> None:
        """`max_row_tokens`: only examples whose config and conversation together fit; 0 = all.

        `teacher`: the renderer of a model that is to read the same examples (`Batch.taught`),
        each conversation as it was before a preamble or a disguise: what the teacher says of the
        plain one is what the other is to be given too.
        """
        wording = load_wording()
        categorised = CategorisedComposer(corpus, data.taxonomy, wording)
        ruled = RuledComposer(corpus, data.rulebooks, categorised.harmless)
        strictness = StrictnessComposer(corpus, categorised)
        cca = ConfigurationComposer(categorised, ruled)
        self.composers: dict[str, Composer] = {
            "categorised": categorised,
            "ruled": ruled,
            "policy": PolicyComposer(corpus, wording),
            "preference": PreferenceComposer(corpus),
            "dialogue": DialogueComposer(wording),
            "procedure": ProcedureComposer(),
            "strictness": strictness,
            "cca": cca,
        }
        self.mixture = checked_mixture(options.mixture, self.composers)
        check_supply(
            self.mixture,
            {
                "categorised": len(categorised.targets) >= 2,
                "ruled": bool(ruled.bodies),
                "policy": bool(corpus.policies),
                "preference": bool(corpus.preferences),
                "strictness": bool(strictness.scales),
                "cca": cca.has_supply,
            },
        )
        self.builder = builder_of(renderer, options.row_group)
        self.teacher = None if teacher is None else builder_of(teacher, options.row_group)
        self.is_full = options.attention == "full"
        self.size = options.family_size
        self.families_per_batch = options.families_per_batch
        self.contrasts = options.contrasts
        self.disguise = options.disguise
        self.disguises = load_disguises()
        self.preamble = options.preamble
        self.preambles = load_preambles()
        self.seed = seed
        self.curriculum = curriculum
        self.n = n
        # The comparison needs rows that fit; both arms then see the same examples.
        fits_row = options.fit_rows or self.is_full
        self.max_row_tokens = FULL_ROW_TOKENS if fits_row else max_row_tokens

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Batch:
        family = self.family(index)
        if self.is_full and isinstance(self.builder, BatchBuilder):
            batch = self.builder.build_full(family)
        else:
            batch = self.builder.build(family)
        if self.teacher is None:
            return batch
        return replace(batch, taught=self.teacher.build(family.as_it_was()))

    def family(self, index: int) -> Family:
        """The examples of batch `index`: several small families side by side.

        Errors: BadArgument when, with `fit_rows`, no example of many drawn fits a row.
        """
        batch = Family()
        n_drawn = 0
        while n_drawn < self.families_per_batch or not batch.examples:
            if n_drawn == MAX_FAMILIES:
                raise BadArgument(f"none of {n_drawn} families fits {self.max_row_tokens} tokens")
            rng = random.Random((self.seed * 1_000_003 + index) * MAX_FAMILIES + n_drawn)
            kind = rng.choices(list(self.mixture), list(self.mixture.values()))[0]
            family = self.composers[kind].family(rng, self.size, self.breadth(index))
            if self.contrasts:
                family.pairs += contrasts(rng, family)
            if self.disguise and kind in DISGUISED:
                family = with_disguises(rng, family, self.disguises, self.disguise)
            if self.preamble:
                family = with_preambles(
                    rng, family, self.preambles, self.preamble, may_talk=kind in WITH_TALK
                )
            batch.join(self.fitting(family) if self.max_row_tokens else family)
            n_drawn += 1
        return batch

    def breadth(self, index: int) -> float:
        """How large the configs of batch `index` are, from narrow to full over the curriculum."""
        n_narrow = self.curriculum * self.n
        return 1.0 if index >= n_narrow else 0.1 + 0.9 * index / n_narrow

    def fitting(self, family: Family) -> Family:
        """The examples whose config and conversation fit one row, pairs kept aligned."""
        kept = Family()
        places: dict[int, int] = {}
        for i, example in enumerate(family.examples):
            if self.builder.n_tokens(example) <= self.max_row_tokens:
                places[i] = kept.add(example)
        for mine, own in ((kept.pairs, family.pairs), (kept.same, family.same)):
            mine += [(places[a], places[b]) for a, b in own if a in places and b in places]
        return kept


def builder_of(
    renderer: Renderer | ChatRenderer, row_group: int
) -> BatchBuilder | ChatBatchBuilder:
    """What makes batches for the model that `renderer` renders for."""
    if isinstance(renderer, ChatRenderer):
        return ChatBatchBuilder(renderer, row_group)
    return BatchBuilder(renderer, row_group)


def contrasts(rng: random.Random, family: Family) -> list[tuple[int, int]]:
    """For each violation of `family`, a compliant conversation under the same config to be above.

    The paper's pairs hold the conversation fixed and teach what a config is about. These hold the
    config fixed and teach what a reply does about it.
    """
    compliant: dict[tuple[RuleText, ...], list[int]] = {}
    for i, example in enumerate(family.examples):
        if example.weight > 0 and example.target > 0.5:
            compliant.setdefault(example.rules, []).append(i)
    return [
        (rng.choice(compliant[example.rules]), i)
        for i, example in enumerate(family.examples)
        if example.weight > 0 and example.target < 0.5 and example.rules in compliant
    ]


def checked_mixture(mixture: Mapping[str, float], known: Mapping[str, object]) -> dict[str, float]:
    """The mixture in a fixed order. Errors: BadArgument for an unknown kind or a bad weight."""
    unknown = sorted(set(mixture) - set(known))
    if unknown:
        raise BadArgument(f"unknown kind {unknown[0]!r} in the mixture; known: {', '.join(known)}")
    numbers = [weight for weight in mixture.values() if type(weight) in (int, float)]
    is_valid = len(numbers) == len(mixture) and all(0 <= n < math.inf for n in numbers)
    if not is_valid or not any(numbers):
        raise BadArgument("mixture weights must be finite numbers from 0, not all 0")
    return {kind: float(mixture[kind]) for kind in sorted(mixture) if mixture[kind] > 0}


def check_supply(mixture: Mapping[str, float], has_records: Mapping[str, bool]) -> None:
    """Errors: BadArgument when a split lacks the records of a kind that the mixture asks for."""
    lacking = [kind for kind in mixture if not has_records.get(kind, True)]
    if lacking:
        raise BadArgument(
            f"the mixture asks for {lacking[0]!r}, of which the training or the held-out records"
            " are too few; add records or set its weight to 0"
        )


def load_corpora(
    options: TrainOptions, renderer: Renderer | ChatRenderer
) -> tuple[DataFolder, Corpus, Corpus]:
    """(data folder, training corpus, held-out corpus) of a run."""
    data = DataFolder(Path(options.data))

    def n_tokens(turns: tuple[Turn, ...]) -> int:
        n_characters = sum(len(content) for _, content in turns)
        if n_characters < options.max_tokens:  # a token has at least one character
            return n_characters
        return sum(len(renderer.encode(content)) + 3 for _, content in turns)

    train, held_out = load_corpus(data, options.sources, n_tokens, options.max_tokens)
    if options.mixture.get("dialogue", 0) > 0:
        train.labelled += written_conversations(load_wording()) + everyday_conversations()
    return data, train, held_out
