"""`Traffic`: clients in a closed loop that check every answer against golden scores.

Not: what is done to the server meanwhile (soak.py). The clients live in an event loop in a thread
of their own; `stop` ends them and gives what they saw.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import csrm
from csrm.bench.http_client import Answer, Connection, connect, request
from csrm.errors import EngineFailed

# Answers have 7 digits.
_TOLERANCE = 2e-6
# Failures that a server may answer while it ends.
_ENDING = ("Draining", "NotReady")


@dataclass(frozen=True)
class Golden:
    """What each turn must get: by digest of the artifact and of the config, reward and verdict."""

    artifacts: tuple[str, ...]
    scores: dict[tuple[str, str], list[csrm.Score]]

    def matches(self, turn: int, answer: dict[str, Any]) -> bool:
        """Whether the answer is the golden one for what it says it was scored with."""
        scores = self.scores.get((answer["artifact_digest"], answer["config_digest"]))
        if scores is None:
            return False
        score = scores[turn]
        pairs = ((answer["reward"], score.reward), (answer["compliance"], score.compliance))
        is_near = all(abs(got - want) <= _TOLERANCE * max(1.0, abs(want)) for got, want in pairs)
        return is_near and answer["verdict"] == score.verdict


def golden_of(
    artifacts: Sequence[Path],
    configs: Sequence[csrm.SafetyConfig],
    turns: Sequence[list[dict[str, str]]],
    threads: int,
) -> Golden:
    """The scores of every turn under every config and artifact. Errors: those of csrm.load."""
    digests, scores = [], {}
    for artifact in artifacts:
        scorer = csrm.load(artifact, n_threads=threads)
        digests.append(str(scorer.info()["artifact_digest"]))
        for config in configs:
            found = [scorer.score(config, turn) for turn in turns]
            scores[digests[-1], config.digest()] = found
    return Golden(tuple(digests), scores)


@dataclass
class Seen:
    """What clients saw. errors: by kind, those that must not be. answered: trace ids of scores."""

    n_answers: int = 0
    n_mismatches: int = 0
    n_refused: int = 0
    n_unanswered: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    answered: set[str] = field(default_factory=set)

    def add(self, other: Seen) -> None:
        """Adds another's counts."""
        self.n_answers += other.n_answers
        self.n_mismatches += other.n_mismatches
        self.n_refused += other.n_refused
        self.n_unanswered += other.n_unanswered
        self.errors += other.errors
        self.answered |= other.answered


class Traffic:
    """Clients of one server, from the start of the `with` block to `stop`.

    is_ending: set when the server is about to end; refusals and closed connections are then what
    ends a client, and not errors. seen_at: when an answer first named the digest that `expect` was
    given.
    """

    def __init__(self, port: int, bodies: Sequence[bytes], golden: Golden, n_clients: int) -> None:
        self.is_ending = False
        self.seen_at: float | None = None
        self._seen = Seen()
        self._wanted = ""
        self._port = port
        self._bodies = bodies
        self._golden = golden
        self._is_stopped = False
        self._numbers = itertools.count(time.monotonic_ns() << 16)
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(n_clients,))

    @property
    def n_answers(self) -> int:
        """Scores so far."""
        return self._seen.n_answers

    def expect(self, digest: str) -> None:
        """`seen_at` is from now on about this digest, of a config or an artifact."""
        self._wanted, self.seen_at = digest, None

    def stop(self) -> Seen:
        """Lets every client end its request, and gives what all saw. Idempotent. Errors:
        EngineFailed if a client could not read an answer.
        """
        self._is_stopped = True
        if self._thread.is_alive():
            self._thread.join()
        if self._failure is not None:
            raise EngineFailed("a client of the soak could not read an answer") from self._failure
        return self._seen

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        self.is_ending = self.is_ending or error is not None
        self.stop()
        return False

    def _run(self, n_clients: int) -> None:
        try:
            asyncio.run(self._play(n_clients))
        except Exception as error:  # in a thread it would go unseen
            self._failure = error

    async def _play(self, n_clients: int) -> None:
        await asyncio.gather(*(self._client(number) for number in range(n_clients)))

    async def _client(self, turn: int) -> None:
        connection: Connection | None = None
        try:
            while not self._is_stopped:
                if connection is None or not connection.is_open:
                    connection = await self._connected()
                    if connection is None:
                        return
                turn = (turn + 1) % len(self._bodies)
                trace = f"{next(self._numbers):032x}"
                headers = {"traceparent": f"00-{trace}-00000000000000a1-01"}
                sent = request("/v1/score", self._bodies[turn], headers)
                if not self._take(turn, trace, await connection.ask(sent)):
                    return
        finally:  # also when another client has failed and this one is cancelled
            if connection is not None:
                connection.close()

    async def _connected(self) -> Connection | None:
        """A connection, or None if nobody listens."""
        try:
            return await connect(self._port)
        except OSError:
            if not self.is_ending:
                self._seen.errors["NoConnection"] += 1
            return None

    def _take(self, turn: int, trace: str, answer: Answer | None) -> bool:
        """Counts an answer; whether the client goes on."""
        if answer is None:
            self._seen.n_unanswered += 1
            return not self.is_ending
        body = json.loads(answer.body)
        if answer.status == 200:
            self._seen.n_answers += 1
            self._seen.n_mismatches += not self._golden.matches(turn, body)
            self._seen.answered.add(trace)
            named = (body["config_digest"], body["artifact_digest"])
            if self.seen_at is None and self._wanted in named:
                self.seen_at = time.perf_counter()
            return True
        kind = str(body["error"]["code"])
        if self.is_ending and kind in _ENDING:
            self._seen.n_refused += 1
            return False
        self._seen.errors[kind] += 1
        return True
