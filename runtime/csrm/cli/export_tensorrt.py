"""`csrm export --tensorrt`: its options, and the one call of csrm.export.tensorrt.

Not: the engine's building, which needs the packages of csrm[tensorrt].
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from csrm.cli.failures import import_extra

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--tensorrt",
        is_flag=True,
        help="Also a TensorRT engine; CHECKPOINT may then be an artifact, and OUT the same one.",
    ),
    click.option(
        "--tensorrt-precision",
        type=click.Choice(["fp16", "bf16", "fp32"]),
        default="fp16",
        show_default=True,
        help="Of matrix products; norms, softmax and the head are fp32.",
    ),
    click.option(
        "--tensorrt-arch",
        "tensorrt_architectures",
        multiple=True,
        help="GPU to build for, as sm89; repeatable. Default: what the package takes by itself.",
    ),
    click.option(
        "--tensorrt-profile",
        "tensorrt_profiles",
        multiple=True,
        help="Least, usual and largest sizes: batch=1:8:64 tokens=1:128:256 prefix=0:256:2048 "
        "judged=1:1:8; repeatable.",
    ),
    click.option(
        "--tensorrt-timing-cache",
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        help="TensorRT's measurements, read and kept, so that builds choose the same kernels.",
    ),
    click.option(
        "--tensorrt-version-compatible",
        is_flag=True,
        help="The engine also runs in later releases of the same major version (not RTX).",
    ),
    click.option(
        "--tensorrt-package",
        type=click.Choice(["tensorrt", "tensorrt_rtx"]),
        default=None,
        help="Default: tensorrt where it is installed, else tensorrt_rtx.",
    ),
)


def tensorrt_options(command: Command) -> Command:
    """Adds the options to a command, in their order here."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def is_artifact(folder: Path) -> bool:
    """Whether `folder` is an artifact, not a checkpoint."""
    return (folder / "manifest.json").is_file()


def add_engine(artifact: Path, out: Path, options: dict[str, Any]) -> None:
    """Builds the engine of `artifact` into `out` as the command's options say."""
    module = import_extra("csrm.export.tensorrt", "tensorrt")
    profiles = tuple(map(module.parse_profile, options["tensorrt_profiles"]))
    chosen = {"profiles": profiles} if profiles else {}
    engine = module.add_tensorrt_engine(
        artifact,
        out,
        module.TensorRtOptions(
            precision=options["tensorrt_precision"],
            architectures=options["tensorrt_architectures"],
            timing_cache=options["tensorrt_timing_cache"],
            is_version_compatible=options["tensorrt_version_compatible"],
            package=options["tensorrt_package"] or "",
            **chosen,
        ),
    )
    click.echo(f"engine: {engine}")
