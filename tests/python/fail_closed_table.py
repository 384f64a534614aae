"""The fail-closed table: every kind of failure, provoked where it arises, at every endpoint.

Not: the checks (test_serve_fail_closed.py) or good answers. Run as a script it prints
docs/fail-closed.md with what each endpoint answered just now. The answers are those of the real
application on the toy artifact: server failures come from requests that cause them, failures of the
engine from a stand-in for the native queue or stream.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import serve_client  # skips what imports this without csrm[serve]
import toy
import yaml
from serve_client import CHAT, RULES, RunningApp, exchange, httpx, options_for, write_configs

import csrm._core
from csrm import errors
from csrm.serve.admission import Admission
from csrm.serve.failures import STATUSES, Failure
from csrm.serve.routes import ROWS

DOCUMENT = Path(__file__).parents[2] / "docs" / "fail-closed.md"
MESSAGE = "the message of the failure"
KEYS = {name: f"key-of-{name}-0123456789" for name in ("plain", "bound", "poor", "busy")}
NONE = "–"
LET_BY, BLOCKED = "let by", "blocked"

# Endpoint -> column of the table. Endpoints of one column answer a failure alike.
OWN = "`/v1/score`, `/v1/moderations`, reward servers"
COLUMNS = {
    "score": OWN,
    "moderations": OWN,
    "classify": OWN,
    "get_reward": OWN,
    "predict": OWN,
    "configs": "`/v1/configs`",
    "config": "`/v1/configs`",
    "put_config": "`/v1/configs`",
    "delete_config": "`/v1/configs`",
    "litellm": "LiteLLM",
    "agentgateway_request": "agentgateway",
    "agentgateway_response": "agentgateway",
    "portkey": "Portkey",
    "ext_authz": "ext_authz",
    "stream": "`/v1/stream`",
}
GATEWAYS = frozenset({"LiteLLM", "agentgateway", "Portkey", "ext_authz"})


@dataclass(frozen=True)
class Surface:
    """One endpoint under one path."""

    name: str
    method: str
    path: str
    body: Any

    @property
    def column(self) -> str:
        return COLUMNS[self.name]

    @property
    def is_judging(self) -> bool:
        return self.name not in ("configs", "config", "delete_config")

    def at(self, prefix: str) -> Surface:
        return replace(self, path=prefix + self.path)


def surfaces() -> list[Surface]:
    """Every row of the table of endpoints, and the WebSocket."""
    found = []
    for row in ROWS:
        path = row.path.replace("{rest:path}", "/v1/chat").replace("{id}", "made")
        method = "POST" if "POST" in row.methods else row.methods[0]
        found.append(Surface(row.endpoint.name, method, path, row.example))
    return [*found, Surface("stream", "", "/v1/stream", None)]


SURFACES = surfaces()
PINNABLE = frozenset({row.endpoint.name for row in ROWS if row.is_pinnable} | {"stream"})


class Bench:
    """The applications that are asked: one with keys, one without in each fail mode."""

    def __init__(self, folder: Path, artifact: Path) -> None:
        configs = write_configs(folder / "configs")
        tenants = folder / "tenants.yaml"
        given: dict[str, dict[str, Any]] = {
            "bound": {"configs": ["lenient"]},
            "poor": {"requests_per_minute": 1},
            "busy": {"max_in_flight": 1},
        }
        entries = [
            {
                "name": name,
                "key_sha256": hashlib.sha256(key.encode()).hexdigest(),
                **given.get(name, {}),
            }
            for name, key in KEYS.items()
        ]
        tenants.write_text(yaml.safe_dump({"tenants": entries}))
        self._started: list[RunningApp] = []
        common: dict[str, Any] = {"default_config": "lenient"}
        self.plain = self._start(options_for(artifact, configs, config_writes=True, **common))
        self.keyed = self._start(options_for(artifact, configs, tenants=tenants, **common))
        self.open = self._start(
            options_for(artifact, configs, config_writes=True, fail_mode="open", **common)
        )

    def _start(self, options: Any) -> RunningApp:
        app = RunningApp(options).ready()
        self._started.append(app)
        return app

    def close(self) -> None:
        for app in self._started:
            app.close()


@dataclass(frozen=True)
class Ask:
    """One request on one application, while `patch` lasts. `answer` is a cell of the table."""

    app: RunningApp
    surface: Surface
    patch: pytest.MonkeyPatch

    def answer(self, **given: Any) -> str:
        """What the endpoint answers to its example, or to what is `given` in its place."""
        if self.surface.name == "stream":
            return self._stream(**given)
        body = {} if "content" in given else {"json": self.surface.body}
        found = self.app.ask(self.surface.method, self.surface.path, **{**body, **given})
        return cell(self.surface, found)

    def limit(self, **limits: Any) -> None:
        """Other limits of requests."""
        options = self.app.service.options
        changed = replace(options, limits=replace(options.limits, **limits))
        self.patch.setattr(self.app.service, "options", changed)

    def _stream(
        self, headers: dict[str, str] | None = None, messages: Sequence[object] | None = None
    ) -> str:
        said = [{"messages": CHAT[:1], "every_append": True}, {"append": "a b."}, {"finish": True}]
        sent = self.app.run(
            exchange(
                self.app,
                list(said if messages is None else messages),
                self.surface.path,
                **{key.replace("-", "_"): value for key, value in (headers or {}).items()},
            )
        )
        last = json.loads(sent[-2]["text"]) if sent[-2]["type"] == "websocket.send" else {}
        return f"{_own(last)}, closed {sent[-1]['code']}"


def cell(surface: Surface, found: httpx.Response) -> str:
    """The answer in a word: `unknown` and `blocked` are the safe ones."""
    if surface.name == "ext_authz":
        unknown = found.headers.get("x-csrm-verdict") == "unknown"
        return f"{found.status_code} {'denied' if unknown else 'not unknown'}"
    answer = found.json()
    if surface.name == "litellm":
        return f"{found.status_code} {answer['action']}"
    if surface.name == "portkey":
        return f"{found.status_code} {json.dumps(answer['verdict'])}"
    if surface.column == "agentgateway":
        action = answer["action"]
        return f"{found.status_code} {'reject' if action.get('status_code') == 403 else 'pass'}"
    return f"{found.status_code} {_own(answer)}"


def _own(answer: Any) -> str:
    if not isinstance(answer, dict) or answer.keys() != {"error", "verdict", "flagged"}:
        return "not a failure"
    safe = (answer["verdict"], answer["flagged"]) == ("unknown", True)
    return "unknown" if safe else "not unknown"


@dataclass(frozen=True)
class Way:
    """How a kind of failure is provoked: `ask` gives the cell, or None where it cannot arise."""

    kind: str
    where: str
    ask: Callable[[Ask], str | None]
    app: str = "plain"


class _FailingQueue:
    """Stands for the native scheduler: refuses, or accepts and answers an error."""

    def __init__(self, kind: str, *, accepts: bool) -> None:
        self._kind = kind
        self._accepts = accepts

    def submit(self, *given: Any) -> int:
        if not self._accepts:
            raise errors.error_from_name(self._kind, MESSAGE)
        threading.Thread(target=given[-1], args=(("error", self._kind, MESSAGE),)).start()
        return 1

    def cancel(self, ticket: int) -> bool:
        return False


class _HangingQueue:
    """Stands for the native scheduler: accepts and never answers."""

    def submit(self, *given: Any) -> int:
        return 1

    def cancel(self, ticket: int) -> bool:
        return False


def _failing_stream(error: Exception, method: str) -> type:
    """A class that stands for the native stream and fails in `method`."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    def append(self: Any, text: str) -> None:
        return None

    def verdict(self: Any) -> str:
        return "unknown"

    def take(*_: Any, **__: Any) -> None:
        return None

    members = {"__init__": take, "append": append, "verdict": verdict, method: fail}
    return type("FailingStream", (), members)


