"""The engines of a latency run with their models loaded: csrm's variants and the baselines.

What it is: what is called for a case, checked to be the same model before (agreement.py) and on the
very rows that are timed. A baseline that fails is dropped, not the run. Not: timing and the report
(latency.py).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

import csrm
from csrm.bench.agreement import Agreement, checked, rewards_of
from csrm.bench.engines import BF16, FP16, FP32, Arithmetic, EngineSpec, how_to_install, refusal
from csrm.bench.floor import Size
from csrm.bench.memory import growth_mb, rss_mb
from csrm.bench.own_engines import (
    EXACT,
    OPTIMISED,
    arithmetic_of,
    default_variant,
    own_engines,
    tolerance_of,
)
from csrm.bench.prompts import open_prompts
from csrm.bench.remote import RemoteBaseline
from csrm.bench.texts import CaseTexts
from csrm.bench.timing import Seconds, median_ms, p99_ms, ratio_interval
from csrm.errors import EngineFailed, EngineUnavailable, Unsupported
from csrm.scorer import Device

CACHED = "-cached"  # ends the name of a baseline that is given the config's keys and values
# Weights of an engine that computes in fp32 on a GPU: beyond them it leaves no room for the others.
MOST_FP32_WEIGHTS = 3_000_000_000
FP32_ON_GPU = ("csrm-cuda-fp32", "onnxruntime-cuda")

Action = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """One case at one batch size, ready to run."""

    case: str
    batch: int
    texts: CaseTexts
    turns: list[str]  # of the baselines; csrm gets new ones in each call
    n_calls: int  # how often an engine will be called


@dataclass(frozen=True)
class Subject:
    """The model that is measured."""

    artifact: Path
    size: Size
    backbone: str
    shape: str | None  # of random weights (shapes.py); None = an artifact's own


class Dropped(EngineFailed):
    """A baseline failed while it was timed; without it the others can be."""


class Compared:
    """Every compared engine with its model loaded, and what loading cost in memory.

    `facts`: versions and agreement of each engine; `skipped`: why there is none; `failed`: which of
    them failed; `reference`: csrm's engine that others are slower than, of the variant that csrm
    takes by itself, known after `load`. `start`, `load` and `check` in that order: baselines load
    meanwhile. A context manager that ends their processes. Not thread-safe.
    """

    def __init__(self, subject: Subject, threads: int, device: str = "cpu") -> None:
        self.subject = subject
        self.threads = threads
        self.device = device
        self.prompts = open_prompts(subject.artifact)
        self.rss: dict[str, float | None] = {}
        self.scorers: dict[str, csrm.Scorer] = {}  # by variant
        self.started: list[tuple[EngineSpec, Future[RemoteBaseline]]] = []
        self.baselines: list[tuple[EngineSpec, RemoteBaseline]] = []
        self.facts: dict[str, dict[str, Any]] = {}
        self.skipped: dict[str, str] = {}
        self.failed: list[str] = []
        is_large = subject.size.layers * subject.size.matrices > MOST_FP32_WEIGHTS
        self.too_large = FP32_ON_GPU if is_large else ()
        engines = own_engines(subject.artifact, device)
        self.own = [own for own in engines if own.name not in self.too_large]
        self.reference = ""
        variants = [own.variant for own in self.own]
        self.exact = EXACT[device] if EXACT[device] in variants else variants[0]
        # Without fp32 there is only csrm's own fp16 to compare with.
        self.least_tolerance = FP32 if self.exact == EXACT[device] else BF16

    def __enter__(self) -> Compared:
        return self

    def __exit__(self, *error: object) -> None:
        for _, future in self.started:
            if future.exception() is None:
                future.result().close()

    def load_own(self, name: str, variant: str) -> None:
        """Loads a variant of csrm, once; engines that differ in caching alone share it."""
        if variant not in self.scorers:
            before = rss_mb()
            self.scorers[variant] = csrm.load(
                self.subject.artifact,
                n_threads=self.threads,
                variant=variant,
                device=cast("Device", self.device),
            )
            small = self.prompts.case(self.prompts.agreement_case)
            self.scorers[variant].score(list(small.rules), assistant_turn(small.turn))
            self.rss[variant] = growth_mb(before, rss_mb())
        self.rss[name] = self.rss[variant]

    def start(self, wanted: Sequence[tuple[EngineSpec, Path | None]]) -> None:
        """Starts baselines, all at once; those that cannot be compared are skipped.

        wanted: with the Python that has the engine.
        """
        pool = ThreadPoolExecutor(max(1, len(wanted)))
        for spec, python in wanted:
            reason = self.refusal(spec, python)
            if reason or python is None:
                self.skip(spec.name, reason)
                continue
            arguments = (spec, python, self.subject.artifact, self.threads)
            self.started.append((spec, pool.submit(RemoteBaseline, *arguments)))
        pool.shutdown(wait=False)

    def load(self) -> Agreement:
        """Loads csrm's variants, and has them agree. Errors: those of csrm.load, EngineFailed."""
        for name, variant, _ in self.own:
            self.load_own(name, variant)
        self.reference = f"csrm-{default_variant(self.subject.artifact, self.device)}"
        agreement = Agreement(self.subject.artifact, self.scorers[self.exact])
        for name, variant, _ in self.own:
            if variant != self.exact:
                limit = tolerance_of(variant)
                rms = agreement.check_scorer(name, self.scorers[variant], limit)
                self.facts[name] = {"reward_rms": rms}
        return agreement

    def check(self, agreement: Agreement, advance: Callable[[int], object]) -> None:
        """Checks the rewards of the started baselines, one after another.

        advance: called with 1 after each.
        """
        for spec, future in self.started:
            self.check_one(agreement, spec, future)
            advance(1)

    def refusal(self, spec: EngineSpec, python: Path | None) -> str:
        """Why a baseline is not even started; "" when it is."""
        reason = refusal(spec, self.subject.backbone, is_random=self.subject.shape is not None)
        if not reason and spec.name in self.too_large:
            reason = "its fp32 weights would leave no room on the GPU for the others"
        if not reason and python is None:
            reason = f"not installed; {how_to_install(spec)}"
        return reason

    def check_one(
        self, agreement: Agreement, spec: EngineSpec, future: Future[RemoteBaseline]
    ) -> None:
        """Takes a baseline that gives csrm's rewards; says so of one that does not."""
        baseline = None
        try:
            baseline = future.result()
            tolerance = max(spec.tolerance, self.least_tolerance)
            facts = {"versions": baseline.versions, "reward_std": agreement.spread}
            facts["reward_rms"] = agreement.check(spec.name, baseline, tolerance)
            if spec.is_caching:
                name = f"{spec.name}{CACHED}"
                facts["cached_rms"] = agreement.check_cached(name, baseline, tolerance)
        except Unsupported as error:
            self.skip(spec.name, error.message.removeprefix(f"{spec.name}: "))
        except (EngineFailed, EngineUnavailable) as error:
            self.fail(spec.name, error.message)
        else:
            self.facts[spec.name] = facts
            self.baselines.append((spec, baseline))
            return
        if baseline is not None:
            baseline.close()

    def skip(self, name: str, reason: str) -> None:
        """Says that an engine is not measured."""
        self.skipped[name] = reason
        sys.stderr.write(f"SKIPPED {name}: {reason}\n")

    def fail(self, name: str, reason: str) -> None:
        """Says that an engine is not measured because it failed."""
        self.failed.append(name)
        self.skipped[name] = f"failed: {reason}"
        sys.stderr.write(f"FAILED {name}: {reason}\n")

    def job(self, case: str, batch: int, n_calls: int) -> Job:
        """The texts of one measurement. Errors: BadArgument, the case is too short."""
        texts = self.prompts.case(case)
        rng = random.Random(1)
        return Job(case, batch, texts, [texts.permuted(rng) for _ in range(batch)], n_calls)

    def actions(self, job: Job) -> dict[str, Action]:
        """One timed call per engine that can run the job."""
        actions: dict[str, Action] = {}
        for name, variant, cached in self.own:
            actions[name] = score_action(self.scorers[variant], job, cached)
        optimised = self.scorers[OPTIMISED[self.device]]
        expected = rewards_of(optimised, job.texts.rules, job.turns)
        for spec, baseline in list(self.baselines):
            try:
                own = self.baseline_actions(spec, baseline, job, expected)
            except EngineFailed as error:
                self.drop(spec, baseline, job, error)
                continue
            for name, action in own.items():
                actions[name] = partial(self.timed, action, spec, baseline, job)
        return actions

    def timed(self, action: Action, spec: EngineSpec, baseline: RemoteBaseline, job: Job) -> object:
        """One call of a baseline. Errors: Dropped when it failed, and is not measured further."""
        try:
            return action()
        except EngineFailed as error:
            self.drop(spec, baseline, job, error)
            raise Dropped(error.message) from error

    def drop(
        self, spec: EngineSpec, baseline: RemoteBaseline, job: Job, error: EngineFailed
    ) -> None:
        """Ends a baseline that failed at a job."""
        self.fail(f"{spec.name} {job.case} x{job.batch}", error.message)
        self.baselines.remove((spec, baseline))
        baseline.close()

    def baseline_actions(
        self, spec: EngineSpec, baseline: RemoteBaseline, job: Job, expected: Any
    ) -> dict[str, Action]:
        """The calls of one baseline: config and turns read together, and over a given prefix.

        A decoder's rewards are csrm's in both, an encoder's in the second (docs/bench.md). Errors:
        EngineFailed, also when they are not.
        """
        actions: dict[str, Action] = {}
        tolerance = max(spec.tolerance, self.least_tolerance, FP16 if self.device == "cuda" else 0)
        try:
            baseline.prepare(self.prompts.plain_rows(job.texts, job.turns))
            if self.subject.backbone == "decoder":
                checked(spec.name, np.subtract(baseline.run(), expected), tolerance)
            actions[spec.name] = baseline.measure
        except Unsupported as error:
            self.skip_case(spec.name, job, error)
        if not spec.is_caching:
            return actions
        name = f"{spec.name}{CACHED}"
        try:
            baseline.prepare_cached(self.prompts.cached_rows(job.texts, job.turns))
            checked(name, np.subtract(baseline.run_cached(), expected), tolerance)
            actions[name] = baseline.measure_cached
        except Unsupported as error:
            self.skip_case(name, job, error)
        return actions

    def skip_case(self, name: str, job: Job, error: Unsupported) -> None:
        """Says that an engine cannot run one job."""
        engine = name.removesuffix(CACHED)
        self.skip(f"{name} {job.case} x{job.batch}", error.message.removeprefix(f"{engine}: "))

    def rows(self, job: Job, seconds: dict[str, Seconds]) -> list[dict[str, Any]]:
        """The rows of one measurement, without their floor."""
        cached = {own.name for own in self.own if own.is_cached}
        arithmetic: dict[str, Arithmetic] = {
            **{own.name: arithmetic_of(own.variant) for own in self.own},
            **{spec.name: spec.arithmetic for spec, _ in self.baselines},
        }
        of_baselines = {spec.name: baseline.rss_mb for spec, baseline in self.baselines}
        rss = {**self.rss, **of_baselines}
        rows = []
        for name, own in seconds.items():
            slower = ratio_interval(own, seconds[self.reference])
            engine = name.removesuffix(CACHED)
            row = {
                "engine": name,
                "arithmetic": arithmetic[engine],
                "shape": self.subject.shape,
                "weights": "artifact" if self.subject.shape is None else "random",
                "case": job.case,
                "batch": job.batch,
                "threads": self.threads,
                "cached": name in cached or name.endswith(CACHED),
                "median_ms": round(median_ms(own), 3),
                "p99_ms": round(p99_ms(own), 3),
                "rss_mb": rss[engine],
                "slower": round(slower.ratio, 3),
                "slower_low": round(slower.low, 3),
                "slower_high": round(slower.high, 3),
            }
            rows.append(row)
        return rows


def score_action(scorer: csrm.Scorer, job: Job, cached: bool) -> Action:
    """A call that scores a batch of turns never scored before.

    cached: under a config that is in the cache; else the cache is emptied first, within the call,
    which leaves the config there.
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
