"""`csrm bench scaling turns | rules | configs | ...`: arguments in, one call of csrm.bench.

Not: measuring, which is csrm.bench.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from csrm.cli.bench_options import MODEL_OPTION, THREADS_OPTION, F, json_option
from csrm.cli.failures import import_extra

MAX_RULES = 2000  # of 32 tokens each; a config may have 65,536 tokens


def _rounds_option(default: int) -> Callable[[F], F]:
    return click.option("--rounds", type=click.IntRange(min=1), default=default, show_default=True)


def _numbers_option(
    name: str, default: tuple[int, ...], help: str, most: int | None = None
) -> Callable[[F], F]:
    return click.option(
        name,
        type=click.IntRange(min=1, max=most),
        multiple=True,
        default=default,
        show_default=True,
        help=f"{help}; repeatable.",
    )


def _report_option(what: str) -> Callable[[F], F]:
    return json_option(f"SCALING_{what}", "Also write JSON here, and a chart beside it.")


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


@click.group("scaling")
def scaling_group() -> None:
    """How time and memory grow with turns, rules, configs, batch and threads (docs/bench.md)."""


@scaling_group.command("turns")
@MODEL_OPTION
@click.option("--turns", type=click.IntRange(min=2), default=50, show_default=True)
@THREADS_OPTION
@_rounds_option(20)
@_report_option("TURNS")
def turns_command(
    model: Path | None, turns: int, threads: int, rounds: int, json_path: Path | None
) -> None:
    """Turn n of a conversation, with and without reuse_turns."""
    import_extra("csrm.bench.scaling_turns", "bench").run_turns(
        _text(model), n_turns=turns, threads=threads, rounds=rounds, json_path=_text(json_path)
    )


@scaling_group.command("rules")
@MODEL_OPTION
@_numbers_option("--rules", (1, 10, 100, 1000), "Rules of 32 tokens in the config", MAX_RULES)
@THREADS_OPTION
@_rounds_option(20)
@_report_option("RULES")
def rules_command(
    model: Path | None,
    rules: tuple[int, ...],
    threads: int,
    rounds: int,
    json_path: Path | None,
) -> None:
    """A config of n rules: cached, with one rule new, and with nothing cached."""
    import_extra("csrm.bench.scaling_rules", "bench").run_rules(
        _text(model), rules=rules, threads=threads, rounds=rounds, json_path=_text(json_path)
    )


@scaling_group.command("configs")
@MODEL_OPTION
@_numbers_option("--configs", (1, 10, 100, 1000, 10_000), "Configs that requests draw from")
@click.option(
    "--cache-tokens",
    type=click.IntRange(min=0),
    default=16_384,
    show_default=True,
    help="Bound of the prefix cache.",
)
@THREADS_OPTION
@click.option("--requests", type=click.IntRange(min=1), default=400, show_default=True)
@_report_option("CONFIGS")
def configs_command(
    model: Path | None,
    configs: tuple[int, ...],
    cache_tokens: int,
    threads: int,
    requests: int,
    json_path: Path | None,
) -> None:
    """Many configs in one bounded cache: hits, latency, memory."""
    import_extra("csrm.bench.scaling_configs", "bench").run_configs(
        _text(model),
        configs=configs,
        cache_tokens=cache_tokens,
        threads=threads,
        requests=requests,
        json_path=_text(json_path),
    )


@scaling_group.command("batch")
@MODEL_OPTION
@_numbers_option("--batch", (1, 2, 4, 8, 16, 32, 64), "Conversations in a call")
@THREADS_OPTION
@_rounds_option(20)
@_report_option("BATCH")
def batch_command(
    model: Path | None,
    batch: tuple[int, ...],
    threads: int,
    rounds: int,
    json_path: Path | None,
) -> None:
    """Conversations in one call of score_batch."""
    import_extra("csrm.bench.scaling_calls", "bench").run_batch(
        _text(model), batch=batch, threads=threads, rounds=rounds, json_path=_text(json_path)
    )


@scaling_group.command("threads")
@MODEL_OPTION
@_numbers_option("--threads", (1, 2), "Engine threads")
@_rounds_option(50)
@_report_option("THREADS")
def threads_command(
    model: Path | None, threads: tuple[int, ...], rounds: int, json_path: Path | None
) -> None:
    """One score on so many engine threads."""
    import_extra("csrm.bench.scaling_calls", "bench").run_threads(
        _text(model), threads=threads, rounds=rounds, json_path=_text(json_path)
    )


@scaling_group.command("memory")
@MODEL_OPTION
@_numbers_option("--rules", (1, 10, 100, 1000), "Rules of the configs to cache", MAX_RULES)
@click.option("--variant", default="", help="Of the model; default: the best available.")
@THREADS_OPTION
@_report_option("MEMORY")
def memory_command(
    model: Path | None,
    rules: tuple[int, ...],
    variant: str,
    threads: int,
    json_path: Path | None,
) -> None:
    """Resident memory of the runtime with its model, and bytes per cached token of rules."""
    import_extra("csrm.bench.scaling_memory", "bench").run_memory(
        _text(model), rules=rules, variant=variant, threads=threads, json_path=_text(json_path)
    )
