"""The typed errors of csrm: one class per row of the status table in include/csrm/status.h.

Not: messages, which each raiser writes (what was wrong, the value, the limit, what to do; never
rule or conversation text). The native module raises these same classes by name; a test compares
numbers, names and sentences with `_core.STATUS_TABLE`.
"""

# ruff: noqa: N818  (the names are those of the C++ table)

from __future__ import annotations

from typing import ClassVar


class Error(Exception):
    """Base of every typed error of csrm.

    `code` is the number of the C API, `message` the text without the position. `line` and
    `column` count from 1 and are None where no position in a file applies, as is `path`.
    """

    code: ClassVar[int] = -1

    def __init__(
        self,
        message: str = "",
        *,
        line: int | None = None,
        column: int | None = None,
        path: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.path = path

    def __str__(self) -> str:
        """`file:7:5: message`, `line 7, column 5: message` or the bare message."""
        if self.path is not None:
            position = ":".join(str(p) for p in (self.path, self.line, self.column) if p)
            return f"{position}: {self.message}"
        if self.line is None:
            return self.message
        column = "" if self.column is None else f", column {self.column}"
        return f"line {self.line}{column}: {self.message}"


class BadUtf8(Error):
    """A text is not valid UTF-8."""

    code = 1


class EmptyConversation(Error):
    """There is no turn with text to judge."""

    code = 2


class EmptyConfig(Error):
    """The config has no rule with text."""

    code = 3


class UnknownRole(Error):
    """A turn's role is not system, user, assistant or tool."""

    code = 4


class LimitExceeded(Error):
    """An input is larger than the limit; nothing is truncated."""

    code = 5


class BadConfig(Error):
    """A config file or object does not follow the schema."""

    code = 6


class BadConversation(Error):
    """A conversation does not follow the schema."""

    code = 7


class BadArtifact(Error):
    """A model folder is incomplete or malformed."""

    code = 8


class DigestMismatch(Error):
    """A model file differs from the digest in its manifest."""

    code = 9


class Unsupported(Error):
    """A schema, operator or option is newer than this build."""

    code = 10


class EngineUnavailable(Error):
    """An engine's library or device cannot be had."""

    code = 11


class EngineFailed(Error):
    """The inference engine returned an error."""

    code = 12


class NonFinite(Error):
    """The model produced a value that is not finite."""

    code = 13


class BadArgument(Error):
    """An option is outside its documented range."""

    code = 14


class Internal(Error):
    """An invariant of csrm itself failed; please report it."""

    code = 15


class Overloaded(Error):
    """The scheduler's queue is full; the request was not accepted."""

    code = 16


class DeadlineExceeded(Error):
    """The deadline passed before the request was scored."""

    code = 17


class Cancelled(Error):
    """The request was withdrawn or the scheduler shut down."""

    code = 18


ERROR_CLASSES: tuple[type[Error], ...] = (
    BadUtf8,
    EmptyConversation,
    EmptyConfig,
    UnknownRole,
    LimitExceeded,
    BadConfig,
    BadConversation,
    BadArtifact,
    DigestMismatch,
    Unsupported,
    EngineUnavailable,
    EngineFailed,
    NonFinite,
    BadArgument,
    Internal,
    Overloaded,
    DeadlineExceeded,
    Cancelled,
)

_BY_NAME = {cls.__name__: cls for cls in ERROR_CLASSES}


def error_from_name(name: str, message: str) -> Error:
    """The error of class `name` ("BadUtf8"); Internal for a name outside the table."""
    return _BY_NAME.get(name, Internal)(message)
