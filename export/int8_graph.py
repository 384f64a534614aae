"""model.int8.onnx: the fused graph with its linear layers in exact integers (csrm.LinearI8).

What it is: model.fused.onnx with every csrm.Linear replaced; the weights are the same int8 tensors
in model.onnx, byte for byte, and only activations are rounded, each row by a scale of its own.
Attention may multiply in bfloat16, which csrm.PrefixAttention does on a CPU with AMX. Not: the
measurement of what that changes (csrm.export.variant_parity), without which the runtime takes
this variant only when it is asked for.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from csrm.errors import BadArtifact

LEVELS = 2047
"""The largest integer of a rounded activation. 127, multiplied twice as fast by VNNI and AMX, moves
compliance by more than a variant may (docs/log.md)."""


def int8_graph(fused: onnx.ModelProto, levels: int = LEVELS) -> onnx.ModelProto:
    """A copy of `fused` in csrm.LinearI8. Errors: BadArtifact when a weight is not int8."""
    result = onnx.ModelProto()
    result.CopyFrom(fused)
    int8s = {t.name for t in result.graph.initializer if t.data_type == TensorProto.INT8}
    for node in result.graph.node:
        if node.op_type == "PrefixAttention":
            node.attribute.append(helper.make_attribute("products", "bf16"))
        if node.op_type != "Linear":
            continue
        if node.input[1] not in int8s:
            raise BadArtifact("the int8 variant needs weights stored as int8; export with them")
        node.op_type = "LinearI8"
        node.attribute.append(helper.make_attribute("levels", levels))
    return result
