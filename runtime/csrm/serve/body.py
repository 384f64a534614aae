"""The body of a request: read within bounds, and parsed as one strict JSON object.

Not: what its fields mean. Nothing of a body is repeated in an error.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from starlette.requests import Request

from csrm.serve.failures import Failure
from csrm.serve.options import Limits


def check_head(request: Request, limits: Limits) -> int:
    """The bytes that the head announces, 0 if it does not say. Errors: Failure BodyTooLarge,
    UnsupportedEncoding.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Failure("UnsupportedEncoding", "send the body without a content encoding")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 20 or int(length) > limits.max_body_bytes:
        raise _too_large(limits)
    return int(length)


async def read_body(request: Request, limits: Limits) -> bytes:
    """The bytes of the body. Errors: Failure BodyTooLarge, BodyTimeout, UnsupportedEncoding;
    ClientDisconnect.
    """
    check_head(request, limits)
    try:
        return await asyncio.wait_for(_read(request, limits), limits.body_timeout_s)
    except (asyncio.TimeoutError, TimeoutError):
        raise Failure(
            "BodyTimeout", f"the body did not come within {limits.body_timeout_s:g} seconds"
        ) from None


def parse_object(data: bytes, max_depth: int) -> dict[str, Any]:
    """`data` as a JSON object: UTF-8, no key twice, no NaN, not deeper than `max_depth`.

    Errors: Failure BadJson, BadUtf8, LimitExceeded.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Failure("BadUtf8", f"the body is not UTF-8 at byte {error.start:,}") from None
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise Failure("BadJson", f"the body is not JSON: {error.msg}, at {error.pos:,}") from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    except ValueError:
        raise Failure("BadJson", "a number in the JSON has too many digits") from None
    if not isinstance(value, dict):
        raise Failure("BadJson", "the body must be a JSON object")
    _check_depth(value, max_depth)
    return value


async def _read(request: Request, limits: Limits) -> bytes:
    data = bytearray()  # not a list of parts: a flood of tiny ones would cost many times its size
    async for part in request.stream():
        if len(data) + len(part) > limits.max_body_bytes:
            raise _too_large(limits)
        data += part
    return bytes(data)


def _check_depth(value: object, max_depth: int) -> None:
    level: list[object] = [value]
    for _ in range(max_depth):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise _too_deep(max_depth)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Failure("BadJson", "an object in the JSON has a key twice")
    return found


def _refuse_constant(constant: str) -> NoReturn:
    raise Failure("BadJson", f"{constant} is not JSON; use a finite number or null")


def _too_large(limits: Limits) -> Failure:
    return Failure("BodyTooLarge", f"the body is larger than {limits.max_body_bytes:,} bytes")


def _too_deep(max_depth: int) -> Failure:
    return Failure(
        "LimitExceeded", f"the JSON is nested deeper than {max_depth}; that is the limit"
    )
