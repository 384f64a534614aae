"""csrm.train.published_rules and published_agents: rows that bring their own rules.

All rows are made up here; none is from a published set.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from csrm.errors import BadArgument, BadConversation
from csrm.train.evaluate import named_files, read_cases
from csrm.train.evaluation_sets import Case
from csrm.train.published import read_published
from csrm.train.published_rules import COSA_HARMS, allowed_harms, judged_harms
from csrm.train.records import Policy

NONE_FOUND = dict.fromkeys(("Violence", "Privacy Violations", "Other Harms"), False)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def policies(path: Path, name: str) -> list[Policy]:
    found = list(read_published(path, name))
    assert all(isinstance(record, Policy) for record in found)
    return [record for record in found if isinstance(record, Policy)]


def cases(path: Path, name: str) -> tuple[Case, ...]:
    return read_cases(path, published=name).cases


def judge(**found: bool) -> str:
    verdict = {**NONE_FOUND, **{name.replace("_", " "): is_it for name, is_it in found.items()}}
    return "Violence: the reply says how to.\n" + json.dumps(verdict)


# CoSAlign-Test


@pytest.mark.parametrize(
    ("config", "allowed"),
    [
        ("safe", set()),
        ("Violence", {"violence"}),
        ("Violence-00000-of-00001", {"violence"}),
        (
            "Financial_Crime_and_Theft.Privacy_Violations",
            {"financial_crime_and_theft", "privacy_violations"},
        ),
        (
            "Illegal_Drug.Related_Activities_and_Substance_Abuse",
            {"illegal_drug_related_activities_and_substance_abuse"},
        ),
    ],
)
def test_allowed_harms_reads_the_names_of_splits(config: str, allowed: set[str]) -> None:
    assert allowed_harms(config) == allowed


@pytest.mark.parametrize("config", ["", "Violence.SECRET", "safe.Violence", "Violences"])
def test_allowed_harms_of_another_config_are_refused_without_its_text(config: str) -> None:
    with pytest.raises(ValueError, match=r"^not a known config$"):
        allowed_harms(config)


def test_cosalign_config_allows_its_categories_and_forbids_the_others(tmp_path: Path) -> None:
    path = write(tmp_path / "Violence.jsonl", [{"prompt": "p", "mode": "exact", "situation": "s"}])
    (record,) = policies(path, "cosalign-test")
    assert len(record.policy) == len(COSA_HARMS) + 1
    allowed = [rule for rule in record.policy if rule.startswith("Allowed: ")]
    assert allowed == [f"Allowed: {COSA_HARMS['violence']}."]
    assert record.policy[-1].startswith("Not allowed: ")


def test_cosalign_prompts_are_judged_as_pseudo_replies_by_their_mode(tmp_path: Path) -> None:
    modes = ["safe", "exact", "subset", "not subset", "not_subset"]
    rows = [{"prompt": f"p {mode}", "mode": mode, "situation": "s"} for mode in modes]
    found = cases(write(tmp_path / "safe.jsonl", rows), "cosalign-test")
    assert [case.violation for case in found] == [False, False, False, True, True]
    assert found[0].conversation[-1] == ("assistant", "Sure. p safe")


def test_cosalign_replies_violate_where_the_judge_found_what_is_not_allowed(tmp_path: Path) -> None:
    row = {"prompt": "p", "response": "r", "test_config_category": "Violence"}
    answers = [judge(), judge(Violence=True), judge(Privacy_Violations=True), "I cannot say."]
    rows = [{**row, "harm_categorization_response": answer} for answer in answers]
    found = cases(write(tmp_path / "made.jsonl", rows), "cosalign-test")
    assert [case.violation for case in found] == [False, False, True]
    assert found[0].conversation[-1] == ("assistant", "r")


def test_judged_harms_of_an_unknown_category_are_refused() -> None:
    assert judged_harms('Final Answer: {"Other Harms": true}') == {"other_harms"}
    assert judged_harms("no verdict") is None
    for answer in ['{"Gossip": true}', "{}"]:
        with pytest.raises(ValueError, match=r"^not a known category$"):
            judged_harms(answer)


# PolyGuard

STATEMENT = {"instance": "They are late again.", "category": "Respect", "rule": "No complaints."}


def test_polyguard_folder_takes_labels_from_the_names_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "Somewhere"
    write(folder / "data_safe.jsonl", [STATEMENT, STATEMENT])
    write(folder / "data_unsafe.jsonl", [STATEMENT])
    (folder / "rules_refine_structured.json").write_text('{"Respect": ["No complaints."]}')
    found = cases(folder, "polyguard")
    assert [case.violation for case in found] == [False, False, True]
    assert [case.rules for case in found] == [(("", "No complaints."),)] * 3
    assert found[0].conversation == (("user", "They are late again."),)
    assert len({case.record for case in found}) == 3
    names = [name for name, _ in named_files([folder], "polyguard")]
    assert names == ["Somewhere/data_safe.jsonl", "Somewhere/data_unsafe.jsonl"]


@pytest.mark.parametrize("field", ["attribute", "label"])
def test_polyguard_label_of_a_row_goes_before_the_name_of_its_file(
    field: str, tmp_path: Path
) -> None:
    rows = [{**STATEMENT, field: label} for label in ("unsafe", "safe")]
    found = policies(write(tmp_path / "data_safe.jsonl", rows), "polyguard")
    assert [record.compliant for record in found] == [False, True]


def test_polyguard_replies_are_judged_by_their_own_flag(tmp_path: Path) -> None:
    row = {"id": 1, "gen_prompt": "p", "gen_response": "r", "category": "c", "rule": "No r."}
    path = write(tmp_path / "made.jsonl", [{**row, "safe": flag} for flag in (True, False)])
    found = policies(path, "polyguard")
    assert [record.compliant for record in found] == [True, False]
    assert found[0].conversation == (("user", "p"), ("assistant", "r"))


def test_polyguard_policy_row_gives_its_requests_with_and_without_answers(tmp_path: Path) -> None:
    row = {"policy_text": "LLMs should not sing.", "category_name": "Noise"}
    row |= {f"benign_example_{n}": f"hum {n}" for n in range(1, 6)}
    row |= {f"rephrased_malicious_example_{n}": "" for n in range(2, 6)}
    row |= {"rephrased_malicious_example_1": "sing", "rephrased_malicious_example_answer_1": "la"}
    found = policies(write(tmp_path / "made.jsonl", [row]), "polyguard")
    assert [record.compliant for record in found] == [False] + [True] * 5
    assert found[0].conversation == (("user", "sing"), ("assistant", "la"))
    assert (found[1].origin.judged, found[1].conversation) == ("last_user", (("user", "hum 1"),))


def test_folder_without_a_set_or_its_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text("[]")
    with pytest.raises(BadArgument, match="holds no files"):
        list(read_published(tmp_path, "polyguard"))
    with pytest.raises(BadArgument, match="holds no files"):
        list(named_files([tmp_path], None))


# SOPBench

PROMPT = """Roleplay as a clerk.


