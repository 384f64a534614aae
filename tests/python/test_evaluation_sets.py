"""csrm.train.evaluation_sets: labels follow the documented rules, and nothing leaks them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from csrm.errors import BadArgument
from csrm.train.evaluation_sets import (
    MAX_RULES,
    MIN_RULES,
    Case,
    CaseComposer,
    unrelated_rules,
)
from csrm.train.records import (
    BookRule,
    Categorised,
    Category,
    DataFolder,
    Judged,
    Origin,
    Policy,
    Preference,
    Prompt,
    Record,
    Ruled,
    Severity,
    Turn,
    read_records,
)
from csrm.train.wording import load_wording

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the data folder shared/data is not beside the repo"
)
WORDING = load_wording()
TURNS: tuple[Turn, ...] = (("user", "Question?"), ("assistant", "Answer."))
TAXONOMY = {
    "drugs_weapons": Category("drugs_weapons", "Both", "Both.", ("drugs", "weapons")),
    "drugs": Category("drugs", "Drugs", "Making or selling controlled substances."),
    "weapons": Category("weapons", "Weapons", "Building firearms."),
}
TOPICS = ("parking", "lunches", "visitors", "holidays", "printers", "elevators")
BOOK = (
    BookRule("b-0", "Money", "Do not accept bribes from suppliers."),
    BookRule("b-1", "Money", "Do not falsify invoices."),
    BookRule("b-2", "Gifts", "Do not take presents from suppliers."),
    BookRule("b-3", "Legal", "Do not break any applicable laws."),
    *(BookRule(f"b-{i}", "House", f"Do not misuse {t}.") for i, t in enumerate(TOPICS, start=4)),
)


def origin(id: str, judged: Judged = "last_assistant") -> Origin:
    return Origin(id, "made", "Apache-2.0", "construction", judged)


def categorised(id: str, *harms: str, about: tuple[str, ...] = ()) -> Categorised:
    return Categorised(origin(id), TURNS, not harms, harms, (), about)


def ruled(id: str, violates: bool) -> Ruled:
    return Ruled(origin(id), TURNS, BOOK[0].text, "Money", "made/b", violates)


def compose(records: Sequence[Record], seed: int = 0) -> tuple[Case, ...]:
    return CaseComposer(WORDING, TAXONOMY, {"made/b": BOOK}, seed).compose(records).cases


def texts(case: Case) -> set[str]:
    return {text for _, text in case.rules}


def rules_about(category: str) -> tuple[set[str], set[str]]:
    """Texts that forbid and that allow `category`."""
    wording = WORDING.categories[category]
    forbid, allow = set(wording.forbid), set(wording.allow)
    if category in TAXONOMY:
        forbid.add(f"Not allowed: {TAXONOMY[category].definition}")
        allow.add(f"Allowed here: {TAXONOMY[category].definition}")
    return forbid, allow


@pytest.mark.parametrize("number", range(20))
def test_compose_unsafe_row_flips_with_the_configuration(number: int) -> None:
    forbid, omit, allow = compose([categorised(f"made-{number}", "drugs_weapons")])
    assert [c.group for c in (forbid, omit, allow)] == ["forbid", "omit", "allow"]
    assert [c.violation for c in (forbid, omit, allow)] == [True, False, False]
    for category in ("drugs", "weapons"):
        forbids, allows = rules_about(category)
        assert len(texts(forbid) & forbids) == 1
        assert len(texts(allow) & allows) == 1
        assert not texts(omit) & (forbids | allows)
        assert not texts(allow) & forbids
    assert set(omit.rules) == set(forbid.rules) & set(allow.rules)


@pytest.mark.parametrize("number", range(20))
def test_compose_no_configuration_forbids_an_overlapping_category(number: int) -> None:
    for case in compose([categorised(f"made-{number}", "hate")]):
        for near in WORDING.neighbours["hate"]:
            assert not texts(case) & rules_about(near)[0]


def test_compose_safe_row_complies_under_configurations_of_the_same_kind() -> None:
    rows = [categorised("made-0", "weapons"), categorised("made-1")]
    safe = [case for case in compose(rows) if case.record == "made-1"]
    assert [case.violation for case in safe] == [False, False, False]
    assert texts(safe[0]) & rules_about("weapons")[0]


def test_compose_safe_row_with_prompt_harms_is_asked_about_them() -> None:
    rows = [categorised("made-0", "weapons"), categorised("made-1", about=("hate",))]
    forbid = next(case for case in compose(rows) if case.id == "made-1/forbid")
    assert texts(forbid) & rules_about("hate")[0]
    assert forbid.violation is False


def test_compose_unspecified_harm_is_only_asked_under_forbidding_everything() -> None:
    cases = compose([categorised("made-0", "unspecified"), categorised("made-1")])
    assert Counter((c.group, c.violation) for c in cases) == Counter(
        [
            ("forbid_all", True),
            ("forbid_each", True),
            ("forbid_all", False),
            ("forbid_each", False),
        ]
    )
    general, each = cases[:2]
    assert len(texts(general) & set(WORDING.forbid_all)) == 1
    for category in WORDING.categories:
        assert len(texts(each) & rules_about(category)[0]) == 1


def test_compose_unknown_category_is_skipped_and_counted() -> None:
    composed = CaseComposer(WORDING, {}, {}).compose([categorised("made-0", "drugs_weapons")])
    assert (composed.n_records, composed.n_skipped, composed.cases) == (1, 1, ())


def test_unrelated_rules_leave_out_category_shared_words_and_catch_alls() -> None:
    kept = unrelated_rules(BOOK[0].text, "Money", BOOK)
    assert kept == [f"Do not misuse {topic}." for topic in TOPICS]


@pytest.mark.parametrize("violates", [True, False])
def test_compose_ruled_row_gives_concerned_and_toggled(violates: bool) -> None:
    for number in range(20):
        concerned, toggled = compose([ruled(f"made-{number}", violates)])
        assert (concerned.group, concerned.violation) == ("concerned", violates)
        assert (toggled.group, toggled.violation) == ("toggled", False)
        assert ("", BOOK[0].text) in concerned.rules
        assert ("", BOOK[0].text) not in toggled.rules
        assert len(concerned.rules) == len(toggled.rules)
        assert MIN_RULES <= len(toggled.rules) <= MAX_RULES
        assert texts(concerned) - texts(toggled) == {BOOK[0].text}


def test_compose_ruled_row_of_unknown_body_is_typed() -> None:
    with pytest.raises(BadArgument, match="made-0"):
        CaseComposer(WORDING, {}, {}).compose([ruled("made-0", True)])


@pytest.mark.parametrize(
    ("judged", "turns", "expected"),
    [
        ("last_assistant", TURNS, "last"),
        ("conversation", TURNS, "assistant"),
        ("conversation", (("user", "A case."),), "last"),
    ],
)
def test_compose_policy_row_is_given_and_judged_as_labelled(
    judged: Judged, turns: tuple[Turn, ...], expected: str
) -> None:
    (case,) = compose([Policy(origin("made-0", judged), turns, ("No A.", "No B."), False)])
    assert case.rules == (("", "No A."), ("", "No B."))
    assert (case.judged, case.violation, case.group) == (expected, True, "given")


def test_compose_preference_row_gives_two_unlabelled_cases() -> None:
    row = Preference(
        origin("made-0"), TURNS[:1], ("Be kind.",), TURNS[1:], (("assistant", "Go away."),)
    )
    chosen, rejected = compose([row])
    assert (chosen.group, rejected.group) == ("chosen", "rejected")
    assert chosen.violation is rejected.violation is None
    assert chosen.conversation == TURNS
    assert rejected.conversation == (TURNS[0], ("assistant", "Go away."))


def test_compose_turns_after_the_judged_one_are_cut() -> None:
    longer = (*TURNS, ("user", "Thanks."))
    row = Categorised(origin("made-0"), longer, False, ("weapons",), ())
    assert {case.conversation for case in compose([row])} == {TURNS}


def test_compose_no_turn_to_judge_is_skipped() -> None:
    row = Categorised(origin("made-0"), TURNS[:1], False, ("weapons",), ())
    assert compose([row]) == ()


def test_compose_prompt_complies_and_severity_is_skipped() -> None:
    prompt = Prompt(origin("made-0", "last_user"), TURNS[:1])
    rated = Severity(origin("made-1"), TURNS, 0.5, (0.5,), "made", "violence")
    composed = CaseComposer(WORDING, {}, {}).compose([prompt, rated])
    assert [case.violation for case in composed.cases] == [False, False]
    assert (composed.n_records, composed.n_skipped) == (2, 1)


def test_compose_is_deterministic_and_independent_of_order() -> None:
    rows = [ruled(f"made-{i}", True) for i in range(5)]
    cases = compose(rows)
    assert cases == compose(rows)
    assert set(cases) == set(compose(rows[::-1]))
    assert cases != compose(rows, seed=1)


def test_compose_limit_keeps_the_same_records_whatever_the_order() -> None:
    rows = [categorised(f"made-{i}", "weapons") for i in range(50)]
    composer = CaseComposer(WORDING, TAXONOMY, {})
    kept = {case.record for case in composer.compose(rows, limit=10).cases}
    assert len(kept) == 10
    assert kept == {case.record for case in composer.compose(rows[::-1], limit=10).cases}
    assert kept != {f"made-{i}" for i in range(10)}


@needs_data
def test_compose_shipped_eval_files_every_record_gives_cases() -> None:
    folder = DataFolder(DATA)
    composer = CaseComposer(WORDING, folder.taxonomy, folder.rulebooks)
    for path in folder.eval_files:
        composed = composer.compose(read_records(path), limit=200)
        assert composed.n_skipped == 0, path.name
        assert len({case.id for case in composed.cases}) == len(composed.cases), path.name


@needs_data
def test_compose_shipped_polyguard_toggled_sizes_match_concerned() -> None:
    folder = DataFolder(DATA)
    composer = CaseComposer(WORDING, folder.taxonomy, folder.rulebooks)
    cases = composer.compose(read_records(DATA / "eval/polyguard-dev.jsonl.gz"), limit=300).cases
    sizes = {g: [len(c.rules) for c in cases if c.group == g] for g in ("concerned", "toggled")}
    assert sizes["concerned"] == sizes["toggled"]
    assert min(sizes["toggled"]) >= MIN_RULES
