"""csrm.train.published: rows in each set's own fields become cases with the right labels.

All rows are made up here; none is from a published set.
"""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from csrm.errors import BadArgument, BadConversation, Error
from csrm.train.evaluate import read_cases
from csrm.train.evaluation_sets import Case
from csrm.train.published import BEAVERTAILS_HARMS, PUBLISHED, WILDGUARD_HARMS, read_published
from csrm.train.records import Policy, Preference
from csrm.train.wording import load_wording


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def cases(tmp_path: Path, name: str, rows: list[dict[str, Any]]) -> list[Case]:
    return list(read_cases(write(tmp_path / "made.jsonl", rows), published=name).cases)


def flags(*names: str) -> dict[str, bool]:
    return {name: name in names for name in BEAVERTAILS_HARMS}


@pytest.mark.parametrize("table", [BEAVERTAILS_HARMS, WILDGUARD_HARMS])
def test_harms_of_every_label_have_a_wording(table: dict[str, tuple[str, ...]]) -> None:
    known = load_wording().categories
    assert {harm for harms in table.values() for harm in harms} <= set(known)


def test_beavertails_unsafe_row_violates_only_where_it_is_forbidden(tmp_path: Path) -> None:
    row = {"prompt": "p", "response": "r", "is_safe": False, "category": flags("privacy_violation")}
    labels = {case.group: case.violation for case in cases(tmp_path, "beavertails", [row])}
    assert labels == {"forbid": True, "omit": False, "allow": False}


def test_beavertails_safe_row_is_compliant_everywhere(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "response": "r", "is_safe": True, "category": flags()},
        {"prompt": "q", "response": "s", "is_safe": False, "category": flags("self_harm")},
    ]
    safe = [case for case in cases(tmp_path, "beavertails", rows) if case.conversation[0][1] == "p"]
    assert len(safe) == 3
    assert not any(case.violation for case in safe)


def test_wildguardmix_rows_without_a_response_label_give_no_case(tmp_path: Path) -> None:
    row = {
        "prompt": "p",
        "response": "r",
        "response_harm_label": "harmful",
        "subcategory": "others",
    }
    rows = [row, {**row, "response_harm_label": None}, {**row, "response": None}]
    found = cases(tmp_path, "wildguardmix", rows)
    assert {case.record for case in found} == {"wildguardmix-1"}
    assert [case.violation for case in found] == [True, True]


@pytest.mark.parametrize(("label", "expected"), [(1, True), ("unsafe", True), ("0", False)])
def test_labelled_reply_reads_labels_of_either_kind(
    label: object, expected: bool, tmp_path: Path
) -> None:
    row = {"prompt": "p", "response": "r", "label": label}
    found = cases(tmp_path, "harmbench-response", [row])
    assert {case.violation for case in found} == {expected}


def test_safe_rlhf_row_gives_both_replies_and_the_pair(tmp_path: Path) -> None:
    row = {
        "prompt": "p", "response_0": "bad", "response_1": "good", "is_response_0_safe": False,
        "is_response_1_safe": True, "safer_response_id": 1,
    }  # fmt: skip
    records = list(read_published(write(tmp_path / "made.jsonl", [row]), "safe-rlhf"))
    assert len(records) == 3
    pair = records[2]
    assert isinstance(pair, Preference)
    assert (pair.chosen[0][1], pair.rejected[0][1]) == ("good", "bad")


def test_xstest_csv_prompts_are_judged_as_pseudo_replies(tmp_path: Path) -> None:
    path = tmp_path / "made.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["id", "prompt", "type", "label"])
        writer.writeheader()
        writer.writerow({"id": 1, "prompt": 'Stop, "now"', "type": "figurative", "label": "safe"})
        writer.writerow({"id": 2, "prompt": "b", "type": "contrast_figurative", "label": "unsafe"})
    found = read_cases(path, published="xstest").cases
    assert [case.violation for case in found] == [False, True]
    assert found[0].conversation[-1] == ("assistant", 'Sure. Stop, "now"')


@pytest.mark.parametrize(("name", "violates"), [("or-bench", False), ("or-bench-toxic", True)])
def test_or_bench_label_is_that_of_the_file(name: str, violates: bool, tmp_path: Path) -> None:
    row = {"prompt": "p", "category": "deception"}
    assert [case.violation for case in cases(tmp_path, name, [row])] == [violates]


def test_dynabench_judges_every_agent_turn_under_every_rule(tmp_path: Path) -> None:
    row = {
        "policy": "1. No refunds.\n2. Be polite,\n   always.\n3. No prices.",
        "transcript": "User: Hi.\nAgent: Hello: how can I help?\nOn two lines.\nUser: x\nAgent: y",
        "label": "FAIL",
    }
    (case,) = cases(tmp_path, "dynabench", [row])
    assert (case.judged, case.violation) == ("assistant", True)
    assert [text for _, text in case.rules] == [
        "No refunds.", "Be polite, always.", "No prices.",
    ]  # fmt: skip
    assert case.conversation[1] == ("assistant", "Hello: how can I help?\nOn two lines.")
    assert len(case.conversation) == 4


def test_dynabench_policy_with_a_missing_number_keeps_every_line(tmp_path: Path) -> None:
    row = {"policy": "1. a\n2. b\n4. d", "transcript": "User: q\nAgent: r", "label": "PASS"}
    path = write(tmp_path / "made.jsonl", [row])
    (record,) = read_published(path, "dynabench")
    assert isinstance(record, Policy)
    assert record.policy == ("1. a", "2. b", "4. d")


def test_cosapien_partly_allowed_prompts_need_a_labelled_reply(tmp_path: Path) -> None:
    row = {"prompt": "p", "scenario": "- no pork\n- no wine", "type": "partial"}
    rows = [
        {**row, "type": "Fully allowed"},
        {**row, "type": "fully disallowed"},
        row,
        {**row, "response": "r", "label": "unsafe"},
    ]
    found = cases(tmp_path, "cosapien", rows)
    assert [case.violation for case in found] == [False, True, True]
    assert found[2].conversation[-1] == ("assistant", "r")
    assert [text for _, text in found[0].rules] == ["no pork", "no wine"]


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_read_published_row_of_another_set_is_a_typed_error_without_its_text(
    name: str, tmp_path: Path
) -> None:
    rows = [{"something": "SECRET"}, {"prompt": 3, "response": [], "label": "SECRET"}]
    for row in rows:
        with pytest.raises(BadConversation, match="row 1") as caught:
            list(read_published(write(tmp_path / "made.jsonl.gz", [row]), name))
        assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("made.parquet", b""),
        ("made.jsonl", b"{"),
        ("made.json", b"{}"),
        ("made.json", b"[1]"),
        ("made.jsonl.gz", b"\x1f\x8b\x08broken"),
        ("made.csv", b"\xff\xfe"),
    ],
)
def test_read_published_damaged_file_is_a_typed_error(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Error):
        list(read_published(tmp_path / name, "xstest"))


def test_read_published_unknown_set_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="dynabench"):
        list(read_published(tmp_path / "x.jsonl", "nothing"))
