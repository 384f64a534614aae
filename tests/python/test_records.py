"""csrm.train.records: every kind read and typed, damage reported by file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from csrm.errors import BadArgument, BadConversation
from csrm.train.records import (
    Categorised,
    DataFolder,
    Policy,
    Preference,
    Prompt,
    Ruled,
    Severity,
    read_records,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SECRET = "the user's own words"
TURNS = [{"role": "user", "content": SECRET}, {"role": "assistant", "content": "No."}]
BASE: dict[str, Any] = {
    "id": "made-0",
    "source": "made",
    "licence": "Apache-2.0",
    "judged": "last_assistant",
    "label_by": "construction",
    "conversation": TURNS,
}
CATEGORISED: dict[str, Any] = {**BASE, "kind": "categorised", "safe": False, "harms": ["violence"]}
POLICY: dict[str, Any] = {**BASE, "kind": "policy", "policy": ["No A.", "No B."], "compliant": True}
SEVERITY: dict[str, Any] = {
    **BASE,
    "kind": "severity",
    "severity": 0.5,
    "raters": [0, 1.0],
    "scale": "made",
    "harm": "violence",
}


def write(path: Path, *rows: object) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_read_records_every_kind_is_typed(tmp_path: Path) -> None:
    preference = {
        **BASE,
        "kind": "preference",
        "config": "Be kind.",
        "chosen": TURNS[1:],
        "rejected": TURNS[1:],
    }
    ruled = {**BASE, "kind": "ruled", "rule": "No A.", "rule_category": "A", "body": "made/b"}
    path = write(
        tmp_path / "made.jsonl.gz",
        {**CATEGORISED, "noisy": True},
        {**ruled, "violates": True},
        {**POLICY, "target_rule": 1, "shortcut": {"action_called": True}},
        preference,
        SEVERITY,
        {**BASE, "kind": "prompt", "safe": True},
    )
    categorised, broken, policy, pair, rated, prompt = read_records(path)
    assert isinstance(categorised, Categorised)
    assert categorised.harms == ("violence",)
    assert categorised.noisy
    assert categorised.conversation == (("user", SECRET), ("assistant", "No."))
    assert isinstance(broken, Ruled)
    assert broken.violates
    assert isinstance(policy, Policy)
    assert policy.target_rule == 1
    assert policy.shortcut is not None
    assert policy.shortcut.action_called
    assert isinstance(pair, Preference)
    assert pair.config == ("Be kind.",)
    assert isinstance(rated, Severity)
    assert rated.raters == (0.0, 1.0)
    assert isinstance(prompt, Prompt)


@pytest.mark.parametrize(
    "row",
    [
        [],
        {**BASE, "kind": "other"},
        {**BASE, "kind": ["categorised"]},
        {**CATEGORISED, "safe": "yes"},
        {**CATEGORISED, "harms": "violence"},
        {**CATEGORISED, "id": 3},
        {**CATEGORISED, "judged": "first"},
        {**CATEGORISED, "conversation": []},
        {**CATEGORISED, "conversation": [{"role": "robot", "content": SECRET}]},
        {**CATEGORISED, "conversation": [{"role": ["user"], "content": SECRET}]},
        {**CATEGORISED, "conversation": [{"role": "user", "content": [SECRET]}]},
        {**CATEGORISED, "conversation": [SECRET]},
        {**POLICY, "policy": []},
        {**POLICY, "target_rule": 2},
        {**POLICY, "violated_rules": [-1]},
        {**POLICY, "shortcut": "none"},
        {**SEVERITY, "severity": 1.5},
        {**SEVERITY, "raters": [float("nan")]},
        {key: value for key, value in CATEGORISED.items() if key != "safe"},
    ],
)
def test_read_records_bad_row_names_file_and_line_not_text(tmp_path: Path, row: object) -> None:
    path = write(tmp_path / "made.jsonl", CATEGORISED, row)
    records = read_records(path)
    next(records)
    with pytest.raises(BadConversation) as caught:
        next(records)
    assert (caught.value.path, caught.value.line) == ("made.jsonl", 2)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("line", [b"{", b'"\xff"', b"[" * 100_000, b"nothing"])
def test_read_records_damaged_line_is_typed(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "made.jsonl"
    path.write_bytes(b"\n" + line + b"\n")
    with pytest.raises(BadConversation, match=r"made\.jsonl:2"):
        list(read_records(path))


def test_read_records_cut_gzip_is_typed(tmp_path: Path) -> None:
    path = write(tmp_path / "made.jsonl.gz", *[CATEGORISED] * 50)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadConversation, match="gzip"):
        list(read_records(path))


def test_read_records_no_gzip_inside_is_typed(tmp_path: Path) -> None:
    path = tmp_path / "made.jsonl.gz"
    path.write_bytes(b"plain text")
    with pytest.raises(BadConversation, match="gzip"):
        list(read_records(path))


@pytest.mark.parametrize("name", ["absent.jsonl", "absent.csv"])
def test_read_records_unusable_path_is_typed(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadArgument, match="absent"):
        list(read_records(tmp_path / name))


def test_data_folder_made_files_are_read(tmp_path: Path) -> None:
    category = {"id": "both", "name": "Both", "definition": "A or b.", "parts": ["a", "b"]}
    rule = {"id": "made-0", "category": "A", "text": "No A."}
    scale = {"levels": {"1.0": "Bad.", "0.0": "Fine."}}
    for name, content in (
        ("taxonomy.json", {"categories": [category], "mapping": {}}),
        ("rulebooks.json", {"made/b": [rule]}),
        ("severity_scales.json", {"made": scale}),
    ):
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "train").mkdir()
    write(tmp_path / "train" / "b.jsonl.gz", CATEGORISED)
    write(tmp_path / "train" / "a.jsonl", CATEGORISED)
    folder = DataFolder(tmp_path)
    assert folder.taxonomy["both"].parts == ("a", "b")
    assert folder.rulebooks["made/b"][0].text == "No A."
    assert folder.severity_scales["made"] == ((0.0, "Fine."), (1.0, "Bad."))
    assert [path.name for path in folder.train_files] == ["a.jsonl", "b.jsonl.gz"]
    assert folder.eval_files == ()


@pytest.mark.parametrize("content", ["[]", "{", '{"categories": [{"id": "x"}]}', '{"other": 1}'])
def test_data_folder_bad_taxonomy_is_typed(tmp_path: Path, content: str) -> None:
    (tmp_path / "taxonomy.json").write_text(content)
    with pytest.raises(BadArgument):
        _ = DataFolder(tmp_path).taxonomy


def test_data_folder_missing_is_typed(tmp_path: Path) -> None:
    with pytest.raises(BadArgument):
        DataFolder(tmp_path / "absent")
    with pytest.raises(BadArgument, match="rulebooks"):
        _ = DataFolder(tmp_path).rulebooks


@pytest.mark.skipif(not DATA.is_dir(), reason="the data folder shared/data is not beside the repo")
def test_read_records_shipped_eval_files_read_in_full() -> None:
    folder = DataFolder(DATA)
    sizes = {path.name.split(".")[0]: len(list(read_records(path))) for path in folder.eval_files}
    assert sizes["xstest-response"] == 153
    assert sizes["polyguard-dev"] == 6849
    assert len(sizes) == 9
    assert len(folder.taxonomy) == 30
