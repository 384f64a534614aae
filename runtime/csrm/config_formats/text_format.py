"""Plain text and Markdown: one rule per item, or per paragraph where there are no items.

Not: a Markdown renderer; emphasis and links stay as written. No text is dropped except the title,
horizontal rules and HTML comments:
  - an item (`-`, `*`, `+`, `1.`, `1)`, `(1)`, `(a)`) is a rule; its wrapped lines and nested items
    belong to it; a paragraph outside the items is a rule too;
  - a paragraph that ends in ":" right before items starts each of them ("Never: " + item);
  - a heading names the rules below it; a single level-1 heading at the top is the title;
  - `**Name.** text` and `**Name**: text` name one rule;
  - in one paragraph whose every line ends a sentence, each line is a rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from csrm.config_formats.fields import ConfigFields, bad_config, rule_at
from csrm.errors import EmptyConfig
from csrm.rule import Rule

_ITEM = re.compile(r"^( *)(?:[-*+\u2022]|\(?\d{1,4}[.)]|\([a-zA-Z]\))\s+(\S.*)$")
_HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(\S.*)$")
_UNDERLINE = re.compile(r"^ {0,3}(={3,}|-{3,})$")
_BREAK = re.compile(r"^ {0,3}(?:(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,}|={3,})$")
_BOLD_NAME = re.compile(
    r"^(?:\*\*|__)(?P<name>[^*_]{1,80}?)(?P<end>[.:]?)(?:\*\*|__)[.:]?\s+(?=\S)"
)


@dataclass
class _Block:
    """An item or a paragraph with the headings above it; lines are stripped."""

    line: int
    is_item: bool
    indent: int
    heading: str
    lines: list[str] = field(default_factory=list)

    def text(self) -> str:
        return " ".join(self.lines).replace(" \n", "\n")


def has_items_or_headings(text: str) -> bool:
    """Whether a line is a bulleted item or a heading (numbered items do not count)."""
    return bool(re.search(r"(?m)^ *(?:[-*+\u2022]|#{1,6})[ \t]+\S", text))


def parse_text(text: str) -> ConfigFields:
    """The rules of a plain text or Markdown config. Errors: BadConfig, EmptyConfig."""
    lines = _without_comments(text).expandtabs(4).split("\n")
    if lines[0].rstrip() == "---" and "---" in (line.rstrip() for line in lines[1:]):
        raise bad_config("front matter is not supported; write the config as YAML instead", 1)
    blocks = _blocks(lines)
    rules = _sentences(blocks) or list(_rules(blocks))
    if not rules:
        raise EmptyConfig("the config has no rules; state at least one")
    return ConfigFields(rules=rules)


def _without_comments(text: str) -> str:
    # Not a regular expression: with many unclosed comments that would take quadratic time.
    kept = []
    start = 0
    while (opened := text.find("<!--", start)) >= 0:
        closed = text.find("-->", opened + 4)
        if closed < 0:
            break
        kept += [text[start:opened], "\n" * text.count("\n", opened, closed)]
        start = closed + 3
    return "".join([*kept, text[start:]])


def _blocks(lines: list[str]) -> list[_Block]:
    headings = _headings(lines)
    blocks: list[_Block] = []
    current: _Block | None = None
    after_blank = False
    name = ""
    for index, line in enumerate(lines):
        if index in headings:
            name, current = headings[index], None
            continue
        if _BREAK.match(line):
            current = None
            continue
        if not line.strip():
            after_blank = True
            continue
        item = _ITEM.match(line)
        indent = len(line) - len(line.lstrip())
        if item and current and current.is_item and indent >= current.indent + 2:
            current.lines.append("\n- " + item.group(2).strip())
        elif item:
            current = _Block(index + 1, True, indent, name, [item.group(2).strip()])
            blocks.append(current)
        elif current and (not after_blank or (current.is_item and indent > current.indent)):
            current.lines.append(line.strip())
        else:
            current = _Block(index + 1, False, indent, name, [line.strip()])
            blocks.append(current)
        after_blank = False
    return blocks


def _headings(lines: list[str]) -> dict[int, str]:
    """Line index -> the name it gives; "" for the title and for the underline of a heading."""
    found: dict[int, tuple[int, str]] = {}
    for index, line in enumerate(lines):
        heading = _HEADING.match(line)
        if heading:
            name = heading.group(2).rstrip().rstrip("#").rstrip()
            found[index] = (len(heading.group(1)), name)
        elif _underlines(lines, index):
            name = lines[index - 1].strip()
            found[index - 1] = found[index] = (1 if "=" in line else 2, name)
    top = {name for level, name in found.values() if level == 1}
    first = min(found, default=None)
    if first is not None and len(top) == 1 and found[first][0] == 1:
        return {i: "" if level == 1 else name for i, (level, name) in found.items()}
    return {index: name for index, (_, name) in found.items()}


def _underlines(lines: list[str], index: int) -> bool:
    if index == 0 or not _UNDERLINE.match(lines[index]):
        return False
    above = lines[index - 1]
    starts_paragraph = index == 1 or not lines[index - 2].strip()
    return bool(above.strip()) and starts_paragraph and not _ITEM.match(above)


def _sentences(blocks: list[_Block]) -> list[Rule]:
    """One rule per line of a lone paragraph whose lines all end a sentence; else nothing."""
    if len(blocks) != 1 or blocks[0].is_item or len(blocks[0].lines) < 2:
        return []
    lines = blocks[0].lines
    if not all(line[-1] in ".!?;" for line in lines):
        return []
    return [rule_at("", line, blocks[0].line + i) for i, line in enumerate(lines)]


def _rules(blocks: list[_Block]) -> Iterator[Rule]:
    lead_in, section = "", ""
    for block, following in zip(blocks, [*blocks[1:], None], strict=False):
        text = block.text()
        if not block.is_item or block.heading != section:
            lead_in, section = "", block.heading
        if not block.is_item and text.endswith(":") and following and following.is_item:
            lead_in = text + " "
            continue
        name, text = _split_bold_name(text)
        yield rule_at(name or block.heading, lead_in + text, block.line)


def _split_bold_name(text: str) -> tuple[str, str]:
    match = _BOLD_NAME.match(text)
    return (match.group("name").strip(), text[match.end() :]) if match else ("", text)
