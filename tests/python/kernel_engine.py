"""What ONNX Runtime raises when one of csrm's operators refuses its node or its tensors."""

from __future__ import annotations

from onnxruntime.capi import onnxruntime_pybind11_state as engine_errors

ENGINE_ERRORS = (
    engine_errors.Fail,
    engine_errors.InvalidArgument,
    engine_errors.RuntimeException,
)