def engine_ways(kind: str) -> list[Way]:
    """A failure of csrm.errors: refused by the queue, or answered by the engine."""

    def ask(asked: Ask, accepts: bool) -> str | None:
        if not asked.surface.is_judging:
            return None
        if asked.surface.name == "stream":
            failing = _failing_stream(errors.error_from_name(kind, MESSAGE), "finish")
            if not accepts:
                failing = _failing_stream(errors.error_from_name(kind, MESSAGE), "append")
            asked.patch.setattr(csrm._core, "ScoreStream", failing, raising=True)
            return asked.answer()
        scheduler = asked.app.service.snapshot.model.lanes[0].scheduler
        asked.patch.setattr(scheduler, "_native", _FailingQueue(kind, accepts=accepts))
        return asked.answer()

    return [
        Way(kind, "the queue", lambda asked: ask(asked, False)),
        Way(kind, "the engine", lambda asked: ask(asked, True)),
    ]


def _hanging(asked: Ask) -> str | None:
    """The engine takes the conversation and never answers."""
    if not asked.surface.is_judging or asked.surface.name == "put_config":
        return None
    is_over = threading.Event()
    asked.patch.setattr("csrm.serve.endpoint._LATE_S", 0.0)
    changed = replace(asked.app.service.options, deadline_s=0.02)
    asked.patch.setattr(asked.app.service, "options", changed)
    scheduler = asked.app.service.snapshot.model.lanes[0].scheduler
    asked.patch.setattr(scheduler, "_native", _HangingQueue())
    stream = type("HangingStream", (), {"append": lambda *_: is_over.wait(serve_client.WAIT_S)})
    if asked.surface.name == "stream":
        asked.patch.setattr(csrm._core, "ScoreStream", lambda *_, **__: stream())
    try:
        return asked.answer()
    finally:
        is_over.set()


