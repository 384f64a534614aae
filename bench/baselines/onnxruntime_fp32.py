"""Plain Python onnxruntime in fp32, as a user would run the artifact's model.onnx without csrm.

No cache and no own operators; the graph and the weights are the artifact's. Weights stored as int8
are folded to fp32 at load. Threads do not spin, like csrm's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from csrm.bench.baselines.interface import plain_rows


class OnnxruntimeFp32:
    """See the module. `model` is a path or a serialised model."""

    name = "onnxruntime-fp32"

    def __init__(self, model: Path | bytes, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        source = model if isinstance(model, bytes) else str(model)
        self._session = onnxruntime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"]
        )
        self._inputs: dict[str, NDArray[np.int64] | NDArray[np.float32]] = {}

    def prepare(self, config_ids: Sequence[int], turn_ids: Sequence[Sequence[int]]) -> None:
        """See `Baseline.prepare`."""
        self._inputs = {**plain_rows(config_ids, turn_ids)}
        for model_input in self._session.get_inputs():
            if model_input.name in ("prefix_key", "prefix_value"):
                layers, heads, _, head_dim = model_input.shape
                self._inputs[model_input.name] = np.zeros((layers, heads, 0, head_dim), np.float32)

    def run(self) -> float:
        """See `Baseline.run`."""
        (reward,) = self._session.run(["reward"], self._inputs)
        return float(reward[0, 0])
