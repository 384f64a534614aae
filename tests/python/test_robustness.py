"""csrm.bench.robustness: variants of a config, and the command on the shipped model."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from csrm.bench.robustness import FILLERS, OTHERS, PREAMBLES, Variants
from csrm.cli import main
from csrm.train.records import Categorised, Category, Origin
from csrm.train.wording import load_wording

HARMS = ("violence", "privacy", "fraud_deception")


def row(harm: str) -> Categorised:
    origin = Origin("1", "made", "MIT", "human", "last_assistant")
    turns = (("user", "q"), ("assistant", "r"))
    return Categorised(origin, turns, safe=False, harms=(harm,), source_harms=())


def write(path: Path, n: int) -> Path:
    fields = {
        "source": "made", "licence": "MIT", "kind": "categorised", "judged": "last_assistant",
        "label_by": "human", "safe": False,
    }  # fmt: skip
    rows = [
        {
            **fields,
            "id": str(i),
            "harms": [HARMS[i % 3]],
            "conversation": [{"role": "assistant", "content": f"reply number {i}"}],
        }
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    return path


def test_variants_state_the_same_categories_or_spare_the_concerned() -> None:
    wording = load_wording()
    owner = {t: n for n, c in wording.categories.items() for t in c.forbid}
    made = Variants(wording, {}).of(random.Random(0), row("violence"))
    forbidden = {
        name: sorted(owner[text] for _, text in rules if text in owner)
        for name, rules in made.items()
    }
    assert len(made["config"]) == 1 + OTHERS + FILLERS
    assert forbidden["config"] == forbidden["order"] == forbidden["wording"]
    assert "violence" in forbidden["config"]
    assert sorted(made["config"]) == sorted(made["order"])
    assert len(set(made["config"]) & set(made["wording"])) == FILLERS
    for name in ("omitted", "allowed"):
        assert "violence" not in forbidden[name]
        assert len(forbidden[name]) == OTHERS
    assert made["allowed"][0][1] in wording.categories["violence"].allow


def test_variants_combined_harm_is_forbidden_in_all_its_parts() -> None:
    taxonomy = {
        name: Category(name, name, f"about {name}") for name in load_wording().categories
    } | {"both": Category("both", "both", "both", ("violence", "privacy"))}
    variants = Variants(load_wording(), taxonomy)
    assert variants.parts(row("both")) == ["privacy", "violence"]
    unseen = variants.of(random.Random(1), row("both"))["unseen wording"]
    assert ("violence", "Not allowed: about violence") in unseen
    assert variants.parts(row("unknown")) == []


def test_robustness_command_order_changes_nothing(tmp_path: Path, fp32_artifact: Path) -> None:
    data, report = write(tmp_path / "made.jsonl", 6), tmp_path / "r.json"
    command = ["bench", "robustness", str(data), "--model", str(fp32_artifact)]
    done = CliRunner().invoke(main, [*command, "--json", str(report)])
    assert done.exit_code == 0, done.output
    (result,) = json.loads(report.read_text())
    by_name = {item["variant"]: item for item in result["stability"] + result["ordering"]}
    assert by_name["order"]["largest"] < 1e-5
    assert by_name["order"]["flipped"]["value"] == 0
    assert {"wording", "omitted", "allowed", *PREAMBLES} <= set(by_name)
    assert all(by_name[name]["largest"] > 0 for name in PREAMBLES)  # they are really there
    assert all(item["n"] == 6 for item in by_name.values())


def test_robustness_command_without_harmful_rows_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "empty.jsonl"
    data.write_text("")
    done = CliRunner().invoke(main, ["bench", "robustness", str(data)])
    assert done.exit_code == 2
    assert "no harmful conversation" in done.output
