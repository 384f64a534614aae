"""csrm.progress_bar: drawn on a terminal only, and only when asked for."""

from __future__ import annotations

import io
import sys

import pytest

from csrm.progress_bar import progress_bar


class Terminal(io.StringIO):
    """A stderr that a person watches."""

    def isatty(self) -> bool:
        return True


def drawn(stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch, *, is_shown: bool) -> str:
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("counting", 4, is_shown=is_shown) as advance:
        advance(1)
        sys.stderr.write("a line\n")
        advance(3)
    return stderr.getvalue()


def test_progress_bar_on_a_terminal_reaches_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    written = drawn(Terminal(), monkeypatch, is_shown=True)
    assert "counting" in written
    assert written.index(" 25%") < written.index("a line") < written.index("100%")


@pytest.mark.parametrize(
    ("stderr", "is_shown"), [(io.StringIO(), True), (Terminal(), False)], ids=["pipe", "unwanted"]
)
def test_progress_bar_that_nobody_watches_writes_nothing_of_its_own(
    stderr: io.StringIO, is_shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drawn(stderr, monkeypatch, is_shown=is_shown) == "a line\n"