def _sized(asked: Ask) -> bool:
    return asked.surface.is_judging


def _with_body(content: bytes, text: str | None = None) -> Callable[[Ask], str | None]:
    """Sends `content` as the body, or as the first message of a stream."""

    def ask(asked: Ask) -> str | None:
        if not asked.surface.is_judging or asked.surface.name == "put_config":
            return None
        if asked.surface.name == "stream":
            return asked.answer(messages=[text]) if text is not None else None
        return asked.answer(content=content)

    return ask


def _bad_request(asked: Ask) -> str | None:
    name = asked.surface.name
    if name == "stream":
        return asked.answer(messages=[{"mesages": []}])
    if name == "put_config":
        return asked.answer(json={"id": "other", "rules": RULES})
    return asked.answer(json={"a_field": 1}) if asked.surface.is_judging else None


def _too_large(asked: Ask) -> str | None:
    if not asked.surface.is_judging:
        return None
    asked.limit(max_body_bytes=10)
    return asked.answer()


def _too_slow(asked: Ask) -> str | None:
    if not asked.surface.is_judging:
        return None
    asked.limit(body_timeout_s=0.01, stream_idle_s=0.01)
    if asked.surface.name == "stream":
        return asked.answer(messages=[{}])

    async def parts() -> Any:
        yield b"{"
        await asyncio.sleep(serve_client.WAIT_S)

    return asked.answer(content=parts())


def _encoded(asked: Ask) -> str | None:
    if not asked.surface.is_judging or asked.surface.name == "stream":
        return None
    return asked.answer(headers={"content-encoding": "gzip"})


def _partial(asked: Ask) -> str | None:
    if asked.surface.name != "ext_authz":
        return None
    return asked.answer(headers={"x-envoy-auth-partial-body": "true"})


def _forbidden(asked: Ask) -> str | None:
    headers = {"x-csrm-key": KEYS["bound"]}
    if asked.surface.name == "score":
        return asked.answer(headers=headers, json={"messages": CHAT, "rules": RULES})
    if asked.surface.name == "stream":
        return asked.answer(headers=headers, messages=[{"rules": RULES}])
    if asked.surface.name in ("put_config", "delete_config"):
        return asked.answer(headers=headers)
    return None


def _unknown_config(asked: Ask) -> str | None:
    if asked.surface.name in ("config", "delete_config"):
        return asked.answer()  # the example's id is not there
    if asked.surface.name not in PINNABLE or asked.surface.path.startswith("/configs/"):
        return None
    return replace(asked, surface=asked.surface.at("/configs/absent")).answer()


def _conflict(asked: Ask) -> str | None:
    if asked.surface.name not in ("put_config", "delete_config"):
        return None
    at_file = replace(asked.surface, path="/v1/configs/lenient")
    return replace(asked, surface=at_file).answer()


def _used_up(asked: Ask) -> str | None:
    if not asked.surface.is_judging or asked.surface.name == "put_config":
        return None
    asked.patch.setitem(asked.app.service.quotas._left, "poor", (0.0, time.monotonic()))
    return asked.answer(headers={"x-csrm-key": KEYS["poor"]})


def _key_busy(asked: Ask) -> str | None:
    if not asked.surface.is_judging or asked.surface.name in ("put_config", "stream"):
        return None
    asked.patch.setitem(asked.app.service.quotas._in_flight, "busy", 1)
    return asked.answer(headers={"x-csrm-key": KEYS["busy"]})


def _in_state(state: str) -> Callable[[Ask], str | None]:
    def ask(asked: Ask) -> str | None:
        asked.patch.setattr(asked.app.service, "state", state)
        return asked.answer()

    return ask


