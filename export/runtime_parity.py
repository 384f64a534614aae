"""How far the C++ runtime is from PyTorch on a decoder artifact, and what it does on examples.

What it is: rewards of labelled conversations from `csrm.load(artifact)` and from the checkpoint in
PyTorch over one plain sequence without a prefix, with the accuracy and the time of the former. Not:
a quality bench (csrm.bench): the examples are few and each verdict one author's.
`python -m csrm.export.runtime_parity CHECKPOINT ARTIFACT CONFIGS [N [VARIANT]]`; CONFIGS is a
folder like configs/, with examples.jsonl.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import csrm
from csrm.export.storage import rounded
from csrm.train.chat_batch import causal_rows
from csrm.train.chat_template import make_chat_renderer
from csrm.train.decoder import load_decoder
from csrm.train.metrics import auroc


@dataclass(frozen=True)
class RuntimeParity:
    """Figures over `n` examples."""

    n: int
    stored_max: float  # runtime against PyTorch with the artifact's own (rounded) weights
    rounding_max: float  # those weights against the checkpoint's
    accuracy: float  # at reward 0
    share_compliant_said: float
    share_compliant: float
    auroc: float  # violation positive
    cold_ms: float  # median of a first score under a config, all of it encoded
    warm_ms: float  # median of a score under a cached config
    config_tokens: float  # median
    conversation_tokens: float  # median, cue included


@dataclass(frozen=True)
class Measured:
    """One example: three rewards, the label, seconds and sizes in tokens."""

    runtime: float
    stored: float
    original: float
    is_compliant: bool
    cold: float
    warm: float
    n_config: int
    n_turns: int


MEASURED = tuple(Measured.__dataclass_fields__)


def read_examples(configs: Path, n: int) -> list[dict[str, Any]]:
    """`n` examples at even distances in the file, which is ordered by config and label."""
    lines = (configs / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    places = np.linspace(0, len(lines) - 1, min(n, len(lines))).round().astype(int)
    return [json.loads(lines[place]) for place in places]


@torch.no_grad()
def measure_runtime_parity(
    checkpoint: Path, artifact: Path, configs: Path, n: int, is_rounded: bool, variant: str = ""
) -> RuntimeParity:
    """Parity and speed over `n` examples; `is_rounded`: the artifact stores int8.

    variant: as in csrm.load.
    """
    original = load_decoder(checkpoint)
    stored = rounded(original) if is_rounded else original
    renderer = make_chat_renderer((artifact / "tokenizer.json").read_bytes())
    scorer = csrm.load(artifact, n_threads=1, variant=variant)
    measured = []
    for record in read_examples(configs, n):
        config = csrm.SafetyConfig.load(configs / f"{record['config']}.yaml")
        messages = record["messages"]
        scorer.clear_cache()
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            score = scorer.score(config, messages)
            seconds.append(time.perf_counter() - started)
        config_ids = renderer.config([(rule.name, rule.text) for rule in config.rules])
        [(turn_ids, _)] = renderer.conversation([(m["role"], m["content"]) for m in messages])
        row = causal_rows([(np.concatenate([config_ids, turn_ids]), 0)])
        measured.append(
            Measured(
                score.reward,
                float(stored(row).reward),
                float(original(row).reward),
                record["expected"] == "compliant",
                seconds[0],
                min(seconds[1:]),
                len(config_ids),
                len(turn_ids),
            )
        )
    return summary(measured)


def summary(measured: Sequence[Measured]) -> RuntimeParity:
    """The figures of single examples together."""
    columns = {name: np.array([getattr(m, name) for m in measured]) for name in MEASURED}
    runtime, stored = columns["runtime"], columns["stored"]
    label = columns["is_compliant"]
    return RuntimeParity(
        n=len(measured),
        stored_max=float(np.abs(runtime - stored).max()),
        rounding_max=float(np.abs(stored - columns["original"]).max()),
        accuracy=float(((runtime > 0) == label).mean()),
        share_compliant_said=float((runtime > 0).mean()),
        share_compliant=float(label.mean()),
        auroc=auroc((~label).astype(float), 1 / (1 + np.exp(runtime))),
        cold_ms=1e3 * float(np.median(columns["cold"])),
        warm_ms=1e3 * float(np.median(columns["warm"])),
        config_tokens=float(np.median(columns["n_config"])),
        conversation_tokens=float(np.median(columns["n_turns"])),
    )


if __name__ == "__main__":
    checkpoint_folder, artifact_folder, config_folder = map(Path, sys.argv[1:4])
    size = int(sys.argv[4]) if len(sys.argv) > 4 else 20
    chosen = sys.argv[5] if len(sys.argv) > 5 else ""
    figures = measure_runtime_parity(
        checkpoint_folder, artifact_folder, config_folder, size, is_rounded=True, variant=chosen
    )
    print(json.dumps(asdict(figures), indent=1))
