"""The same weights in PyTorch on an NVIDIA GPU, bf16: eager, and compiled with CUDA graphs.

What it is: pytorch_eager.py's model on the first GPU. Rows are on the GPU before the clock starts;
the time ends when the rewards are on the host. Not: a cache of keys and values.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from csrm.bench.baselines.interface import Rewards, Rows
from csrm.bench.baselines.pytorch_eager import encoder_of
from csrm.errors import Unsupported
from csrm.train.model import Encoded
from csrm.train.model import Rows as EncoderRows


class PytorchEagerCuda:
    """See the module. `artifact` is the folder. Errors: Unsupported without a GPU."""

    def __init__(self, artifact: Path, threads: int) -> None:
        if not torch.cuda.is_available():
            raise Unsupported("this PyTorch finds no NVIDIA GPU")
        torch.set_num_threads(threads)
        self._model: Callable[[EncoderRows], Encoded] = encoder_of(artifact).to(
            "cuda", torch.bfloat16
        )
        self._rows: EncoderRows | None = None

    def prepare(self, rows: Rows) -> Rows:
        """See `Baseline.prepare`."""
        self._rows = EncoderRows(
            **{name: torch.from_numpy(array).to("cuda") for name, array in rows.items()}
        )
        return rows

    def run(self) -> Rewards:
        """See `Baseline.run`."""
        if self._rows is None:
            raise RuntimeError("run() before prepare()")
        with torch.inference_mode():
            reward = self._model(self._rows).reward
            return np.asarray(reward[:, 0].float().cpu().numpy(), np.float64)

    def close(self) -> None:
        """See `Baseline.close`."""


class TorchCompileCuda(PytorchEagerCuda):
    """The same through torch.compile: one compilation and one CUDA graph for each shape.

    That is its fastest way; a guard that meets many shapes pays a compilation at each new one, in
    the warm-up here.
    """

    def __init__(self, artifact: Path, threads: int) -> None:
        super().__init__(artifact, threads)
        self._model = torch.compile(self._model, mode="reduce-overhead", dynamic=False)
