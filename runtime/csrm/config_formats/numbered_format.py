"""DynaBench-style numbered rules: `1. ...` `2. ...`, one per line, or all in one line of text.

Not: Markdown lists with headings or bullets (text_format.py). Numbers must run 1, 2, 3, ... so
that a lost or doubled rule is noticed; lines without a number continue the rule above them.
"""

from __future__ import annotations

import re

from csrm.config_formats.fields import ConfigFields, bad_config, rule_at
from csrm.config_formats.text_format import has_items_or_headings
from csrm.errors import EmptyConfig

_NUMBERED = re.compile(r"^\s*(?:[Rr]ule\s+)?(\d{1,5})\s*[.):]\s+(\S.*)$")
_NEXT_RULE = re.compile(r"\s(?=(?:[Rr]ule\s+)?(\d{1,5})\s*[.):]\s+\S)")


def is_numbered(text: str) -> bool:
    """Whether the text starts with rule 1, rule 2 follows and it has no headings or bullets."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or has_items_or_headings(text):
        return False
    numbers = [int(match.group(1)) for match in map(_NUMBERED.match, lines) if match]
    if not _NUMBERED.match(lines[0]) or numbers[0] != 1:
        return False
    return numbers[1:2] == [2] or (len(lines) == 1 and len(_split_line(lines[0])) > 1)


def parse_numbered(text: str) -> ConfigFields:
    """The numbered rules. Errors: BadConfig with the line (no or wrong number), EmptyConfig."""
    found: list[tuple[int, list[str]]] = []
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(lines) == 1:
        number = lines[0][0]
        lines = [(number, part) for part in _split_line(lines[0][1])]
    for number, line in lines:
        match = _NUMBERED.match(line)
        if match:
            expected = len(found) + 1
            if int(match.group(1)) != expected:
                message = f"rule number {int(match.group(1))}, expected {expected}"
                raise bad_config(f"{message}; number the rules 1, 2, 3, ...", number)
            found.append((number, [match.group(2).strip()]))
        elif found:
            found[-1][1].append(line.strip())
        else:
            raise bad_config("text before rule 1; remove it or number it", number)
    if not found:
        raise EmptyConfig("the config has no numbered rules such as '1. ...'")
    return ConfigFields(rules=[rule_at("", " ".join(words), number) for number, words in found])


def _split_line(line: str) -> list[str]:
    """`1. a 2. b` -> [`1. a`, `2. b`]: split before each next number that starts a rule."""
    parts: list[str] = []
    start = 0
    for match in _NEXT_RULE.finditer(line):
        if int(match.group(1)) == len(parts) + 2:
            parts.append(line[start : match.start()])
            start = match.end()
    return [*parts, line[start:]]
