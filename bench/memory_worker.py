"""`python -m csrm.bench.memory_worker`: a process that holds csrm and nothing else, and its size.

A line of JSON out after each stage; the second and later ones follow a line in
(csrm.bench.scaling_memory is the other end):

    (start)                                     -> {"rss_mb": 30.1, "cached_tokens": 0}
    {"artifact": "...", "n_threads": 2, "cache_tokens": 99} -> the same, model loaded
    {"rules": ["...", ...], "turn": "..."}      -> the same, once that was scored

Not: any text of its own; a renderer to make some would be in the figures. The process ends when
its input does, with status 1 and a traceback on stderr if a stage fails.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import csrm
from csrm.bench.memory import rss_mb


def main() -> None:
    """Serves the stages until stdin ends."""
    answer(0)
    options: dict[str, Any] = json.loads(sys.stdin.readline())
    scorer = csrm.load(**options)
    answer(0)
    for line in sys.stdin:
        stage = json.loads(line)
        scorer.score(stage["rules"], [{"role": "assistant", "content": stage["turn"]}])
        answer(scorer.cache_stats()["n_tokens"])


def answer(cached_tokens: int) -> None:
    """Tells what the process holds now."""
    print(json.dumps({"rss_mb": rss_mb(), "cached_tokens": cached_tokens}), flush=True)


if __name__ == "__main__":
    main()
