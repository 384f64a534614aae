"""Resident memory of this process and of what it started. Needs /proc; without it None."""

from __future__ import annotations

import os
from pathlib import Path


def rss_mb() -> float | None:
    """Resident memory of this process in MB (10^6 bytes)."""
    return _rss_mb(os.getpid())


def tree_rss_mb() -> float | None:
    """The same with every process that descends from this one."""
    own = rss_mb()
    if own is None:
        return None
    return own + sum(_rss_mb(pid) or 0.0 for pid in _descendants(os.getpid()))


def growth_mb(before: float | None, now: float | None) -> float | None:
    """From `before` to `now`, rounded; None where either is unknown."""
    return None if before is None or now is None else round(now - before, 1)


def _rss_mb(pid: int) -> float | None:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command's name, in parentheses, may hold anything; after it: state, parent.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, waiting = [], [pid]
    while waiting:
        own = children.get(waiting.pop(), [])
        found += own
        waiting += own
    return found
