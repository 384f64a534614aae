"""`csrm.integrations.litellm_answer`: which texts of an answer are judged. Without LiteLLM, whose
objects these stand for; tests/integrations/test_litellm.py has the real ones.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from csrm import errors
from csrm.integrations.litellm_answer import StreamedTexts, answer_texts, call_texts


def whole(**message: Any) -> list[Any]:
    return [SimpleNamespace(index=0, message=SimpleNamespace(**message))]


def delta(index: int = 0, finish_reason: str | None = None, **fields: Any) -> Any:
    found = SimpleNamespace(**fields)
    return SimpleNamespace(index=index, delta=found, finish_reason=finish_reason)


def function(name: str | None, arguments: str | None, index: int = 0) -> Any:
    named = SimpleNamespace(name=name, arguments=arguments)
    return SimpleNamespace(index=index, function=named)


def custom(name: str, text: str) -> Any:
    return SimpleNamespace(index=0, custom=SimpleNamespace(name=name, input=text))


@pytest.mark.parametrize(
    ("message", "texts"),
    [
        ({"content": "a"}, ["a"]),
        ({"content": ""}, []),
        ({"content": None, "refusal": "no"}, ["no"]),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, ["a\nb"]),
        ({"content": "a", "reasoning_content": "r"}, ["a", "r"]),
        ({"content": "a", "thinking_blocks": [{"thinking": "t"}, {"data": "x"}]}, ["a", "t"]),
        ({"reasoning_content": "r", "thinking_blocks": [{"thinking": "r"}]}, ["r"]),
        (
            {"content": None, "tool_calls": [function("f", "{}"), custom("g", "x")]},
            ["f({})", "g(x)"],
        ),
        ({"content": None, "function_call": SimpleNamespace(name="f", arguments="1")}, ["f(1)"]),
        ({"content": None, "tool_calls": [function(None, "1")]}, ["(1)"]),
    ],
)
def test_answer_texts_finds_every_text(message: dict[str, Any], texts: list[str]) -> None:
    assert answer_texts(whole(**message)) == texts


def test_answer_texts_of_every_choice_and_of_text_completions() -> None:
    choices = [*whole(content="a"), *whole(content="b"), SimpleNamespace(index=2, text="c")]
    assert answer_texts(choices) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "choice",
    [
        *whole(content="a", audio={"id": "x"}),
        *whole(content="a", images=[{"url": "x"}]),
        *whole(content=[{"type": "image_url", "image_url": {"url": "x"}}]),
        *whole(content=[{"type": "text", "text": 7}]),
        *whole(content=7),
        SimpleNamespace(index=0, message=None),
        SimpleNamespace(index=0),
    ],
)
def test_answer_texts_of_what_is_not_text_is_an_error(choice: Any) -> None:
    with pytest.raises(errors.BadConversation):
        answer_texts([choice])


def test_call_texts_reads_dicts_too() -> None:
    assert call_texts([{"function": {"name": "f", "arguments": "{}"}}]) == ["f({})"]


def test_streamed_texts_are_numbered_by_choice_and_kind() -> None:
    texts = StreamedTexts()
    assert texts.take([delta(content="a"), delta(1, reasoning_content="r")]) == (
        {0: "a", 1: "", 2: "", 3: "r"},
        False,
    )
    assert texts.take([delta(finish_reason="stop", content=None)]) == ({0: "", 1: ""}, True)
    assert texts.take([SimpleNamespace(index=0, text=None)]) == ({0: "", 1: ""}, False)
    assert texts.take([SimpleNamespace(index=0, text="c")]) == ({0: "c", 1: ""}, False)
    assert texts.take([]) == ({}, False)
    assert texts.calls() == []


def test_streamed_calls_are_put_together_and_belong_to_the_end() -> None:
    texts = StreamedTexts()
    parts = [("f", "{"), (None, "}")]
    for name, arguments in parts:
        assert texts.take([delta(tool_calls=[function(name, arguments)])])[1] is True
    texts.take([delta(tool_calls=[function("g", "1", index=1)])])
    texts.take([delta(1, tool_calls=[function("h", "2")])])
    texts.take([delta(function_call=SimpleNamespace(name="i", arguments="3"))])
    assert texts.calls() == ["f({})", "g(1)", "h(2)", "i(3)"]


def test_streamed_audio_is_an_error() -> None:
    with pytest.raises(errors.BadConversation):
        StreamedTexts().take([delta(audio={"data": "x"})])