def _in_flight(asked: Ask) -> str | None:
    asked.limit(max_in_flight=0)
    return asked.answer()


def _no_time(asked: Ask) -> str | None:
    """What is accepted already takes longer than the request may wait."""
    if not asked.surface.is_judging or asked.surface.name in ("put_config", "stream"):
        return None
    admission = Admission(1)
    asked.patch.setattr(admission, "_busy", {asked.surface.name: (1e9, 1.0)})
    admission.begin(asked.surface.name, 1, float("inf"))
    asked.patch.setattr(asked.app.service, "admission", admission)
    return asked.answer()


def _streams(asked: Ask) -> str | None:
    if asked.surface.name != "stream":
        return None
    asked.limit(max_streams=0)
    return asked.answer()


def _no_path(asked: Ask) -> str | None:
    if asked.surface.name != "score":
        return None
    return replace(asked, surface=replace(asked.surface, path="/absent")).answer()


def _no_method(asked: Ask) -> str | None:
    if asked.surface.name != "score":
        return None
    return replace(asked, surface=replace(asked.surface, method="TRACE")).answer()


# Places at which an exception that nobody foresaw is raised: (where, object, attribute).
_PLACES = (
    ("finding the key's holder", "csrm.serve.tenants.Tenants.of_key"),
    ("the model's count of users", "csrm.serve.model.Model.enter"),
    ("parsing", "csrm.serve.endpoint.parse_object"),
    ("submitting", "csrm.scheduler.Scheduler._submit"),
    ("reading an answer", "csrm.scheduler.answer_from"),
    ("counting verdicts", "csrm.serve.judging.count"),
)
_UNFORESEEN = (ValueError, MemoryError, RecursionError, asyncio.CancelledError, TimeoutError)


def _unforeseen(place: str, error: type[BaseException]) -> Callable[[Ask], str | None]:
    def ask(asked: Ask) -> str | None:
        name = asked.surface.name
        if place.endswith("parse_object") and name in ("put_config", "stream"):
            return None
        if place.endswith("judging.count") and name in ("put_config", "stream"):
            return None
        if "serve.tenants" not in place and "Model.enter" not in place and not _sized(asked):
            return None

        def fail(*_: Any, **__: Any) -> Any:
            raise error(MESSAGE)

        if name == "stream" and place.startswith("csrm.scheduler"):
            failing = _failing_stream(error(MESSAGE), "append")  # type: ignore[arg-type]
            asked.patch.setattr(csrm._core, "ScoreStream", failing)
        else:
            asked.patch.setattr(place, fail)
        return asked.answer()

    return ask


def _unforeseen_ways() -> Iterator[Way]:
    for where, place in _PLACES:
        for error in _UNFORESEEN:
            # Cancelling is only what a future can do to its awaiter: elsewhere nothing raises it.
            if error is asyncio.CancelledError and place != "csrm.scheduler.answer_from":
                continue
            kind = "Cancelled" if error is asyncio.CancelledError else "Internal"
            yield Way(kind, f"{error.__name__}, {where}", _unforeseen(place, error))


WAYS: tuple[Way, ...] = (
    *(way for found in errors.ERROR_CLASSES for way in engine_ways(found.__name__)),
    *_unforeseen_ways(),
    Way("DeadlineExceeded", "an engine that never answers", _hanging),
    Way("Overloaded", "requests in flight", _in_flight),
    Way("Overloaded", "no time left before the deadline", _no_time),
    Way("Overloaded", "streams", _streams),
    Way("Overloaded", "conversations of the key", _key_busy, "keyed"),
    Way("BadUtf8", "the body", _with_body(b'{"a": "\xff"}')),
    Way(
        "LimitExceeded", "nesting of the body", _with_body(b'{"a":' + b"[" * 40 + b"]" * 40 + b"}")
    ),
    Way("BadJson", "the body", _with_body(b"{", "{")),
    Way("BadRequest", "a field", _bad_request),
    Way("BodyTooLarge", "the body", _too_large),
    Way("BodyTimeout", "the body", _too_slow),
    Way("UnsupportedEncoding", "the body", _encoded),
    Way("PartialBody", "the body, cut by the proxy", _partial),
    Way("Unauthorized", "no key", lambda asked: asked.answer(), "keyed"),
    Way("Forbidden", "rules of a bound key; changes without an admin key", _forbidden, "keyed"),
    Way("UnknownConfig", "the config's id", _unknown_config),
    Way("NotFound", "the path", _no_path),
    Way("MethodNotAllowed", "the method", _no_method),
    Way("ConfigConflict", "a config that a file has", _conflict),
    Way("QuotaExceeded", "the key's quota", _used_up, "keyed"),
    Way("NotReady", "loading", _in_state("loading")),
    Way("NotReady", "loading failed", _in_state("failed")),
    Way("Draining", "after SIGTERM", _in_state("draining")),
)


