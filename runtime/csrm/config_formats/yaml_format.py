"""YAML (and JSON) config files: a strict schema with errors that give line and column.

Not: YAML at large. Anchors, aliases, tags and several documents are refused before anything is
built, so that no small file can grow large. The same schema for editors: csrm/config.schema.json.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

import yaml

from csrm.config_formats.fields import ConfigFields, bad_config
from csrm.errors import BadConfig, EmptyConfig
from csrm.rule import RULE_KEYS, Rule
from csrm.text import require_utf8

MAX_DEPTH = 8
CONFIG_KEYS = ("id", "version", "threshold", "description", "rules")

_NUMBER = re.compile(r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?")
_ODD_BREAKS = re.compile("[\r\x85\u2028\u2029\ufeff]")
_TYPE_NAMES = {
    "tag:yaml.org,2002:str": "a string",
    "tag:yaml.org,2002:int": "an integer",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:bool": "a boolean",
    "tag:yaml.org,2002:null": "empty",
    "tag:yaml.org,2002:timestamp": "a date",
    "tag:yaml.org,2002:map": "a mapping",
    "tag:yaml.org,2002:seq": "a list",
}


def is_yaml(text: str) -> bool:
    """Whether `text` has a `rules:` key at the start of a line or starts as a JSON object."""
    return bool(re.search(r"(?m)^(?:rules|\"rules\")[ \t]*:", text)) or text.lstrip()[:1] == "{"


def parse_yaml(text: str) -> ConfigFields:
    """The fields of a YAML config. Errors: BadConfig with line and column, EmptyConfig, BadUtf8."""
    try:
        _refuse_unbounded(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        message = "a control character that YAML does not allow; remove it or write it as \\x.."
        raise bad_config(message, line, column) from None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error) from None
    if root is None:
        raise EmptyConfig("the config is empty; state at least one rule")
    fields = _mapping(root, "the config", CONFIG_KEYS)
    if "rules" not in fields:
        raise _bad(root, "the key 'rules' is missing; list at least one rule under it")
    return ConfigFields(
        rules=_rules(fields["rules"]),
        id=_optional_string(fields, "id"),
        version=_optional_string(fields, "version"),
        threshold=_threshold(fields["threshold"]) if "threshold" in fields else 0.5,
        description=_optional_string(fields, "description"),
    )


def to_yaml(fields: ConfigFields) -> str:
    """A YAML text that `parse_yaml` reads back to equal fields. Empty optional fields are left out.

    Never anchors or tags; characters outside ASCII are written as they are.
    """
    head: dict[str, object] = {
        key: getattr(fields, key) for key in ("id", "version", "description")
    }
    document = {key: value for key, value in head.items() if value}
    document["threshold"] = fields.threshold
    document["rules"] = [
        {key: getattr(rule, key) for key in RULE_KEYS if getattr(rule, key)}
        for rule in fields.rules
    ]
    dumped: str = yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )
    return dumped


class _Dumper(yaml.SafeDumper):
    """PyYAML's, but exact for the line breaks that YAML folds into others."""


def _represent_str(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _ODD_BREAKS.search(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_str)


def _refuse_unbounded(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _at(event.start_mark, "anchors and aliases (& and *) are not allowed; repeat it")
        if getattr(event, "tag", None) is not None:
            raise _at(event.start_mark, "tags (!) are not allowed; put a text with ! in quotes")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _at(event.start_mark, f"nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _syntax_error(error: yaml.MarkedYAMLError) -> BadConfig:
    # PyYAML quotes the offending characters, which are the user's text; its token names are not.
    problem = re.sub(r"'(?!<)[^']*'|\"[^\"]*\"", "...", error.problem or "syntax error")
    message = f"not valid YAML: {problem}; a text with ': ' or ' #' in it needs quotes"
    mark = error.problem_mark or error.context_mark
    return BadConfig(message) if mark is None else _at(mark, message)


def _at(mark: Any, message: str) -> BadConfig:
    return bad_config(message, mark.line + 1, mark.column + 1)


def _bad(node: yaml.Node, message: str) -> BadConfig:
    return _at(node.start_mark, message)


def _type_name(node: yaml.Node) -> str:
    return _TYPE_NAMES.get(node.tag, "of another type")


def _mapping(node: yaml.Node, what: str, known: tuple[str, ...]) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        raise _bad(node, f"{what} is {_type_name(node)}; it must be a mapping with {_list(known)}")
    found: dict[str, yaml.Node] = {}
    lines: dict[str, int] = {}
    for key_node, value in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
        if key not in known:
            raise _bad(key_node, _unknown_key(str(key), what, known))
        if key in found:
            raise _bad(key_node, f"duplicate key '{key}'; it is already on line {lines[key]}")
        found[key] = value
        lines[key] = key_node.start_mark.line + 1
    return found


def _unknown_key(key: str, what: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(key[:40].lower(), known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"unknown key in {what}; {hint}the keys are {_list(known)}; put a sentence in quotes"


def _list(keys: tuple[str, ...]) -> str:
    return ", ".join(keys)


def _string(node: yaml.Node, what: str) -> str:
    if node.tag != "tag:yaml.org,2002:str" or not isinstance(node, yaml.ScalarNode):
        hint = "; put it in quotes" if isinstance(node, yaml.ScalarNode) and node.value else ""
        raise _bad(node, f"{what} is {_type_name(node)}; it must be a string{hint}")
    # JSON writes a character outside the BMP as two escapes, which PyYAML keeps apart.
    value = str(node.value).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return require_utf8(value, what)


def _optional_string(fields: dict[str, yaml.Node], key: str) -> str:
    return _string(fields[key], key) if key in fields else ""


def _threshold(node: yaml.Node) -> float:
    is_number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    if not (is_number and _NUMBER.fullmatch(node.value)):
        raise _bad(node, f"threshold is {_type_name(node)}; it must be a decimal number in [0, 1]")
    threshold = float(node.value)
    if not 0 <= threshold <= 1:
        raise _bad(node, f"threshold is {threshold}; it must be in [0, 1]")
    return threshold


def _rules(node: yaml.Node) -> list[Rule]:
    if not isinstance(node, yaml.SequenceNode):
        raise _bad(node, f"rules is {_type_name(node)}; it must be a list")
    if not node.value:
        mark = node.start_mark
        message = "the config has no rules; state at least one"
        raise EmptyConfig(message, line=mark.line + 1, column=mark.column + 1)
    return [_rule(item, f"rule {number}") for number, item in enumerate(node.value, start=1)]


def _rule(node: yaml.Node, what: str) -> Rule:
    if isinstance(node, yaml.ScalarNode):
        return _checked(node, what, {"text": _string(node, what)})
    fields = _mapping(node, what, RULE_KEYS)
    if "text" not in fields:
        raise _bad(node, f"{what} has no key 'text'; write what it forbids or allows")
    values = {key: _string(value, f"{key} of {what}") for key, value in fields.items()}
    return _checked(node, what, values)


def _checked(node: yaml.Node, what: str, values: dict[str, str]) -> Rule:
    try:
        return Rule(
            name=values.get("name", ""),
            text=values["text"].strip(),
            owner=values.get("owner", ""),
            severity=values.get("severity", ""),
            action=values.get("action", ""),
        )
    except BadConfig as error:
        raise _bad(node, f"{what}: {error.message}") from None
