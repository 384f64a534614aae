"""The eager model (pytorch_eager.py) through `torch.compile`, fp32, compiled once for all lengths.

Dynamic shapes, as a guard meets them; a compilation for every length apart would stop the service
for seconds at each new one. Inductor needs a C++ compiler when it runs. Uses torch's process-wide
thread count.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch._inductor.config

from csrm.bench.baselines.pytorch_eager import PytorchEager, encoder_of


class TorchCompile(PytorchEager):
    """See the module. `artifact` is the folder. The first runs compile."""

    def __init__(self, artifact: Path, threads: int) -> None:
        super().__init__(artifact, threads)
        torch._inductor.config.compile_threads = 1  # in this process: its helpers would stay
        self._model = torch.compile(encoder_of(artifact), dynamic=True)
