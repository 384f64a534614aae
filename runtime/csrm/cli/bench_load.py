"""`csrm bench soak`: arguments in, one call of csrm.bench.

Not: measuring, which is csrm.bench.
"""

from __future__ import annotations

from pathlib import Path

import click

from csrm.cli.bench_options import MODEL_OPTION, json_option
from csrm.cli.failures import import_extra

_COUNT = click.IntRange(min=0)


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
