"""Failures of a request and the one table that gives each kind its HTTP status.

Not: the bodies of answers (answers.py and the adapters). Data comes from csrm.errors and from the
checks of this package; a message never holds text of a user, a config's rules or a key.
"""

from __future__ import annotations

from csrm.errors import Error

# Kind of failure -> HTTP status. The first half are the classes of csrm.errors.
STATUSES = {
    "BadUtf8": 400,
    "EmptyConversation": 422,
    "EmptyConfig": 422,
    "UnknownRole": 422,
    "LimitExceeded": 413,
    "BadConfig": 422,
    "BadConversation": 422,
    "BadArtifact": 503,
    "DigestMismatch": 503,
    "Unsupported": 500,
    "EngineUnavailable": 503,
    "EngineFailed": 500,
    "NonFinite": 500,
    "BadArgument": 422,
    "Internal": 500,
    "Overloaded": 429,
    "DeadlineExceeded": 504,
    "Cancelled": 503,
    # Refused by the server itself.
    "BadJson": 400,
    "BadRequest": 422,
    "BodyTooLarge": 413,
    "BodyTimeout": 408,
    "UnsupportedEncoding": 415,
    "PartialBody": 413,
    "Unauthorized": 401,
    "Forbidden": 403,
    "UnknownConfig": 404,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "ConfigConflict": 409,
    "QuotaExceeded": 429,
    "NotReady": 503,
    "Draining": 503,
}

_RETRY_AFTER_S = {"Overloaded": 1, "QuotaExceeded": 1, "NotReady": 2, "Draining": 1, "Cancelled": 1}


class Failure(Exception):  # noqa: N818  (named for what it means to a request)
    """Why a request, or one conversation of it, has no score: its verdict is "unknown"."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        retry_after_s: int | None = None,
        is_theirs: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind if kind in STATUSES else "Internal"
        self.message = message
        self.status = STATUSES[self.kind]
        self.retry_after_s = retry_after_s or _RETRY_AFTER_S.get(self.kind)
        self._is_theirs = is_theirs

    @property
    def is_ours(self) -> bool:
        """Whether the server failed, and not what it was sent: all that fail mode "open" lets by.

        What the input causes stays blocked in either mode, or bad input would be a way around.
        `is_theirs` says that it did, where the kind alone would not.
        """
        return not self._is_theirs and (self.status >= 500 or self.kind == "Overloaded")

    def fields(self) -> dict[str, object]:
        """The JSON of this failure, in the shape that OpenAI's clients read too."""
        origin = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"code": self.kind, "message": self.message, "type": origin, "param": None}


def failure_of(error: BaseException) -> Failure:
    """`error` as a Failure. What is not typed becomes Internal, and its text is left out."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, Error):
        return Failure(type(error).__name__, _located(error))
    return Failure("Internal", "the server failed unexpectedly; its log names the place")


def _located(error: Error) -> str:
    """The message with line and column; without the path, which is the server's own affair."""
    if error.line is None:
        return error.message
    column = "" if error.column is None else f", column {error.column}"
    return f"line {error.line}{column}: {error.message}"
