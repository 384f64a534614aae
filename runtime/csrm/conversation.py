"""Conversations: from OpenAI-shaped messages, one by one or as JSONL, to tuples of `Turn`.

Not: tokens or scores. Data comes from a caller's list or from a byte stream, and goes to `Scorer`.
Nothing is silently dropped: what csrm cannot read (an image part, a null content) is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, NamedTuple, NoReturn

from csrm.errors import BadConversation, EmptyConversation, Error, LimitExceeded, UnknownRole
from csrm.text import decode_utf8, require_utf8

MAX_LINE_BYTES = 16 << 20
MAX_ID_CHARS = 1024

_BOM = b"\xef\xbb\xbf"

# The names OpenAI gives the same speakers in other versions of its API.
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


class Turn(NamedTuple):
    """One message: `role` is system, user, assistant or tool; `content` is plain text."""

    role: str
    content: str


Conversation = tuple[Turn, ...]
RecordId = str | int | None


@dataclass(frozen=True)
class ConversationRecord:
    """A good JSONL line. `line` counts from 1.

    `expected` is a verdict and `config` the name of a config that the file states, if any; scoring
    ignores both.
    """

    line: int
    id: RecordId
    conversation: Conversation
    expected: Literal["compliant", "violation"] | None = None
    config: str | None = None


@dataclass(frozen=True)
class BadLine:
    """A JSONL line that cannot be scored, with the typed error that says why."""

    line: int
    id: RecordId
    error: Error


def conversation_from(messages: object) -> Conversation:
    """The turns of `messages`: a sequence of Turn or of mappings with "role" and "content".

    Roles developer and function are read as system and tool. Content is a string, a list of
    {"type": "text", "text": ...} parts (joined by newlines), or null beside "tool_calls" (empty).
    Other keys are ignored. Errors: EmptyConversation, BadConversation, UnknownRole, BadUtf8.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise BadConversation(
            f"the conversation is of type {type(messages).__name__}; give a list of "
            '{"role": ..., "content": ...}'
        )
    if not messages:
        raise EmptyConversation("the conversation has no messages; give at least one")
    return tuple(_turn(message, index) for index, message in enumerate(messages))


def unanswered_turns(turns: Conversation) -> list[int]:
    """Which turns of a request to a model are new: those since its last answer, by index.

    A model answers all of them and not just the last. When the conversation ends in assistant turns
    (a prefill), those count too. System turns are the operator's and turns without text say
    nothing: neither is in the list, which may be empty.
    """
    end = len(turns)
    while end and turns[end - 1].role == "assistant":
        end -= 1
    start = max((i + 1 for i in range(end) if turns[i].role == "assistant"), default=0)
    return [i for i in range(start, len(turns)) if turns[i].role != "system" and turns[i].content]


def read_conversations(stream: BinaryIO) -> Iterator[ConversationRecord | BadLine]:
    """One result per line of the JSONL byte `stream` that is not blank, in order.

    A line is an object with "messages" (or "conversation") and optionally "id" and "expected"; a
    bad line becomes a BadLine and reading goes on. Lines are at most 16 MiB. Lazy: one line is
    held at a time.
    """
    for number, data in _lines(stream):
        if len(data) > MAX_LINE_BYTES:
            message = f"the line is longer than the limit of {MAX_LINE_BYTES:,} bytes; split it"
            yield BadLine(number, None, LimitExceeded(message, line=number))
        elif data.strip():
            yield _record(data, number)


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    number = 0
    while data := stream.readline(MAX_LINE_BYTES + 2):
        number += 1
        tail = data
        while not tail.endswith(b"\n") and tail:
            tail = stream.readline(1 << 16)
        yield number, data.removeprefix(_BOM if number == 1 else b"").rstrip(b"\r\n")


