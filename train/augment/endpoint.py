"""A proposer that asks a language model behind an OpenAI-compatible endpoint.

What it is: one chat completion per (conversation, listed categories), its answer checked and kept
on disk, so that a second run asks nothing. Standard library only. What the model claims is trusted
as p+ and p-; its labels are as good as the model. Sends the conversation to the endpoint. Not: the
relabelling (csrm.train.augment.configuration).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Collection
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from csrm.errors import BadArgument, EngineFailed
from csrm.train.augment.proposer import Clause, Proposal, Subject

MAX_ANSWER = 1 << 20  # bytes
MAX_TEXT = 600  # characters of a name or text
TASK = (
    "You design safety policies. Given a conversation and the categories that its policy lists,"
    " name one category outside the list that the last message would violate, and one outside the"
    " list that it does not violate. Answer with one JSON object and nothing else:"
    ' {"violated": CATEGORY or null, "harmless": CATEGORY}, where CATEGORY is {"name": a few words,'
    ' "forbid": a sentence that forbids it, "allow": a sentence that permits it}.'
)


class EndpointFailed(EngineFailed):
    """The endpoint cannot be reached or refuses the request."""


class BadAnswer(EndpointFailed):
    """The endpoint answers, but not with what was asked for."""


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask. `url` ends before /chat/completions; give `key` or `key_file` or none.

    attempts: requests per question at most. wait_s: before the second one, doubled each time.
    """

    url: str
    model: str
    cache: Path
    key: str = field(default="", repr=False)
    key_file: Path | None = None
    timeout_s: float = 60.0
    attempts: int = 4
    wait_s: float = 1.0

    def __post_init__(self) -> None:
        """Errors: BadArgument for another scheme, a number out of range or two keys."""
        if not self.url.startswith(("http://", "https://")):
            raise BadArgument("the endpoint must be an http or https address")
        if self.attempts < 1 or not self.timeout_s > 0 or not self.wait_s >= 0:
            raise BadArgument("attempts and the timeout must be positive, the wait not negative")
        if self.key and self.key_file:
            raise BadArgument("give the endpoint's key or its file, not both")

    def secret(self) -> str:
        """The key, "" for none. Errors: BadArgument when it cannot be read or sent."""
        try:
            key = self.key_file.read_text("ascii").strip() if self.key_file else self.key
        except (OSError, UnicodeDecodeError):
            raise BadArgument("the file of the endpoint's key cannot be read") from None
        if not (key.isascii() and (key.isprintable() or not key)):
            raise BadArgument("the endpoint's key must be one line of ASCII")
        return key


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses to follow: the key is meant for one host."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        """Never a new request."""


class EndpointProposer:
    """A `Proposer`. Thread-safe; processes may share the cache folder."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Errors: BadArgument for an unreadable key or cache folder."""
        self.endpoint = endpoint
        self._secret = endpoint.secret()
        self._opener = urllib.request.build_opener(_NoRedirect)
        try:
            endpoint.cache.mkdir(parents=True, exist_ok=True)
        except OSError:
            raise BadArgument("the cache of the endpoint's answers cannot be made") from None

    def propose(self, rng: random.Random, subject: Subject, listed: Collection[str]) -> Proposal:
        """See `Proposer`; the new categories come with their texts, and `rng` is not used.

        Errors: EndpointFailed after the last attempt or a refusal, BadAnswer if the answers to the
        last attempt are not as asked.
        """
        turns = [{"role": role, "content": content} for role, content in subject.turns]
        asked = json.dumps({"conversation": turns, "listed": sorted(listed)}, ensure_ascii=False)
        body = {
            "model": self.endpoint.model,
            "temperature": 0,
            "messages": [
                {"role": "system", "content": TASK},
                {"role": "user", "content": asked},
            ],
        }
        data = json.dumps(body, sort_keys=True).encode()
        digest = hashlib.sha256(self.endpoint.url.encode() + b"\n" + data).hexdigest()
        path = self.endpoint.cache / f"{digest}.json"
        try:
            return read_proposal(path.read_text(encoding="utf-8"), listed)
        except (OSError, UnicodeDecodeError, BadAnswer):
            content, proposal = self._ask(data, listed)
        _write(path, content)
        return proposal

    def _ask(self, data: bytes, listed: Collection[str]) -> tuple[str, Proposal]:
        """(answer, what it says), after as many attempts as it takes."""
        failure = EndpointFailed("the endpoint was not asked")
        for attempt in range(self.endpoint.attempts):
            if attempt:
                time.sleep(self.endpoint.wait_s * 2 ** (attempt - 1))
            try:
                content = read_content(self._post(data))
                return content, read_proposal(content, listed)
            except BadAnswer as error:
                failure = error
            except urllib.error.HTTPError as error:
                error.close()
                failure = EndpointFailed(f"the endpoint answered with status {error.code}")
                if error.code not in (408, 425, 429) and error.code < 500:
                    break
            except (OSError, HTTPException):
                failure = EndpointFailed("the endpoint cannot be reached or broke off")
        # Without the cause: its text may hold the address or what was sent.
        raise failure from None

    def _post(self, data: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self._secret:
            headers["Authorization"] = f"Bearer {self._secret}"
        request = urllib.request.Request(
            self.endpoint.url.rstrip("/") + "/chat/completions", data, headers
        )
        with self._opener.open(request, timeout=self.endpoint.timeout_s) as response:
            answer: bytes = response.read(MAX_ANSWER + 1)
        if len(answer) > MAX_ANSWER:
            raise BadAnswer(f"the endpoint's answer is longer than {MAX_ANSWER} bytes")
        return answer


def read_content(answer: bytes) -> str:
    """The text of the first choice. Errors: BadAnswer."""
    try:
        content = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise BadAnswer("the endpoint's answer is no chat completion") from None
    if not isinstance(content, str):
        raise BadAnswer("the endpoint's answer has no text")
    return content


def read_proposal(content: str, listed: Collection[str]) -> Proposal:
    """The proposal in `content`. Errors: BadAnswer unless it has the shape that was asked for."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise BadAnswer("the proposal is not JSON") from None
    if not isinstance(value, dict) or set(value) != {"violated", "harmless"}:
        raise BadAnswer("the proposal must have the keys violated and harmless")
    taken = {key.casefold() for key in listed}
    minus = _clause(value["harmless"], taken)
    if value["violated"] is None:
        return Proposal(frozenset(), minus.key, (minus,))
    plus = _clause(value["violated"], taken | {minus.key.casefold()})
    return Proposal(frozenset({plus.key}), minus.key, (plus, minus))


def _clause(value: Any, taken: set[str]) -> Clause:
    if not isinstance(value, dict) or set(value) != {"name", "forbid", "allow"}:
        raise BadAnswer("a proposed category must have a name, forbid and allow")
    texts = [value[key] for key in ("name", "forbid", "allow")]
    if not all(isinstance(t, str) and len(t.strip()) > 0 and len(t) <= MAX_TEXT for t in texts):
        raise BadAnswer(f"texts of a proposed category must have 1 to {MAX_TEXT} characters")
    name, forbid, allow = (" ".join(text.split()) for text in texts)
    if name.casefold() in taken:
        raise BadAnswer("a proposed category is listed already or proposed twice")
    return Clause(name, name, forbid, allow)


def _write(path: Path, content: str) -> None:
    """Writes whole or not at all; a cache that cannot be written costs a request, not the run."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, encoding="utf-8", suffix=".part", delete=False
        ) as file:
            file.write(content)
        os.replace(file.name, path)
    except (OSError, UnicodeEncodeError):
        return
