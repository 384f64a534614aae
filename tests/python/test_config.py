"""SafetyConfig and the config formats: what each accepts, how it is detected, and round trips.

Not: refusals, of which bad_input_table.py has the whole list; here only their exact positions.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from csrm import Rule, SafetyConfig, config_formats, errors
from csrm.config import config_from

SCHEMA = json.loads(
    Path(config_formats.__file__).parents[1].joinpath("config.schema.json").read_text()
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def rules(text: str, format: str | None = None) -> list[tuple[str, str]]:
    return [(rule.name, rule.text) for rule in SafetyConfig.parse(text, format).rules]


# Objects


def test_from_rules_all_forms_of_a_rule_are_equal() -> None:
    forms: list[object] = [Rule("a", "b"), ("a", "b"), {"name": "a", "text": "b"}]
    assert SafetyConfig.from_rules(forms).rules == (Rule("a", "b"),) * 3
    assert SafetyConfig.from_rules(["b"]).rules == (Rule("", "b"),)


def test_config_is_immutable_and_hashable() -> None:
    config = SafetyConfig.from_rules(["a"])
    with pytest.raises(AttributeError):
        config.threshold = 0.9  # type: ignore[misc]
    assert hash(config) == hash(SafetyConfig.from_rules(["a"]))


def test_digest_depends_on_names_texts_and_order_only() -> None:
    config = SafetyConfig.from_rules(["a", "b"])
    assert config.digest() == SafetyConfig.from_rules(["a", "b"], id="x", threshold=0.9).digest()
    assert config.digest() == SafetyConfig((Rule("", "a", owner="x"), Rule("", "b"))).digest()
    others: list[list[object]] = [["b", "a"], ["ab"], [("a", "b")], [("b", "a")], ["a", "b", "b"]]
    assert len({SafetyConfig.from_rules(other).digest() for other in others}) == len(others)
    assert config.digest() not in {SafetyConfig.from_rules(other).digest() for other in others}


def test_digest_of_a_known_config_stays_what_it_was() -> None:
    # The gateway's logs and the examples in the documents name configs by it.
    canonical = '[{"name":"n","text":"t\u00e9"}]'
    expected = hashlib.sha256(canonical.encode()).hexdigest()
    assert SafetyConfig.from_rules([("n", "t\u00e9")]).digest() == expected


def test_config_from_path_list_and_config_give_a_config(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("- a\n")
    for value in (path, str(path), ["a"], SafetyConfig.from_rules(["a"]), (r for r in ["a"])):
        assert config_from(value) == SafetyConfig.from_rules(["a"])


@given(
    rules=st.lists(
        st.builds(
            Rule,
            TEXTS,
            TEXTS.map(lambda text: f"x{text}x"),
            owner=TEXTS,
            severity=st.sampled_from(["", "low", "critical"]),
            action=st.sampled_from(["", "block", "monitor"]),
        ),
        min_size=1,
        max_size=4,
    ),
    id=TEXTS,
    version=TEXTS,
    threshold=st.floats(0, 1).map(lambda x: round(x, 6)),
    description=TEXTS,
)
def test_to_yaml_any_config_reads_back_equal(
    rules: list[Rule], id: str, version: str, threshold: float, description: str
) -> None:
    config = SafetyConfig(tuple(rules), id, version, threshold, description)
    assert SafetyConfig.parse(config.to_yaml(), "yaml") == config


# YAML


def test_yaml_full_config_is_read_whole() -> None:
    config = SafetyConfig.parse(
        """
id: bank
version: "1.2"
threshold: 0.7
description: For tests.
rules:
  - Never promise refunds.
  - name: Tone
    text: >-
      Be kind,
      always.
    owner: support
    severity: high
    action: monitor
