"""Plain Python onnxruntime with its own dynamic int8 (`quantize_dynamic`) of onnx_model.py's graph.

Signed weights: about 1.5 times as fast as unsigned ones.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from csrm.bench.baselines.onnxruntime_fp32 import OnnxruntimeFp32


class OnnxruntimeInt8(OnnxruntimeFp32):
    """See the module. `artifact` is the folder. The prefix it is given is fp32's."""

    def open(self, model: onnx.ModelProto) -> onnxruntime.InferenceSession:
        """A session of the quantised model."""
        return super().open(_quantised(model))


def _quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    # The quantiser advises a pre-processing step on the root logger at every call.
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
            onnx.save(model, source)
            quantize_dynamic(source, target, weight_type=QuantType.QInt8)
            return onnx.load(target)
    finally:
        logging.root.setLevel(level)
