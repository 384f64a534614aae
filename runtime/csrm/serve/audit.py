"""Digests of conversations for the log, by which a decision can be found again without its text.

Not: the log itself. The digest is keyed, so that nobody without the key can test a guess of a text.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping

from csrm.conversation import conversation_from
from csrm.errors import BadArgument, Error

KEY_VARIABLE = "CSRM_AUDIT_KEY"
_MIN_KEY_CHARS = 16


def audit_key(environment: Mapping[str, str]) -> bytes | None:
    """The key in CSRM_AUDIT_KEY; None if there is none: no digests. Errors: BadArgument."""
    key = environment.get(KEY_VARIABLE, "")
    if key and len(key) < _MIN_KEY_CHARS:
        raise BadArgument(f"{KEY_VARIABLE} must have at least {_MIN_KEY_CHARS} characters")
    return key.encode("utf-8", "surrogateescape") or None


def conversation_digest(key: bytes, conversation: object) -> str:
    """HMAC-SHA256 in hex of the turns as compact JSON: `[["user","..."],["assistant","..."]]`.

    The same for all endpoints that judge the same turns. What cannot be read as turns is digested
    as it came.
    """
    try:
        turns: object = conversation_from(conversation)
    except Error:
        turns = conversation
    text = json.dumps(turns, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode("ascii"), hashlib.sha256).hexdigest()
