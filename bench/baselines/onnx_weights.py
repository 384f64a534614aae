"""The fp32 weights inside an ONNX graph that stores them as int8 behind DequantizeLinear.

Used by the baselines that run a graph with plain weights (onnx_model.py); csrm's own runtime lets
the engine fold them at load.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


def with_fp32_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` (changed in place) with every DequantizeLinear of constants replaced by its value."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or not all(i in constants for i in node.input if i):
            kept.append(node)
            continue
        value = dequantised(node, [numpy_helper.to_array(constants[i]) for i in node.input if i])
        graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    unused = [tensor for tensor in graph.initializer if tensor.name not in used]
    for tensor in unused:
        graph.initializer.remove(tensor)
    return model


def dequantised(node: onnx.NodeProto, inputs: list[NDArray[np.generic]]) -> NDArray[np.float32]:
    """The value of a DequantizeLinear node: (q - zero_point) * scale, per tensor or per axis."""
    quantised, scale = inputs[0].astype(np.float32), inputs[1].astype(np.float32)
    zero = inputs[2].astype(np.float32) if len(inputs) > 2 else np.zeros_like(scale)
    if scale.ndim == 1 and quantised.ndim > 1:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape = [1] * quantised.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    value: NDArray[np.float32] = ((quantised - zero) * scale).astype(np.float32)
    return value
