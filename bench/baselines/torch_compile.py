"""The artifact's encoder through `torch.compile` on the CPU, fp32, compiled once for all lengths.

What it is: csrm's training model (csrm.train.model) without its prefix. Dynamic shapes, as a guard
meets them; a compilation for every length apart would stop the service for seconds at each new one.
Inductor needs a C++ compiler when it runs. Uses torch's process-wide thread count.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch._inductor.config

from csrm.bench.baselines.interface import Rewards, Rows
from csrm.export.unpack import encoder_of
from csrm.train.model import Rows as EncoderRows


class TorchCompile:
    """See the module. `artifact` is the folder. The first runs compile."""

    def __init__(self, artifact: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        torch._inductor.config.compile_threads = 1  # in this process: its helpers would stay
        self._model = torch.compile(encoder_of(artifact), dynamic=True)
        self._rows: EncoderRows | None = None

    def prepare(self, rows: Rows) -> Rows:
        """See `Baseline.prepare`."""
        self._rows = EncoderRows(**{name: torch.from_numpy(array) for name, array in rows.items()})
        return rows

    def run(self) -> Rewards:
        """See `Baseline.run`."""
        if self._rows is None:
            raise RuntimeError("run() before prepare()")
        with torch.inference_mode():
            reward = self._model(self._rows).reward
        return np.asarray(reward[:, 0].numpy(), np.float64)

    def close(self) -> None:
        """See `Baseline.close`."""
