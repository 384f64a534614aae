"""Typed reader of the documented JSONL records: one frozen dataclass per kind of record.

Reads `.jsonl` and `.jsonl.gz` files and a data folder (`taxonomy.json`, `rulebooks.json`,
`severity_scales.json`, `train/`, `eval/`). It only checks and types what a file says: it composes
no configurations, draws nothing at random and drops no row. The trainer and the evaluation sets
read records from here.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, cast

from csrm.errors import BadArgument, BadConversation

Turn: TypeAlias = tuple[str, str]
"""(role, content); role is one of `ROLES`."""

Judged: TypeAlias = Literal["last_assistant", "last_user", "conversation"]

ROLES = frozenset({"system", "user", "assistant", "tool"})
JUDGED = frozenset({"last_assistant", "last_user", "conversation"})
SUFFIXES = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record comes from: the fields that every kind has, except the conversation."""

    id: str
    source: str
    licence: str
    label_by: str
    judged: Judged


@dataclass(frozen=True, slots=True)
class Categorised:
    """A conversation labelled with the taxonomy ids it is harmful under (none if `safe`)."""

    origin: Origin
    conversation: tuple[Turn, ...]
    safe: bool
    harms: tuple[str, ...]
    source_harms: tuple[str, ...]
    prompt_harms: tuple[str, ...] = ()
    noisy: bool = False


@dataclass(frozen=True, slots=True)
class Ruled:
    """A statement that does or does not break one `rule` of the rulebook `body`."""

    origin: Origin
    conversation: tuple[Turn, ...]
    rule: str
    rule_category: str
    body: str
    violates: bool
    pair: str | None = None


@dataclass(frozen=True, slots=True)
class Shortcut:
    """What a policy record's program saw, so that label shortcuts can be found."""

    action_called: bool
    over_refusal: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """A conversation with its whole policy (ordered rule texts) and whether it complies."""

    origin: Origin
    conversation: tuple[Turn, ...]
    policy: tuple[str, ...]
    compliant: bool
    violated_rules: tuple[int, ...] = ()
    target_rule: int | None = None
    shortcut: Shortcut | None = None
    grade: str | None = None
    derived: bool = False


