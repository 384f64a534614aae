"""python -m csrm.train.dialogues: writes policy dialogues as records of kind policy.

What it is: the generator's examples in the documented schema, for `csrm evaluate`, `csrm calibrate`
or another trainer. --held-out draws from topics that no model of csrm was trained on. The same seed
gives the same file. Not: training, which draws from the composer itself.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from csrm.train.dialogues import HELD_OUT_FILES, DialogueComposer, load_content
from csrm.train.wording import load_wording

FAMILY_SIZE = 8


def records(n: int, seed: int, *, held_out: bool) -> Iterator[dict[str, Any]]:
    """`n` records, in families: the same dialogue appears under configs with other labels."""
    content = load_content(HELD_OUT_FILES) if held_out else load_content()
    composer = DialogueComposer(
        load_wording(), tuple(content.topics) if held_out else None, content
    )
    source = "csrm-dialogues-held-out" if held_out else "csrm-dialogues"
    count = 0
    for number in range(n):  # every family has at least one example
        family = composer.family(random.Random(f"{seed}-{number}"), FAMILY_SIZE)
        for example in family.examples:
            if count == n:
                return
            count += 1
            yield {
                "id": f"{source}-{seed}-{count}",
                "source": source,
                "licence": "Apache-2.0",
                "kind": "policy",
                "judged": f"last_{example.turns[-1][0]}",
                "label_by": "construction",
                "policy": [f"{name}: {text}" if name else text for name, text in example.rules],
                "compliant": example.target == 1.0,
                "conversation": [{"role": r, "content": c} for r, c in example.turns],
            }


def main() -> None:
    """Writes OUT, gzip if it ends with .gz."""
    parser = argparse.ArgumentParser(prog="python -m csrm.train.dialogues", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="a .jsonl or .jsonl.gz file")
    parser.add_argument("--n", type=int, default=400, help="records")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true", help="topics that nothing trains on")
    options = parser.parse_args()
    rows = records(options.n, options.seed, held_out=options.held_out)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    # No time in the gzip header: the same seed gives the same bytes.
    is_packed = options.out.suffix == ".gz"
    options.out.write_bytes(gzip.compress(text, mtime=0) if is_packed else text)


if __name__ == "__main__":
    main()
