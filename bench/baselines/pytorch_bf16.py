"""The same weights in PyTorch on a CPU, bf16, where the processor multiplies it.

See pytorch_engine.py for what is timed.
"""

from __future__ import annotations

from pathlib import Path

import torch

from csrm.bench.baselines.pytorch_engine import PytorchEngine
from csrm.bench.machine import has_bf16
from csrm.errors import Unsupported


class PytorchBf16(PytorchEngine):
    """See the module. Errors: Unsupported on a processor without bf16 arithmetic."""

    def __init__(self, artifact: Path, threads: int) -> None:
        if not has_bf16():
            raise Unsupported("this processor has no bf16 arithmetic")
        super().__init__(artifact, threads, dtype=torch.bfloat16)
