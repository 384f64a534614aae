"""ONNX models that hold nothing but one csrm operator, for tests and benches. Not used at run time.
Needs `onnx` and `onnxruntime`; the operator comes from the csrm library given by its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from csrm.kernels.cases import RewardHeadCase
from csrm.kernels.cases_linear import LinearInputs

DOMAIN = "csrm"
ISAS = ("portable", "avx2", "avx512", "amx")
_SHAPES: dict[str, list[str | int]] = {
    "hidden": ["B", "T", "H"],
    "pooled_at": ["B", "J"],
    "norm_weight": ["H"],
    "norm_bias": ["H"],
    "rows": ["V", "H"],
    "row_bias": ["V"],
    "calibration": [2],
}


def reward_head_model(
    n_safe: int, epsilon: float, isa: str = "", n_copies: int = 1, kind: str = "layer"
) -> bytes:
    """A serialised model of `n_copies` RewardHead nodes over the same inputs.

    Its outputs `reward` and `compliance` are the last copy's. `isa` picks a version of the kernel
    (one of ISAS; "" = the best this CPU has). kind "rms": without norm_bias and row_bias.
    """
    attributes: dict[str, int | float | str] = {"n_safe": n_safe, "epsilon": epsilon, "kind": kind}
    absent = ("norm_bias", "row_bias") if kind == "rms" else ()
    taken = ["" if name in absent else name for name in _SHAPES]
    if isa:
        attributes["isa"] = isa
    nodes = []
    for copy in range(n_copies):
        suffix = "" if copy == n_copies - 1 else f"_{copy}"
        outputs = [f"reward{suffix}", f"compliance{suffix}"]
        node = helper.make_node("RewardHead", taken, outputs, domain=DOMAIN)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        nodes.append(node)
    inputs = [
        helper.make_tensor_value_info(
            name, TensorProto.INT64 if name == "pooled_at" else TensorProto.FLOAT, shape
        )
        for name, shape in _SHAPES.items()
        if name not in absent
    ]
    outputs_info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", "J"])
        for name in ("reward", "compliance")
    ]
    graph = helper.make_graph(nodes, "reward_head", inputs, outputs_info)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def linear_model(
    inputs: LinearInputs,
    activation: str,
    isa: str = "",
    n_copies: int = 1,
    engine: bool = False,
    levels: int | None = None,
) -> bytes:
    """A serialised model of `n_copies` Linear nodes over the same input x; output y of the last.

    With `levels` they are LinearI8 nodes.

    Each copy has weights of its own (rows in another order: the engine stores equal weights once),
    so a run reads as much memory as that many layers. With
    `engine` each is written in ONNX's own operators (MatMul, Add, Gelu) on the unfolded weight.
    """
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def stored(name: str, value: NDArray[np.generic] | None) -> str:
        if value is None:
            return ""
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    for copy in range(n_copies):
        y = "y" if copy == n_copies - 1 else f"y_{copy}"
        values = np.roll(inputs.weight, n_copies - 1 - copy, axis=0)
        bias = stored(f"bias_{copy}", inputs.bias)
        if engine:
            dense = values.astype(np.float32)
            if inputs.scale is not None:
                dense = dense * inputs.scale
            weight = stored(f"weight_{copy}", dense)
            steps = ["MatMul"] + ["Add"] * bool(bias) + ["Gelu"] * (activation == "gelu")
            names = ["x", *(f"{y}_{step}" for step in steps[:-1]), y]
            for i, step in enumerate(steps):
                second = {"MatMul": [weight], "Add": [bias], "Gelu": []}[step]
                nodes.append(helper.make_node(step, [names[i], *second], [names[i + 1]]))
            continue
        scale = stored(f"scale_{copy}", inputs.scale)
        tensors = ["x", stored(f"weight_{copy}", values), scale, bias]
        node = helper.make_node(
            "Linear" if levels is None else "LinearI8", tensors, [y], domain=DOMAIN
        )
        node.attribute.append(helper.make_attribute("activation", activation))
        if levels is not None:
            node.attribute.append(helper.make_attribute("levels", levels))
        if isa:
            node.attribute.append(helper.make_attribute("isa", isa))
        nodes.append(node)
    shape: list[str | int] = [f"axis_{axis}" for axis in range(inputs.x.ndim - 1)]
    x_info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [*shape, "K"])
    y_info = helper.make_tensor_value_info("y", TensorProto.FLOAT, [*shape, "N"])
    graph = helper.make_graph(nodes, "linear", [x_info], [y_info], weights)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def operator_model(
    operator: str,
    inputs: Mapping[str, NDArray[np.generic] | None],
    attributes: Mapping[str, int | float | str],
    isa: str = "",
    n_copies: int = 1,
    outputs: Sequence[str] = ("y",),
) -> bytes:
    """A serialised model of `n_copies` nodes of one operator over the same inputs of any size.

    `inputs` gives names, order, types and ranks; None leaves one out.
    `outputs` are the last copy's.
    """
    tensors = present(inputs)
    infos = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(value.dtype),
            [f"{name}_{axis}" for axis in range(value.ndim)],
        )
        for name, value in tensors.items()
    ]
    names = [name if name in tensors else "" for name in inputs]
    nodes = []
    for copy in range(n_copies):
        suffix = "" if copy == n_copies - 1 else f"_{copy}"
        made = [f"{output}{suffix}" for output in outputs]
        node = helper.make_node(operator, names, made, domain=DOMAIN)
        stated: dict[str, int | float | str] = dict(attributes)
        if isa:
            stated["isa"] = isa
        node.attribute.extend(helper.make_attribute(key, value) for key, value in stated.items())
        nodes.append(node)
    made_infos = [helper.make_tensor_value_info(y, TensorProto.FLOAT, None) for y in outputs]
    graph = helper.make_graph(nodes, operator, infos, made_infos)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def half_key_value_model(
    attributes: Mapping[str, int | float], isa: str = "", n_copies: int = 1
) -> bytes:
    """A serialised model of `n_copies` HalfKeyValue nodes over `states`; its outputs `key` and
    `value` are the last copy's."""
    nodes = []
    for copy in range(n_copies):
        suffix = "" if copy == n_copies - 1 else f"_{copy}"
        node = helper.make_node(
            "HalfKeyValue", ["states"], [f"key{suffix}", f"value{suffix}"], domain=DOMAIN
        )
        stated: dict[str, int | float | str] = dict(attributes)
        if isa:
            stated["isa"] = isa
        node.attribute.extend(helper.make_attribute(key, value) for key, value in stated.items())
        nodes.append(node)
    states = helper.make_tensor_value_info("states", TensorProto.FLOAT, ["B", "T", "W"])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, None) for name in ("key", "value")
    ]
    graph = helper.make_graph(nodes, "half_key_value", [states], outputs)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def session(model: bytes, library: Path, *, n_threads: int = 1) -> onnxruntime.InferenceSession:
    """A CPU session of `model` with csrm's operators; the graph runs as written (no fusion)."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = n_threads
    options.log_severity_level = 4  # tests provoke errors on purpose
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def feeds(case: RewardHeadCase) -> dict[str, NDArray[np.generic]]:
    """The case's inputs by name, as `InferenceSession.run` takes them."""
    return present(vars(case.inputs()))


def present(inputs: Mapping[str, NDArray[np.generic] | None]) -> dict[str, NDArray[np.generic]]:
    """The inputs that are not left out."""
    return {name: value for name, value in inputs.items() if value is not None}
