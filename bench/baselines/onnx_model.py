"""The artifact's portable graph as a user of another ONNX engine would have exported it.

What it is: weights unfolded, one output, and either no prefix inputs (`plain_model`) or those of
csrm's signature (`cached_model`, with `prefix_model` to compute what goes into them). Weights are
the artifact's, so rewards are csrm's. Not: running it (onnxruntime_fp32.py, onnxruntime_cuda.py,
openvino_engine.py, tensorrt_engine.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime

from csrm.bench.baselines.onnx_weights import with_fp32_weights
from csrm.errors import BadArtifact
from csrm.export.typed_graph import Precision, equal_ranks, typed_graph

PREFIX = ("prefix_key", "prefix_value")
KEYS_VALUES = ("key", "value")
_REWARD = ("reward",)
_PROTOBUF_BYTES = 2**31 - 1


def plain_model(artifact: Path, precision: Precision = "fp32") -> onnx.ModelProto:
    """The graph [B, T] ids -> reward [B, J] of an artifact folder. Errors: BadArtifact."""
    return without_prefix(_read(artifact, precision))


def cached_model(artifact: Path, precision: Precision = "fp32") -> onnx.ModelProto:
    """The graph ids over a prefix [L, heads, P, D] -> reward [B, J]. Errors: BadArtifact."""
    return with_outputs(_read(artifact, precision), _REWARD)


def prefix_model(artifact: Path, precision: Precision = "fp32") -> onnx.ModelProto:
    """The graph ids over a prefix -> key and value [B, L, heads, T, D]. Errors: BadArtifact."""
    return with_outputs(_read(artifact, precision), KEYS_VALUES)


def open_session(
    model: onnx.ModelProto,
    options: onnxruntime.SessionOptions,
    providers: Sequence[str | tuple[str, dict[str, str]]],
) -> onnxruntime.InferenceSession:
    """A session of `model`, whose weights go through files where protobuf cannot hold them."""
    if model.ByteSize() <= _PROTOBUF_BYTES:
        data = model.SerializeToString()
        return onnxruntime.InferenceSession(data, options, providers=list(providers))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save_model(model, path, save_as_external_data=True, location="weights")
        return onnxruntime.InferenceSession(str(path), options, providers=list(providers))


def _read(artifact: Path, precision: Precision) -> onnx.ModelProto:
    try:
        manifest = json.loads((artifact / "manifest.json").read_text())
        model = onnx.load(artifact / manifest["variants"]["portable"])
    except (OSError, ValueError, KeyError) as error:
        raise BadArtifact(f"the model cannot be read: {type(error).__name__}") from error
    if precision != "fp32":
        return typed_graph(model, precision)
    model = with_fp32_weights(model)
    equal_ranks(model.graph)  # as the typed graph has them: valid before any engine fuses nodes
    return model


def without_prefix(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` (changed in place) for a prefix of length 0, with "reward" as its only output."""
    graph = model.graph
    empty, lengths, same = set(PREFIX), set[str](), dict[str, str]()
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
    inputs = [item for item in graph.input if item.name not in PREFIX]
    del graph.input[:], graph.node[:]
    graph.input.extend(inputs)
    graph.node.extend(kept)
    return with_outputs(model, _REWARD)


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """`model` (changed in place) with these of its outputs and what they depend on."""
    graph = model.graph
    outputs = [item for item in graph.output if item.name in names]
    needed = _needed(list(graph.node), names)
    del graph.output[:], graph.node[:]
    graph.output.extend(outputs)
    graph.node.extend(needed)
    used = {name for node in needed for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    return model


def _needed(nodes: list[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that the outputs depend on, in their order."""
    wanted = set(outputs)
    found = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted.update(node.input)
            found.append(node)
    return found[::-1]
