"""What the fail-closed table asks: every endpoint, applications to ask, and answers as its cells.

Not: failures (fail_closed_ways.py) or the table (fail_closed_table.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from serve_client import CHAT, RunningApp, exchange, httpx, options_for, write_configs

from csrm.serve.routes import ROWS

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
    "check_config": "`/v1/configs`",
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
        return self.name not in ("configs", "config", "check_config", "delete_config")

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


def is_let_by(surface: Surface, found: str) -> bool:
    """Whether a gateway lets pass what got this cell."""
    return found in {"200 NONE", "200 pass", "200 true"} or (
        surface.name == "ext_authz" and found.startswith("200")
    )
