"""`csrm bench latency | throughput | serving | ...`: arguments in, one call of csrm.bench.

Not: measuring, which is csrm.bench, nor the commands of bench_scaling.py and bench_load.py.
"""

from __future__ import annotations

from pathlib import Path

import click

from csrm.cli.bench_load import load_command, soak_command
from csrm.cli.bench_options import MODEL_OPTION, THREADS_OPTION, json_option
from csrm.cli.bench_scaling import scaling_group
from csrm.cli.failures import import_extra

SKIPPED_STATUS = 77  # as ctest and automake read it


@click.group("bench")
def bench_group() -> None:
    """Measure latency, throughput, scaling, kernels, invariance, robustness and attacks."""


@bench_group.command("latency")
@MODEL_OPTION
@click.option(
    "--case",
    "cases",
    multiple=True,
    envvar="CSRM_BENCH_LATENCY_CASE",
    default=("256+128", "64+64"),
    show_default=True,
    help="Tokens of the config + of the new turn; repeatable.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1,),
    show_default=True,
    help="Conversations in a call; repeatable.",
)
@THREADS_OPTION
@click.option("--rounds", type=click.IntRange(min=1), default=50, show_default=True)
@click.option(
    "--lead",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Calls of an engine before each one that is timed: its speed in use, not after others.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--int8", is_flag=True, help="Also csrm's int8 variant, made for the run if there is none."
)
@click.option(
    "--shape",
    default=None,
    help="Random weights of a known shape instead of --model: minilm-l6, mpnet-base, smollm2-135m,"
    " qwen2.5-0.5b, qwen2.5-1.5b or llama3-8b.",
)
@click.option(
    "--shape-folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Where models of random weights are kept and found again; default: nowhere.",
)
@click.option(
    "--engines",
    multiple=True,
    default=("installed",),
    show_default=True,
    help="A compared engine by name, installed, or all (those in --environments too); repeatable.",
)
@click.option(
    "--environments",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/bench/environments"),
    show_default=True,
    help="Folder that `make bench-environments` has filled.",
)
@json_option("LATENCY", "Also write JSON here, and a chart beside it.")
def latency_command(
    model: Path | None,
    cases: tuple[str, ...],
    batch: tuple[int, ...],
    threads: int,
    rounds: int,
    lead: int,
    device: str,
    int8: bool,
    shape: str | None,
    shape_folder: Path | None,
    engines: tuple[str, ...],
    environments: Path,
    json_path: Path | None,
) -> None:
    """Median and p99 of one score, config cached and not, beside other engines (docs/bench.md).

    \b
    Exit status: 0 measured; 2 it cannot be (bad option, no model); 77 skipped, for the machine has
    no such device (the reason is on stderr).
    """
    bench = import_extra("csrm.bench.latency", "bench")
    try:
        bench.run(
            artifact=None if model is None else str(model),
            cases=cases,
            batch=batch,
            threads=threads,
            rounds=rounds,
            lead=lead,
            json_path=None if json_path is None else str(json_path),
            engines=engines,
            environments=str(environments),
            device=device,
            int8=int8,
            shape=shape,
            shape_folder=None if shape_folder is None else str(shape_folder),
        )
    except import_extra("csrm.bench.cuda_run", "bench").NoDevice as error:
        click.echo(f"SKIPPED --device {device}: {error.message}", err=True)
        raise SystemExit(SKIPPED_STATUS) from error


@bench_group.command("throughput")
@MODEL_OPTION
@click.option(
    "--clients",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1, 4, 16, 64),
    show_default=True,
    help="Threads that send requests; repeatable.",
)
@click.option(
    "--configs",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1, 8),
    show_default=True,
    help="Configs that requests are spread over; repeatable.",
)
@THREADS_OPTION
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--requests",
    type=click.IntRange(min=1),
    default=96,
    show_default=True,
    help="Requests in a round.",
)
@json_option("THROUGHPUT", "Also write JSON here, and a chart beside it.")
def throughput_command(
    model: Path | None,
    clients: tuple[int, ...],
    configs: tuple[int, ...],
    threads: int,
    rounds: int,
    requests: int,
    json_path: Path | None,
) -> None:
    """Requests a second and latency under load: the scheduler beside a lock and plain threads."""
    import_extra("csrm.bench.throughput", "bench").run(
        artifact=None if model is None else str(model),
        clients=clients,
        configs=configs,
        threads=threads,
        rounds=rounds,
        requests=requests,
        json_path=None if json_path is None else str(json_path),
    )


