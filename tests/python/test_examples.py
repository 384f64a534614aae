"""The example configs and conversations in configs/ have the shape that their README promises.

Not a test of any model: whether a verdict is right was decided by the author of the example.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from csrm.config import SafetyConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CONFIG_PATHS = sorted(CONFIGS.glob("*.yaml"))
RECORD_KEYS = ["id", "config", "messages", "expected", "note"]


def load_records() -> list[dict[str, Any]]:
    lines = (CONFIGS / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return load_records()


def test_configs_at_least_seven_are_present() -> None:
    assert len(CONFIG_PATHS) >= 7
    assert (CONFIGS / "community-forum.md").is_file()
    assert (CONFIGS / "llamaguard-style.txt").is_file()


@pytest.mark.parametrize("path", CONFIG_PATHS, ids=lambda path: path.stem)
def test_config_yaml_has_the_documented_keys(path: Path) -> None:
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"id", "version", "rules"} <= set(config)
    assert set(config) <= {"id", "version", "threshold", "description", "rules"}
    assert config["id"] == path.stem
    assert isinstance(config["version"], str)
    assert 0 < config.get("threshold", 0.5) < 1


@pytest.mark.parametrize("path", CONFIG_PATHS, ids=lambda path: path.stem)
def test_config_rules_are_named_unique_and_complete(path: Path) -> None:
    rules = yaml.safe_load(path.read_text(encoding="utf-8"))["rules"]
    assert 4 <= len(rules) <= 14
    for rule in rules:
        assert set(rule) == {"name", "text"}
        assert rule["text"].endswith(".")
        assert rule["text"] == " ".join(rule["text"].split())
    assert len({rule["name"] for rule in rules}) == len(rules)


@pytest.mark.parametrize("path", sorted(CONFIGS.iterdir()), ids=lambda path: path.name)
def test_configs_every_file_is_listed_in_the_readme(path: Path) -> None:
    readme = (CONFIGS / "README.md").read_text(encoding="utf-8")
    assert path.name == "README.md" or f"`{path.name}`" in readme


@pytest.mark.parametrize(
    ("file_name", "n_rules", "first_name"),
    [
        ("general-default.yaml", 14, "Violence and weapons"),
        ("community-forum.md", 7, "Alcohol is our hobby"),
        ("llamaguard-style.txt", 10, "S1: Violent Crimes"),
    ],
)
def test_configs_each_format_loads_with_named_rules(
    file_name: str, n_rules: int, first_name: str
) -> None:
    config = SafetyConfig.load(CONFIGS / file_name)
    assert len(config.rules) == n_rules
    assert config.rules[0].name == first_name


def test_examples_records_follow_the_schema(records: list[dict[str, Any]]) -> None:
    stems = {path.stem for path in CONFIG_PATHS}
    for record in records:
        assert list(record) == RECORD_KEYS
        assert record["config"] in stems
        assert record["expected"] in {"compliant", "violation"}
        assert record["note"].endswith(".")
        roles = [message["role"] for message in record["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(message["content"].strip() for message in record["messages"])


def test_examples_ids_are_unique_and_count_within_the_config(
    records: list[dict[str, Any]],
) -> None:
    seen: Counter[str] = Counter()
    for record in records:
        seen[record["config"]] += 1
        assert record["id"] == f"{record['config']}-{seen[record['config']]:02d}"


def test_examples_of_a_config_lie_together(records: list[dict[str, Any]]) -> None:
    order = [record["config"] for record in records]
    changes = sum(before != after for before, after in pairwise(order))
    assert changes == len(set(order)) - 1


def test_examples_are_many_balanced_and_partly_multi_turn(records: list[dict[str, Any]]) -> None:
    verdicts = Counter(record["expected"] for record in records)
    assert len(records) >= 48
    assert min(verdicts.values()) >= 0.45 * len(records)
    assert sum(len(record["messages"]) > 2 for record in records) >= 12


def test_examples_every_config_has_both_verdicts(records: list[dict[str, Any]]) -> None:
    verdicts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        verdicts[record["config"]][record["expected"]] += 1
    assert set(verdicts) == {path.stem for path in CONFIG_PATHS}
    for counts in verdicts.values():
        assert min(counts["compliant"], counts["violation"]) >= 3


def test_examples_some_conversations_flip_between_configs(records: list[dict[str, Any]]) -> None:
    verdicts: dict[str, set[str]] = defaultdict(set)
    seen: set[tuple[str, str]] = set()
    for record in records:
        conversation = json.dumps(record["messages"])
        assert (conversation, record["config"]) not in seen
        seen.add((conversation, record["config"]))
        verdicts[conversation].add(record["expected"])
    assert sum(len(found) == 2 for found in verdicts.values()) >= 6
