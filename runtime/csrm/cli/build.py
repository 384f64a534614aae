"""`csrm train | export | evaluate | calibrate`: arguments in, one call of the packages.

Not: training, exporting or measuring (csrm.train, csrm.export), which need optional packages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from csrm.cli.export_tensorrt import add_engine, is_artifact, tensorrt_options
from csrm.cli.failures import import_extra

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE_OR_FOLDER = click.Path(exists=True, path_type=Path)


@click.command("train")
@click.option("--config", "config", type=_FILE, required=True, help="Training options (YAML).")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint of the run.")
def train_command(config: Path, resume: bool) -> None:
    """Train a model from labelled conversations."""
    checkpoint = import_extra("csrm.train.trainer", "train").train_from_file(config, resume=resume)
    click.echo(f"checkpoint: {checkpoint}")


@click.command("export")
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", default=None, help="The artifact's name; default: the name of OUT.")
@click.option("--int8", is_flag=True, help="Also model.int8.onnx: linear layers in integers.")
@click.option("--half", is_flag=True, help="Also model.half.onnx: a cache of half the size.")
@click.option("--cuda", is_flag=True, help="Also model.cuda.onnx: fp16 for NVIDIA GPUs.")
@tensorrt_options
def export_command(
    checkpoint: Path,
    out: Path,
    name: str | None,
    int8: bool,
    half: bool,
    cuda: bool,
    tensorrt: bool,
    **options: Any,
) -> None:
    """Write the artifact of CHECKPOINT to the folder OUT."""
    if tensorrt and is_artifact(checkpoint):
        if name is not None or int8 or half or cuda:
            raise click.UsageError("--name, --int8, --half and --cuda are for a checkpoint")
        add_engine(checkpoint, out, options)
        return
    module = import_extra("csrm.export.artifact", "export")
    name = name or out.resolve().name
    module.export_checkpoint(checkpoint, out, name=name, int8=int8, half=half, cuda=cuda)
    if tensorrt:
        add_engine(out, out, options)


@click.command("evaluate")
@click.option(
    "--data", "data", type=_FILE_OR_FOLDER, multiple=True, help="JSONL or JSONL.gz; repeatable."
)
@click.argument("files", type=_FILE_OR_FOLDER, nargs=-1)
@click.option("--model", type=_FOLDER, default=None, help="Artifact folder; default: csrm-mini.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    envvar="CSRM_EVALUATE_JSON",
    help="Also write the figures to this file.",
)
@click.option(
    "--html",
    "html_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Also write tables and plots as one page to this file.",
)
@click.option(
    "--set",
    "published",
    default=None,
    help="The files are of this published set, in its own format: see docs/evaluation.md.",
)
@click.option("--limit", type=click.IntRange(min=1), default=None, help="Records of each file.")
def evaluate_command(
    data: tuple[Path, ...],
    files: tuple[Path, ...],
    model: Path | None,
    json_path: Path | None,
    html_path: Path | None,
    published: str | None,
    limit: int | None,
) -> None:
    """Measure F1, AUPRC and calibration on labelled files (--data FILE, or --data FILE...)."""
    paths = [*data, *files]
    if not paths:
        raise click.UsageError("name at least one file with --data")
    module = import_extra("csrm.train.evaluate", "train")
    module.evaluate_files(
        paths, model, json_path, limit=limit, published=published, html_path=html_path
    )


@click.command("calibrate")
@click.option("--data", "data", type=_FILE, multiple=True, required=True, help="Labelled records.")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--model", type=_FOLDER, default=None, help="Artifact folder; default: csrm-mini.")
@click.option(
    "--method",
    type=click.Choice(["auto", "temperature", "platt"]),
    default="auto",
    show_default=True,
    help="auto: the smaller Brier score on cases that the fit has not seen.",
)
@click.option(
    "--max-fpr",
    "rates",
    type=float,
    multiple=True,
    help="False-positive rate to store a threshold for; repeatable; default: 0.01, 0.02, 0.05.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    envvar="CSRM_CALIBRATE_JSON",
    help="Also write the comparison to this file, and reliability diagrams beside it.",
)
@click.option("--limit", type=click.IntRange(min=1), default=None, help="Records of each file.")
@click.option("--seed", type=int, default=0, show_default=True)
def calibrate_command(
    data: tuple[Path, ...],
    out: Path,
    model: Path | None,
    method: str,
    rates: tuple[float, ...],
    json_path: Path | None,
    limit: int | None,
    seed: int,
) -> None:
    """Fit probabilities and thresholds to your labelled files; write the new artifact to OUT.

    Rewards stay as they are. Compares no change, temperature, Platt and isotonic on cases that the
    fit has not seen. Afterwards: csrm score --model OUT --max-fpr 0.01 ...
    """
    module = import_extra("csrm.train.calibration.calibrate", "train,export")
    chosen = {"rates": rates} if rates else {}
    options = module.CalibrationOptions(method=method, limit=limit, seed=seed, **chosen)
    module.calibrate_files(list(data), out, model, json_path, options)
    click.echo(f"artifact: {out}")
