"""`csrm info`, `csrm config lint` and `json`: what is loaded, and what a config file says.

Not: scoring. Lint prints the rules it found, so that a person sees how a text file was read.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

import csrm
from csrm.cli.device_option import DEVICE_OPTION
from csrm.cli.failures import describe
from csrm.config import SafetyConfig
from csrm.config_formats import detect
from csrm.engine import TensorRtEngine, devices, engine_library, tensorrt_engines
from csrm.errors import Error
from csrm.paths import default_artifact
from csrm.scorer import Device, load

_LONG_RULE_CHARS = 2000


@click.command("info")
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    help="Artifact folder; default: csrm-mini.",
)
@DEVICE_OPTION
@click.option("--json", "as_json", is_flag=True, envvar="CSRM_INFO_JSON", help="Print JSON.")
def info_command(model: Path | None, device: Device, as_json: bool) -> None:
    """Show versions, the engine, the model and each device; loads and verifies the model."""
    facts: dict[str, object] = {"csrm": csrm.__version__, "engine": str(engine_library())}
    scorer = load(model, device=device)
    facts.update(scorer.info())
    facts["operating_points"] = [asdict(point) for point in scorer.operating_points()]
    reports = devices()
    facts["devices"] = [asdict(report) for report in reports]
    engines = tensorrt_engines(model or default_artifact())
    facts["tensorrt_engines"] = [asdict(engine) for engine in engines]
    if as_json:
        click.echo(json.dumps(facts, default=str))
        return
    del facts["devices"], facts["tensorrt_engines"]
    for key, value in facts.items():
        if value != "":  # device_note, mostly
            click.echo(f"{key:<18} {value}")
    for report in reports:
        state = "yes" if report.is_available else "no"
        click.echo(f"{'device ' + report.name:<18} {state}: {report.detail}")
    for engine in engines:
        click.echo(f"{'tensorrt engine':<18} {_described(engine)}")


def _described(engine: TensorRtEngine) -> str:
    built_for = ", ".join(engine.architectures) or f"what {engine.package} takes by itself"
    state = f"cannot run here: {engine.problem}" if engine.problem else "can run here"
    return (
        f"{engine.file}: {engine.precision}, built by {engine.package} {engine.version} "
        f"for {built_for}; {state}"
    )


@click.group("config")
def config_group() -> None:
    """Work with safety configs."""


@config_group.command("lint")
@click.argument(
    "files", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1, required=True
)
@click.option(
    "--yaml",
    "as_yaml",
    is_flag=True,
    envvar="CSRM_CONFIG_LINT_YAML",
    help="Print each config as YAML instead.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="CSRM_CONFIG_LINT_JSON",
    help="Print one JSON object per file instead.",
)
def lint_command(files: tuple[Path, ...], as_yaml: bool, as_json: bool) -> None:
    """Check config FILES and show how they are read. Exit status 1 if one is bad."""
    n_bad = 0
    for path in files:
        try:
            config = SafetyConfig.load(path)
        except Error as error:
            n_bad += 1
            click.echo(_failure(error, as_json), err=not as_json)
            continue
        if as_yaml:
            click.echo(config.to_yaml(), nl=False)
        elif as_json:
            click.echo(json.dumps(_report(path, config), ensure_ascii=False))
        else:
            _print_report(path, config)
    if n_bad:
        raise SystemExit(1)


@config_group.command("json")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def json_command(file: Path) -> None:
    """Print the config in FILE, in any format, as the JSON that the C and C++ APIs read."""
    click.echo(SafetyConfig.load(file).to_json())


def _failure(error: Error, as_json: bool) -> str:
    if not as_json:
        return describe(error)
    failure = {"code": type(error).__name__, "message": error.message}
    place = {"file": error.path, "line": error.line, "column": error.column}
    return json.dumps({**place, "error": failure}, ensure_ascii=False)


def _report(path: Path, config: SafetyConfig) -> dict[str, object]:
    return {
        "file": str(path),
        "format": detect(path.read_text(encoding="utf-8-sig"), path.suffix),
        "id": config.id,
        "version": config.version,
        "threshold": config.threshold,
        "n_rules": len(config.rules),
        "digest": config.digest(),
        "warnings": _warnings(config),
    }


def _print_report(path: Path, config: SafetyConfig) -> None:
    report = _report(path, config)
    click.echo(f"{path}: {report['n_rules']} rules, format {report['format']}")
    click.echo(f"  id {config.id or '-'}, version {config.version or '-'}, ", nl=False)
    click.echo(f"threshold {config.threshold}, digest {config.digest()[:12]}")
    for number, rule in enumerate(config.rules, start=1):
        name = f"[{rule.name}] " if rule.name else ""
        click.echo(f"  {number:>3}. {name}{' '.join(rule.text.split())}")
    for warning in _warnings(config):
        click.echo(f"  warning: {warning}")


def _warnings(config: SafetyConfig) -> list[str]:
    found = []
    first: dict[str, int] = {}
    for number, rule in enumerate(config.rules, start=1):
        text = " ".join(rule.text.lower().split())
        if text in first:
            found.append(f"rule {number} repeats rule {first[text]}")
        first.setdefault(text, number)
        if len(text) > _LONG_RULE_CHARS:
            found.append(f"rule {number} has {len(text):,} characters; split it if you can")
    return found
