"""How long one score takes: csrm with a cached config and without, beside other engines.

All engines of a case take turns in one run on the same number of threads. csrm is timed from text
to verdict, each round with a turn it has not seen; baselines (baselines/), each in a process of its
own (remote.py), from token ids to reward, with the config's keys and values given and without, and
only after they gave csrm's rewards (agreement.py). Rows go to the caller, to a JSON file and to a
chart of the same stem. Not: the engines' loading and checking (compared.py).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from csrm.bench.compared import CACHED, Action, Compared, Dropped, Job, Subject
from csrm.bench.cuda_run import GpuFloor, require_cuda
from csrm.bench.engines import interpreter_of, selected
from csrm.bench.floor import CpuFloor, model_size
from csrm.bench.machine import environment
from csrm.bench.own_engines import UNCACHED, with_variant
from csrm.bench.random_artifact import write_random_artifact
from csrm.bench.report import write_chart
from csrm.bench.shapes import shape_named
from csrm.bench.texts import parse_case
from csrm.bench.timing import Seconds, interleaved
from csrm.errors import BadArgument, EngineFailed
from csrm.paths import default_artifact
from csrm.progress_bar import progress_bar

WARMUP = 5
# Lets the threads of the last engine go to sleep before the next one starts.
PAUSE_S = 0.005


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
    shape: str | None = None,
    shape_folder: str | None = None,
    int8: bool = False,
    lead: int = 0,
) -> list[dict[str, Any]]:
    """Rows of every case, batch size and engine.

    artifact: a model folder, None = the shipped one. cases: "CONFIG+TURN" in rendered tokens; one
    that the model's layout cannot render is skipped. batch: conversations in a call, all under the
    case's config. engines: names of baselines, "installed" (in this environment) or "all" (those in
    `environments` too); csrm always runs. environments: a folder of virtual environments
    (csrm.bench.engines). What is not installed or not supported is skipped, and said on stderr.
    device: "cpu", or "cuda" with its own engines and floor (csrm.bench.cuda_run); an artifact
    without a cuda variant is given one for the run. shape: instead of an artifact, one of
    csrm.bench.shapes with random weights; it is kept in shape_folder, or lost where that is None.
    int8: the int8 variant is timed even if the artifact has none, and made for the run. lead: calls
    that an engine makes in its turn before the one that is timed; 0: each time is that of an engine
    whose caches the others have emptied, more: of one that is in use.

    Row: engine, arithmetic (of its matrices), shape, weights ("random" or "artifact"), case, batch,
    threads, cached, median_ms, p99_ms, floor_ms (csrm.bench.floor, of a cached row or of one that
    is not, in the engine's arithmetic), floor_gop_s (on "cpu": the peaks that it stands on), rss_mb
    (growth of the engine's process when its model was loaded and run; None where unknown), and
    slower, slower_low, slower_high: median over the "reference" engine's, 95% interval; on "cuda"
    floor_flops and floor_bytes too. json_path: {"env", "device", "lead", "reference" (csrm in the
    variant that it takes by itself), "engines", "skipped", "peak_gflop_s" (of the GPU also
    "peak_gb_s" and "gpu"), "summary", "rows"} is written there and a chart to the same stem .png.
    Errors:
    BadArgument, those of csrm.load, NoDevice when device "cuda" cannot be had, BadArtifact when
    there can be no int8 variant, and at the end EngineFailed when a baseline failed or disagreed
    with csrm.
    """
    if threads < 1 or rounds < 1 or lead < 0 or any(size < 1 for size in batch):
        raise BadArgument(
            "threads, rounds and every batch size must be at least 1, lead at least 0"
        )
    if artifact is not None and shape is not None:
        raise BadArgument("give an artifact or a shape, not both")
    if int8 and device == "cuda":
        raise BadArgument("the int8 variant runs on the CPU only")
    for case in cases:
        parse_case(case)
    sizes = None if shape is None else shape_named(shape)
    wanted = selected(engines, device)
    others = Path(environments) if environments is not None and "installed" not in engines else None
    rows: list[dict[str, Any]] = []
    with ExitStack() as open_things:
        if device == "cuda":
            require_cuda()
        made = Path(open_things.enter_context(tempfile.TemporaryDirectory()))
        if shape is not None and sizes is not None:
            kept = made if shape_folder is None else Path(shape_folder)
            folder = write_random_artifact(sizes, kept / shape, shape)
        else:
            folder = default_artifact() if artifact is None else Path(artifact)
        if int8 or device == "cuda":
            variant = "cuda" if device == "cuda" else "int8"
            folder = with_variant(folder, made / variant, variant)
        subject = subject_of(folder, shape)
        floor = GpuFloor(subject.size) if device == "cuda" else CpuFloor(subject.size, threads)
        compared = open_things.enter_context(Compared(subject, threads, device))
        compared.start([(spec, interpreter_of(spec, others)) for spec in wanted])
        agreement = compared.load()
        n_started = len(compared.started)
        with progress_bar("loading engines", n_started, is_shown=progress) as advance:
            compared.check(agreement, advance)
        for job in jobs(compared, cases, batch, (rounds + WARMUP) * (lead + 1)):
            seconds = measure(compared, job, rounds, lead, progress)
            rows += compared.rows(job, seconds)
            floor.set(rows)
            if progress:
                announce(rows[-len(seconds) :])
    summary = summarised(rows, compared.reference)
    if progress:
        sys.stderr.writelines(f"{line}\n" for line in map(sentence, summary))
    if json_path is not None:
        report = {
            "env": environment(),
            "device": device,
            "reference": compared.reference,
            "lead": lead,
            "engines": compared.facts,
            "skipped": compared.skipped,
            **floor.facts(),
            "summary": summary,
            "rows": rows,
        }
        Path(json_path).write_text(json.dumps(report, indent=1) + "\n")
        if rows:
            write_chart(rows, Path(json_path).with_suffix(".png"))
    if compared.failed:
        raise EngineFailed(
            "\n".join(f"{name}: {compared.skipped[name]}" for name in compared.failed)
        )
    if not rows:
        raise BadArgument("no case could be rendered; the reasons are above")
    return rows


def subject_of(artifact: Path, shape: str | None) -> Subject:
    """The model in a folder, as it is measured. Errors: BadArtifact."""
    size = model_size(artifact)
    model = json.loads((artifact / "manifest.json").read_text())["model"]
    return Subject(artifact, size, str(model.get("backbone", "encoder")), shape)


def jobs(
    compared: Compared, cases: Sequence[str], batch: Sequence[int], n_calls: int
) -> Iterable[Job]:
    """Every case at every batch size; a case that cannot be rendered is skipped."""
    for case in cases:
        for size in batch:
            try:
                job = compared.job(case, size, n_calls)
            except BadArgument as error:
                compared.skip(case, error.message)
                break
            yield job


def measure(
    compared: Compared, job: Job, rounds: int, lead: int, progress: bool
) -> dict[str, Seconds]:
    """Seconds [rounds] of every engine, anew without a baseline that fails on the way."""
    while True:
        try:
            return taking_turns(compared.actions(job), job, rounds, lead, progress)
        except Dropped:
            continue


def taking_turns(
    actions: dict[str, Action], job: Job, rounds: int, lead: int, progress: bool
) -> dict[str, Seconds]:
    """Seconds [rounds] of every action, which take turns."""
    total = len(actions) * job.n_calls
    with progress_bar(f"{job.case} x{job.batch}", total, is_shown=progress) as advance:
        return interleaved(
            actions,
            rounds=rounds,
            warmup=WARMUP,
            pause_s=PAUSE_S,
            lead=lead,
            after_call=lambda: advance(1),
        )


def announce(rows: list[dict[str, Any]]) -> None:
    """One line about each row on stderr."""
    for row in rows:
        shape = f"{row['shape']} (random weights)  " if row["shape"] else ""
        sys.stderr.write(
            f"{shape}{row['case']} x{row['batch']}  {row['engine']:28} median"
            f" {row['median_ms']:9.3f} ms  p99 {row['p99_ms']:9.3f} ms  floor"
            f" {row['floor_ms']:7.3f} ms\n"
        )


def summarised(rows: list[dict[str, Any]], reference: str) -> list[dict[str, Any]]:
    """Of each case and batch size: csrm's `reference` engine uncached over cached, and the best
    baseline's medians over its own, both uncached and both over a cached config. None where there
    is no such row.
    """
    found = []
    for case, batch in dict.fromkeys((row["case"], row["batch"]) for row in rows):
        measured = [row for row in rows if (row["case"], row["batch"]) == (case, batch)]
        medians = {row["engine"]: row["median_ms"] for row in measured}
        peers = [row for row in measured if not row["engine"].startswith("csrm-")]
        cached, uncached = medians[reference], medians[f"{reference}{UNCACHED}"]
        entry: dict[str, Any] = {
            "case": case,
            "batch": batch,
            "engine": reference,
            "cached_ms": cached,
            "uncached_over_cached": round(uncached / cached, 2),
        }
        for kind, is_cached, own_ms in (
            ("cached", True, cached),
            ("uncached", False, uncached),
        ):
            of_kind = [row for row in peers if row["cached"] == is_cached]
            best = min(of_kind, key=lambda row: float(row["median_ms"]), default=None)
            entry[f"{kind}_peer"] = None if best is None else best["engine"]
            ratio = None if best is None else round(best["median_ms"] / own_ms, 2)
            entry[f"{kind}_peer_over_csrm"] = ratio
        found.append(entry)
    return found


def sentence(entry: dict[str, Any]) -> str:
    """One line about an entry of the summary."""
    parts = [
        f"{entry['case']} x{entry['batch']}: {entry['engine']} {entry['cached_ms']:.3f} ms,"
        f" {entry['uncached_over_cached']:.2f} times faster than uncached"
    ]
    for kind in ("cached", "uncached"):
        if entry[f"{kind}_peer"] is not None:
            parts.append(
                f"{entry[f'{kind}_peer_over_csrm']:.2f} times faster than the best {kind} peer"
                f" ({entry[f'{kind}_peer'].removesuffix(CACHED)}), both {kind}"
            )
    return "; ".join(parts)
