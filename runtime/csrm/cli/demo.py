"""`csrm demo`: example conversations, each scored under the config it names, as tables.

Not: a benchmark. Records are those of `csrm score` plus "config" (a file name without suffix) and
"expected" (a verdict).
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import BinaryIO

import click

from csrm.cli.score import ScoredLine
from csrm.config import SafetyConfig
from csrm.conversation import BadLine, ConversationRecord, read_conversations
from csrm.errors import BadArgument
from csrm.scorer import Scorer, load

_SUFFIXES = (".yaml", ".yml", ".json", ".md", ".txt")


@click.command("demo")
@click.argument("examples", type=click.File("rb"))
@click.option(
    "--configs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="The folder of the configs that the examples name.",
)
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    help="Artifact folder; default: the shipped csrm-mini.",
)
def demo_command(examples: BinaryIO, configs: Path, model: Path | None) -> None:
    """Score EXAMPLES (JSONL), each line under the config it names, and show tables."""
    from csrm.cli.table import NOTE, count_agreeing, print_table

    groups = _by_config(examples)
    start = time.perf_counter()
    scorer = load(model)
    loaded = time.perf_counter()
    tables = [(name, *_scored(scorer, configs, name, group)) for name, group in groups.items()]
    scored = time.perf_counter()
    lines = [line for _, _, group in tables for line in group]
    failed = sum(print_table(group, config, title=name) for name, config, group in tables)
    n_agree, n_stated = count_agreeing(lines)
    click.echo(
        f"\nAll {len(tables)} configs: {n_agree} of {n_stated} verdicts as expected. "
        f"Model loaded in {loaded - start:.2f} s, {len(lines)} conversations scored in "
        f"{scored - loaded:.2f} s. {NOTE}"
    )
    if failed:
        raise SystemExit(1)


def _by_config(stream: BinaryIO) -> dict[str, list[ConversationRecord]]:
    groups: dict[str, list[ConversationRecord]] = defaultdict(list)
    for record in read_conversations(stream):
        if isinstance(record, BadLine):
            raise record.error
        if record.config is None:
            raise BadArgument("an example names no config", line=record.line)
        groups[record.config].append(record)
    return groups


def _scored(
    scorer: Scorer, configs: Path, name: str, records: list[ConversationRecord]
) -> tuple[SafetyConfig, list[ScoredLine]]:
    # Looked up in the folder's listing, so that no name in the examples reaches outside it.
    paths = [path for path in sorted(configs.iterdir()) if path.stem == name]
    paths = [path for path in paths if path.suffix in _SUFFIXES]
    if not paths:
        raise BadArgument("the config that an example names is not there", line=records[0].line)
    config = SafetyConfig.load(paths[0])
    conversations = [record.conversation for record in records]
    answers = scorer.score_batch(config, conversations, errors="return")
    lines = [ScoredLine(*pair) for pair in zip(records, answers, strict=True)]
    return config, lines