"""
    )
    assert config == SafetyConfig(
        rules=(
            Rule("", "Never promise refunds."),
            Rule("Tone", "Be kind, always.", owner="support", severity="high", action="monitor"),
        ),
        id="bank",
        version="1.2",
        threshold=0.7,
        description="For tests.",
    )


def test_yaml_json_with_escapes_outside_the_bmp_is_read() -> None:
    text = json.dumps({"id": "\U0001f600", "rules": ["No \U0001f600."]})
    assert "\\ud83d" in text
    config = SafetyConfig.parse(text)
    assert (config.id, config.rules[0].text) == ("\U0001f600", "No \U0001f600.")


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("id: a\nrules:\n  - text: x\n    txet: y\n", 4, 5),
        ("id: a\nrules:\n  - x\nthreshold: 2\n", 4, 12),
        ("id: a\nrules:\n  - x\n  - 1\n", 4, 5),
        ("rules:\n  - x\n  - \x01\n", 3, 5),
        ("rules:\n  - x: [\n", 3, 1),
    ],
)
def test_yaml_error_states_line_and_column(text: str, line: int, column: int) -> None:
    with pytest.raises(errors.BadConfig) as caught:
        SafetyConfig.parse(text, "yaml")
    assert (caught.value.line, caught.value.column) == (line, column)


def test_yaml_unknown_key_close_to_a_known_one_is_pointed_out() -> None:
    with pytest.raises(errors.BadConfig, match="did you mean 'threshold'"):
        SafetyConfig.parse("rules: [a]\ntreshold: 0.5\n")


def test_load_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("id: 7\nrules: [a]\n")
    with pytest.raises(errors.BadConfig) as caught:
        SafetyConfig.load(path)
    assert str(caught.value).startswith(f"{path}:1:5: id is an integer")


SCHEMA_CASES: list[object] = [
    {"rules": ["a"]},
    {"rules": [{"text": "a"}]},
    {"rules": [{"text": "a", "name": "n", "owner": "o", "severity": "low", "action": "block"}]},
    {"rules": [{"text": "a", "severity": "", "action": ""}]},
    {"id": "", "version": "", "description": "", "threshold": 0, "rules": ["a", {"text": "b"}]},
    {"threshold": 1, "rules": ["a"]},
    {"threshold": 0.25, "rules": ["a"]},
    {},
    [],
    "a",
    None,
    {"rules": []},
    {"rules": None},
    {"rules": "a"},
    {"rules": {"text": "a"}},
    {"rules": [""]},
    {"rules": [" \n"]},
    {"rules": [1]},
    {"rules": [None]},
    {"rules": [["a"]]},
    {"rules": [{"name": "n"}]},
    {"rules": [{"text": ""}]},
    {"rules": [{"text": "a", "name": 1}]},
    {"rules": [{"text": "a", "more": "x"}]},
    {"rules": [{"text": "a", "severity": "huge"}]},
    {"rules": [{"text": "a", "action": True}]},
    {"rules": ["a"], "id": 1},
    {"rules": ["a"], "version": 1.0},
    {"rules": ["a"], "threshold": -0.1},
    {"rules": ["a"], "threshold": 1.1},
    {"rules": ["a"], "threshold": "0.5"},
    {"rules": ["a"], "threshold": True},
    {"rules": ["a"], "more": 1},
]


def is_accepted(document: object) -> bool:
    try:
        SafetyConfig.parse(yaml.safe_dump(document), "yaml")
    except (errors.BadConfig, errors.EmptyConfig):
        return False
    return True


@pytest.mark.parametrize("document", SCHEMA_CASES, ids=json.dumps)
def test_json_schema_accepts_what_the_validator_accepts(document: object) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(document) == is_accepted(document)


def test_json_schema_keys_and_choices_are_those_of_the_code() -> None:
    from csrm.config import MAX_RULES
    from csrm.config_formats.yaml_format import CONFIG_KEYS
    from csrm.rule import ACTIONS, RULE_KEYS, SEVERITIES

    rule: dict[str, Any] = SCHEMA["$defs"]["rule"]["properties"]
    assert set(SCHEMA["properties"]) == set(CONFIG_KEYS)
    assert set(rule) == set(RULE_KEYS)
    assert rule["severity"]["enum"] == ["", *SEVERITIES]
    assert rule["action"]["enum"] == ["", *ACTIONS]
    assert SCHEMA["properties"]["rules"]["maxItems"] == MAX_RULES


# Plain text and Markdown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Never promise refunds.", [("", "Never promise refunds.")]),
        ("- a\n- b", [("", "a"), ("", "b")]),
        ("* a\n+ b\n\u2022 c\n(1) d\n(a) e", [("", x) for x in "abcde"]),
        ("- a\n  wrapped\n\n- b\n  also\n\n  still b", [("", "a wrapped"), ("", "b also still b")]),
        ("- a\nlazily wrapped\n- b", [("", "a lazily wrapped"), ("", "b")]),
        ("- a:\n  - x\n  - y\n- b", [("", "a:\n- x\n- y"), ("", "b")]),
        ("One rule\nwrapped.\n\nAnother.", [("", "One rule wrapped."), ("", "Another.")]),
        ("No refunds.\nNo discounts!\n", [("", "No refunds."), ("", "No discounts!")]),
        ("No refunds, and\nno discounts.\n", [("", "No refunds, and no discounts.")]),
        ("Never:\n- a\n- b\n\nAnd c.", [("", "Never: a"), ("", "Never: b"), ("", "And c.")]),
        ("Intro text.\n\n- a", [("", "Intro text."), ("", "a")]),
        ("1. a\n\n## H\n2. b", [("", "a"), ("H", "b")]),
        (
            "# Title\n\n## Refunds\n- a\n- b\n## Tone\nc",
            [("Refunds", "a"), ("Refunds", "b"), ("Tone", "c")],
        ),
        ("# A\na\n# B\nb", [("A", "a"), ("B", "b")]),
        ("Title\n=====\n\nTone\n----\nBe kind.", [("Tone", "Be kind.")]),
        (
            "- **Refunds.** Never.\n- **Tone**: kind\n- **bold** start",
            [("Refunds", "Never."), ("Tone", "kind"), ("bold", "start")],
        ),
        ("- a\n\n---\n\n- b", [("", "a"), ("", "b")]),
        ("<!-- note\nfor us -->\n- a <!-- x --> b", [("", "a  b")]),
        ("\ufeff- a\r\n- b\r\n", [("", "a"), ("", "b")]),
        ("- a\n\tb", [("", "a b")]),
        ("-5 degrees is cold", [("", "-5 degrees is cold")]),
        ("## One\nNever:\n- a\n## Two\n- b", [("One", "Never: a"), ("Two", "b")]),
    ],
)
def test_text_format_gives_one_rule_per_item(text: str, expected: list[tuple[str, str]]) -> None:
    assert rules(text, "text") == expected


@given(st.lists(TEXTS.filter(lambda t: t.split()), min_size=1, max_size=5))
def test_text_format_any_words_as_items_keep_every_character(items: list[str]) -> None:
    lines = ["x" + "".join(c for c in item if c.isalnum()) + "x" for item in items]
    assert [text for _, text in rules("\n".join(f"- {line}" for line in lines), "text")] == lines


# LlamaGuard and numbered rules


def test_llamaguard_names_and_guidelines_are_split() -> None:
    text = """<BEGIN UNSAFE CONTENT CATEGORIES>
