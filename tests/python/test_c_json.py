"""The JSON readers of the C API against those of Python: the same inputs are good, the same are
bad, and as the same error. A filter in C and one in Python must not differ about what a body says.

Not: the texts that are read (tests/cpp/test_json.cc, test_c_package.py).
"""

from __future__ import annotations

import ctypes
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import csrm
from csrm.conversation import BadLine, read_conversations
from csrm.errors import Error

ROOT = Path(__file__).parents[2]
SHIPPED = [path for path in sorted((ROOT / "configs").glob("*.[ymt]*")) if path.stem != "README"]
TURN = '{"role": "user", "content": "a"}'

BODIES = [
    f'{{"messages": [{TURN}]}}',
    f'{{"conversation": [{TURN}], "model": "m", "stream": false, "n": 1e3}}',
    f'\ufeff {{"messages": [{TURN}]}} \t',
    '{"messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}]}]}',
    '{"messages": [{"role": "assistant", "content": null, "tool_calls": [1]}, ' + TURN + "]}",
    '{"messages": [{"role": "assistant", "tool_calls": [1]}, ' + TURN + "]}",
    '{"messages": [{"role": "assistant", "tool_calls": []}]}',
    '{"messages": [{"role": "user", "content": "\\u0000\\ud83d\\ude00"}]}',
    '{"messages": [{"role": "user", "content": "\\ud83d"}]}',
    '{"messages": [{"role": "user", "content": "a\tb"}]}',
    '{"messages": [{"role": "user", "content": []}]}',
    '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
    '{"messages": [{"role": "user", "content": [{"type": "text", "text": null}]}]}',
    '{"messages": [{"role": "user", "content": {"text": "a"}}]}',
    '{"messages": [{"role": "user", "content": "a", "content": "b"}]}',
    '{"messages": [{"role": "USER", "content": "a"}]}',
    '{"messages": [{"role": null, "content": "a"}]}',
    '{"messages": [{"content": "a"}]}',
    '{"messages": ["a"]}',
    '{"messages": []}',
    '{"messages": null}',
    f'{{"messages": [{TURN}], "conversation": [{TURN}]}}',
    f'{{"messages": [{TURN}], "messages": [{TURN}]}}',
    f'{{"messages": [{TURN}]}} {{}}',
    f'{{"messages": [{TURN},]}}',
    f'{{"messages": [{TURN}], "x": NaN}}',
    f"{{'messages': [{TURN}]}}",
    f'{{"messages": [{TURN}]',
    "{}",
    '"a"',
    "1",
]

CONFIGS = [
    '{"rules": ["a"]}',
    '{"rules": ["\\u00a0a\\u2003"], "threshold": 0, "id": "x"}',
    '{"rules": [{"text": "a", "name": "b", "severity": "low", "action": "block", "owner": "c"}]}',
    '{"rules": [{"text": "a", "severity": ""}]}',
    '{"rules": [{"text": "a", "severity": "worst"}]}',
    '{"rules": [{"text": "a", "action": "shrug"}]}',
    '{"rules": [{"text": "a", "name": 1}]}',
    '{"rules": [{"name": "a"}]}',
    '{"rules": [{"text": "\\u2003"}]}',
    '{"rules": [{"text": "a", "note": "b"}]}',
    '{"rules": ["a", null]}',
    '{"rules": []}',
    '{"rules": {}}',
    '{"threshold": 0.5}',
    '{"rules": ["a"], "threshold": 1.01}',
    '{"rules": ["a"], "threshold": -0.1}',
    '{"rules": ["a"], "threshold": "0.5"}',
    '{"rules": ["a"], "version": 2}',
    '{"rules": ["a"], "rules": ["b"]}',
    '{"rules": ["a"], "extra": 1}',
    "[]",
]


def c_outcome(what: str, data: bytes) -> str:
    """ "Ok" or the name of the error of csrm_`what`_parse_json; its message is checked too."""
    library = ctypes.CDLL(str(csrm.get_library()))
    library.csrm_code_name.restype = ctypes.c_char_p
    library.csrm_last_error.restype = ctypes.c_char_p
    handle = ctypes.c_void_p()
    parse = getattr(library, f"csrm_{what}_parse_json")
    code = parse(data, ctypes.c_size_t(len(data)), ctypes.byref(handle))
    assert (handle.value is not None) == (code == 0)
    assert code == 0 or library.csrm_last_error()
    getattr(library, f"csrm_{what}_destroy")(handle)
    name: bytes = library.csrm_code_name(code)
    return name.decode()


