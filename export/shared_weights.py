"""Lets a second ONNX file use the weights inside a first one, so an artifact holds them once.

What it is: ONNX external data whose location is `model.onnx` itself: each int8 matrix of the second
model becomes (offset, length) into the first file's bytes. The engine maps the file and reads it in
place. Only int8 tensors are shared, because a protobuf aligns nothing. Not: any change of values.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from csrm.errors import Internal

MIN_SHARED_BYTES = 4096  # smaller tensors are cheaper inline


def share_weights(model: onnx.ModelProto, host: bytes, host_name: str) -> onnx.ModelProto:
    """A copy of `model` whose large int8 initialisers point into `host`, the bytes of `host_name`.

    Errors: Internal when a tensor is not found there byte for byte.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    end = 0  # of the last one found: both models hold them in about the same order
    for tensor in result.graph.initializer:
        if tensor.data_type != TensorProto.INT8 or len(tensor.raw_data) < MIN_SHARED_BYTES:
            continue
        offset = host.find(tensor.raw_data, end)
        if offset < 0:
            offset = host.find(tensor.raw_data)
        if offset < 0:
            raise Internal(
                f"tensor {tensor.name} is not in {host_name}; export both from one model"
            )
        length = len(tensor.raw_data)
        end = offset + length
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", host_name), ("offset", offset), ("length", length)):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(value)
    return result
