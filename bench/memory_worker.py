"""`python -m csrm.bench.memory_worker`: a process that holds csrm and nothing else, and its size.

A line of JSON out after each stage; the second and later ones follow a line in
(csrm.bench.scaling_memory is the other end):

    (start)                                -> {"rss_mb": 30.1, "cached_tokens": 0, "token_bytes": 0}
    {"artifact": "...", "n_threads": 2, "cache_tokens": 99, "variant": ""}
                                           -> the same, model loaded; token_bytes: what the keys and
                                              values of a cached token take in that variant
    {"rules": ["...", ...], "turn": "..."} -> the same, once that was scored

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
    answer(0, 0)
    options: dict[str, Any] = json.loads(sys.stdin.readline())
    scorer = csrm.load(**options)
    token_bytes = scorer.info()["cache_token_bytes"]
    answer(0, token_bytes)
    for line in sys.stdin:
        stage = json.loads(line)
        scorer.score(stage["rules"], [{"role": "assistant", "content": stage["turn"]}])
        answer(scorer.cache_stats()["n_tokens"], token_bytes)


def answer(cached_tokens: int, token_bytes: int) -> None:
    """Tells what the process holds now."""
    held = {"rss_mb": rss_mb(), "cached_tokens": cached_tokens, "token_bytes": token_bytes}
    print(json.dumps(held), flush=True)


if __name__ == "__main__":
    main()
