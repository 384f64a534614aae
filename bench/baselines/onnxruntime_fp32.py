"""Plain Python onnxruntime in fp32, as a user would run the artifact's model without csrm.

No cache and no own operators; the graph is onnx_model.py's. Threads do not spin, like csrm's own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from csrm.bench.baselines.interface import Rewards, Rows
from csrm.bench.baselines.onnx_model import plain_model


class OnnxruntimeFp32:
    """See the module. `artifact` is the folder."""

    def __init__(self, artifact: Path, threads: int) -> None:
        self._session = session_of(plain_model(artifact).SerializeToString(), threads)
        self._rows: Rows = {}

    def prepare(self, rows: Rows) -> Rows:
        """See `Baseline.prepare`."""
        self._rows = rows
        return rows

    def run(self) -> Rewards:
        """See `Baseline.run`."""
        (reward,) = self._session.run(["reward"], self._rows)
        return np.asarray(reward[:, 0], np.float64)

    def close(self) -> None:
        """See `Baseline.close`."""


def session_of(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """A CPU session of a serialised model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
