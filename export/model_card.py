"""The model card of an artifact: what it is for, its data and licences, its figures, its limits.

What it is: Markdown text from the checkpoint's provenance and, if given, the JSON of
`csrm evaluate`. Not: the figures themselves (csrm.train.evaluate).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from csrm.train.calibration.platt import Calibration
from csrm.train.evaluation_report import interval

# Source -> (licence, what it is), as the data README states them.
SOURCES = {
    "coconot-pref": ("MIT", "CoCoNot preference pairs on over-refusal"),
    "configurable-safety-tuning": ("MIT", "reply pairs whose preference flips with the config"),
    "convabuse": ("CC-BY-4.0", "ConvAbuse, rated abuse of chatbots"),
    "davidson-hate": ("MIT", "tweets rated hateful, offensive or neither"),
    "diasafety": ("Apache-2.0", "DiaSafety, context-sensitive dialogue replies"),
    "gptfuzz": ("MIT", "GPTFuzzer replies to jailbreaks, human labels"),
    "hh-harmless": ("MIT", "HH-RLHF harmlessness pairs"),
    "polyguard": ("CC-BY-4.0", "PolyGuard statements against real rulebooks"),
    "polyguard-cyber": ("CC-BY-4.0", "PolyGuard, cyber-security replies"),
    "polyguard-cyber-rules": ("CC-BY-4.0", "the same against rules"),
    "privaci-gdpr": ("MIT", "PrivaCI, GDPR cases"),
    "pyrit-single": ("MIT", "PyRIT replies rated on harm scales"),
    "rbr": ("MIT", "Rule-Based Rewards propositions"),
}
FIGURES = ("f1_violation", "f1_compliant", "auprc", "smooth_ece")
SYSTEMS = ("model", "empty_config", "shuffled_config", "all_compliant", "all_violation")


def model_card(
    name: str,
    provenance: Mapping[str, Any],
    calibration: Calibration,
    evaluation: Mapping[str, Any] | None,
    notes: str = "",
    *,
    is_decoder: bool = False,
) -> str:
    """The card as Markdown with a YAML head; `notes` (Markdown) stand before the limits."""
    sources = list(provenance.get("sources", []))
    parts = [
        (DECODER_HEAD if is_decoder else HEAD).format(name=name),
        "## Training data\n\n"
        + source_table(sources)
        + "\n"
        + DATA_NOTE.format(
            n_records=provenance.get("n_records", "?"), n_held_out=provenance.get("n_held_out", "?")
        ),
        CALIBRATION.format(a=calibration.a, b=calibration.b, n=calibration.n),
    ]
    if evaluation is not None:
        parts.append("## Figures\n\n" + FIGURE_NOTE + figure_tables(evaluation))
    if notes:
        parts.append(notes)
    parts.append(LIMITS)
    return "\n".join(parts)


def source_table(sources: list[str]) -> str:
    """One row per source with its licence."""
    rows = ["| source | licence | what it is |", "|---|---|---|"]
    for source in sources:
        licence, what = SOURCES.get(source, ("see the data's own notes", "user-supplied"))
        rows.append(f"| {source} | {licence} | {what} |")
    return "\n".join(rows) + "\n"


def figure_tables(evaluation: Mapping[str, Any]) -> str:
    """Classification, pairs and config sensitivity, one row per file and system."""
    rows = [
        "| file | system | n (violations) | F1 violation | F1 compliant | AUPRC | smECE |",
        "|---|---|---|---|---|---|---|",
    ]
    pairs = ["| file | system | pairs | accuracy |", "|---|---|---|---|"]
    flips = ["| file | rows | n | forbid | omit | allow |", "|---|---|---|---|---|---|"]
    for file in evaluation["files"]:
        for system in SYSTEMS:
            row = file["systems"].get(system)
            if row:
                cells = " | ".join(bracketed(row[figure]) for figure in FIGURES)
                counts = f"{row['n']} ({row['n_violation']})"
                rows.append(f"| {file['file']} | {system} | {counts} | {cells} |")
        for system, row in file["pairs"].items():
            accuracy = bracketed(row["accuracy"])
            pairs.append(f"| {file['file']} | {system} | {row['n']} | {accuracy} |")
        for kind, row in file["sensitivity"].items():
            cells = " | ".join(bracketed(row[group]) for group in ("forbid", "omit", "allow"))
            flips.append(f"| {file['file']} | {kind} | {row['n']} | {cells} |")
    tables = ["\n".join(rows)]
    if len(pairs) > 2:
        tables.append("Preference pairs (chosen above rejected):\n\n" + "\n".join(pairs))
    if len(flips) > 2:
        tables.append(
            "Config sensitivity (share judged a violation when the row's category is forbidden,"
            " omitted or allowed):\n\n" + "\n".join(flips)
        )
    return "\n\n".join(tables) + "\n"


def bracketed(figure: Mapping[str, float | None]) -> str:
    """`value [low, high]` with three decimals."""
    return interval(figure, lambda low, high: f" [{low:.3f}, {high:.3f}]")


HEAD = """---
license: apache-2.0
language: en
pipeline_tag: text-classification
base_model: sentence-transformers/all-MiniLM-L6-v2
---
# {name}

Scores a conversation against a safety configuration written in plain language: `(config,
conversation) -> reward (log-odds), compliance (calibrated probability), verdict`. A block-attention
encoder on MiniLM-L6 (22 M parameters; rules are encoded once and cached), trained by `csrm train`,
exported by `csrm export`. Method: the configurable safety reward model of arXiv 2605.30487.

Weights are stored as int8 with a scale per channel and computed with in fp32. Other ONNX engines
run `model.onnx` as it is; ONNX Runtime is faster with the session entry
`session.disable_quant_qdq = 1`, which unfolds the weights once at load.
"""

DECODER_HEAD = """---
pipeline_tag: text-classification
---
# {name}

Scores a conversation against a safety configuration written in plain language: `(config,
conversation) -> reward (log-odds), compliance (calibrated probability), verdict`. A Llama-family
decoder that reads config and conversation as one sequence; the reward is read from the rows of its
LM head for the words safe and unsafe. The licence of its backbone holds for it too. Method: the
configurable safety reward model of arXiv 2605.30487.

Weights are computed with in fp32. If they are stored as int8, ONNX Runtime is faster with the
session entry `session.disable_quant_qdq = 1`, which unfolds them once at load.
"""

DATA_NOTE = """
{n_records} records trained on, {n_held_out} held out by the hash of their first turn (calibration).
Configs are composed around the labels on the fly; policy dialogues come from csrm's own generator.
No published test set and no file of the development evaluation was trained on.
"""

CALIBRATION = """## Calibration

`compliance = sigmoid(a * reward + b)`, a = {a:.4f}, b = {b:.4f}: Platt's fit on {n} held-out
examples. The verdict is `compliant` if compliance is at least the config's threshold (0.5 unless it
says otherwise).
"""

FIGURE_NOTE = """Violation is the positive class of AUPRC; intervals are 95 % bootstrap over
records. `empty_config` and `shuffled_config` are the same model made blind to the config.

"""

LIMITS = """## Limits

English only. A small model: it follows rules about what is said better than rules that need
counting, arithmetic, several turns of bookkeeping or knowledge of the world. Labels of the training
data are partly made by construction. It is one layer of a defence, not the whole of it; resistance
to paraphrase, obfuscation and adaptive attack is not guaranteed.
"""
