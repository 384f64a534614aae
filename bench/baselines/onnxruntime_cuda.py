"""Plain Python onnxruntime on an NVIDIA GPU, as a user would run the artifact's model without csrm.

What it is: onnx_model.py's graphs in fp32 or fp16 on the CUDA provider, inputs (of the cached graph
the prefix too) bound to the GPU before the clock starts and the reward bound to the host. Not:
csrm's operators or a captured graph, which this graph's shape computations on the CPU do not allow.
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
from csrm.errors import Unsupported
from csrm.export.typed_graph import Precision

PROVIDER = "CUDAExecutionProvider"


class OnnxruntimeCuda:
    """See the module. `artifact` is the folder. A CachingBaseline.

    provider, device: where it runs; a CPU's for tests. Errors: Unsupported without provider or GPU.
    """

    precision: Precision = "fp32"

    def __init__(
        self, artifact: Path, threads: int, *, provider: str = PROVIDER, device: str = "cuda"
    ) -> None:
        if provider not in onnxruntime.get_available_providers():
            raise Unsupported("this onnxruntime has no CUDA provider; install onnxruntime-gpu")
        self._artifact = artifact
        self._threads = threads
        self._provider = provider
        self._device = device
        self._whole = Bound(self._open(plain_model(artifact, self.precision)), device)
        self._cached: Bound | None = None

    def prepare(self, rows: Rows) -> Rows:
        """See `Baseline.prepare`."""
        self._whole.bind({**rows})
        return rows

    def run(self) -> Rewards:
        """See `Baseline.run`."""
        return self._whole.rewards()

    def prepare_cached(self, rows: CachedRows) -> None:
        """See `CachingBaseline.prepare_cached`."""
        prefix = self._prefix(rows)
        if self._cached is None:
            session = self._open(cached_model(self._artifact, self.precision))
            self._cached = Bound(session, self._device)
        self._cached.bind({**rows.turns, **prefix})

    def run_cached(self) -> Rewards:
        """See `CachingBaseline.run_cached`."""
        if self._cached is None:
            raise RuntimeError("run_cached before prepare_cached")
        return self._cached.rewards()

    def close(self) -> None:
        """See `Baseline.close`."""

    def _prefix(self, rows: CachedRows) -> Arrays:
        """In a session of its own, whose weights go before the next one's come."""
        encoder = self._open(prefix_model(self._artifact, self.precision))
        empty = empty_prefix(self._artifact, np.float32 if self.precision == "fp32" else np.float16)
        return prefix_of(rows, empty, lambda inputs: encoder.run(list(KEYS_VALUES), inputs))

    def _open(self, model: onnx.ModelProto) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        session = open_session(model, options, [self._provider])
        if self._provider not in session.get_providers():
            raise Unsupported("onnxruntime's CUDA provider cannot start on this machine")
        return session


class OnnxruntimeCudaFp16(OnnxruntimeCuda):
    """The same in fp16 as csrm's typed graph has it (csrm.export.typed_graph): norms in fp32."""

    precision: Precision = "fp16"


class Bound:
    """A session whose inputs lie on its device."""

    def __init__(self, session: onnxruntime.InferenceSession, device: str) -> None:
        self._session = session
        self._device = device
        self._binding = session.io_binding()

    def bind(self, inputs: Arrays) -> None:
        """Takes all inputs; the reward goes to the host."""
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        for name, array in inputs.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(
                np.ascontiguousarray(array), self._device, 0
            )
            self._binding.bind_ortvalue_input(name, value)
        self._binding.bind_output("reward")

    def rewards(self) -> Rewards:
        """One run."""
        self._session.run_with_iobinding(self._binding)
        (reward,) = self._binding.copy_outputs_to_cpu()
        return np.asarray(reward[:, 0], np.float64)
