"""Options that several commands of `csrm bench` have: --model, --threads, --json.

Not: options of one command, which stand with it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
MODEL_OPTION = click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    help="Artifact folder; default: csrm-mini.",
)
THREADS_OPTION = click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)


def json_option(command: str, help: str = "Also write JSON here.") -> Callable[[F], F]:
    """--json of the command whose twin in the environment is CSRM_BENCH_`command`_JSON."""
    return click.option(
        "--json",
        "json_path",
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        envvar=f"CSRM_BENCH_{command}_JSON",
        help=help,
    )
