"""The command line: `csrm score | serve | demo | evaluate | calibrate | train | export | bench |
info | config lint | config json`.

Not: the work, which each command imports when it runs, so that `csrm score` never loads torch.
Every option has a twin in the environment: CSRM_<COMMAND>_<OPTION>, for example
CSRM_SCORE_CONFIG. Exit status: 0 done, 1 some inputs failed, 2 the call itself cannot be served.
"""

from __future__ import annotations

import click

from csrm.cli.bench import bench_group
from csrm.cli.build import calibrate_command, evaluate_command, export_command, train_command
from csrm.cli.demo import demo_command
from csrm.cli.failures import TypedErrorGroup
from csrm.cli.inspect import config_group, info_command
from csrm.cli.score import score_command
from csrm.cli.serve import serve_command

__all__ = ["main"]


@click.group(
    cls=TypedErrorGroup,
    context_settings={"auto_envvar_prefix": "CSRM", "help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="csrm", message="%(version)s")
def main() -> None:
    """Score conversations against safety rules written in plain language."""


for _command in (
    score_command,
    serve_command,
    demo_command,
    evaluate_command,
    calibrate_command,
    train_command,
    export_command,
    bench_group,
    info_command,
    config_group,
):
    main.add_command(_command)