@pytest.mark.parametrize("body", BODIES)
def test_c_json_conversation_is_read_or_refused_as_in_python(body: str) -> None:
    data = body.encode()
    (record,) = read_conversations(io.BytesIO(data))
    expected = type(record.error).__name__ if isinstance(record, BadLine) else "Ok"
    assert c_outcome("conversation", data) == expected


@pytest.mark.parametrize("data", [b'{"messages": "\xff"}', b"\xff", b'{"x": "\xed\xa0\x80"}'])
def test_c_json_bytes_that_are_not_utf8_are_refused_as_in_python(data: bytes) -> None:
    (record,) = read_conversations(io.BytesIO(data))
    assert isinstance(record, BadLine)
    assert c_outcome("conversation", data) == type(record.error).__name__ == "BadUtf8"
    assert c_outcome("config", data) == "BadUtf8"


@pytest.mark.parametrize("text", CONFIGS)
def test_c_json_config_is_read_or_refused_as_in_python(text: str) -> None:
    try:
        csrm.SafetyConfig.parse(text, "yaml")
        expected = "Ok"
    except Error as error:
        expected = type(error).__name__
    assert c_outcome("config", text.encode()) == expected


def near(keys: list[str], texts: list[str]) -> st.SearchStrategy[object]:
    """JSON values that are often almost what the schema wants."""
    leaves = st.sampled_from([None, True, False, 0, 1, -1, 0.5, 2, *texts])
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(keys), inner, min_size=1, max_size=4)
        ),
        max_leaves=10,
    )


MESSAGE_KEYS = ["role", "content", "tool_calls", "type", "text", "name"]
MESSAGES = near(MESSAGE_KEYS, ["user", "tool", "text", ""])
CONFIG_KEYS = ["rules", "id", "version", "threshold", "description", "rule"]
RULES = near(["name", "text", "owner", "severity", "action", "why"], ["a", " ", "", "low", "block"])


@settings(max_examples=400, deadline=None)
@given(
    st.fixed_dictionaries({"messages": st.lists(MESSAGES, max_size=3) | MESSAGES})
    | st.fixed_dictionaries(
        {
            "messages": st.lists(
                st.fixed_dictionaries(
                    {"role": st.sampled_from(["user", "developer", "User", 1])},
                    optional={
                        "content": st.sampled_from(["a", ""])
                        | MESSAGES
                        | st.lists(
                            st.fixed_dictionaries(
                                {"type": st.sampled_from(["text", "text", "file"])},
                                optional={"text": st.sampled_from(["a", "", None])},
                            ),
                            max_size=2,
                        ),
                        "tool_calls": MESSAGES,
                    },
                ),
                max_size=3,
            )
        }
    )
)
def test_c_json_any_conversation_is_read_or_refused_as_in_python(body: object) -> None:
    data = json.dumps(body).encode()
    (record,) = read_conversations(io.BytesIO(data))
    expected = type(record.error).__name__ if isinstance(record, BadLine) else "Ok"
    assert c_outcome("conversation", data) == expected


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(st.sampled_from(CONFIG_KEYS), RULES, max_size=3)
    | st.fixed_dictionaries(
        {"rules": st.lists(RULES, max_size=3)},
        optional={"id": st.just("a"), "threshold": st.sampled_from([0, 1, 0.25, 1.5, "1"])},
    )
)
def test_c_json_any_config_is_read_or_refused_as_in_python(config: object) -> None:
    text = json.dumps(config)
    try:
        csrm.SafetyConfig.parse(text, "yaml")
        expected = "Ok"
    except Error as error:
        expected = type(error).__name__
    assert c_outcome("config", text.encode()) == expected


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_c_json_shipped_configs_become_json_that_both_read(path: Path) -> None:
    config = csrm.SafetyConfig.load(path)
    text = config.to_json()
    assert text.isascii()
    assert csrm.SafetyConfig.parse(text) == config
    assert set(json.loads(text)) >= {"rules", "threshold"}
    assert c_outcome("config", text.encode()) == "Ok"
