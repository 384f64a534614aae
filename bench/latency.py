"""How long one score takes: csrm with a cached config and without, beside engines without a cache.

All engines of a case take turns in one run on the same number of threads. csrm is timed from text
to verdict, each round with a turn it has not seen; baselines (baselines/), each in a process of its
own (remote.py), from token ids to reward and only after they gave csrm's rewards (agreement.py).
Rows go to the caller, to a JSON file and to a chart of the same stem.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import csrm
from csrm.bench.agreement import Agreement
from csrm.bench.baselines.interface import plain_rows
from csrm.bench.cuda_run import GpuFloor, require_cuda, with_cuda_variant
from csrm.bench.engines import EngineSpec, how_to_install, interpreter_of, selected
from csrm.bench.floor import CpuFloor, encoder_size
from csrm.bench.machine import environment
from csrm.bench.memory import growth_mb, rss_mb
from csrm.bench.remote import RemoteBaseline
from csrm.bench.report import write_chart
from csrm.bench.texts import CaseTexts, case_texts, open_renderer, parse_case, turn_ids
from csrm.bench.timing import Seconds, interleaved, median_ms, p99_ms, ratio_interval
from csrm.errors import BadArgument, Unsupported
from csrm.paths import default_artifact
from csrm.progress_bar import progress_bar
from csrm.scorer import Device

# By device: name, variant, and whether the config stays cached between scores.
SCORERS = {
    "cpu": (
        ("csrm-portable", "portable", True),
        ("csrm-fused", "fused", True),
        ("csrm-fused-uncached", "fused", False),
    ),
    "cuda": (
        ("csrm-cuda-fp32", "portable", True),
        ("csrm-cuda", "cuda", True),
        ("csrm-cuda-uncached", "cuda", False),
    ),
}
REFERENCE = {"cpu": "csrm-fused", "cuda": "csrm-cuda"}  # what others are slower than
EXACT = {"cpu": "csrm-fused", "cuda": "csrm-cuda-fp32"}  # whose rewards the others must give
WARMUP = 5
# Lets the threads of the last engine go to sleep before the next one starts.
PAUSE_S = 0.005

Action = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """One case at one batch size, ready to run."""

    case: str
    batch: int
    texts: CaseTexts
    turns: list[list[int]]  # token ids, for the baselines
    n_calls: int  # how often an engine will be called


def run(
    artifact: str | None,
    cases: Sequence[str] = ("256+128", "64+64"),
    batch: Sequence[int] = (1,),
    threads: int = 2,
    rounds: int = 50,
    json_path: str | None = None,
    progress: bool = True,
    engines: Sequence[str] = ("installed",),
    environments: str | None = None,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Rows of every case, batch size and engine.

    artifact: a model folder, None = the shipped one. cases: "CONFIG+TURN" in rendered tokens.
    batch: conversations in a call, all under the case's config. engines: names of baselines,
    "installed" (in this environment) or "all" (those in `environments` too); csrm always runs.
    environments: a folder of virtual environments (csrm.bench.engines). What is not installed or
    not supported is skipped, and said on stderr. device: "cpu", or "cuda" with its own engines and
    floor (csrm.bench.cuda_run); an artifact without a cuda variant is given one for the run.

    Row: engine, case, batch, threads, cached, median_ms, p99_ms, floor_ms (csrm.bench.floor),
    rss_mb (growth of the engine's process when its model was loaded and run; None where unknown),
    and slower, slower_low, slower_high: median over csrm-fused's (csrm-cuda's), 95% interval; on
    "cuda" floor_flops and floor_bytes too. json_path: {"env", "device", "engines", "skipped",
    "peak_gflop_s" (of the GPU also "peak_gb_s" and "gpu"), "rows"} is written there and a chart to
    the same stem .png. Errors: BadArgument, those of csrm.load, EngineFailed for an engine that
    fails or disagrees with csrm, NoDevice when device "cuda" cannot be had.
    """
    if threads < 1 or rounds < 1 or any(size < 1 for size in batch):
        raise BadArgument("threads, rounds and every batch size must be at least 1")
    for case in cases:
        parse_case(case)
    wanted = selected(engines, device)
    folder = default_artifact() if artifact is None else Path(artifact)
    others = Path(environments) if environments is not None and "installed" not in engines else None
    rows: list[dict[str, Any]] = []
    with ExitStack() as open_things:
        floor: CpuFloor | GpuFloor
        if device == "cuda":
            require_cuda()
            made = Path(open_things.enter_context(tempfile.TemporaryDirectory()))
            folder = with_cuda_variant(folder, made)
            floor = GpuFloor(encoder_size(folder))
        else:
            floor = CpuFloor(encoder_size(folder), threads)
        loaded = open_things.enter_context(Engines(folder, threads, device))
        with progress_bar("loading engines", len(wanted), is_shown=progress) as advance:
            for spec in wanted:
                loaded.add(spec, interpreter_of(spec, others))
                advance(1)
        for case in cases:
            for size in batch:
                job = loaded.job(case, size, rounds + WARMUP)
                seconds = measure(loaded.actions(job), job, rounds, progress)
                rows += loaded.rows(job, seconds)
                floor.set(rows)
                if progress:
                    announce(rows[-len(seconds) :])
    if json_path is not None:
        report = {
            "env": environment(),
            "device": device,
            "engines": loaded.facts,
            "skipped": loaded.skipped,
            **floor.facts(),
            "rows": rows,
        }
        Path(json_path).write_text(json.dumps(report, indent=1) + "\n")
        write_chart(rows, Path(json_path).with_suffix(".png"))
    return rows


