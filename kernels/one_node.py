"""ONNX models that hold nothing but one csrm operator, for tests and benches. Not used at run time.
Needs `onnx` and `onnxruntime`; the operator comes from the csrm library given by its path.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import onnx
import onnxruntime
from onnx import TensorProto, helper

from csrm.kernels.cases import RewardHeadCase

DOMAIN = "csrm"
ISAS = ("portable", "avx2", "avx512")
_SHAPES: dict[str, list[str | int]] = {
    "hidden": ["B", "T", "H"],
    "pooled_at": ["B", "J"],
    "norm_weight": ["H"],
    "norm_bias": ["H"],
    "rows": ["V", "H"],
    "row_bias": ["V"],
    "calibration": [2],
}


def reward_head_model(n_safe: int, epsilon: float, isa: str = "", n_copies: int = 1) -> bytes:
    """A serialised model of `n_copies` RewardHead nodes over the same inputs.

    Its outputs `reward` and `compliance` are the last copy's. `isa` picks a version of the kernel
    (one of ISAS; "" = the best this CPU has).
    """
    attributes: dict[str, int | float | str] = {"n_safe": n_safe, "epsilon": epsilon}
    if isa:
        attributes["isa"] = isa
    nodes = []
    for copy in range(n_copies):
        suffix = "" if copy == n_copies - 1 else f"_{copy}"
        outputs = [f"reward{suffix}", f"compliance{suffix}"]
        node = helper.make_node("RewardHead", list(_SHAPES), outputs, domain=DOMAIN)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        nodes.append(node)
    inputs = [
        helper.make_tensor_value_info(
            name, TensorProto.INT64 if name == "pooled_at" else TensorProto.FLOAT, shape
        )
        for name, shape in _SHAPES.items()
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


def session(model: bytes, library: Path, *, n_threads: int = 1) -> onnxruntime.InferenceSession:
    """A CPU session of `model` with csrm's operators; the graph runs as written (no fusion)."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = n_threads
    options.log_severity_level = 4  # tests provoke errors on purpose
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def feeds(case: RewardHeadCase) -> dict[str, object]:
    """The case's inputs by name, as `InferenceSession.run` takes them."""
    return asdict(case.inputs())