def provoke(bench: Bench, way: Way, surface: Surface, *, app: str = "") -> str | None:
    """The cell of `way` at `surface`; None where it cannot arise."""
    with pytest.MonkeyPatch.context() as patch:
        return way.ask(Ask(getattr(bench, app or way.app), surface, patch))


def is_let_by(surface: Surface, found: str) -> bool:
    """Whether a gateway lets pass what got this cell."""
    return found in {"200 NONE", "200 pass", "200 true"} or (
        surface.name == "ext_authz" and found.startswith("200")
    )


def table(bench: Bench) -> dict[str, dict[str, str]]:
    """Kind -> column -> cell, the last column being that of fail mode open. Errors: ValueError
    when endpoints of one column differ.
    """
    found: dict[str, dict[str, str]] = {}
    for way in WAYS:
        row = found.setdefault(way.kind, dict.fromkeys([*COLUMNS.values(), "open"], NONE))
        for surface in SURFACES:
            got = provoke(bench, way, surface)
            if got is None:
                continue
            if row[surface.column] not in (NONE, got):
                raise ValueError(
                    f"{way.kind}, {way.where}, {surface}: {got}, {row[surface.column]}"
                )
            row[surface.column] = got
            if surface.column in GATEWAYS and way.app == "plain":
                by = provoke(bench, way, surface, app="open") or ""
                row["open"] = LET_BY if is_let_by(surface, by) else BLOCKED
            elif surface.column in GATEWAYS:
                row["open"] = LET_BY if Failure(way.kind, "").is_ours else BLOCKED
    return found


def cells_of(document: str) -> dict[str, dict[str, str]]:
    """The same out of the text of docs/fail-closed.md."""
    rows = [
        [part.strip() for part in line.strip().strip("|").split("|")]
        for line in document.splitlines()
        if line.startswith("|")
    ]
    columns = list(dict.fromkeys(COLUMNS.values()))
    return {
        row[0].strip("`"): dict(zip([*columns, "open"], row[2:], strict=True)) for row in rows[2:]
    }


_HEAD = """# Fail closed: what every failure looks like from outside

A failure is never a verdict. Below, every kind of failure is provoked at every endpoint of the
real application: by a request that causes it, or, for failures of the engine, by a stand-in for
the native queue that refuses the conversation or answers with the error. A cell is the status and
what the caller reads in it: `unknown` is `"verdict": "unknown", "flagged": true`; `BLOCKED`,
`reject`, `false` and `denied` are the gateways' own words for "do not pass". {none} means that this
kind cannot arise there. The last column is what a gateway is told with `--fail-mode open`.

Not in the table: bytes that are no HTTP get 400 from the HTTP library; a client that has gone gets
nothing, and what it queued is withdrawn. Written by `python tests/python/fail_closed_table.py`;
`tests/python/test_serve_fail_closed.py` checks every cell.
"""


def document(found: dict[str, dict[str, str]]) -> str:
    """The text of docs/fail-closed.md."""
    columns = list(dict.fromkeys(COLUMNS.values()))
    lines = [_HEAD.format(none=NONE)]
    lines.append("| kind | arises at | " + " | ".join([*columns, "fail mode open"]) + " |")
    lines.append("|" + "---|" * (len(columns) + 3))
    for kind in STATUSES:
        places = [way.where for way in WAYS if way.kind == kind]
        if kind == "Internal":
            places = ["the engine", "anything unforeseen"]
        cells = [found[kind][column] for column in [*columns, "open"]]
        lines.append(f"| `{kind}` | {'; '.join(places)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@contextmanager
def benched() -> Iterator[Bench]:
    """A Bench on a toy artifact of its own."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        artifact = toy.make_toy_model.write_toy_artifact(place / "artifact")
        bench = Bench(place, artifact)
        try:
            yield bench
        finally:
            bench.close()


if __name__ == "__main__":
    with benched() as made:
        sys.stdout.write(document(table(made)))
