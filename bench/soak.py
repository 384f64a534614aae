"""Whether a server under load survives its operators: reloads, model swaps, drains, kills.

Clients in a closed loop send turns while configs are rewritten (SIGHUP), the model's link is set to
another artifact, the server is told to drain (SIGTERM) and is killed (SIGKILL). Every answer must
be the golden score, taken in process, of the config and model that it names. Rows go to the caller
and to a JSON file. Not: speed under load (load.py).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import csrm
from csrm.bench.compared import assistant_turn
from csrm.bench.machine import environment
from csrm.bench.server_process import ServerProcess
from csrm.bench.soak_traffic import Golden, Seen, Traffic, golden_of
from csrm.bench.texts import case_texts, open_renderer
from csrm.errors import BadArgument
from csrm.paths import default_artifact
from csrm.progress_bar import progress_bar

CASE = "64+32"  # tokens of a config and of a turn
N_TURNS = 16
N_CLIENTS = 8
N_BEFORE = 24  # answers before a drain or a kill
_SWITCH_TIMEOUT_S = 60.0
_ROOM = ("--deadline-s", "60")

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Site:
    """The files of a soak: a config that is rewritten, a link to one of two artifacts."""

    folder: Path
    config: Path
    model: Path
    artifacts: tuple[Path, Path]
    configs: tuple[csrm.SafetyConfig, csrm.SafetyConfig]
    bodies: tuple[bytes, ...]
    golden: Golden
    threads: int

    def use_config(self, number: int) -> str:
        """Puts config 0 or 1 in place in one step; its digest."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(self.configs[number].to_yaml(), encoding="utf-8")
        fresh.replace(self.config)
        return self.configs[number].digest()

    def use_model(self, number: int) -> None:
        """Sets the link to artifact 0 or 1 in one step."""
        fresh = self.folder / "fresh"
        fresh.symlink_to(self.artifacts[number], target_is_directory=True)
        os.replace(fresh, self.model)

    def start(self, port: int = 0) -> ServerProcess:
        """A server on these files."""
        return ServerProcess(
            self.folder, self.config, self.model, self.threads, port=port, options=_ROOM
        )

    def traffic(self, port: int) -> Traffic:
        """Clients of that port."""
        return Traffic(port, self.bodies, self.golden, N_CLIENTS)


def run(
    artifact: str | None = None,
    reloads: int = 100,
    swaps: int = 20,
    drains: int = 50,
    kills: int = 5,
    threads: int = 1,
    json_path: str | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """A row for each of reloads, swaps, drains and kills whose number is not 0.

    Every row: what, n, answers, errors (of a kind that must not be), mismatches (with the golden
    score), lost (accepted and not answered). reloads, swaps: switch_ms and max_switch_ms, from the
    signal to the first answer under the new. drains: refused, unanswered (sent when nobody accepted
    any more). kills: ready_s and max_ready_s, from the new process to its first good answer.
    `is_good` says whether a row has no loss. Errors: BadArgument, EngineFailed, those of csrm.load.
    """
    if min(reloads, swaps, drains, kills) < 0 or threads < 1:
        raise BadArgument("the numbers must be at least 0 and threads at least 1")
    parts = {"reloads": reloads, "swaps": swaps, "drains": drains, "kills": kills}
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        progress_bar("soak", sum(parts.values()), is_shown=progress) as advance,
    ):
        site = make_site(Path(folder), artifact, threads)
        if reloads or swaps:
            rows += switched_rows(site, reloads, swaps, advance)
        if drains:
            rows.append(drains_row(site, drains, advance))
        if kills:
            rows.append(kills_row(site, kills, advance))
    for row in rows if progress else ():
        sys.stderr.write(f"{json.dumps(row)}\n")
    if json_path is not None:
        report = {"env": environment(), "rows": rows}
        Path(json_path).write_text(json.dumps(report, indent=1) + "\n")
    return rows


def is_good(row: dict[str, Any]) -> bool:
    """Whether nothing was lost or wrong, and something was seen at all."""
    return row["answers"] > 0 and not any(row[name] for name in ("errors", "mismatches", "lost"))


