"""One JSON object per line on stderr. Text of users, rules and keys never gets here.

Not: what is worth logging. Fields are names, numbers, ids and digests that the caller vouches for.
Messages of other libraries (uvicorn) are written without their arguments and without the text of an
exception, for either may quote a request; those of asyncio, which have both in them, not at all.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from pathlib import Path

from csrm.errors import Error

LOGGER = logging.getLogger("csrm.serve")


def log_event(event: str, level: int = logging.INFO, **fields: object) -> None:
    """Writes one line with `event` and `fields`; those that are None are left out."""
    LOGGER.log(level, event, extra={"csrm": fields})


def log_exception(event: str, error: BaseException, **fields: object) -> None:
    """Writes where an unexpected exception came from: its type and place, not its text."""
    facts = {"error": type(error).__name__, "at": _place(error), **fields}
    LOGGER.error(event, extra={"csrm": facts})


def log_failure(event: str, error: Exception) -> None:
    """Writes what is wrong with a file of the operator: csrm's own messages never quote it."""
    if not isinstance(error, Error):
        log_exception(event, error)
        return
    log_event(
        event,
        logging.ERROR,
        error=type(error).__name__,
        message=error.message,
        file=None if error.path is None else Path(error.path).name,
        line=error.line,
        column=error.column,
    )


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-4:]))


class JsonFormatter(logging.Formatter):
    """LogRecord -> one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Only the template of a message, the fields of `log_event` and an exception's type."""
        line: dict[str, object] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _event(record),
        }
        fields = getattr(record, "csrm", {})
        line.update((key, value) for key, value in fields.items() if value is not None)
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = type(record.exc_info[1]).__name__
            line["at"] = _place(record.exc_info[1])
        return json.dumps(line, ensure_ascii=True)


def log_to_stderr() -> None:
    """Sends records of csrm.serve, uvicorn, asyncio and OpenTelemetry to stderr as JSON, and no
    others: what has no handler, Python would write as it is.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in ("csrm.serve", "uvicorn", "uvicorn.error", "asyncio", "opentelemetry"):
        logger = logging.getLogger(name)
        logger.handlers = [] if name == "uvicorn.error" else [handler]
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(logging.INFO if name == "csrm.serve" else logging.WARNING)
    logging.getLogger("uvicorn.access").disabled = True  # it writes raw paths


def _event(record: logging.LogRecord) -> str:
    if record.name == "asyncio":
        return "asyncio"
    return record.msg if isinstance(record.msg, str) else type(record.msg).__name__


def _utc(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
