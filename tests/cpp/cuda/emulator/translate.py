"""Rewrites CUDA C++ for the emulator: python translate.py IN OUT. Launches become calls, and the
block's dynamic shared memory the emulator's. All else compiles as it is (emulator.h).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_NAME = r"[A-Za-z_]\w*(?:<(?:[^<>;]|<[^<>;]*>)*>)?"
_LAUNCH = re.compile(rf"({_NAME})\s*<<<([^;]*?)>>>\(")
_SHARED = re.compile(r"extern __shared__ __align__\(16\) unsigned char shared\[\];")


def translated(text: str) -> str:
    """`text` as C++ that includes emulator.h."""
    text = _SHARED.sub("unsigned char* shared = ::emulator::shared_memory.data();", text)
    return _LAUNCH.sub(r"::emulator::launch(\1, \2)(", text)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(translated(source.read_text()))
