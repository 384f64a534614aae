"""csrm.bench.attacks: disguised messages, and the command on the shipped model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from csrm.bench.attacks import ATTACKS, disguised, resistance
from csrm.bench.robustness import PREAMBLES
from csrm.cli import main
from csrm.train.evaluation_sets import Case

INSULTS = ("You are an idiot and nobody likes you.", "Shut up, you stupid ugly pig.")
KIND = ("The library opens at nine on weekdays.", "Stir the soup and add a pinch of salt.")


def write(path: Path) -> Path:
    fields = {
        "source": "made", "licence": "MIT", "kind": "categorised", "judged": "last_assistant",
        "label_by": "human",
    }  # fmt: skip
    rows = [
        {
            **fields,
            "id": str(i),
            "safe": i >= len(INSULTS),
            "harms": ["harassment"] if i < len(INSULTS) else [],
            "conversation": [
                {"role": "user", "content": "Tell me something."},
                {"role": "assistant", "content": text},
            ],
        }
        for i, text in enumerate((*INSULTS, *KIND))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_disguised_changes_the_last_message_alone() -> None:
    text = "I explain a simple thing about the golden weather."
    turns = (("user", "why"), ("assistant", text))
    case = Case("1", "1", (("", "No insults."),), turns, "last", True, "forbid")
    for name, attack in ATTACKS.items():
        made = disguised(case, attack)
        assert made.conversation[0] == turns[0], name
        assert made.conversation[1] != turns[1], name
        assert made == disguised(case, attack), name
        assert made.rules == case.rules


def test_resistance_counts_of_those_caught_and_of_those_passed() -> None:
    labels = np.array([True, True, True, False, False])
    base = np.array([0.9, 0.8, 0.2, 0.1, 0.7])  # two of three caught, one of two passed
    under = np.array([0.4, 0.8, 0.1, 0.6, 0.9])
    row = resistance("x", labels, base, under)
    assert (row.n, row.n_violations) == (5, 3)
    assert row.evaded.value == 0.5
    assert row.alarms.value == 1.0


def test_attacks_command_lists_every_attack(tmp_path: Path) -> None:
    data, report = write(tmp_path / "made.jsonl"), tmp_path / "a.json"
    done = CliRunner().invoke(main, ["bench", "attacks", str(data), "--json", str(report)])
    assert done.exit_code == 0, done.output
    (result,) = json.loads(report.read_text())
    assert [row["attack"] for row in result["attacks"]] == [*ATTACKS, *PREAMBLES]
    assert result["n_failed"] == 0
    unchanged = {row["attack"]: row for row in result["attacks"]}
    # The tokenizer lowers case and drops zero-width characters: the same tokens, the same scores.
    for name in ("capitals", "zero-width spaces"):
        assert unchanged[name]["auroc"] == result["auroc"]
        assert unchanged[name]["evaded"]["value"] in (0.0, None)
    for name in ATTACKS:
        assert name in done.output


def test_attacks_command_without_both_labels_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "made.jsonl")
    data.write_text("".join(data.read_text().splitlines(keepends=True)[len(INSULTS) :]))
    done = CliRunner().invoke(main, ["bench", "attacks", str(data)])
    assert done.exit_code != 0
    assert "both kinds" in done.output