def make_site(folder: Path, artifact: str | None, threads: int) -> Site:
    """Two configs, two artifacts that differ in their calibration, and all scores of both."""
    source = default_artifact() if artifact is None else Path(artifact)
    other = folder / "other"
    shutil.copytree(source, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["calibration"]["b"] += 1.0
    (other / "manifest.json").write_text(json.dumps(manifest))
    renderer = open_renderer(source)
    cases = [case_texts(renderer, CASE, seed=seed) for seed in (0, 1)]
    configs = [csrm.SafetyConfig.from_rules(case.rules, id="soak") for case in cases]
    rng = random.Random(0)
    turns = [assistant_turn(cases[0].permuted(rng)) for _ in range(N_TURNS)]
    site = Site(
        folder,
        folder / "soak.yaml",
        folder / "model",
        (source.resolve(), other),
        (configs[0], configs[1]),
        tuple(json.dumps({"messages": turn}).encode() for turn in turns),
        golden_of([source, other], configs, turns, threads),
        threads,
    )
    site.use_config(0)
    site.use_model(0)
    return site


def switched_rows(site: Site, reloads: int, swaps: int, advance: Advance) -> list[dict[str, Any]]:
    """Configs and then models are replaced under one server."""
    rows = []
    with site.start() as server:
        server.wait_ready()
        for what, n in (("reloads", reloads), ("swaps", swaps)):
            if not n:
                continue
            with site.traffic(server.port) as traffic:
                seconds = []
                for number in range(1, n + 1):
                    if what == "reloads":
                        wanted = site.use_config(number % 2)
                    else:
                        site.use_model(number % 2)
                        wanted = site.golden.artifacts[number % 2]
                    seconds.append(_switch(server, traffic, wanted))
                    advance(1)
                seen = traffic.stop()
            rows.append(
                {
                    **_row(what, n, seen),
                    "lost": seen.n_unanswered,
                    "switch_ms": round(statistics.median(seconds) * 1e3, 1),
                    "max_switch_ms": round(max(seconds) * 1e3, 1),
                }
            )
    return rows


def _switch(server: ServerProcess, traffic: Traffic, wanted: str) -> float:
    """Seconds from the signal to an answer that names the digest `wanted`."""
    traffic.expect(wanted)
    n_before = len(server.named("reloaded"))
    begun = time.perf_counter()
    server.send(signal.SIGHUP)
    server.wait_for(lambda: len(server.named("reloaded")) > n_before, _SWITCH_TIMEOUT_S)
    server.wait_for(lambda: traffic.seen_at is not None, _SWITCH_TIMEOUT_S)
    return (traffic.seen_at or begun) - begun


def drains_row(site: Site, n: int, advance: Advance) -> dict[str, Any]:
    """Servers that are told to end while every client waits for an answer."""
    whole, lost = Seen(), 0
    for _ in range(n):
        with site.start() as server:
            server.wait_ready()
            with site.traffic(server.port) as traffic:
                server.wait_for(lambda t=traffic: t.n_answers >= N_BEFORE)  # type: ignore[misc]
                traffic.is_ending = True
                server.send(signal.SIGTERM)
                status = server.wait()
                seen = traffic.stop()
            lost += abs(status) + _lost(server, seen)
        whole.add(seen)
        advance(1)
    return {
        **_row("drains", n, whole),
        "lost": lost,
        "refused": whole.n_refused,
        "unanswered": whole.n_unanswered,
    }


def _lost(server: ServerProcess, seen: Seen) -> int:
    """Requests that the server accepted and that have no answer, by both sides' books."""
    served = {line.get("trace_id") for line in server.named("request") if line["outcome"] == "ok"}
    (stopped,) = server.named("stopped")
    return len(served - seen.answered) + int(stopped["abandoned"])


def kills_row(site: Site, n: int, advance: Advance) -> dict[str, Any]:
    """Servers that are killed under load and started again on the same port."""
    whole, ready = Seen(), []
    server = site.start()
    try:
        server.wait_ready()
        for _ in range(n):
            with site.traffic(server.port) as traffic:
                server.wait_for(lambda t=traffic: t.n_answers >= N_BEFORE)  # type: ignore[misc]
                traffic.is_ending = True
                server.kill()
                seen = traffic.stop()
            seen.n_unanswered = 0  # what was in flight is gone: that is what a kill does
            whole.add(seen)
            server = site.start(server.port)
            server.wait_ready()
            with site.traffic(server.port) as traffic:
                server.wait_for(lambda t=traffic: t.n_answers >= 1)  # type: ignore[misc]
                ready.append(time.monotonic() - server.started)
                whole.add(traffic.stop())
            advance(1)
    finally:
        server.kill()
    return {
        **_row("kills", n, whole),
        "lost": whole.n_unanswered,
        "ready_s": round(statistics.median(ready), 2),
        "max_ready_s": round(max(ready), 2),
    }


def _row(what: str, n: int, seen: Seen) -> dict[str, Any]:
    return {
        "what": what,
        "n": n,
        "answers": seen.n_answers,
        "errors": sum(seen.errors.values()),
        "kinds": dict(seen.errors),
        "mismatches": seen.n_mismatches,
    }
