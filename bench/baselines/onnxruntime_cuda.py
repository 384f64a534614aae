"""Plain Python onnxruntime on an NVIDIA GPU, as a user would run the artifact's model without csrm.

What it is: onnx_model.py's graph in fp32 or fp16 on the CUDA provider, inputs bound to the GPU
before the clock starts and the reward bound to the host. Not: a cache, csrm's operators or a
captured graph, which this graph's shape computations on the CPU do not allow.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from csrm.bench.baselines.interface import Rewards, Rows
from csrm.bench.baselines.onnx_model import plain_model
from csrm.errors import Unsupported

PROVIDER = "CUDAExecutionProvider"


class OnnxruntimeCuda:
    """See the module. `artifact` is the folder. Errors: Unsupported without provider or GPU."""

    def __init__(self, artifact: Path, threads: int) -> None:
        if PROVIDER not in onnxruntime.get_available_providers():
            raise Unsupported("this onnxruntime has no CUDA provider; install onnxruntime-gpu")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            self.model(artifact).SerializeToString(), options, providers=[(PROVIDER, {})]
        )
        if PROVIDER not in self._session.get_providers():
            raise Unsupported("onnxruntime's CUDA provider cannot start on this machine")
        self._binding = self._session.io_binding()

    def model(self, artifact: Path) -> onnx.ModelProto:
        """The graph that is run."""
        return plain_model(artifact)

    def prepare(self, rows: Rows) -> Rows:
        """See `Baseline.prepare`."""
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        for name, array in rows.items():
            on_gpu = onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0)
            self._binding.bind_ortvalue_input(name, on_gpu)
        self._binding.bind_output("reward")
        return rows

    def run(self) -> Rewards:
        """See `Baseline.run`."""
        self._session.run_with_iobinding(self._binding)
        (reward,) = self._binding.copy_outputs_to_cpu()
        return np.asarray(reward[:, 0], np.float64)

    def close(self) -> None:
        """See `Baseline.close`."""