@bench_group.command("serving")
@MODEL_OPTION
@click.option(
    "--length",
    "lengths",
    type=click.IntRange(min=8),
    multiple=True,
    envvar="CSRM_BENCH_SERVING_LENGTH",
    default=(32, 128, 512),
    show_default=True,
    help="Tokens of the turn; repeatable.",
)
@click.option(
    "--clients",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1, 8, 32),
    show_default=True,
    help="Connections in a closed loop; repeatable.",
)
@THREADS_OPTION
@click.option("--rounds", type=click.IntRange(min=1), default=100, show_default=True)
@json_option("SERVING")
def serving_command(
    model: Path | None,
    lengths: tuple[int, ...],
    clients: tuple[int, ...],
    threads: int,
    rounds: int,
    json_path: Path | None,
) -> None:
    """What csrm serve costs beside the score, and requests a second over HTTP."""
    import_extra("csrm.serve", "serve")
    import_extra("csrm.bench.serving", "bench").run(
        artifact=None if model is None else str(model),
        lengths=lengths,
        clients=clients,
        threads=threads,
        rounds=rounds,
        json_path=None if json_path is None else str(json_path),
    )


@bench_group.command("kernels")
@json_option("KERNELS")
def kernels_command(json_path: Path | None) -> None:
    """Each custom operator against its floor."""
    module = import_extra("csrm.bench.kernels", "bench")
    module.run(None if json_path is None else str(json_path))


@bench_group.command("invariance")
@MODEL_OPTION
@json_option("INVARIANCE")
@click.option(
    "--per-case",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Conversations of each of six cases.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1, 2),
    show_default=True,
    help="Engine threads; repeatable.",
)
def invariance_command(
    model: Path | None, json_path: Path | None, per_case: int, threads: tuple[int, ...]
) -> None:
    """How equal rewards stay over cache states, batch sizes, neighbours and threads."""
    rows = import_extra("csrm.bench.invariance", "bench").run(
        None if model is None else str(model),
        None if json_path is None else str(json_path),
        per_case=per_case,
        threads=threads,
    )
    for row in rows:
        click.echo(
            f"{row.condition:38} n {row.n:4}  largest difference {row.max_difference:.2g}"
            f"  bit-equal {row.bit_equal:.1%}"
        )


@bench_group.command("robustness")
@click.argument(
    "files", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1, required=True
)
@MODEL_OPTION
@json_option("ROBUSTNESS")
@click.option("--limit", type=click.IntRange(min=1), default=200, show_default=True)
def robustness_command(
    files: tuple[Path, ...], model: Path | None, json_path: Path | None, limit: int
) -> None:
    """How far scores move when rules are reordered, reworded, left out or turned into permissions.

    FILES hold categorised records (see csrm evaluate).
    """
    module = import_extra("csrm.bench.robustness", "bench")
    for result in module.run(list(files), model, json_path, limit=limit):
        click.echo(f"{result.file} ({result.n_failed} conversations failed)")
        for row in result.stability:
            click.echo(
                f"  same with another {row.variant:14} n {row.n:4}  |change of compliance| median"
                f" {row.median:.3f}  p95 {row.p95:.3f}  largest {row.largest:.3f}"
                f"  verdicts changed {row.flipped.value:.1%}"
            )
        for row in result.ordering:
            click.echo(
                f"  reward larger when {row.variant:15} n {row.n:4}  {row.accuracy.value:.1%}"
                f" [{row.accuracy.low:.1%}, {row.accuracy.high:.1%}]"
                f"  mean gap {row.gap.value:.2f} log-odds"
            )


@bench_group.command("attacks")
@click.argument(
    "files", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1, required=True
)
@MODEL_OPTION
@json_option("ATTACKS")
@click.option("--limit", type=click.IntRange(min=1), default=150, show_default=True)
def attacks_command(
    files: tuple[Path, ...], model: Path | None, json_path: Path | None, limit: int
) -> None:
    """How many violations pass, and harmless messages are flagged, once they are disguised.

    FILES hold labelled records (see csrm evaluate).
    """
    module = import_extra("csrm.bench.attacks", "bench")
    for result in module.run(list(files), model, json_path, limit=limit):
        click.echo(
            f"{result.file} ({result.n_failed} cases failed): as it is {result.caught:.0%} of"
            f" violations caught, {result.flagged:.0%} of harmless flagged,"
            f" AUROC {result.auroc:.3f}"
        )
        for row in result.attacks:
            click.echo(
                f"  {row.attack:18} n {row.n:4}  caught ones that pass {row.evaded.value:4.0%}"
                f" [{row.evaded.low:.0%}, {row.evaded.high:.0%}]"
                f"  passed ones now flagged {row.alarms.value:4.0%}"
                f" [{row.alarms.low:.0%}, {row.alarms.high:.0%}]  AUROC {row.auroc:.3f}"
            )


bench_group.add_command(scaling_group)
bench_group.add_command(load_command)
bench_group.add_command(soak_command)
