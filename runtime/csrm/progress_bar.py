"""A bar on stderr for commands that know how much there is to do, only while a person watches.

Not: the count of `csrm score` (cli/progress.py), which does not know, and not output. The bar is
drawn by the thread that advances it: no other thread wakes up beside what is being measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import Progress

Advance: TypeAlias = Callable[[int], None]
_EVERY_S = 0.1


@contextmanager
def progress_bar(name: str, total: int, *, is_shown: bool) -> Iterator[Advance]:
    """A bar of `total` steps if `is_shown` and stderr is a terminal.

    Yields the function that moves it by a number of steps, for one thread. Lines written to stderr
    meanwhile come above the bar.
    """
    console = Console(stderr=True)
    is_hidden = not (is_shown and console.is_terminal)
    drawn = 0.0
    with Progress(console=console, auto_refresh=False, disable=is_hidden) as bar:
        task = bar.add_task(name, total=total)

        def advance(n: int) -> None:
            nonlocal drawn
            now = time.monotonic()
            is_due = now - drawn >= _EVERY_S
            drawn = now if is_due else drawn
            bar.update(task, advance=n, refresh=is_due)

        yield advance
