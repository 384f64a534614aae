"""`csrm score --format table`: scored conversations as a table for people.

Not: data for programs (that is --format json). The last turn is shortened for display only; the
whole text was scored. Control characters are shown as spaces, so that no text steers a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from csrm.config import SafetyConfig
from csrm.conversation import ConversationRecord
from csrm.errors import Error
from csrm.score import Score

if TYPE_CHECKING:
    from csrm.cli.score import ScoredLine

SHOWN_CHARS = 100
NOTE = "Turns are shortened for display only; the whole text was scored."
_BAR_CELLS = 10
_WIDTH_WITHOUT_TERMINAL = 120
_STYLES = {"compliant": "green", "violation": "red", "unknown": "yellow"}


def print_table(lines: Iterable[ScoredLine], config: SafetyConfig, title: str = "") -> int:
    """Prints the table and a summary to stdout; returns the number of lines that failed.

    The caller prints NOTE once below its tables.
    """
    rows = list(lines)
    has_expected = any(_expected(line) for line in rows)
    has_rules = any(isinstance(line.answer, Score) and line.answer.rules for line in rows)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_WITHOUT_TERMINAL)
    if title:
        console.print(Text(f"\n{printable(title)}", style="bold"))
    console.print(_table(rows, has_expected, has_rules))
    for text in _summary(rows, config):
        console.print(text)
    return sum(isinstance(line.answer, Error) for line in rows)


def _table(rows: list[ScoredLine], has_expected: bool, has_rules: bool) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("id", overflow="fold", max_width=24)
    table.add_column("last turn", ratio=1)
    table.add_column("verdict", no_wrap=True)
    table.add_column("compliance", no_wrap=True)
    if has_rules:
        table.add_column("lowest rule", overflow="fold", max_width=28)
    if has_expected:
        table.add_column("expected", no_wrap=True)
    for line in rows:
        cells = [_id(line), _last_turn(line), _verdict(line), _compliance(line)]
        if has_rules:
            cells.append(_lowest_rule(line))
        if has_expected:
            cells.append(_agreement(line))
        table.add_row(*cells)
    return table


def _summary(rows: list[ScoredLine], config: SafetyConfig) -> list[Text]:
    counts = [
        f"{sum(verdict_of(line) == verdict for line in rows):,} {verdict}" for verdict in _STYLES
    ]
    name = f" under {printable(config.id)}" if config.id else ""
    found = [Text(f"{', '.join(counts)}{name} (threshold {config.threshold:g})")]
    n_agree, n_stated = count_agreeing(rows)
    if n_stated:
        found.append(Text(f"{n_agree:,} agree of {n_stated:,} with an expected verdict"))
    return found


def count_agreeing(rows: list[ScoredLine]) -> tuple[int, int]:
    """How many lines got the verdict that the file expects, and how many state one."""
    stated = [line for line in rows if _expected(line)]
    return sum(_expected(line) == verdict_of(line) for line in stated), len(stated)


def verdict_of(line: ScoredLine) -> str:
    """The verdict to report: "unknown" for a failure."""
    return line.answer.verdict if isinstance(line.answer, Score) else "unknown"


def printable(text: str) -> str:
    """`text` on one line with every character that is not printable as a space."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shortened(text: str, n_chars: int = SHOWN_CHARS) -> str:
    """The first `n_chars` characters of `text` on one printable line, with ... if there is more."""
    line = printable(text[: 4 * n_chars])
    return line if len(line) <= n_chars and len(text) <= 4 * n_chars else line[:n_chars] + "..."


def _id(line: ScoredLine) -> Text:
    source = line.source
    return Text(f"line {source.line}" if source.id is None else shortened(str(source.id)))


def _last_turn(line: ScoredLine) -> Text:
    if isinstance(line.answer, Error):
        return Text(f"{type(line.answer).__name__}: {line.answer.message}")
    if not isinstance(line.source, ConversationRecord):
        return Text("")
    turn = line.source.conversation[-1]
    text = f"{turn.role}: {shortened(turn.content)}"
    return Text(text, no_wrap=True, overflow="ellipsis")


def _verdict(line: ScoredLine) -> Text:
    verdict = verdict_of(line)
    return Text(verdict, style=_STYLES[verdict])


def _compliance(line: ScoredLine) -> Text:
    if isinstance(line.answer, Error):
        return Text("-")
    filled = round(line.answer.compliance * _BAR_CELLS)
    bar = "\u2588" * filled + "\u2591" * (_BAR_CELLS - filled)
    return Text(f"{bar} {line.answer.compliance:.3f}", style=_STYLES[line.answer.verdict])


def _lowest_rule(line: ScoredLine) -> Text:
    if isinstance(line.answer, Error) or not line.answer.rules:
        return Text("-")
    lowest = min(line.answer.rules, key=lambda rule: rule.reward)
    name = shortened(lowest.name) or f"rule {lowest.index + 1}"
    return Text(f"{name} {lowest.compliance:.3f}")


def _expected(line: ScoredLine) -> str | None:
    return line.source.expected if isinstance(line.source, ConversationRecord) else None


def _agreement(line: ScoredLine) -> Text:
    expected = _expected(line)
    if expected is None:
        return Text("")
    if expected == verdict_of(line):
        return Text(f"{expected} \u2713", style="green")
    return Text(f"{expected} \u2717", style="red")
