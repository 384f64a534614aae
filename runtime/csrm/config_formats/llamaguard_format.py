"""LlamaGuard-style categories: `S1: Name. guideline` or `O1: Name.` with guideline lines below.

Not: LlamaGuard's whole prompt; text before the first category is refused, because leaving it out
could change what the config means. The rule's name keeps the code ("S1: Violent Crimes"); a
category without a guideline is named by its code and its text is the category's name.
"""

from __future__ import annotations

import re

from csrm.config_formats.fields import ConfigFields, bad_config, rule_at
from csrm.errors import EmptyConfig
from csrm.rule import Rule

MAX_NAME_CHARS = 80

_CATEGORY = re.compile(r"^\s*(?:[-*]\s+)?(?:\*\*)?([SO]\d{1,3})(?:\*\*)?\s*[:.](?:\*\*)?\s*(.*)$")
_IGNORED = re.compile(r"</?(?:BEGIN|END)\b[^>]*>|#{1,6}\s.*|")


def is_llamaguard(text: str) -> bool:
    """Whether the first line of content, or at least two lines, start with a category code."""
    lines = [line for line in text.splitlines() if not _is_ignored(line)]
    n_categories = sum(1 for line in lines if _CATEGORY.match(line))
    return n_categories >= 2 or bool(lines and _CATEGORY.match(lines[0]))


def parse_llamaguard(text: str) -> ConfigFields:
    """The categories as rules. Errors: BadConfig with the line, EmptyConfig."""
    categories: list[tuple[str, int, list[str]]] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if _is_ignored(line):
            continue
        match = _CATEGORY.match(line)
        if match:
            code = match.group(1)
            if code in seen:
                raise bad_config(f"duplicate category {code}; it is on line {seen[code]}", number)
            seen[code] = number
            categories.append((code, number, [match.group(2).strip()]))
        elif categories:
            categories[-1][2].append(line.strip())
        else:
            message = "text before the first category; remove it or make it a category"
            raise bad_config(message, number)
    if not categories:
        raise EmptyConfig("the config has no category such as 'S1: Name. guideline'")
    return ConfigFields(rules=[_rule(*category) for category in categories])


def _is_ignored(line: str) -> bool:
    return _IGNORED.fullmatch(line.strip()) is not None


def _rule(code: str, number: int, lines: list[str]) -> Rule:
    first, *rest = lines
    name, dot, guideline = first.partition(". ")
    if not dot and (first.endswith(".") or rest):
        name, guideline = first.rstrip("."), ""
    text = "\n".join(line for line in (guideline.strip(), *rest) if line)
    if not text or not name or len(name) > MAX_NAME_CHARS:
        return rule_at(code, "\n".join(line for line in lines if line), number)
    return rule_at(f"{code}: {name}", text, number)