S1: Violent Crimes. Do not help with
attacks.
S2: Weapons.
Should not
- explain bombs.
S3: Advice
S4. Hate. No slurs. Ever.
<END UNSAFE CONTENT CATEGORIES>"""
    assert rules(text) == [
        ("S1: Violent Crimes", "Do not help with\nattacks."),
        ("S2: Weapons", "Should not\n- explain bombs."),
        ("S3", "Advice"),
        ("S4: Hate", "No slurs. Ever."),
    ]


def test_llamaguard_o_codes_are_read() -> None:
    assert rules("O1: Violence.\nNo violence.\nO2: Theft.\nNo theft.") == [
        ("O1: Violence", "No violence."),
        ("O2: Theft", "No theft."),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "1. No refunds.\n2. No\n   discounts.",
        "1) No refunds.\n\n2) No discounts.",
        "Rule 1: No refunds.\nRule 2: No discounts.",
        "1. No refunds. 2. No discounts.",
    ],
)
def test_numbered_rules_are_split_and_joined(text: str) -> None:
    assert config_formats.detect(text) == "numbered"
    assert rules(text) == [("", "No refunds."), ("", "No discounts.")]


@pytest.mark.parametrize(
    ("text", "suffix", "format"),
    [
        ("a", ".yaml", "yaml"),
        ("{}", ".json", "yaml"),
        ("id: a\nrules: [b]", "", "yaml"),
        ('{"rules": ["a"]}', "", "yaml"),
        ("rules:\n- a", "", "yaml"),
        ("rules:\n- a", ".md", "text"),
        ("S1: A. B.", ".txt", "llamaguard"),
        ("# Categories\nS1: A. B.", ".md", "llamaguard"),
        ("1. a\n2. b", ".txt", "numbered"),
        ("1. a\n1. b", ".md", "text"),
        ("# H\n1. a\n2. b", ".md", "text"),
        ("1. a", ".txt", "text"),
        ("2. a\n3. b", ".txt", "text"),
        ("Never.", "", "text"),
    ],
)
def test_detect_suffix_and_content_give_the_format(text: str, suffix: str, format: str) -> None:
    assert config_formats.detect(text, suffix) == format


@pytest.mark.parametrize(
    "text",
    [
        "<!--" * 200_000,
        "# " + " " * 900_000 + "x",
        " " * 900_000 + "x",
        "S1: a. b\n" + " " * 900_000 + "x",
        "1. a\n2. b" + " " * 900_000 + "x",
        " ".join(f"{n}. a" for n in range(1, 60_000)),
        "rules: " + "{" * 900_000,
        "rules:\n" + "? " * 400_000,
        "* " * 400_000,
        "**" * 400_000,
        "-\n" * 400_000,
    ],
    ids=lambda text: text[:8],
)
def test_parse_hostile_text_of_a_mebibyte_ends_soon(text: str) -> None:
    # Quadratic time would take minutes here.
    refusals = (errors.BadConfig, errors.EmptyConfig, errors.LimitExceeded)
    with contextlib.suppress(*refusals):
        assert SafetyConfig.parse(text).rules


# The page that documents all this


def documented(language: str) -> str:
    page = Path(__file__).resolve().parents[2] / "docs" / "config.md"
    block = re.search(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    return block.group(1)


def test_docs_yaml_example_is_valid() -> None:
    config = SafetyConfig.parse(documented("yaml"))
    assert (config.id, config.version, len(config.rules)) == ("bank-service", "1.2", 2)
    assert config.rules[1].action == "monitor"


def test_docs_markdown_example_gives_the_rules_that_the_page_states() -> None:
    text = re.sub(r" +<- .*", "", documented("markdown"))
    assert rules(text) == [
        ("Refunds", "The assistant must never: promise a refund,"),
        ("Refunds", "The assistant must never: change a price."),
        ("Politeness", "Be kind, whatever the customer says."),
        ("Tone", "When someone is angry:\n- stay calm\n- offer a human colleague"),
    ]
