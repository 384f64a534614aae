"""How long one score takes: csrm with its config cached, beside other engines without a cache.

All engines of a case run interleaved in one process on the same threads. csrm is timed from text to
verdict, each round with a turn it has not seen; baselines (baselines/) from token ids to reward.
Rows go to the caller, to a JSON file and to a chart of the same stem.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import csrm
from csrm.bench.baselines.interface import Baseline
from csrm.bench.baselines.onnxruntime_fp32 import OnnxruntimeFp32
from csrm.bench.baselines.onnxruntime_int8 import OnnxruntimeInt8
from csrm.bench.baselines.pytorch_eager import PytorchEager
from csrm.bench.floor import encoder_size, floor_flops
from csrm.bench.machine import environment, fp32_peak, rss_mb
from csrm.bench.report import write_chart
from csrm.bench.texts import CaseTexts, case_texts, open_renderer, parse_case, turn_ids
from csrm.bench.timing import Seconds, interleaved, median_ms, p99_ms, ratio_interval
from csrm.errors import BadArgument
from csrm.paths import default_artifact

VARIANTS = ("portable", "fused")
REFERENCE = "csrm-fused"
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
) -> list[dict[str, Any]]:
    """Rows of every case, batch size and engine.

    artifact: a model folder, None = the shipped one. cases: "CONFIG+TURN" in rendered tokens.
    batch: conversations in a call. Row: engine, case, batch, threads, cached, median_ms, p99_ms,
    floor_ms (csrm.bench.floor), rss_mb (growth of the process when the engine was loaded; None
    where unknown), and slower, slower_low, slower_high: median over csrm-fused's, 95% interval.
    json_path: {"env", "peak_gflop_s", "rows"} is written there and a chart to the same stem .png.
    Errors: BadArgument, and those of csrm.load.
    """
    if threads < 1 or rounds < 1 or any(size < 1 for size in batch):
        raise BadArgument("threads, rounds and every batch size must be at least 1")
    for case in cases:
        parse_case(case)
    folder = default_artifact() if artifact is None else Path(artifact)
    engines = Engines(folder, threads)
    peak = fp32_peak(threads)
    rows: list[dict[str, Any]] = []
    for case in cases:
        for size in batch:
            job = engines.job(case, size, rounds + WARMUP)
            seconds = interleaved(
                engines.actions(job), rounds=rounds, warmup=WARMUP, pause_s=PAUSE_S
            )
            peak = max(peak, fp32_peak(threads))  # a busy neighbour may have lowered the first
            flops = floor_flops(engines.size, *parse_case(case), size)
            rows += engines.rows(job, seconds, flops / peak * 1e3, progress)
    if json_path is not None:
        report = {"env": environment(), "peak_gflop_s": round(peak / 1e9, 1), "rows": rows}
        Path(json_path).write_text(json.dumps(report, indent=1) + "\n")
        write_chart(rows, Path(json_path).with_suffix(".png"))
    return rows


class Engines:
    """Every compared engine with its model loaded, and what loading cost in memory."""

    def __init__(self, artifact: Path, threads: int) -> None:
        self.threads = threads
        self.renderer = open_renderer(artifact)
        self.rss: dict[str, float | None] = {}
        self.scorers: dict[str, csrm.Scorer] = {}
        self.baselines: list[Baseline] = []
        small = self.job("64+64", 1, 1)
        for variant in VARIANTS:
            before = rss_mb()
            scorer = csrm.load(artifact, n_threads=threads, variant=variant)
            scorer.score(list(small.texts.rules), assistant_turn(small.texts.turn))
            self.scorers[f"csrm-{variant}"] = scorer
            self.rss[f"csrm-{variant}"] = growth_mb(before)
        manifest = json.loads((artifact / "manifest.json").read_text())
        model = artifact / manifest["variants"]["portable"]
        makers: tuple[Callable[[], Baseline], ...] = (
            lambda: PytorchEager(artifact, threads),
            lambda: OnnxruntimeFp32(model, threads),
            lambda: OnnxruntimeInt8(model, threads),
        )
        for make in makers:
            before = rss_mb()
            baseline = make()
            baseline.prepare(small.texts.config_ids, small.turns)
            baseline.run()
            self.baselines.append(baseline)
            self.rss[baseline.name] = growth_mb(before)
        self.size = encoder_size(artifact)

    def job(self, case: str, batch: int, n_calls: int) -> Job:
        """The texts and token ids of one measurement."""
        texts = case_texts(self.renderer, case)
        rng = random.Random(1)
        turns = [turn_ids(self.renderer, texts.permuted(rng)) for _ in range(batch)]
        return Job(case, batch, texts, turns, n_calls)

    def actions(self, job: Job) -> dict[str, Action]:
        """One timed call per engine."""
        actions: dict[str, Action] = {}
        for name, scorer in self.scorers.items():
            actions[name] = score_action(scorer, job)
        for baseline in self.baselines:
            baseline.prepare(job.texts.config_ids, job.turns)
            actions[baseline.name] = baseline.run
        return actions

    def rows(
        self, job: Job, seconds: dict[str, Seconds], floor_ms: float, progress: bool
    ) -> list[dict[str, Any]]:
        """The rows of one measurement; with `progress` also a line each on stderr."""
        rows = []
        for name, own in seconds.items():
            slower = ratio_interval(own, seconds[REFERENCE])
            row = {
                "engine": name,
                "case": job.case,
                "batch": job.batch,
                "threads": self.threads,
                "cached": name in self.scorers,
                "median_ms": round(median_ms(own), 3),
                "p99_ms": round(p99_ms(own), 3),
                "floor_ms": round(floor_ms, 3),
                "rss_mb": self.rss[name],
                "slower": round(slower.ratio, 3),
                "slower_low": round(slower.low, 3),
                "slower_high": round(slower.high, 3),
            }
            rows.append(row)
            if progress:
                sys.stderr.write(
                    f"{job.case} x{job.batch}  {name:18} median {row['median_ms']:8.2f} ms  "
                    f"p99 {row['p99_ms']:8.2f} ms  floor {row['floor_ms']:6.2f} ms\n"
                )
        return rows


def score_action(scorer: csrm.Scorer, job: Job) -> Action:
    """A call that scores a batch of turns never scored before, under a config that is cached."""
    rng = random.Random(2)
    config = csrm.SafetyConfig.from_rules(job.texts.rules)
    batches = iter(
        [
            [assistant_turn(job.texts.permuted(rng)) for _ in range(job.batch)]
            for _ in range(job.n_calls)
        ]
    )

    def score_one() -> object:
        return scorer.score(config, next(batches)[0])

    def score_many() -> object:
        return scorer.score_batch(config, next(batches))

    scorer.score(config, assistant_turn(job.texts.turn))
    return score_one if job.batch == 1 else score_many


def assistant_turn(text: str) -> list[dict[str, str]]:
    """A conversation of one assistant turn."""
    return [{"role": "assistant", "content": text}]


def growth_mb(before: float | None) -> float | None:
    """Growth of resident memory since `before`."""
    now = rss_mb()
    return None if before is None or now is None else round(now - before, 1)
