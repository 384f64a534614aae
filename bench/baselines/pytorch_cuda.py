"""The same weights in PyTorch on an NVIDIA GPU, bf16: eager, and compiled with CUDA graphs.

See pytorch_engine.py for what is timed.
"""

from __future__ import annotations

from pathlib import Path

import torch

from csrm.bench.baselines.pytorch_engine import PytorchEngine


class PytorchEagerCuda(PytorchEngine):
    """See the module. `artifact` is the folder. Errors: Unsupported without a GPU."""

    def __init__(self, artifact: Path, threads: int) -> None:
        super().__init__(artifact, threads, device="cuda", dtype=torch.bfloat16)


class TorchCompileCuda(PytorchEngine):
    """The same through torch.compile, in one CUDA graph for each shape.

    That is its fastest way; a guard that meets many shapes pays a compilation at each new one,
    before the clock starts here.
    """

    def __init__(self, artifact: Path, threads: int) -> None:
        super().__init__(artifact, threads, device="cuda", dtype=torch.bfloat16, is_compiled=True)
