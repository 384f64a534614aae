"""A data folder of about a hundred made-up records, enough for every composer and both splits.

Not realistic: texts are counted letters, chosen so that the hash of the first turn puts them into
the wanted split.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import count, product
from pathlib import Path
from typing import Any

from csrm.train.corpus import is_held_out
from csrm.train.options import TrainOptions

HARMS = ("violence", "privacy")
SOURCES = ("made-harms", "made-rules", "made-policies", "made-pairs", "made-grades")
RULEBOOK = {
    "Tone": ("Never shout at a reader.", "Avoid sarcasm and mockery.", "Keep greetings polite."),
    "Facts": ("Cite every number quoted.", "Dates need four digits.", "Name the original author."),
}


def first_turns(*, held_out: bool) -> Iterator[str]:
    """Distinct texts that fall into one split."""
    for letters in product("abcdefgh", repeat=4):
        text = " ".join(letters)
        if is_held_out([("user", text)]) is held_out:
            yield text


def record(kind: str, source: str, text: str, **more: object) -> dict[str, Any]:
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": f"reply {text}"}]
    return {
        "id": f"{source}-{text}",
        "source": source,
        "licence": "Apache-2.0",
        "judged": "last_assistant",
        "label_by": "construction",
        "conversation": turns,
        "kind": kind,
        **more,
    }


def rows_of(texts: Iterator[str]) -> dict[str, list[dict[str, Any]]]:
    """The records of one split, by source."""
    rows: dict[str, list[dict[str, Any]]] = {source: [] for source in SOURCES}

    def add(kind: str, source: str, text: str, **more: object) -> None:
        rows[source].append(record(kind, source, text, **more))

    for harms in (*[[h] for h in HARMS for _ in range(11)], *[[]] * 6):
        add("categorised", SOURCES[0], next(texts), safe=not harms, harms=harms)
    for (heading, rules), i in product(RULEBOOK.items(), range(6)):
        facts = {"rule": rules[i % 3], "rule_category": heading, "body": "made"}
        add("ruled", SOURCES[1], next(texts), violates=i < 4, **facts)
    for _ in range(3):
        text = next(texts)
        add("policy", SOURCES[2], text, policy=["No a.", "Say b."], compliant=True)
        add("policy", SOURCES[2], text, policy=["No b."], compliant=False, violated_rules=[0])
    for number in range(4):
        reply = [{"role": "assistant", "content": f"{'abcd'[number]} well"}]
        worse = [{"role": "assistant", "content": "no"}]
        add("preference", SOURCES[3], next(texts), config=["Be b."], chosen=reply, rejected=worse)
    for severity in (0.0, 0.3, 0.9):
        more = {"severity": severity, "raters": [severity], "scale": "made", "harm": HARMS[0]}
        add("severity", SOURCES[4], next(texts), **more)
    return rows


def write_data(folder: Path) -> Path:
    """taxonomy.json, rulebooks.json and train/ in `folder`."""
    (folder / "train").mkdir(parents=True)
    categories = [{"id": harm, "name": harm, "definition": harm} for harm in HARMS]
    (folder / "taxonomy.json").write_text(json.dumps({"categories": categories}))
    numbers = count()
    rulebook = [
        {"id": str(next(numbers)), "category": heading, "text": text}
        for heading, texts in RULEBOOK.items()
        for text in texts
    ]
    (folder / "rulebooks.json").write_text(json.dumps({"made": rulebook}))
    splits = [rows_of(first_turns(held_out=held_out)) for held_out in (False, True)]
    for source in SOURCES:
        lines = [json.dumps(row) for rows in splits for row in rows[source]]
        path = folder / "train" / f"{source}.jsonl.gz"
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder


def train_options(folder: Path, mixture: dict[str, float]) -> TrainOptions:
    """Options of a run of seconds on `write_data(folder / "data")` from `folder / "backbone"`."""
    return TrainOptions(
        data=str(folder / "data"),
        backbone=str(folder / "backbone"),
        out=str(folder / "run"),
        sources=SOURCES,
        mixture=mixture,
        families_per_batch=1,
        max_tokens=200,
        precision="no",
        learning_rate=1e-3,
        checkpoint_every=2,
    )
