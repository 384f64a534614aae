"""The bad input table: what each kind of unusable input gets. Drives test_bad_input.py.

Not: good input. `python -m tests.python.bad_input_table` from the repository root prints the table
as Markdown with what each input got just now. Inputs are written by us.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import csrm
from csrm import errors
from csrm.config import config_from
from csrm.conversation import BadLine, conversation_from, read_conversations


@dataclass(frozen=True)
class BadInput:
    """`attempt` raises `error` (also at `line`, if stated) for what `what` describes."""

    area: str
    what: str
    error: type[errors.Error]
    attempt: Callable[[], object]
    line: int | None = None


def config_text(
    what: str,
    text: str,
    error: type[errors.Error] = errors.BadConfig,
    line: int | None = None,
    format: str | None = "yaml",
) -> BadInput:
    return BadInput("config text", what, error, lambda: csrm.SafetyConfig.parse(text, format), line)


def config_file(
    what: str, name: str, data: bytes, error: type[errors.Error], line: int | None = None
) -> BadInput:
    def attempt() -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            return csrm.SafetyConfig.load(path)

    return BadInput("config file", what, error, attempt, line)


def jsonl(what: str, data: bytes, error: type[errors.Error]) -> BadInput:
    def attempt() -> object:
        good = b'{"messages": [{"role": "user", "content": "Hello."}]}\n'
        records = list(read_conversations(io.BytesIO(good + data + b"\n" + good)))
        bad = [record for record in records if isinstance(record, BadLine)]
        if len(records) != 3 or len(bad) != 1:
            raise AssertionError(f"{len(records)} records, {len(bad)} of them bad")
        raise bad[0].error

    return BadInput("JSONL line", what, error, attempt, line=2)


def line_of(record: object) -> bytes:
    return json.dumps(record).encode()


def message_line(message: object) -> bytes:
    return line_of({"id": "a", "messages": [message]})


def conversation(what: str, value: object, error: type[errors.Error]) -> BadInput:
    return BadInput("conversation object", what, error, lambda: conversation_from(value))


def config_object(
    what: str, value: object, error: type[errors.Error] = errors.BadConfig
) -> BadInput:
    return BadInput("config object", what, error, lambda: config_from(value))


RULES = "rules:\n  - Never promise refunds.\n"
NOT_RULES: Any = ("No refunds.",)
RULE = csrm.Rule("", "Never promise refunds.")

CONFIGS = [
    config_text("empty text", "", errors.EmptyConfig),
    config_text("only a comment", "# rules follow\n", errors.EmptyConfig),
    config_text("no rules key", "id: bank\n", line=1),
    config_text("empty list of rules", "id: bank\nrules: []\n", errors.EmptyConfig, 2),
    config_text("a list at the top", "- Never promise refunds.\n", line=1),
    config_text("rules is a string", "rules: Never promise refunds.\n", line=1),
    config_text("unknown key", RULES + "treshold: 0.5\n", line=3),
    config_text("unknown key in a rule", "rules:\n  - text: No refunds.\n    txt: x\n", line=3),
    config_text("duplicate key", "id: a\n" + RULES + "id: b\n", line=4),
    config_text("rule without text", "rules:\n  - name: Refunds\n", line=2),
    config_text("rule with blank text", 'rules:\n  - text: "  "\n', line=2),
    config_text("rule is a number", "rules:\n  - 42\n", line=2),
    config_text("rule is YAML's boolean No", "rules:\n  - No\n", line=2),
    config_text("rule holds ': ' and becomes a mapping", "rules:\n  - Never: refunds\n", line=2),
    config_text("rule text is a list", "rules:\n  - text: [a, b]\n", line=2),
    config_text("version is a number", "version: 1.0\n" + RULES, line=1),
    config_text("id is empty", "id:\n" + RULES, line=1),
    config_text("threshold is a string", "threshold: high\n" + RULES, line=1),
    config_text("threshold is above 1", "threshold: 1.5\n" + RULES, line=1),
    config_text("threshold has 5,000 digits", f"threshold: 1{'0' * 5000}\n" + RULES, line=1),
    config_text("threshold is NaN", "threshold: .nan\n" + RULES, line=1),
    config_text("threshold is a boolean", "threshold: true\n" + RULES, line=1),
    config_text("unknown severity", "rules:\n  - {text: No refunds., severity: 9e9}\n", line=2),
    config_text("unknown action", "rules:\n  - {text: No refunds., action: delete}\n", line=2),
    config_text("YAML syntax: tab", "rules:\n\t- Never promise refunds.\n", line=2),
    config_text("YAML syntax: open quote", 'rules:\n  - "Never promise refunds.\n', line=3),
    config_text("anchor and alias", "rules: &a\n  - No refunds.\nid: *a\n", line=1),
    config_text("alias bomb", "a: &a [x, x]\nb: &b [*a, *a]\nrules: [*b, *b]\n", line=1),
    config_text("YAML tag", "rules:\n  - !!python/name:os.system No\n", line=2),
    config_text("two documents", RULES + "---\n" + RULES, line=3),
    config_text("deep nesting", "rules: " + "[" * 5000 + "]" * 5000, line=1),
    config_text("control character", "rules:\n  - No refunds\x07.\n", line=2),
    config_text("text of 2 MiB", RULES + "#" * (2 << 20), errors.LimitExceeded),
    config_text(
        "10,001 rules", "rules: [" + "a," * 10_001 + "]", errors.LimitExceeded, format="yaml"
    ),
    config_text("unknown format name", RULES, errors.BadArgument, format="toml"),
    config_text("LlamaGuard: preamble", "Task: check\nS1: A. B\nS2: C. D\n", line=1, format=None),
    config_text("LlamaGuard: code twice", "S1: A. B.\nS1: C. D.\n", line=2, format=None),
    config_text("LlamaGuard: no category", "Never.\n", format="llamaguard", line=1),
    config_text("numbered: a number missing", "1. A.\n2. B.\n4. C.\n", line=3, format=None),
    config_text("Markdown: front matter", "---\nid: a\n---\n- No refunds.\n", line=1, format=None),
    config_text("Markdown: headings only", "# Rules\n", errors.EmptyConfig, format=None),
    config_text("lone surrogate", "- No \ud800 refunds.\n", errors.BadUtf8, format=None),
    config_file("Latin-1 byte", "a.yaml", b"id: a\nrules: [caf\xe9]\n", errors.BadUtf8, 2),
    config_file("UTF-16", "a.txt", "- No refunds.".encode("utf-16"), errors.BadUtf8, 1),
    config_file("NUL byte", "a.md", b"- No\0 refunds.\n", errors.BadConfig, 1),
    config_file("empty file", "a.md", b"", errors.EmptyConfig),
    config_file("JSON with a wrong type", "a.json", b'{"rules": {"text": "x"}}', errors.BadConfig),
    config_file("file of 2 MiB", "a.txt", b"a" * (2 << 20), errors.LimitExceeded),
    config_object("missing file", "no-such-file.yaml"),
    config_object("a folder", "."),
    config_object("a path with a NUL", "a\0b"),
    config_object("text instead of a path", "- No refunds.\n- No discounts.\n"),
    config_object("a number", 7),
    config_object("None", None),
    config_object("a mapping instead of rules", {"rules": ["No refunds."]}),
    config_object("a mapping without anything", {}),
    config_object("empty list", [], errors.EmptyConfig),
    config_object("empty rule", [""]),
    config_object("rule of bytes", [b"No refunds."]),
    config_object("rule with an unknown key", [{"text": "No refunds.", "weight": "1"}]),
    config_object("rule with a lone surrogate", ["No \udfff refunds."], errors.BadUtf8),
]

CONVERSATIONS = [
    jsonl("not JSON", b"hello", errors.BadConversation),
    jsonl("half a JSON object", b'{"messages": [', errors.BadConversation),
    jsonl("two objects on a line", b"{} {}", errors.BadConversation),
    jsonl("a JSON list", b"[]", errors.BadConversation),
    jsonl("no messages", line_of({"id": 1}), errors.BadConversation),
    jsonl(
        "messages and conversation",
        line_of({"messages": [], "conversation": []}),
        errors.BadConversation,
    ),
    jsonl("messages is a string", line_of({"messages": "hi"}), errors.BadConversation),
    jsonl("no message at all", line_of({"messages": []}), errors.EmptyConversation),
    jsonl("message is a string", message_line("hi"), errors.BadConversation),
    jsonl("no role", message_line({"content": "hi"}), errors.BadConversation),
    jsonl("role is null", message_line({"role": None, "content": "hi"}), errors.BadConversation),
    jsonl("unknown role", message_line({"role": "bot", "content": "hi"}), errors.UnknownRole),
    jsonl("role in capitals", message_line({"role": "User", "content": "a"}), errors.UnknownRole),
    jsonl("no content", message_line({"role": "user"}), errors.BadConversation),
    jsonl(
        "content null, no tool_calls",
        message_line({"role": "user", "content": None}),
        errors.BadConversation,
    ),
    jsonl(
        "content is a number", message_line({"role": "user", "content": 1}), errors.BadConversation
    ),
    jsonl(
        "image part",
        message_line({"role": "user", "content": [{"type": "image_url"}]}),
        errors.BadConversation,
    ),
    jsonl(
        "part without text",
        message_line({"role": "user", "content": [{"type": "text"}]}),
        errors.BadConversation,
    ),
    jsonl(
        "part is a string",
        message_line({"role": "user", "content": ["hi"]}),
        errors.BadConversation,
    ),
    jsonl(
        "escaped lone surrogate",
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        errors.BadUtf8,
    ),
    jsonl(
        "invalid UTF-8 byte", b'{"messages": [{"role": "user", "content": "\xff"}]}', errors.BadUtf8
    ),
    jsonl(
        "overlong UTF-8", b'{"messages": [{"role": "user", "content": "\xc0\xaf"}]}', errors.BadUtf8
    ),
    jsonl("duplicate key", b'{"messages": [], "messages": []}', errors.BadConversation),
    jsonl("NaN", b'{"messages": [], "x": NaN}', errors.BadConversation),
    jsonl("a number of 5,000 digits", b'{"x": ' + b"9" * 5000 + b"}", errors.BadConversation),
    jsonl("100,000 nested lists", b"[" * 100_000, errors.BadConversation),
    jsonl("id is a list", line_of({"id": [], "messages": []}), errors.BadConversation),
    jsonl("id of 2,000 characters", line_of({"id": "a" * 2000}), errors.LimitExceeded),
    jsonl("line of 17 MiB", b"a" * (17 << 20), errors.LimitExceeded),
    conversation("a string", "hello", errors.BadConversation),
    conversation("one message, no list", {"role": "user"}, errors.BadConversation),
    conversation("None", None, errors.BadConversation),
    conversation("empty list", [], errors.EmptyConversation),
    conversation("(role, content) pair", [("user", "hi")], errors.BadConversation),
    conversation("bytes content", [{"role": "user", "content": b"hi"}], errors.BadConversation),
]

CALLS = [
    BadInput(
        "call",
        "threshold of 2",
        errors.BadConfig,
        lambda: csrm.SafetyConfig.from_rules(["No refunds."], threshold=2),
    ),
    BadInput(
        "call",
        "threshold of NaN",
        errors.BadConfig,
        lambda: csrm.SafetyConfig((RULE,), threshold=math.nan),
    ),
    BadInput(
        "call",
        "rules are strings, not Rules",
        errors.BadConfig,
        lambda: csrm.SafetyConfig(NOT_RULES),
    ),
    BadInput(
        "call", "artifact is not a folder", errors.BadArtifact, lambda: csrm.load("no-such-folder")
    ),
]

BAD_INPUTS = [*CONFIGS, *CONVERSATIONS, *CALLS]


def outcome(case: BadInput) -> errors.Error | None:
    """The error that the input got, or None if it was accepted."""
    try:
        case.attempt()
    except errors.Error as error:
        return error
    return None


def main() -> None:
    print("| # | area | input | got | position |\n|---|---|---|---|---|")
    for number, case in enumerate(BAD_INPUTS, start=1):
        error = outcome(case)
        got = "accepted" if error is None else f"`{type(error).__name__}`"
        line = "" if error is None or error.line is None else f"line {error.line}"
        column = "" if error is None or error.column is None else f", column {error.column}"
        print(f"| {number} | {case.area} | {case.what} | {got} | {line}{column} |")


if __name__ == "__main__":
    main()