def measure(
    actions: dict[str, Action], job: Job, rounds: int, progress: bool
) -> dict[str, Seconds]:
    """Seconds [rounds] of every action, which take turns."""
    total = len(actions) * job.n_calls
    with progress_bar(f"{job.case} x{job.batch}", total, is_shown=progress) as advance:
        return interleaved(
            actions,
            rounds=rounds,
            warmup=WARMUP,
            pause_s=PAUSE_S,
            after_call=lambda: advance(1),
        )


def announce(rows: list[dict[str, Any]]) -> None:
    """One line about each row on stderr."""
    for row in rows:
        sys.stderr.write(
            f"{row['case']} x{row['batch']}  {row['engine']:20} median {row['median_ms']:8.2f} ms  "
            f"p99 {row['p99_ms']:8.2f} ms  floor {row['floor_ms']:6.2f} ms\n"
        )


class Engines:
    """Every compared engine with its model loaded, and what loading cost in memory.

    `facts`: versions and agreement of each baseline; `skipped`: why there is none. A context
    manager that ends the baselines' processes.
    """

    def __init__(self, artifact: Path, threads: int, device: str = "cpu") -> None:
        self.threads = threads
        self.own = SCORERS[device]
        self.reference = REFERENCE[device]
        self.artifact = artifact
        self.renderer = open_renderer(artifact)
        self.rss: dict[str, float | None] = {}
        self.scorers: dict[str, csrm.Scorer] = {}
        self.baselines: list[RemoteBaseline] = []
        self.facts: dict[str, dict[str, Any]] = {}
        self.skipped: dict[str, str] = {}
        small = self.job("64+64", 1, 1)
        for name, variant, _ in self.own:
            before = rss_mb()
            scorer = csrm.load(
                artifact, n_threads=threads, variant=variant, device=cast("Device", device)
            )
            scorer.score(list(small.texts.rules), assistant_turn(small.texts.turn))
            self.scorers[name] = scorer
            self.rss[name] = growth_mb(before, rss_mb())
        self.agreement = Agreement(artifact, self.scorers[EXACT[device]])

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *error: object) -> None:
        for baseline in self.baselines:
            baseline.close()

    def add(self, spec: EngineSpec, python: Path | None) -> None:
        """Starts a baseline and checks its rewards. Errors: those of `Agreement.check`."""
        if python is None:
            self.skip(spec.name, f"not installed; {how_to_install(spec)}")
            return
        try:
            baseline = RemoteBaseline(spec, python, self.artifact, self.threads)
        except Unsupported as error:
            self.skip(spec.name, error.message.removeprefix(f"{spec.name}: "))
            return
        self.baselines.append(baseline)
        rms = self.agreement.check(spec.name, baseline, spec.tolerance)
        self.facts[spec.name] = {"versions": baseline.versions, "reward_rms": rms}

    def skip(self, name: str, reason: str) -> None:
        """Says that an engine is not measured."""
        self.skipped[name] = reason
        sys.stderr.write(f"SKIPPED {name}: {reason}\n")

    def job(self, case: str, batch: int, n_calls: int) -> Job:
        """The texts and token ids of one measurement."""
        texts = case_texts(self.renderer, case)
        rng = random.Random(1)
        turns = [turn_ids(self.renderer, texts.permuted(rng)) for _ in range(batch)]
        return Job(case, batch, texts, turns, n_calls)

    def actions(self, job: Job) -> dict[str, Action]:
        """One timed call per engine that can run the job."""
        actions: dict[str, Action] = {}
        for name, _, cached in self.own:
            actions[name] = score_action(self.scorers[name], job, cached)
        rows = plain_rows(job.texts.config_ids, job.turns)
        for baseline in self.baselines:
            try:
                baseline.prepare(rows)
            except Unsupported as error:
                reason = error.message.removeprefix(f"{baseline.name}: ")
                self.skip(f"{baseline.name} {job.case}", reason)
                continue
            actions[baseline.name] = baseline.measure
        return actions

    def rows(self, job: Job, seconds: dict[str, Seconds]) -> list[dict[str, Any]]:
        """The rows of one measurement, without their floor."""
        cached = {name for name, _, is_cached in self.own if is_cached}
        rss = {**self.rss, **{baseline.name: baseline.rss_mb for baseline in self.baselines}}
        rows = []
        for name, own in seconds.items():
            slower = ratio_interval(own, seconds[self.reference])
            row = {
                "engine": name,
                "case": job.case,
                "batch": job.batch,
                "threads": self.threads,
                "cached": name in cached,
                "median_ms": round(median_ms(own), 3),
                "p99_ms": round(p99_ms(own), 3),
                "rss_mb": rss[name],
                "slower": round(slower.ratio, 3),
                "slower_low": round(slower.low, 3),
                "slower_high": round(slower.high, 3),
            }
            rows.append(row)
        return rows


def score_action(scorer: csrm.Scorer, job: Job, cached: bool) -> Action:
    """A call that scores a batch of turns never scored before.

    cached: under a config that is in the cache; else the cache is emptied first, within the call.
    """
    rng = random.Random(2)
    config = csrm.SafetyConfig.from_rules(job.texts.rules)
    batches = iter(
        [
            [assistant_turn(job.texts.permuted(rng)) for _ in range(job.batch)]
            for _ in range(job.n_calls)
        ]
    )

    def score() -> object:
        if not cached:
            scorer.clear_cache()
        conversations = next(batches)
        if job.batch == 1:
            return scorer.score(config, conversations[0])
        return scorer.score_batch(config, conversations)

    scorer.score(config, assistant_turn(job.texts.turn))
    return score


def assistant_turn(text: str) -> list[dict[str, str]]:
    """A conversation of one assistant turn."""
    return [{"role": "assistant", "content": text}]
