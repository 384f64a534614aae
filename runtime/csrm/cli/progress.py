"""A one-line progress count on stderr, only while a person watches.

Not: output. Without a terminal nothing is written at all.
"""

from __future__ import annotations

import sys
from typing import BinaryIO


class Progress:
    """Counts scored lines of `stream` and shows the part of the file that was read."""

    def __init__(self, stream: BinaryIO, is_shown: bool) -> None:
        self._stream = stream
        self._is_shown = is_shown and sys.stderr.isatty()
        self._n_lines = 0
        self._n_bytes = _size(stream) if self._is_shown else 0

    def add(self, n_lines: int) -> None:
        """Counts `n_lines` more and redraws."""
        self._n_lines += n_lines
        if self._is_shown:
            sys.stderr.write(f"\rscored {self._n_lines:,}{self._part()} ")
            sys.stderr.flush()

    def finish(self) -> None:
        """Clears the line."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _part(self) -> str:
        if not self._n_bytes:
            return ""
        part = self._stream.tell() / self._n_bytes
        filled = round(part * 20)
        return f" [{'#' * filled}{'.' * (20 - filled)}] {part:4.0%}"


def _size(stream: BinaryIO) -> int:
    if not stream.seekable():
        return 0
    here = stream.tell()
    size = stream.seek(0, 2)
    stream.seek(here)
    return size
