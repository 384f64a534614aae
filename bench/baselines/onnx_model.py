"""The artifact's portable graph as a user of another ONNX engine would have exported it.

fp32 weights, no prefix inputs, one output. Weights are the artifact's, so rewards are csrm's. Not:
running it (onnxruntime_fp32.py, openvino_engine.py).
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from csrm.bench.baselines.onnx_weights import with_fp32_weights
from csrm.errors import BadArtifact

_PREFIX = ("prefix_key", "prefix_value")


def plain_model(artifact: Path) -> onnx.ModelProto:
    """The graph [B, T] ids -> reward [B, J] of an artifact folder. Errors: BadArtifact."""
    try:
        manifest = json.loads((artifact / "manifest.json").read_text())
        model = onnx.load(artifact / manifest["variants"]["portable"])
    except (OSError, ValueError, KeyError) as error:
        raise BadArtifact(f"the model cannot be read: {type(error).__name__}") from error
    return without_prefix(with_fp32_weights(model))


def without_prefix(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` (changed in place) for a prefix of length 0, with "reward" as its only output."""
    graph = model.graph
    empty, lengths, same = set(_PREFIX), set[str](), dict[str, str]()
    kept = []
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        own = [name for name in node.input if name not in empty]
        if node.op_type == "Shape" and not own:
            lengths.update(node.output)
        elif node.op_type == "Slice" and node.input[1] in lengths:  # of all keys, the row's own
            same[node.output[0]] = node.input[0]
        elif node.op_type == "Slice" and node.input[2] in lengths:
            empty.update(node.output)
        elif len(own) == len(node.input):
            kept.append(node)
        elif node.op_type in ("Concat", "Add") and len(own) == 1:
            same[node.output[0]] = own[0]
        else:
            empty.update(node.output)
    inputs = [item for item in graph.input if item.name not in _PREFIX]
    outputs = [item for item in graph.output if item.name == "reward"]
    del graph.input[:], graph.output[:], graph.node[:]
    graph.input.extend(inputs)
    graph.output.extend(outputs)
    graph.node.extend(_needed(kept))
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    return model


def _needed(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes that the reward depends on, in their order."""
    wanted = {"reward"}
    found = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted.update(node.input)
            found.append(node)
    return found[::-1]
