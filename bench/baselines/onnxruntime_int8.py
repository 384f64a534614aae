"""Plain Python onnxruntime with its own dynamic int8 (`quantize_dynamic`) of the artifact's graph.

The artifact stores weights as int8 behind DequantizeLinear, which `quantize_dynamic` does not look
through; so an fp32 copy is made first (onnx_weights.py), then quantised as a user would.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from csrm.bench.baselines.onnx_weights import with_fp32_weights
from csrm.bench.baselines.onnxruntime_fp32 import OnnxruntimeFp32


class OnnxruntimeInt8:
    """See the module. Signed weights: about 1.5 times as fast as unsigned ones."""

    name = "onnxruntime-int8"

    def __init__(self, model: Path, threads: int) -> None:
        self._engine = OnnxruntimeFp32(_quantised(model), threads)

    def prepare(self, config_ids: Sequence[int], turn_ids: Sequence[Sequence[int]]) -> None:
        """See `Baseline.prepare`."""
        self._engine.prepare(config_ids, turn_ids)

    def run(self) -> float:
        """See `Baseline.run`."""
        return self._engine.run()


def _quantised(model: Path) -> bytes:
    # The quantiser advises a pre-processing step on the root logger at every call.
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
            onnx.save(with_fp32_weights(onnx.load(model)), source)
            quantize_dynamic(source, target, weight_type=QuantType.QInt8)
            return target.read_bytes()
    finally:
        logging.root.setLevel(level)
