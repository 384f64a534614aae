"""csrm.errors: one class per row of the C++ status table, with positions and pickling."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from csrm import errors

STATUS_H = Path(__file__).resolve().parents[2] / "runtime" / "include" / "csrm" / "status.h"
ROW = re.compile(r'X\(k\w+, (\d+), (\w+), "([^"]+)"\)')


def python_rows() -> list[tuple[int, str, str]]:
    return [(cls.code, cls.__name__, cls.__doc__ or "") for cls in errors.ERROR_CLASSES]


def test_errors_equal_the_table_in_the_header() -> None:
    rows = [(int(n), name, text) for n, name, text in ROW.findall(STATUS_H.read_text())]
    assert rows[0][:2] == (0, "Ok")
    assert python_rows() == rows[1:]


def test_errors_equal_the_table_of_the_native_module() -> None:
    core = pytest.importorskip("csrm._core")
    assert python_rows() == [tuple(row) for row in core.STATUS_TABLE if row[0] != 0]


def test_errors_all_are_csrm_errors_with_a_number_of_their_own() -> None:
    assert all(issubclass(cls, errors.Error) for cls in errors.ERROR_CLASSES)
    assert len({cls.code for cls in errors.ERROR_CLASSES}) == len(errors.ERROR_CLASSES)


def test_error_from_name_known_and_unknown_give_class_and_internal() -> None:
    assert type(errors.error_from_name("BadUtf8", "x")) is errors.BadUtf8
    assert type(errors.error_from_name("NoSuchName", "x")) is errors.Internal


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.BadConfig("m"), "m"),
        (errors.BadConfig("m", line=7), "line 7: m"),
        (errors.BadConfig("m", line=7, column=5), "line 7, column 5: m"),
        (errors.BadConfig("m", line=7, column=5, path="a.yaml"), "a.yaml:7:5: m"),
        (errors.BadConfig("m", path="a.yaml"), "a.yaml: m"),
    ],
)
def test_error_str_states_the_position(error: errors.Error, text: str) -> None:
    assert str(error) == text


def test_error_pickled_keeps_class_message_and_position() -> None:
    error = pickle.loads(pickle.dumps(errors.BadConfig("m", line=7, column=5, path="a")))
    assert type(error) is errors.BadConfig
    assert (error.message, error.line, error.column, error.path) == ("m", 7, 5, "a")
