"""The wording files are complete, free of repeats and fit for composing configurations.

Not a test of the composition. The ids below are the atomic categories of the training taxonomy.
"""

from __future__ import annotations

import pytest

from csrm.train import wording as wording_module
from csrm.train.wording import Wording, WordingError, load_wording

CATEGORY_IDS = {
    "violence",
    "violent_extremism",
    "drugs",
    "weapons",
    "animal_abuse",
    "child_safety",
    "self_harm",
    "sexual_content",
    "hate",
    "profanity",
    "harassment",
    "discrimination",
    "financial_property_crime",
    "fraud_deception",
    "economic_harm",
    "cyber_attack",
    "privacy",
    "sensitive_org_info",
    "misinformation",
    "politics",
    "unethical_behaviour",
    "illegal_other",
    "unqualified_advice",
    "medical_misconduct",
    "risk_ignorance",
    "emotional_reliance",
    "anthropomorphism",
}


@pytest.fixture(scope="module")
def wording() -> Wording:
    return load_wording()


def rule_texts(wording: Wording) -> list[str]:
    texts = [*wording.fillers, *wording.forbid_all, *wording.allow_rest]
    for category in wording.categories.values():
        texts += [*category.forbid, *category.allow]
    return texts


def test_wording_categories_are_the_atomic_taxonomy(wording: Wording) -> None:
    assert set(wording.categories) == CATEGORY_IDS


def test_wording_each_list_has_enough_variety(wording: Wording) -> None:
    for category in wording.categories.values():
        assert len(category.names) >= 3
        assert len(category.forbid) >= 7
        assert len(category.allow) >= 5
    assert len(wording.fillers) >= 60
    assert len(wording.forbid_all) >= 12
    assert len(wording.allow_rest) >= 10


def test_wording_texts_are_unique(wording: Wording) -> None:
    texts = [text.casefold() for text in rule_texts(wording)]
    assert len(texts) == len(set(texts))


def test_wording_names_belong_to_one_category(wording: Wording) -> None:
    names = [name.casefold() for c in wording.categories.values() for name in c.names]
    assert len(names) == len(set(names))


def test_wording_texts_are_whole_sentences_of_bounded_length(wording: Wording) -> None:
    for text in rule_texts(wording):
        assert text == " ".join(text.split())
        assert text[0].isupper()
        assert text.endswith(".")
        assert 2 <= len(text.split()) <= 60


def test_wording_lengths_vary_in_each_category(wording: Wording) -> None:
    for category in wording.categories.values():
        lengths = [len(text.split()) for text in category.forbid]
        assert min(lengths) <= 8
        assert max(lengths) >= 35


def test_wording_neighbours_are_symmetric_and_known(wording: Wording) -> None:
    assert set(wording.neighbours) == CATEGORY_IDS
    for name, others in wording.neighbours.items():
        assert name not in others
        assert others, f"{name} has no neighbour"
        for other in others:
            assert name in wording.neighbours[other]


def test_load_wording_called_twice_returns_the_same_object(wording: Wording) -> None:
    assert load_wording() is wording


def test_load_wording_repeated_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    original = wording_module._read

    def with_repeat(file_name: str) -> dict[str, object]:
        content = original(file_name)
        if "fillers" in content:
            content["forbid_all"].append(content["fillers"][0].upper())
        return content

    monkeypatch.setattr(wording_module, "_read", with_repeat)
    with pytest.raises(WordingError, match="forbid_all repeats a text of fillers"):
        load_wording.__wrapped__()


def test_load_wording_unknown_neighbour_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    original = wording_module._read

    def with_unknown(file_name: str) -> dict[str, object]:
        content = original(file_name)
        if "neighbours" in content:
            content["neighbours"]["violence"] = ["no_such_category"]
        return content

    monkeypatch.setattr(wording_module, "_read", with_unknown)
    with pytest.raises(WordingError, match="no_such_category"):
        load_wording.__wrapped__()


def test_load_wording_too_few_texts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    original = wording_module._read

    def with_short_list(file_name: str) -> dict[str, object]:
        content = original(file_name)
        if "violence" in content:
            content["violence"]["allow"] = content["violence"]["allow"][:2]
        return content

    monkeypatch.setattr(wording_module, "_read", with_short_list)
    with pytest.raises(WordingError, match=r"violence\.allow has 2 texts"):
        load_wording.__wrapped__()
