"""Conversations: messages in all accepted shapes, JSONL streams, and line-numbered errors.

Not: refusals, of which bad_input_table.py has the whole list.
"""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csrm import BadLine, ConversationRecord, Turn, errors
from csrm.conversation import MAX_LINE_BYTES, conversation_from, read_conversations

HELLO = {"messages": [{"role": "user", "content": "Hello."}]}


def read(data: bytes) -> list[ConversationRecord | BadLine]:
    return list(read_conversations(io.BytesIO(data)))


def turns_of(message: dict[str, object]) -> tuple[Turn, ...]:
    return conversation_from([message])


@pytest.mark.parametrize(
    ("given_role", "role"),
    [
        ("system", "system"),
        ("developer", "system"),
        ("user", "user"),
        ("assistant", "assistant"),
        ("tool", "tool"),
        ("function", "tool"),
    ],
)
def test_conversation_roles_are_mapped(given_role: str, role: str) -> None:
    assert turns_of({"role": given_role, "content": "x"}) == (Turn(role, "x"),)


def test_conversation_parts_are_joined_and_nothing_is_lost() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert turns_of({"role": "user", "content": parts}) == (Turn("user", "a\nb"),)
    assert turns_of({"role": "user", "content": []}) == (Turn("user", ""),)


def test_conversation_null_content_beside_tool_calls_is_empty() -> None:
    message: dict[str, object] = {"role": "assistant", "content": None, "tool_calls": [{}]}
    assert turns_of(message) == (Turn("assistant", ""),)
    del message["content"]
    assert turns_of(message) == (Turn("assistant", ""),)
    with pytest.raises(errors.BadConversation):
        turns_of({"role": "assistant", "content": None, "tool_calls": []})


def test_conversation_other_keys_are_ignored() -> None:
    assert turns_of({"role": "tool", "content": "x", "tool_call_id": 1}) == (Turn("tool", "x"),)


def test_conversation_turns_and_tuples_of_turns_pass_through() -> None:
    turns = (Turn("user", "a"), Turn("assistant", "b"))
    assert conversation_from(turns) == turns
    assert conversation_from(list(turns)) == turns


def test_read_good_and_bad_lines_keep_order_numbers_and_ids() -> None:
    lines = [
        b"\xef\xbb\xbf" + json.dumps({"id": "a", **HELLO}).encode() + b"\r",
        b"",
        b'{"id": "b", "messages": 7}',
        b"\xff",
        json.dumps({"id": 4, "conversation": HELLO["messages"], "more": [1]}).encode(),
    ]
    records = read(b"\n".join(lines))
    assert [record.line for record in records] == [1, 3, 4, 5]
    assert [record.id for record in records] == ["a", "b", None, 4]
    kinds = [type(r.error).__name__ if isinstance(r, BadLine) else "" for r in records]
    assert kinds == ["", "BadConversation", "BadUtf8", ""]
    assert [r.error.line for r in records if isinstance(r, BadLine)] == [3, 4]


def test_read_states_expected_and_config_only_where_they_have_a_meaning() -> None:
    stated = {**HELLO, "expected": "violation", "config": "bank"}
    other = {**HELLO, "expected": "some answer", "config": ["a rule"]}
    first, second = read(b"\n".join(json.dumps(x).encode() for x in (stated, other)))
    assert isinstance(first, ConversationRecord)
    assert isinstance(second, ConversationRecord)
    assert (first.expected, first.config) == ("violation", "bank")
    assert (second.expected, second.config) == (None, None)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_read_line_at_the_limit_is_accepted_and_one_more_byte_is_not(end: bytes) -> None:
    start = b'{"messages": [{"role": "user", "content": "'
    text = b"a" * (MAX_LINE_BYTES - len(start) - 4)
    (exact,) = read(start + text + b'"}]}' + end)
    assert isinstance(exact, ConversationRecord)
    assert len(exact.conversation[0].content) == len(text)
    longer = read(start + text + b'a"}]}' + end)
    assert [type(r.error) for r in longer if isinstance(r, BadLine)] == [errors.LimitExceeded]


def test_read_is_lazy() -> None:
    stream = io.BytesIO(b"\n".join([json.dumps(HELLO).encode()] * 3))
    next(read_conversations(stream))
    assert stream.tell() < len(stream.getvalue())


@given(st.binary(max_size=200))
def test_read_any_bytes_give_one_result_per_line_that_is_not_blank(data: bytes) -> None:
    lines = [line for line in data.split(b"\n") if line.strip()]
    records = read(data)
    assert len(records) <= len(lines)
    assert all(isinstance(record, BadLine) for record in records)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text()), min_size=1))
def test_read_any_text_arrives_unchanged(turns: list[tuple[str, str]]) -> None:
    messages = [{"role": role, "content": content} for role, content in turns]
    (record,) = read(json.dumps({"messages": messages}).encode())
    assert isinstance(record, ConversationRecord)
    assert record.conversation == tuple(Turn(*turn) for turn in turns)
