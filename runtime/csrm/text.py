"""Bytes and strings -> valid Unicode text, or BadUtf8. Used for configs and conversations.

Not: normalising or tokenising (C++). Nothing is replaced or dropped: an invalid byte or a lone
surrogate is an error that gives its position and never the text.
"""

from __future__ import annotations

from csrm.errors import BadUtf8


def decode_utf8(data: bytes, what: str, *, line: int | None = None) -> str:
    """`data` as text. `what` names it in the message; `line` is the first byte's line in a file.

    Errors: BadUtf8 with the byte offset, and with the line of the bad byte if `line` is given.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        where = None if line is None else line + data.count(b"\n", 0, error.start)
        raise BadUtf8(
            f"{what} is not UTF-8: byte {data[error.start]:#04x} at offset {error.start}; "
            "save it as UTF-8",
            line=where,
        ) from None


def require_utf8(text: str, what: str) -> str:
    """`text` itself. Errors: BadUtf8 if it holds a lone surrogate, which no UTF-8 can express."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadUtf8(
            f"{what} holds the lone surrogate U+{ord(text[error.start]):04X} at character "
            f"{error.start}; it has no UTF-8 form"
        ) from None
    return text