def _record(data: bytes, number: int) -> ConversationRecord | BadLine:
    record_id: RecordId = None
    try:
        record = _parse_object(decode_utf8(data, "the line"))
        record_id = _record_id(record)
        conversation = conversation_from(_messages(record))
    except Error as error:
        error.line = number
        return BadLine(number, record_id, error)
    expected = record.get("expected")
    config = record.get("config")
    return ConversationRecord(
        line=number,
        id=record_id,
        conversation=conversation,
        expected=expected if expected in ("compliant", "violation") else None,
        config=config if isinstance(config, str) else None,
    )


def _parse_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        message = f"not valid JSON: {error.msg}"
        raise BadConversation(message, column=error.colno) from None
    except RecursionError:
        raise BadConversation("the JSON is nested too deeply") from None
    except ValueError:
        raise BadConversation("a number in the JSON has too many digits") from None
    if not isinstance(value, dict):
        raise BadConversation(f"the line is {_json_type(value)}; it must be a JSON object")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadConversation("an object in the line has a duplicate key")
    return found


def _refuse_constant(constant: str) -> NoReturn:
    raise BadConversation(f"{constant} is not JSON; use a finite number or null")


def _record_id(record: dict[str, Any]) -> RecordId:
    value = record.get("id")
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if not isinstance(value, str):
        raise BadConversation(f"id is {_json_type(value)}; it must be a string or an integer")
    if len(value) > MAX_ID_CHARS:
        raise LimitExceeded(f"id has {len(value):,} characters; limit is {MAX_ID_CHARS:,}")
    return require_utf8(value, "id")


def _messages(record: dict[str, Any]) -> list[Any]:
    keys = [key for key in ("messages", "conversation") if key in record]
    if len(keys) != 1:
        found = "both" if keys else "neither"
        raise BadConversation(f"give either messages or conversation; the line has {found}")
    value = record[keys[0]]
    if not isinstance(value, list):
        raise BadConversation(f"{keys[0]} is {_json_type(value)}; it must be a list of messages")
    return value


def _turn(message: object, index: int) -> Turn:
    what = f"message {index + 1}"
    if isinstance(message, Turn):
        fields: Mapping[str, object] = message._asdict()
    elif isinstance(message, Mapping):
        fields = message
    else:
        raise BadConversation(
            f'{what} is {_json_type(message)}; it must be {{"role": ..., "content": ...}}'
        )
    return Turn(_role(fields, what), _content(fields, what))


def _role(fields: Mapping[str, object], what: str) -> str:
    if "role" not in fields:
        raise BadConversation(f"{what} has no role; give system, user, assistant or tool")
    role = fields["role"]
    if not isinstance(role, str):
        raise BadConversation(f"the role of {what} is {_json_type(role)}; it must be a string")
    if role not in _ROLES:
        raise UnknownRole(
            f"the role of {what} is unknown; give system (developer), user, assistant or tool "
            "(function), in lower case"
        )
    return _ROLES[role]


def _content(fields: Mapping[str, object], what: str) -> str:
    if "content" not in fields and "tool_calls" not in fields:
        raise BadConversation(f"{what} has no content; give a string or a list of text parts")
    content = fields.get("content")
    if content is None and fields.get("tool_calls"):
        return ""
    if isinstance(content, str):
        return require_utf8(content, f"the content of {what}")
    if isinstance(content, (list, tuple)):
        parts = (_part(part, f"part {i} of {what}") for i, part in enumerate(content, start=1))
        return "\n".join(parts)
    raise BadConversation(
        f"the content of {what} is {_json_type(content)}; it must be a string or a list of text "
        "parts (null only beside tool_calls)"
    )


def _part(part: object, what: str) -> str:
    if not isinstance(part, Mapping):
        raise BadConversation(f"{what} is {_json_type(part)}; it must be an object with a type")
    if part.get("type") != "text":
        raise BadConversation(
            f"{what} is not of type text; csrm reads text only, and leaves nothing out: convert "
            "images, audio and files to text, or judge them elsewhere"
        )
    text = part.get("text")
    if not isinstance(text, str):
        raise BadConversation(f"the text of {what} is {_json_type(text)}; it must be a string")
    return require_utf8(text, what)


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "an object" if isinstance(value, Mapping) else f"of type {type(value).__name__}"
