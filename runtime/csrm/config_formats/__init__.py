"""Config files: finds the format, then calls the one parser for it.

Not: reading files (csrm.config) and not the object itself. One file per format: yaml_format.py,
text_format.py (plain text and Markdown), llamaguard_format.py, numbered_format.py.

Detection, in this order (docs/config.md has examples):
  1. suffix .yaml, .yml or .json: yaml. For .md, .markdown and .txt step 2 is left out.
  2. a `rules:` key at the start of a line, or a text that starts with `{`: yaml.
  3. the first line of content, or at least two lines, start with a code `S1:` or `O1:`: llamaguard.
  4. the first line of content is rule 1 (`1.`, `1)`, `Rule 1:`), rule 2 follows and there are no
     headings or bullets: numbered.
  5. anything else: text.
"""

from __future__ import annotations

from csrm.config_formats import llamaguard_format, numbered_format, text_format, yaml_format
from csrm.config_formats.fields import ConfigFields, bad_config
from csrm.config_formats.yaml_format import to_yaml
from csrm.errors import BadArgument, BadConfig, EmptyConfig, LimitExceeded
from csrm.text import require_utf8

__all__ = ["FORMATS", "MAX_CONFIG_BYTES", "ConfigFields", "detect", "parse", "to_yaml"]

MAX_CONFIG_BYTES = 1 << 20

_PARSERS = {
    "yaml": yaml_format.parse_yaml,
    "text": text_format.parse_text,
    "llamaguard": llamaguard_format.parse_llamaguard,
    "numbered": numbered_format.parse_numbered,
}
FORMATS = tuple(_PARSERS)
_YAML_SUFFIXES = (".yaml", ".yml", ".json")
_TEXT_SUFFIXES = (".md", ".markdown", ".txt")


def detect(text: str, suffix: str = "") -> str:
    """The format of `text` in a file with `suffix` (".yaml"; "" = unknown), by the rules above."""
    suffix = suffix.lower()
    if suffix in _YAML_SUFFIXES:
        return "yaml"
    text = _unmarked(text)
    if suffix not in _TEXT_SUFFIXES and yaml_format.is_yaml(text):
        return "yaml"
    if llamaguard_format.is_llamaguard(text):
        return "llamaguard"
    if numbered_format.is_numbered(text):
        return "numbered"
    return "text"


def parse(text: str, format: str | None = None) -> ConfigFields:
    """The fields that `text` states in `format` (one of FORMATS; None detects it).

    Errors: BadArgument (unknown format), BadConfig with line and column, EmptyConfig (no rules),
    BadUtf8, LimitExceeded (more than 1 MiB).
    """
    if not isinstance(text, str):
        raise BadConfig(f"the config text is of type {type(text).__name__}; give a string")
    if format is not None and format not in _PARSERS:
        raise BadArgument(f"unknown config format; it must be one of: {', '.join(FORMATS)}")
    n_bytes = len(require_utf8(text, "the config text").encode("utf-8"))
    if n_bytes > MAX_CONFIG_BYTES:
        raise LimitExceeded(
            f"the config text has {n_bytes:,} bytes; limit is {MAX_CONFIG_BYTES:,}; split it"
        )
    text = _unmarked(text)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise bad_config("the file holds a NUL byte; it is not a text file", line)
    if not text.strip():
        raise EmptyConfig("the config is empty; state at least one rule")
    return _PARSERS[format or detect(text)](text)


def _unmarked(text: str) -> str:
    """`text` without a byte order mark, its lines ended by newlines."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
