"""`csrm score`: conversations as JSONL in, one JSON object per line (or a table) out, in order.

Not: scoring (csrm.scorer) or parsing (csrm.conversation). A line that cannot be scored becomes an
error record with verdict "unknown"; the exit status is then 1.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import click

from csrm.cli.device_option import DEVICE_OPTION
from csrm.cli.progress import Progress
from csrm.config import SafetyConfig
from csrm.conversation import BadLine, ConversationRecord, read_conversations
from csrm.errors import BadArgument, EngineFailed, Error, Internal, NonFinite
from csrm.score import Score
from csrm.scorer import Device, Explain, Judged, Scorer, load

BATCH_LINES = 32

# Failures of one engine call: those lines fail, the next batch is tried. Others end the command.
_BATCH_FAILURES = (EngineFailed, NonFinite, Internal)


@dataclass(frozen=True)
class ScoredLine:
    """A JSONL line and what became of it."""

    source: ConversationRecord | BadLine
    answer: Score | Error


@click.command("score")
@click.option(
    "--config", "config", type=click.Path(path_type=Path), required=True, help="The rules, a file."
)
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    help="Artifact folder; default: the shipped csrm-mini.",
)
@click.option("--explain", is_flag=True, help="Also score each rule alone.")
@click.option(
    "--explain-fast", is_flag=True, help="The same approximately, for a part of the time."
)
@click.option(
    "--judged",
    type=click.Choice(["last", "assistant"]),
    default="last",
    show_default=True,
    help="Judge the last turn, or every assistant turn (the lowest counts).",
)
@click.option("--threshold", type=float, default=None, help="Instead of the config's, in [0, 1].")
@click.option(
    "--max-fpr",
    type=float,
    default=None,
    help="The model's threshold for this false-positive rate, instead of the config's.",
)
@click.option("--threads", type=click.IntRange(min=0), default=0, help="0 = physical cores.")
@DEVICE_OPTION
@click.option(
    "--format", "format", type=click.Choice(["json", "table"]), default="json", show_default=True
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="CSRM_SCORE_JSON",
    help="The same as --format json.",
)
@click.argument("file", type=click.File("rb"), default="-")
def score_command(
    config: Path,
    model: Path | None,
    explain: bool,
    explain_fast: bool,
    judged: Judged,
    threshold: float | None,
    max_fpr: float | None,
    threads: int,
    device: Device,
    format: str,
    as_json: bool,
    file: BinaryIO,
) -> None:
    """Score the conversations in FILE (JSONL; - is stdin) against the rules in --config.

    \b
    Exit status: 0 all lines scored; 1 some lines failed (see their "error"); 2 the call itself
    cannot be served (bad config, no model, bad option).
    """
    policy = _config(config, threshold)
    scorer = load(model, n_threads=threads, device=device)
    if max_fpr is not None:
        if threshold is not None:
            raise BadArgument("--threshold and --max-fpr exclude each other; give one")
        policy = replace(policy, threshold=threshold_at(scorer, max_fpr))
    progress = Progress(file, is_shown=format == "table" or not sys.stdout.isatty())
    how: Explain = "fast" if explain_fast else explain
    lines = _score_lines(scorer, policy, file, judged, how, progress)
    if format == "table" and not as_json:
        from csrm.cli.table import NOTE, print_table

        failed = print_table(lines, policy)
        click.echo(NOTE)
    else:
        failed = _print_json(lines, judged)
    if failed:
        click.echo(f"lines that could not be scored: {failed:,}; see their error", err=True)
        raise SystemExit(1)


def _config(path: Path, threshold: float | None) -> SafetyConfig:
    config = SafetyConfig.load(path)
    if threshold is None:
        return config
    if not 0 <= threshold <= 1:
        raise BadArgument(f"--threshold is {threshold}; it must be in [0, 1]")
    return replace(config, threshold=threshold)


def threshold_at(scorer: Scorer, max_fpr: float) -> float:
    """The threshold of the operating point for `max_fpr`. Errors: BadArgument if there is none."""
    points = scorer.operating_points()
    for point in points:
        if math.isclose(point.max_fpr, max_fpr, rel_tol=1e-6):
            return point.threshold
    known = ", ".join(f"{point.max_fpr:g}" for point in points) or "none"
    raise BadArgument(f"--max-fpr is {max_fpr:g}; the model has a threshold for: {known}")


def _score_lines(
    scorer: Scorer,
    config: SafetyConfig,
    stream: BinaryIO,
    judged: Judged,
    explain: Explain,
    progress: Progress,
) -> Iterator[ScoredLine]:
    sources = read_conversations(stream)
    while batch := list(islice(sources, BATCH_LINES)):
        good = [source for source in batch if isinstance(source, ConversationRecord)]
        answers = iter(_score_batch(scorer, config, good, judged, explain))
        for source in batch:
            answer = source.error if isinstance(source, BadLine) else next(answers)
            yield ScoredLine(source, answer)
        progress.add(len(batch))
    progress.finish()


def _score_batch(
    scorer: Scorer,
    config: SafetyConfig,
    records: list[ConversationRecord],
    judged: Judged,
    explain: Explain,
) -> list[Score | Error]:
    conversations = [record.conversation for record in records]
    try:
        return scorer.score_batch(config, conversations, judged, explain, errors="return")
    except _BATCH_FAILURES as error:
        return [error] * len(records)


def _print_json(lines: Iterator[ScoredLine], judged: Judged) -> int:
    failed = 0
    for line in lines:
        if isinstance(line.answer, Error):
            failed += 1
            record = error_record(line.source, line.answer)
        else:
            record = score_record(line.source, line.answer, judged)
        click.echo(json.dumps(record, ensure_ascii=False))
    return failed


def score_record(
    source: ConversationRecord | BadLine, score: Score, judged: Judged
) -> dict[str, object]:
    """The JSON object of a scored line; numbers keep the 7 digits of a 32-bit float."""
    record: dict[str, object] = {
        "id": source.id,
        "reward": _digits(score.reward),
        "compliance": _digits(score.compliance),
        "verdict": score.verdict,
    }
    if score.rules:
        record["rules"] = [
            {
                "index": rule.index,
                "name": rule.name,
                "reward": _digits(rule.reward),
                "compliance": _digits(rule.compliance),
                "verdict": rule.verdict,
            }
            for rule in score.rules
        ]
    if judged == "assistant":
        record["turns"] = [
            {
                "turn": turn.turn,
                "reward": _digits(turn.reward),
                "compliance": _digits(turn.compliance),
            }
            for turn in score.turns
        ]
    return record


def error_record(source: ConversationRecord | BadLine, error: Error) -> dict[str, object]:
    """The JSON object of a line that could not be scored."""
    record: dict[str, object] = {"line": source.line}
    if source.id is not None:
        record["id"] = source.id
    failure: dict[str, object] = {"code": type(error).__name__, "message": error.message}
    if error.column is not None:
        failure["column"] = error.column
    return {**record, "error": failure, "verdict": "unknown"}


def _digits(value: float) -> float:
    return float(f"{value:.7g}")
