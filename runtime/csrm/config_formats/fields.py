"""What every config format yields: `ConfigFields`, and the line-precise refusals they share.

Not: the checked config itself (csrm.config builds it from these fields).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from csrm.errors import BadConfig
from csrm.rule import Rule


@dataclass(frozen=True)
class ConfigFields:
    """The content of a config file. Text formats state rules only; the rest keeps its default."""

    rules: Sequence[Rule]
    id: str = ""
    version: str = ""
    threshold: float = 0.5
    description: str = ""


def bad_config(message: str, line: int, column: int = 1) -> BadConfig:
    """The error for a position in a config file; line and column count from 1."""
    return BadConfig(message, line=line, column=column)


def rule_at(name: str, text: str, line: int) -> Rule:
    """Rule(name, text), with the line of the file in the error if it has no text."""
    try:
        return Rule(name, text)
    except BadConfig as error:
        raise bad_config(error.message, line) from None