### Role Description:
You sell stamps.


### Actions with Constraints:

* sell_stamp:
ALL of these conditions must be met:
• The customer is logged in.

### Internal Verification Functions:

* internal_check_name"""


def run_of(**checks: bool) -> dict[str, Any]:
    """A made-up task with one run whose evaluation is all true but for `checks`."""
    call = {"id": "1", "function": {"name": "sell_stamp", "arguments": '{"n": 1}'}}
    names = ("no_tool_call_error", "constraint_not_violated", "database_match")
    names = (*names, "dirgraph_satisfied", "action_called_correctly", "success")
    interaction = [
        {"content": "A stamp, please.", "sender": "user"},
        {"content": None, "sender": "post office assistant", "tool_calls": [call]},
        {"tool_call_id": "1", "tool_name": "sell_stamp", "content": "True"},
        {"content": "Here it is.", "sender": "post office assistant", "tool_calls": None},
    ]
    return {
        "domain": "post",
        "task": {"user_goal": "sell_stamp", "action_should_succeed": 1},
        "interactions": [{"prompt": PROMPT, "interaction": interaction, "database": {}}],
        "evaluations": [{**dict.fromkeys(names, True), **checks}],
    }


def test_sopbench_run_becomes_turns_and_rules(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    path.write_text(json.dumps([run_of()]))
    (record,) = policies(path, "sopbench")
    assert record.conversation == (
        ("user", "A stamp, please."),
        ("assistant", 'call: sell_stamp({"n": 1})'),
        ("tool", "sell_stamp -> True"),
        ("assistant", "Here it is."),
    )
    assert record.policy == (
        "Roleplay as a clerk.",
        "You sell stamps.",
        "sell_stamp:\nALL of these conditions must be met:\n• The customer is logged in.",
    )
    (case,) = cases(path, "sopbench")
    assert (case.judged, case.violation) == ("assistant", False)


@pytest.mark.parametrize(
    ("check", "compliant"),
    [
        ("constraint_not_violated", False),
        ("database_match", False),
        ("dirgraph_satisfied", False),
        ("no_tool_call_error", True),
        ("action_called_correctly", True),
    ],
)
def test_sopbench_only_broken_procedures_are_violations(
    check: str, compliant: bool, tmp_path: Path
) -> None:
    path = tmp_path / "made.json"
    path.write_text(json.dumps([run_of(**{check: False, "success": False})]))
    assert [record.compliant for record in policies(path, "sopbench")] == [compliant]


def test_sopbench_output_before_its_evaluation_is_refused(tmp_path: Path) -> None:
    row = run_of()
    del row["evaluations"]
    with pytest.raises(BadConversation, match="evaluations"):
        policies(write(tmp_path / "made.jsonl", [row]), "sopbench")


# Bad rows: typed, with the number of the row, never its text

COSALIGN = {"prompt": "p", "mode": "exact", "test_config_category": "Violence"}
REPLIED = {**COSALIGN, "response": "r", "harm_categorization_response": judge()}
REPLY = {"gen_prompt": "p", "gen_response": "r", "rule": "No r.", "safe": True}
BAD_ROWS = [
    ("cosalign-test", COSALIGN, {"prompt": ["SECRET"]}),
    ("cosalign-test", COSALIGN, {"mode": "SECRET"}),
    ("cosalign-test", COSALIGN, {"mode": None}),
    ("cosalign-test", COSALIGN, {"test_config_category": "Violence.SECRET"}),
    ("cosalign-test", REPLIED, {"harm_categorization_response": '{"SECRET": true}'}),
    ("cosalign-test", REPLIED, {"harm_categorization_response": '{"Violence": "SECRET"}'}),
    ("cosalign-test", REPLIED, {"harm_categorization_response": "{SECRET}"}),
    ("cosalign-test", REPLIED, {"harm_categorization_response": None}),
    ("polyguard", {**STATEMENT, "label": "safe"}, {"label": "SECRET"}),
    ("polyguard", {**STATEMENT, "label": "safe"}, {"rule": None}),
    ("polyguard", {**STATEMENT, "label": "safe"}, {"instance": ["SECRET"]}),
    ("polyguard", REPLY, {"safe": "SECRET"}),
    ("polyguard", REPLY, {"gen_response": None}),
    ("polyguard", {"policy_text": "No."}, {"policy_text": "SECRET"}),
    ("sopbench", run_of(), {"evaluations": []}),
    ("sopbench", run_of(), {"evaluations": [{"success": "SECRET"}]}),
    ("sopbench", run_of(), {"interactions": "SECRET"}),
    ("sopbench", run_of(), {"interactions": [{"prompt": "", "interaction": []}]}),
]


@pytest.mark.parametrize(("name", "row", "change"), BAD_ROWS)
def test_read_published_bad_row_is_a_typed_error_naming_its_line_without_its_text(
    name: str, row: dict[str, Any], change: dict[str, Any], tmp_path: Path
) -> None:
    path = write(tmp_path / "made.jsonl", [row, {**row, **change}])
    with pytest.raises(BadConversation, match=r"row [12]") as caught:
        list(read_published(path, name))
    assert caught.value.line == (1 if "policy_text" in row else 2)
    assert "SECRET" not in str(caught.value)
