"""`csrm bench load` and `csrm bench soak`: arguments in, one call of csrm.bench.

Not: measuring, which is csrm.bench.
"""

from __future__ import annotations

from pathlib import Path

import click

from csrm.cli.bench_options import MODEL_OPTION, THREADS_OPTION, json_option
from csrm.cli.failures import import_extra

_COUNT = click.IntRange(min=0)


@click.command("load")
@MODEL_OPTION
@click.option(
    "--length",
    "turn_tokens",
    type=click.IntRange(min=8),
    default=128,
    show_default=True,
    help="Tokens of a turn.",
)
@click.option(
    "--bound-ms",
    type=click.FloatRange(min=0, min_open=True),
    default=50.0,
    show_default=True,
    help="Of p99, and the deadline of requests under overload.",
)
@click.option(
    "--overload",
    type=click.FloatRange(min=1),
    default=5.0,
    show_default=True,
    help="Times the highest goodput.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Of each rate; there are 14.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="Of the comparison with the score alone.",
)
@THREADS_OPTION
@json_option("LOAD", "Also write JSON here, and a chart beside it.")
def load_command(
    model: Path | None,
    turn_tokens: int,
    bound_ms: float,
    overload: float,
    seconds: float,
    rounds: int,
    threads: int,
    json_path: Path | None,
) -> None:
    """Requests a second in time, and what is left of them under overload: an open loop."""
    import_extra("csrm.serve", "serve")
    import_extra("csrm.bench.load", "bench").run(
        artifact=None if model is None else str(model),
        turn_tokens=turn_tokens,
        bound_ms=bound_ms,
        overload=overload,
        seconds=seconds,
        rounds=rounds,
        threads=threads,
        json_path=None if json_path is None else str(json_path),
    )


@click.command("soak")
@MODEL_OPTION
@click.option("--reloads", type=_COUNT, default=100, show_default=True, help="Of the config.")
@click.option("--swaps", type=_COUNT, default=20, show_default=True, help="Of the model.")
@click.option("--drains", type=_COUNT, default=50, show_default=True, help="By SIGTERM.")
@click.option("--kills", type=_COUNT, default=5, show_default=True, help="By SIGKILL.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@json_option("SOAK")
@click.pass_context
def soak_command(
    context: click.Context,
    model: Path | None,
    reloads: int,
    swaps: int,
    drains: int,
    kills: int,
    threads: int,
    json_path: Path | None,
) -> None:
    """Reload, swap models, drain and kill csrm serve under load; no answer may be lost or wrong.

    Exit status 1 if one was.
    """
    import_extra("csrm.serve", "serve")
    soak = import_extra("csrm.bench.soak", "bench")
    rows = soak.run(
        artifact=None if model is None else str(model),
        reloads=reloads,
        swaps=swaps,
        drains=drains,
        kills=kills,
        threads=threads,
        json_path=None if json_path is None else str(json_path),
    )
    if not all(soak.is_good(row) for row in rows):
        context.exit(1)
