"""csrm.train.evaluate with scorers made here: systems, unknowns, pairs, sensitivity, output."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from csrm.errors import BadArgument, Error, LimitExceeded
from csrm.train import evaluation_report
from csrm.train.evaluate import (
    EMPTY_CONFIG,
    RuleScorer,
    evaluate_with,
    read_cases,
    shuffled_configs,
)
from csrm.train.evaluation_page import write_page
from csrm.train.evaluation_sets import Rule
from csrm.train.records import Turn
from csrm.train.wording import load_wording

BAD, FORBIDS = "something bad", "Never say bad things."


@dataclass(frozen=True)
class MadeScore:
    reward: float
    compliance: float
    turns: tuple[Any, ...] = ()


class Reader:
    """Scores a conversation a violation if a turn is bad and a rule is against it."""

    def __init__(self, failing: str = "no such turn") -> None:
        self.failing = failing
        self.n_scored = 0

    def score_rules(
        self, rules: Sequence[Rule], conversations: Sequence[Sequence[Turn]], judged: str
    ) -> list[MadeScore | Error]:
        return [self.score(rules, turns, judged) for turns in conversations]

    def score(self, rules: Sequence[Rule], turns: Sequence[Turn], judged: str) -> MadeScore | Error:
        self.n_scored += 1
        if any(self.failing in content for _, content in turns):
            return LimitExceeded("too long")
        is_against = any(text == FORBIDS for _, text in rules)
        last = [turns[-1]] if judged == "last" else [t for t in turns if t[0] == "assistant"]
        scores = tuple(
            MadeScore(-2.0, 0.1) if is_against and BAD in content else MadeScore(2.0, 0.9)
            for _, content in last
        )
        worst = min(scores, key=lambda score: score.reward)
        return MadeScore(worst.reward, worst.compliance, scores)


class Refuser:
    """Refuses every configuration, as `csrm.Scorer` does with one that is too large."""

    def score_rules(
        self, rules: Sequence[Rule], conversations: Sequence[Sequence[Turn]], judged: str
    ) -> list[MadeScore | Error]:
        raise LimitExceeded("too many rules")


def evaluate(scorer: RuleScorer, paths: list[Path]) -> dict[str, Any]:
    """With few resamples: these tests look at values, not at intervals."""
    return evaluate_with(scorer, paths, resamples=20)


def row(number: int, kind: str, *contents: str, **fields: object) -> dict[str, Any]:
    turns = [
        {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)
    ]
    common = {"source": "made", "licence": "Apache-2.0", "label_by": "construction"}
    judged = {"judged": "last_assistant", "conversation": turns}
    return {"id": f"made-{number}", "kind": kind, **common, **judged, **fields}


def policy(number: int, reply: str, rule: str) -> dict[str, Any]:
    is_good = not (BAD in reply and rule == FORBIDS)
    return row(number, "policy", f"Question {number}?", reply, policy=[rule], compliant=is_good)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    return path


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    replies, rules = (BAD, "fine"), (FORBIDS, "Be brief.")
    return write(
        tmp_path / "made.jsonl",
        [policy(i, replies[i % 2], rules[i // 2 % 2]) for i in range(40)],
    )


def test_evaluate_with_reader_of_rules_beats_every_baseline(policies: Path) -> None:
    (file,) = evaluate(Reader(), [policies])["files"]
    systems = file["systems"]
    assert (file["file"], file["n_records"], file["n_cases"]) == ("made", 40, 40)
    assert systems["model"]["f1_violation"]["value"] == 1.0
    assert systems["model"]["f1_compliant"]["value"] == 1.0
    assert (systems["model"]["n"], systems["model"]["n_violation"]) == (40, 10)
    assert systems["empty_config"]["f1_violation"]["value"] == 0.0
    assert systems["all_compliant"]["f1_compliant"]["value"] == pytest.approx(60 / 70)
    assert systems["all_violation"]["f1_violation"]["value"] == pytest.approx(20 / 50)
    assert systems["shuffled_config"]["f1_violation"]["value"] < 0.8
    assert "last_turn" not in systems


def test_evaluate_with_failed_cases_are_unknown_and_left_out(policies: Path) -> None:
    result = evaluate(Reader(failing="Question 1?"), [policies])
    (file,) = result["files"]
    assert file["n_unknown"] == {"model": 1, "empty_config": 1, "shuffled_config": 1}
    assert file["errors"]["model"] == {"LimitExceeded": 1}
    assert file["systems"]["model"]["n"] == 39


def test_evaluate_with_refused_configuration_scores_nothing(policies: Path) -> None:
    result = evaluate(Refuser(), [policies])
    (file,) = result["files"]
    assert file["n_unknown"]["model"] == 40
    assert file["systems"]["model"]["n"] == 0
    assert file["systems"]["model"]["f1_violation"]["value"] is None
    json.dumps(result, allow_nan=False)


def test_evaluate_with_whole_conversation_also_reports_the_last_turn(tmp_path: Path) -> None:
    rows = [
        row(i, "policy", "Hm?", reply, "And?", "fine", policy=[FORBIDS], compliant=reply != BAD)
        for i, reply in enumerate([BAD, "fine"] * 4)
    ]
    path = write(tmp_path / "made.jsonl", [{**r, "judged": "conversation"} for r in rows])
    (file,) = evaluate(Reader(), [path])["files"]
    assert file["systems"]["model"]["accuracy"]["value"] == 1.0
    assert file["systems"]["last_turn"]["accuracy"]["value"] == 0.5


def test_evaluate_with_preferences_gives_pair_accuracy(tmp_path: Path) -> None:
    good, bad = ([{"role": "assistant", "content": text}] for text in ("fine", BAD))
    rows = [
        row(i, "preference", "Question?", config=[FORBIDS], chosen=good, rejected=bad)
        for i in range(4)
    ]
    (file,) = evaluate(Reader(), [write(tmp_path / "made.jsonl", rows)])["files"]
    assert file["systems"] == {}
    assert file["pairs"]["model"]["accuracy"]["value"] == 1.0
    assert file["pairs"]["model"]["gap"]["value"] == 4.0
    assert file["pairs"]["empty_config"]["accuracy"]["value"] == 0.5


class CategoryReader:
    """Flags a bad turn wherever a rule mentions hateful or harassing content to forbid it."""

    def score_rules(
        self, rules: Sequence[Rule], conversations: Sequence[Sequence[Turn]], judged: str
    ) -> list[MadeScore | Error]:
        forbids = set(load_wording().categories["hate"].forbid)
        is_against = any(text in forbids for _, text in rules)
        return [
            MadeScore(-1.0, 0.2) if is_against and BAD in turns[-1][1] else MadeScore(1.0, 0.8)
            for turns in conversations
        ]


@pytest.fixture
def categorised(tmp_path: Path) -> Path:
    rows = [
        row(
            i,
            "categorised",
            f"Question {i}?",
            BAD if i % 2 else "fine",
            safe=i % 2 == 0,
            harms=["hate"] if i % 2 else [],
        )
        for i in range(12)
    ]
    return write(tmp_path / "hate.jsonl", rows)


def test_evaluate_with_categorised_rows_reports_sensitivity(categorised: Path) -> None:
    (file,) = evaluate(CategoryReader(), [categorised])["files"]
    unsafe, safe = file["sensitivity"]["unsafe"], file["sensitivity"]["safe"]
    assert (unsafe["n"], safe["n"]) == (6, 6)
    assert [unsafe[g]["value"] for g in ("forbid", "omit", "allow")] == [1.0, 0.0, 0.0]
    assert [safe[g]["value"] for g in ("forbid", "omit", "allow")] == [0.0, 0.0, 0.0]
    assert file["groups"]["forbid"]["n_violation"] == 6
    assert file["groups"]["omit"]["f1_violation"]["value"] is None


def test_evaluate_with_equal_requests_are_scored_once(categorised: Path) -> None:
    scorer = Reader()
    evaluate(scorer, [categorised])
    n_distinct = 36 + 12 + 36  # the empty config meets each conversation once
    assert scorer.n_scored <= n_distinct


def test_shuffled_configs_come_from_other_records(policies: Path) -> None:
    cases = read_cases(policies).cases
    distinct = [
        type(c)(c.id, c.record, (("", c.id),), c.conversation, c.judged, c.violation, c.group)
        for c in cases
    ]
    configs = shuffled_configs(distinct, seed=0)
    assert all(config != case.rules for config, case in zip(configs, distinct, strict=True))
    assert configs == shuffled_configs(distinct, seed=0)
    assert configs != shuffled_configs(distinct, seed=1)


def test_report_writes_json_tables_and_plots(categorised: Path, tmp_path: Path) -> None:
    result = evaluate(CategoryReader(), [categorised])
    path = tmp_path / "out" / "result.json"
    evaluation_report.write(result, path)
    assert json.loads(path.read_text()) == result
    plots = {p.name for p in path.parent.glob("*.png")}
    assert plots == {"result.hate.reliability.png", "result.sensitivity.png"}
    console = Console(file=io.StringIO(), width=200)
    evaluation_report.print_tables(result, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for expected in ("shuffled_config", "Config sensitivity", "forbid", "smECE"):
        assert expected in text


def test_write_page_is_self_contained_and_escapes_names(categorised: Path, tmp_path: Path) -> None:
    renamed = categorised.rename(categorised.with_name("<b>.jsonl"))
    result = evaluate_with(Reader(), [renamed], resamples=20)
    write_page(result, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page.replace("http-equiv", "")
    for title in ("F1 violation", "shuffled_config", "share judged a violation", "sha256"):
        assert title in page


def test_report_bar_free_run_prints_nothing(policies: Path, capsys: Any) -> None:
    evaluate_with(Reader(), [policies], resamples=20, progress=True)
    assert capsys.readouterr() == ("", "")


def test_evaluate_with_limit_keeps_that_many_records(policies: Path) -> None:
    (file,) = evaluate_with(Reader(), [policies], limit=7, resamples=20)["files"]
    assert file["n_records"] == 7


@pytest.mark.parametrize("limit", [0, -1])
def test_evaluate_with_unusable_call_is_typed(policies: Path, limit: int) -> None:
    with pytest.raises(BadArgument):
        evaluate_with(Reader(), [policies], limit=limit)
    with pytest.raises(BadArgument):
        evaluate_with(Reader(), [])


def test_empty_config_has_one_rule() -> None:
    assert EMPTY_CONFIG == (("", "No rules apply."),)
