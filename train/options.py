"""The options of a training run: one screen of YAML, checked in one place.

Not: command-line flags (csrm.cli) and not the artifact's options (csrm.export).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import yaml

from csrm.errors import BadArgument
from csrm.train.corpus import PERMISSIVE


@dataclass(frozen=True)
class Range:
    """Smallest and largest value of an option."""

    low: float
    high: float


COUNT = Range(1, 2**31)
RANGES = {
    **dict.fromkeys(("steps", "batches", "family_size", "max_tokens"), COUNT),
    "families_per_batch": Range(1, 64),
    **dict.fromkeys(("checkpoint_every", "validate_every", "validation_batches"), COUNT),
    "curriculum": Range(0, 100),
    "warmup": Range(0, 1),
    "lora_rank": Range(0, 1024),
    "lora_alpha": Range(0, 10000),
    "dropout": Range(0, 0.95),
    "label_smoothing": Range(0, 0.45),
    **dict.fromkeys(("learning_rate", "embedding_learning_rate", "weight_decay"), Range(0, 1)),
    **dict.fromkeys(("gamma", "rewording", "distillation", "max_grad_norm"), Range(0, 1000)),
    **dict.fromkeys(("preamble", "disguise"), Range(0, 1)),
    "blend": Range(0.01, 1),
    "row_group": Range(1, 4096),
    "workers": Range(0, 64),
}


@dataclass(frozen=True)
class TrainOptions:
    """Everything that decides a run; defaults train `csrm-mini`. Relative paths: as given."""

    data: str = "../shared/data"  # folder with train/, taxonomy.json, rulebooks.json
    out: str = "runs/csrm-mini"  # checkpoints, metrics.jsonl, options.yaml
    # What to go on from with a new schedule: a checkpoint or artifact folder, "csrm-mini" for the
    # shipped model, "" for the backbone.
    start_from: str = ""
    # Folder of Hugging Face files of a BERT-shaped model or a Llama-family decoder
    # (docs/decoders.md); "" = the MiniLM-L6 package.
    backbone: str = ""
    sources: tuple[str, ...] = PERMISSIVE
    # Kinds of families by weight; "strictness" and "cca" are of csrm.train.augment.
    mixture: dict[str, float] = field(
        default_factory=lambda: {
            "categorised": 0.34, "ruled": 0.13, "dialogue": 0.24, "policy": 0.05,
            "preference": 0.03, "procedure": 0.05, "strictness": 0.08, "cca": 0.08,
        }
    )  # fmt: skip
    attention: Literal["block", "full"] = "block"  # "full" only for the comparison
    fit_rows: bool = False  # only examples that fit one 512-token row (for the comparison)
    seed: int = 1
    steps: int = 3000  # optimiser steps
    batches: int = 1  # micro-batches per optimiser step
    families_per_batch: int = 3
    family_size: int = 14  # examples per family, about
    curriculum: float = 0.35  # part of the run over which configs grow; above 1 they stay small
    max_tokens: int = 448  # longer conversations are left out of training whole
    learning_rate: float = 1.2e-4
    embedding_learning_rate: float = 2e-5
    freeze_tokens: bool = True  # a dense gradient of 30,000 rows per call costs a fifth of a step
    warmup: float = 0.03  # fraction of steps
    weight_decay: float = 0.01
    dropout: float = 0.0
    label_smoothing: float = 0.01
    gamma: float = 1.0  # weight of the pairwise term
    rewording: float = 0.5  # weight of the term that holds reworded configs together
    # Share of conversations that get turns without meaning in front (csrm.train.preamble).
    preamble: float = 0.0
    # Share of conversations about harms whose judged message is disguised (csrm.train.disguise).
    disguise: float = 0.0
    teacher: str = ""  # checkpoint, or an encoder's artifact, to learn from as well; "" = none
    distillation: float = 1.0  # weight of the term that follows the teacher
    # Share of what the run learned in the weights that it saves; the rest is what it started from.
    blend: float = 1.0
    contrasts: bool = True  # also pairs of conversations under one config (csrm.train.families)
    max_grad_norm: float = 1.0
    lora_rank: int = 0  # decoders: train adapters of this rank and the head; 0 = all weights
    lora_alpha: float = 32.0  # their scale, times the rank
    gradient_checkpointing: bool = False  # decoders: recompute layers backwards, for less memory
    fsdp: bool = False  # decoders, several processes: each keeps a part of every weight
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"  # auto: the fastest
    row_group: int = 16  # rows in one call of the model, at most; more pays on a GPU
    workers: int = 0  # processes that compose batches ahead of the training; 0 = none
    checkpoint_every: int = 200
    validate_every: int = 200
    validation_batches: int = 25

    def __post_init__(self) -> None:
        """Errors: BadArgument for a value outside its range."""
        for name, allowed in RANGES.items():
            value = getattr(self, name)
            if not allowed.low <= value <= allowed.high:
                raise BadArgument(
                    f"training option {name!r} is {value}; give {allowed.low} to {allowed.high}"
                )
        if self.attention not in ("block", "full"):
            raise BadArgument("training option 'attention' must be block or full")
        if self.precision not in ("auto", "no", "bf16", "fp16"):
            raise BadArgument("training option 'precision' must be auto, no, bf16 or fp16")
        if self.blend < 1 and (self.fsdp or self.lora_rank):
            raise BadArgument("training option 'blend' is for all weights in one process's memory")
        if not self.sources:
            raise BadArgument("training option 'sources' is empty; name at least one source")


def load_options(path: Path) -> TrainOptions:
    """The options in a YAML file. Errors: BadArgument for an unknown key or a wrong type."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadArgument(f"training options cannot be read: {type(error).__name__}") from error
    if not isinstance(values, dict):
        raise BadArgument("training options must be a mapping of option to value")
    known = {option.name: option for option in fields(TrainOptions)}
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise BadArgument(f"unknown training option {unknown[0]!r}; known: {', '.join(known)}")
    defaults = TrainOptions()
    for key, value in values.items():
        values[key] = checked(key, value, getattr(defaults, key))
    return TrainOptions(**values)


def checked(key: str, value: object, default: object) -> object:
    """`value` in the type of `default`. Errors: BadArgument."""
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(str(item) for item in value)
    if isinstance(default, float) and type(value) in (int, float):
        return float(value)  # type: ignore[arg-type]
    if type(value) is type(default):
        return value
    expected = type(default).__name__
    raise BadArgument(f"training option {key!r} is a {type(value).__name__}; expected {expected}")
