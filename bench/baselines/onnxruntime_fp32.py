"""Plain Python onnxruntime in fp32, as a user would run the artifact's model without csrm.

No own operators; the graphs are onnx_model.py's, one without a prefix and one that is given the
config's keys and values. Threads do not spin, like csrm's own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from csrm.bench.baselines.interface import CachedRows, Rewards, Rows
from csrm.bench.baselines.onnx_model import (
    KEYS_VALUES,
    cached_model,
    open_session,
    plain_model,
    prefix_model,
)
from csrm.bench.baselines.onnx_prefix import Arrays, empty_prefix, prefix_of


class OnnxruntimeFp32:
    """See the module. `artifact` is the folder. A CachingBaseline."""

    def __init__(self, artifact: Path, threads: int) -> None:
        self._artifact = artifact
        self._threads = threads
        self._session = self.open(plain_model(artifact))
        self._rows: Rows = {}
        self._cached: onnxruntime.InferenceSession | None = None
        self._inputs: Arrays = {}

    def open(self, model: onnx.ModelProto) -> onnxruntime.InferenceSession:
        """A session of what is timed."""
        return session_of(model, self._threads)

    def prepare(self, rows: Rows) -> Rows:
        """See `Baseline.prepare`."""
        self._rows = rows
        return rows

    def run(self) -> Rewards:
        """See `Baseline.run`."""
        (reward,) = self._session.run(["reward"], self._rows)
        return np.asarray(reward[:, 0], np.float64)

    def prepare_cached(self, rows: CachedRows) -> None:
        """See `CachingBaseline.prepare_cached`."""
        if self._cached is None:
            self._cached = self.open(cached_model(self._artifact))
        encoder = session_of(prefix_model(self._artifact), self._threads)
        prefix = prefix_of(
            rows,
            empty_prefix(self._artifact),
            lambda inputs: encoder.run(list(KEYS_VALUES), inputs),
        )
        self._inputs = {**rows.turns, **prefix}

    def run_cached(self) -> Rewards:
        """See `CachingBaseline.run_cached`."""
        if self._cached is None:
            raise RuntimeError("run_cached before prepare_cached")
        (reward,) = self._cached.run(["reward"], self._inputs)
        return np.asarray(reward[:, 0], np.float64)

    def close(self) -> None:
        """See `Baseline.close`."""


def session_of(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """A CPU session of a model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return open_session(model, options, ["CPUExecutionProvider"])
