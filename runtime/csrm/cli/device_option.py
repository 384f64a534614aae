"""The option --device of the commands that load a model. Not: what a device needs (docs/gpu.md)."""

from __future__ import annotations

from typing import get_args

import click

from csrm.scorer import Device

DEVICE_OPTION = click.option(
    "--device",
    type=click.Choice(get_args(Device)),
    default="auto",
    show_default=True,
    help="Where the model runs; one that is named is taken or an error (csrm info says which can).",
)