@dataclass(frozen=True, slots=True)
class Preference:
    """Two continuations of one conversation; `chosen` is better under `config`."""

    origin: Origin
    conversation: tuple[Turn, ...]
    config: tuple[str, ...]
    chosen: tuple[Turn, ...]
    rejected: tuple[Turn, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Severity:
    """A conversation rated on a scale: `severity` in [0, 1] is the mean of `raters`."""

    origin: Origin
    conversation: tuple[Turn, ...]
    severity: float
    raters: tuple[float, ...]
    scale: str
    harm: str
    votes: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A harmless instruction without a reply."""

    origin: Origin
    conversation: tuple[Turn, ...]


Record: TypeAlias = Categorised | Ruled | Policy | Preference | Severity | Prompt


def _is_fraction(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and 0 <= value <= 1


class _Fields:
    """Checked access to one JSON object."""

    __slots__ = ("_row",)

    def __init__(self, row: dict[str, Any]) -> None:
        self._row = row

    def fail(self, name: str, expected: str) -> BadConversation:
        found = type(self._row[name]).__name__ if name in self._row else "missing"
        return BadConversation(
            f"field '{name}' is {found}; expected {expected}; correct the record"
        )

    def text(self, name: str, default: str | None = None) -> str:
        value = self._row.get(name, default)
        if not isinstance(value, str):
            raise self.fail(name, "a string")
        return value

    def optional_text(self, name: str) -> str | None:
        return self.text(name) if self._row.get(name) is not None else None

    def flag(self, name: str, default: bool | None = None) -> bool:
        value = self._row.get(name, default)
        if not isinstance(value, bool):
            raise self.fail(name, "true or false")
        return value

    def number(self, name: str) -> float:
        value = self._row.get(name)
        if not _is_fraction(value):
            raise self.fail(name, "a number from 0 to 1")
        return float(cast(float, value))

    def texts(self, name: str, *, is_optional: bool = False) -> tuple[str, ...]:
        value = self._row.get(name, [] if is_optional else None)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.fail(name, "a list of strings")
        return tuple(value)

    def numbers(self, name: str) -> tuple[float, ...]:
        value = self._row.get(name)
        if not isinstance(value, list) or not all(_is_fraction(item) for item in value):
            raise self.fail(name, "a list of numbers from 0 to 1")
        return tuple(float(item) for item in value)

    def indices(self, name: str) -> tuple[int, ...]:
        value = self._row.get(name, [])
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise self.fail(name, "a list of whole numbers")
        return tuple(value)

    def optional_index(self, name: str) -> int | None:
        value = self._row.get(name)
        if value is not None and type(value) is not int:
            raise self.fail(name, "a whole number")
        return value

    def mapping(self, name: str) -> dict[str, Any] | None:
        value = self._row.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.fail(name, "an object")
        return value

    def config(self) -> tuple[str, ...]:
        value = self._row.get("config")
        return (value,) if isinstance(value, str) else self.texts("config")

    def turns(self, name: str) -> tuple[Turn, ...]:
        value = self._row.get(name)
        if not isinstance(value, list) or not value:
            raise self.fail(name, "a list of at least one turn")
        turns: list[Turn] = []
        for turn in value:
            role, content = (
                (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
            )
            if not isinstance(role, str) or role not in ROLES or not isinstance(content, str):
                raise BadConversation(
                    f"turn {len(turns)} of '{name}' needs a role out of "
                    f"{', '.join(sorted(ROLES))} and a content string; correct the record"
                )
            turns.append((role, content))
        return tuple(turns)

    def origin(self) -> Origin:
        judged = self.text("judged")
        if judged not in JUDGED:
            raise self.fail("judged", f"one of {', '.join(sorted(JUDGED))}")
        return Origin(
            id=self.text("id"),
            source=self.text("source"),
            licence=self.text("licence"),
            label_by=self.text("label_by"),
            judged=cast(Judged, judged),
        )


def _categorised(fields: _Fields) -> Categorised:
    return Categorised(
        origin=fields.origin(),
        conversation=fields.turns("conversation"),
        safe=fields.flag("safe"),
        harms=fields.texts("harms"),
        source_harms=fields.texts("source_harms", is_optional=True),
        prompt_harms=fields.texts("prompt_harms", is_optional=True),
        noisy=fields.flag("noisy", default=False),
    )


def _ruled(fields: _Fields) -> Ruled:
    return Ruled(
        origin=fields.origin(),
        conversation=fields.turns("conversation"),
        rule=fields.text("rule"),
        rule_category=fields.text("rule_category"),
        body=fields.text("body"),
        violates=fields.flag("violates"),
        pair=fields.optional_text("pair"),
    )


def _policy(fields: _Fields) -> Policy:
    rules = fields.texts("policy")
    target = fields.optional_index("target_rule")
    violated = fields.indices("violated_rules")
    if not rules:
        raise fields.fail("policy", "a list of at least one rule")
    for name, indices in (("target_rule", (target,)), ("violated_rules", violated)):
        if any(index is not None and not 0 <= index < len(rules) for index in indices):
            raise fields.fail(name, f"0-based positions below {len(rules)}, the number of rules")
    seen = fields.mapping("shortcut")
    return Policy(
        origin=fields.origin(),
        conversation=fields.turns("conversation"),
        policy=rules,
        compliant=fields.flag("compliant"),
        violated_rules=violated,
        target_rule=target,
        shortcut=None
        if seen is None
        else Shortcut(
            action_called=bool(seen.get("action_called")),
            over_refusal=bool(seen.get("over_refusal")),
        ),
        grade=fields.optional_text("grade"),
        derived=fields.flag("derived", default=False),
    )


def _preference(fields: _Fields) -> Preference:
    return Preference(
        origin=fields.origin(),
        conversation=fields.turns("conversation"),
        config=fields.config(),
        chosen=fields.turns("chosen"),
        rejected=fields.turns("rejected"),
        why=fields.text("why", default=""),
    )


def _severity(fields: _Fields) -> Severity:
    return Severity(
        origin=fields.origin(),
        conversation=fields.turns("conversation"),
        severity=fields.number("severity"),
        raters=fields.numbers("raters"),
        scale=fields.text("scale"),
        harm=fields.text("harm"),
        votes=fields.mapping("votes"),
    )


def _prompt(fields: _Fields) -> Prompt:
    return Prompt(origin=fields.origin(), conversation=fields.turns("conversation"))


_READERS: dict[str, Callable[[_Fields], Record]] = {
    "categorised": _categorised,
    "ruled": _ruled,
    "policy": _policy,
    "preference": _preference,
    "severity": _severity,
    "prompt": _prompt,
}


def read_record(row: object) -> Record:
    """The typed record in one decoded JSON value.

    Errors: BadConversation when the value is no documented record. Thread-safe.
    """
    if not isinstance(row, dict):
        raise BadConversation(f"a {type(row).__name__} is no record; write a JSON object")
    reader = _READERS.get(row["kind"]) if isinstance(row.get("kind"), str) else None
    if reader is None:
        raise BadConversation(
            f"field 'kind' is missing or unknown; expected one of {', '.join(_READERS)}"
        )
    return reader(_Fields(row))


def read_records(path: str | Path) -> Iterator[Record]:
    """The records of one `.jsonl` or `.jsonl.gz` file, in file order, read as they are asked for.

    Blank lines are skipped. Errors: BadArgument when the file cannot be opened or has another
    suffix; BadConversation, with file name and 1-based line, for a line that is no documented
    record or a damaged gzip stream. An error ends the iteration. Thread-safe (each call has its
    own file).
    """
    path = Path(path)
    line = 0
    with _open(path) as stream:
        try:
            for line, raw in enumerate(stream, start=1):
                if raw.strip():
                    yield _read_line(raw, line, path.name)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise BadConversation(
                "the gzip stream is damaged or cut off; fetch the file again",
                line=line + 1,
                path=path.name,
            ) from error


def _read_line(raw: bytes, line: int, name: str) -> Record:
    try:
        return read_record(_decode(raw))
    except BadConversation as error:
        raise BadConversation(error.message, line=line, path=name) from error


def _open(path: Path) -> IO[bytes]:
    if not path.name.endswith(SUFFIXES):
        raise BadArgument(
            f"'{path.name}' does not end with {' or '.join(SUFFIXES)}; give a record file"
        )
    try:
        if path.suffix == ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        return path.open("rb")
    except OSError as error:
        raise BadArgument(f"cannot read '{path.name}': {error.strerror}; check the path") from error


def _decode(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except UnicodeDecodeError as error:
        raise BadConversation(f"not UTF-8 at byte {error.start}; re-encode the line") from error
    except json.JSONDecodeError as error:
        raise BadConversation(
            f"not JSON at column {error.colno}; write one object per line"
        ) from error
    except RecursionError as error:
        raise BadConversation("the JSON is nested too deeply; flatten it") from error


@dataclass(frozen=True, slots=True)
class Category:
    """One entry of the taxonomy; `parts` are the ids that a combined label stands for."""

    id: str
    name: str
    definition: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BookRule:
    """One rule of a rulebook."""

    id: str
    category: str
    text: str


class DataFolder:
    """The files of one data folder, each read once, when first asked for.

    Errors of every property: BadArgument when the file is missing or has another shape.
    Safe to share between threads (at worst a file is read twice).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise BadArgument(f"'{self.path.name}' is no folder; give the folder of the records")

    @cached_property
    def taxonomy(self) -> Mapping[str, Category]:
        """Categories by id, in the order of `taxonomy.json`."""
        return {
            row["id"]: Category(
                row["id"], row["name"], row["definition"], tuple(row.get("parts", ()))
            )
            for row in _rows(
                self._object("taxonomy.json"), "categories", ("id", "name", "definition")
            )
        }

    @cached_property
    def rulebooks(self) -> Mapping[str, tuple[BookRule, ...]]:
        """Rules by body, in the order of `rulebooks.json`."""
        books = self._object("rulebooks.json")
        return {
            body: tuple(
                BookRule(row["id"], row["category"], row["text"])
                for row in _rows(books, body, ("id", "category", "text"))
            )
            for body in books
        }

    @cached_property
    def severity_scales(self) -> Mapping[str, tuple[tuple[float, str], ...]]:
        """Scales by key: (level in [0, 1], what a conversation of that level is like), rising."""
        name = "severity_scales.json"
        try:
            return {
                key: tuple(sorted((float(level), str(t)) for level, t in row["levels"].items()))
                for key, row in self._object(name).items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadArgument(f"{name}: every scale needs 'levels', number to text") from error

    @property
    def train_files(self) -> tuple[Path, ...]:
        """Record files in `train/`, sorted by name."""
        return self._files("train")

    @property
    def eval_files(self) -> tuple[Path, ...]:
        """Record files in `eval/`, sorted by name. Never train or calibrate on them."""
        return self._files("eval")

    def _files(self, part: str) -> tuple[Path, ...]:
        return tuple(sorted(p for p in (self.path / part).glob("*") if p.name.endswith(SUFFIXES)))

    def _object(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads((self.path / name).read_bytes())
        except OSError as error:
            raise BadArgument(f"cannot read '{name}': {error.strerror}; add the file") from error
        except ValueError as error:
            raise BadArgument(f"'{name}' is not UTF-8 JSON; correct the file") from error
        if not isinstance(value, dict):
            raise BadArgument(f"'{name}' holds a {type(value).__name__}; expected an object")
        return value


def _rows(value: dict[str, Any], key: str, needed: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = value.get(key)
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and all(isinstance(row.get(name), str) for name in needed)
        for row in rows
    ):
        raise BadArgument(f"'{key}' must be a list of objects with {', '.join(needed)}")
    return rows
