"""A portable csrm graph -> the same function with dense weights and every tensor's type stated.

What it is: what TensorRT takes: no int8 storage (a stored matrix is unfolded once, here), products
of equal rank, and in fp16 or bf16 a type for each node, because a strongly typed network computes
in the types it is given. Matrix products and GELU are narrow and accumulate in fp32 as every GPU
does; norms, softmax, log-sum-exp, the head and sums of two computed tensors (the residual stream
above all, which outgrows fp16 in decoders) are fp32. Not: a measurement of what rounding changes,
nor TensorRT itself (csrm.export.tensorrt).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from csrm.errors import BadArgument, BadArtifact, Unsupported

Precision = Literal["fp32", "fp16", "bf16"]

ELEMENTS: dict[str, int] = {
    "fp32": int(TensorProto.FLOAT),
    "fp16": int(TensorProto.FLOAT16),
    "bf16": int(TensorProto.BFLOAT16),
}
FLOAT = ELEMENTS["fp32"]

PRODUCTS = frozenset({"MatMul", "Gelu"})
EXACT = frozenset(
    {
        "LayerNormalization",
        "Softmax",
        "ReduceLogSumExp",
        "ReduceMean",
        "Sqrt",
        "Div",
        "Cos",
        "Sin",
        "Where",
    }
)
MOVES = frozenset(
    {"Reshape", "Transpose", "Unsqueeze", "Gather", "GatherND", "Slice", "Split", "Concat"}
)
ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Sigmoid"})
UNTYPED = frozenset({"Shape", "Range", "Less", "Max", "Cast"})  # their inputs may have any type
HEAD = "verbalizers.rows"


def typed_graph(portable: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """`portable` with dense weights and its types for `precision`.

    In fp16 and bf16 the inputs prefix_key and prefix_value have that type too, so that a prefix on
    the device takes half the memory; all outputs are fp32. Errors: BadArgument (precision),
    Unsupported (an operator that no csrm graph has, named in the message), BadArtifact (a weight
    outside the range of fp16, or stored in an unknown way).
    """
    if precision not in get_args(Precision):
        raise BadArgument('precision must be "fp32", "fp16" or "bf16"')
    model = onnx.ModelProto()
    model.CopyFrom(portable)
    known = PRODUCTS | EXACT | MOVES | ELEMENTWISE | UNTYPED | {"DequantizeLinear"}
    for node in model.graph.node:
        if node.domain or node.op_type not in known:
            raise Unsupported(
                f"operator {node.op_type} is not in csrm's portable graphs; export model.onnx again"
            )
    unfold_weights(model.graph)
    equal_ranks(model.graph)
    if precision != "fp32":
        _Types(model, ELEMENTS[precision]).write()
    return model


def unfold_weights(graph: onnx.GraphProto) -> None:
    """Replaces int8 matrices, and tables of rows with a scale each, by fp32 ones. In place.

    Errors: BadArtifact for int8 stored in another way.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    dense: dict[str, NDArray[np.float32]] = {}
    renamed: dict[str, str] = {}
    dropped: set[str] = set()
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            values, scale = (numpy_helper.to_array(tensors[name]) for name in node.input[:2])
            dense[node.input[0]] = values.astype(np.float32) * scale
            renamed[node.output[0]] = node.input[0]
            dropped.update((node.output[0], node.input[1]))
        elif node.op_type == "Mul":  # Gather(int8) as fp32, times Gather(scale)
            cast, scales = (makers.get(name) for name in node.input)
            rows = None if cast is None else makers.get(cast.input[0])
            if cast is None or rows is None or scales is None or not is_table(cast, rows, scales):
                continue
            values, scale = (numpy_helper.to_array(tensors[n.input[0]]) for n in (rows, scales))
            dense[rows.input[0]] = values.astype(np.float32) * scale
            renamed[node.output[0]] = rows.output[0]
            dropped.update((node.output[0], cast.output[0], scales.output[0], scales.input[0]))
    kept = [node for node in graph.node if node.output[0] not in dropped]
    for node in kept:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
    weights = [
        numpy_helper.from_array(dense[t.name], t.name) if t.name in dense else t
        for t in graph.initializer
        if t.name not in dropped
    ]
    if any(tensor.data_type == TensorProto.INT8 for tensor in weights):
        raise BadArtifact("a weight is stored as int8 in an unknown way; export model.onnx again")
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights)


def is_table(cast: onnx.NodeProto, rows: onnx.NodeProto, scales: onnx.NodeProto) -> bool:
    """Whether a product is of int8 rows, gathered and cast, and of their scales."""
    operators = (cast.op_type, rows.op_type, scales.op_type)
    return operators == ("Cast", "Gather", "Gather") and rows.input[1] == scales.input[1]


def equal_ranks(graph: onnx.GraphProto) -> None:
    """Gives one layer of the prefix the rank of what it is multiplied with: [1, heads, P, D].

    And makes scalars of the integers that older artifacts hold as vectors of one, which ONNX
    Runtime lets pass. In place.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for name, tensor in tensors.items():
        if name.startswith("int_") and list(tensor.dims) == [1]:
            del tensor.dims[:]
    layers: set[str] = set()
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in ("prefix_key", "prefix_value"):
            index = numpy_helper.to_array(tensors[node.input[1]]).reshape(1)
            node.input[1] = f"{node.input[1]}.row"
            if node.input[1] not in tensors:
                tensors[node.input[1]] = numpy_helper.from_array(index, node.input[1])
                graph.initializer.append(tensors[node.input[1]])
            layers.add(node.output[0])
        elif node.op_type == "Transpose" and node.input[0] in layers:
            permutation = [0, *(axis + 1 for axis in node.attribute[0].ints)]
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("perm", permutation))


class _Types:
    """Chooses each node's type and writes the casts between them. Use `typed_graph`."""

    def __init__(self, model: onnx.ModelProto, narrow: int) -> None:
        self.graph = model.graph
        self.narrow = narrow
        self.constants = {
            t.name: t for t in self.graph.initializer if t.data_type == TensorProto.FLOAT
        }
        self.types: dict[str, int] = {}  # of computed tensors of floats, inputs among them
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}
        self.casts: dict[tuple[str, int], str] = {}

    def write(self) -> None:
        """Rewrites the graph. Errors: BadArtifact (a weight outside the range of fp16)."""
        for info in self.graph.input:
            if info.type.tensor_type.elem_type == TensorProto.FLOAT:
                info.type.tensor_type.elem_type = self.types[info.name] = self.narrow
        for node in list(self.graph.node):
            kind = self.type_of(node)
            if kind is not None:
                for i, name in self.float_inputs(node):
                    node.input[i] = self.as_type(name, kind)
                self.types.update((name, kind) for name in node.output)
            self.nodes.append(node)
        for info in self.graph.output:
            self.widen(info.name)
        kept = [t for t in self.graph.initializer if t.name not in self.constants]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend([*kept, *self.weights.values()])

    def widen(self, output: str) -> None:
        """Makes an output of the graph fp32: its node writes another name, which is cast."""
        if self.types[output] == FLOAT:
            return
        maker = next(node for node in self.nodes if output in node.output)
        maker.output[list(maker.output).index(output)] = f"{output}.narrow"
        cast = helper.make_node("Cast", [f"{output}.narrow"], [output], to=FLOAT)
        cast.name = f"{output}.cast"
        self.nodes.append(cast)

    def type_of(self, node: onnx.NodeProto) -> int | None:
        """The type of a node's floats, in and out; None where it has none to be chosen."""
        if node.op_type in UNTYPED:
            if node.op_type == "Cast":
                self.types[node.output[0]] = int(node.attribute[0].i)
            return None
        if node.op_type in MOVES:
            sources = [self.types.get(name, self.narrow) for _, name in self.float_inputs(node)]
            if not sources:
                return None
            is_exact = all(kind == FLOAT for kind in sources) and any(
                map(self.is_exact, node.output)
            )
            return FLOAT if is_exact else self.narrow
        if node.op_type in PRODUCTS:
            return FLOAT if HEAD in node.input else self.narrow
        if self.takes_exact(node) or any(
            self.types.get(name) == FLOAT for _, name in self.float_inputs(node)
        ):
            return FLOAT
        return self.narrow

    def takes_exact(self, node: onnx.NodeProto) -> bool:
        """Whether a node that moves nothing computes in fp32 whatever it is given."""
        if node.op_type in PRODUCTS:
            return HEAD in node.input
        n_computed = sum(name not in self.constants for name in node.input)
        is_sum = node.op_type in ("Add", "Sub") and n_computed == 2
        is_square = node.op_type == "Mul" and node.input[0] == node.input[1]
        return node.op_type in EXACT or is_sum or is_square

    def is_exact(self, name: str) -> bool:
        """Whether anything that reads a tensor, through moves of it too, computes in fp32."""
        for node in self.users.get(name, ()):
            if node.op_type in MOVES:
                if any(map(self.is_exact, node.output)):
                    return True
            elif node.op_type not in UNTYPED and self.takes_exact(node):
                return True
        return False

    def float_inputs(self, node: onnx.NodeProto) -> Iterator[tuple[int, str]]:
        """(place, name) of a node's inputs that are floats."""
        for i, name in enumerate(node.input):
            if name in self.types or name in self.constants:
                yield i, name

    def as_type(self, name: str, kind: int) -> str:
        """The tensor or constant `name` in the type `kind`."""
        if self.types.get(name) == kind:
            return name
        key = (name, kind)
        if key in self.casts:
            return self.casts[key]
        suffix = next(text for text, element in ELEMENTS.items() if element == kind)
        self.casts[key] = f"{name}.{suffix}"
        if name in self.constants:
            self.weights[self.casts[key]] = constant(self.constants[name], self.casts[key], kind)
        else:
            self.nodes.append(
                helper.make_node(
                    "Cast", [name], [self.casts[key]], name=f"{self.casts[key]}.cast", to=kind
                )
            )
        return self.casts[key]


def constant(tensor: onnx.TensorProto, name: str, kind: int) -> onnx.TensorProto:
    """An fp32 initialiser rounded to `kind`. Errors: BadArtifact where fp16 cannot hold it."""
    values = numpy_helper.to_array(tensor)
    if kind == FLOAT:
        return numpy_helper.from_array(values, name)
    if kind == ELEMENTS["fp16"]:
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16)
        if not np.array_equal(np.isfinite(rounded), np.isfinite(values)):
            raise BadArtifact(
                f"a value of {tensor.name} is larger than fp16 holds; choose bf16 or fp32"
            )
        return numpy_helper.from_array(rounded, name)
    bits = np.asarray(values, dtype="<f4").view("<u4").astype(np.int64)
    # Half of the last kept bit, less one where that bit is even: ties go to even.
    narrow = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    result = onnx.TensorProto(name=name, data_type=kind, dims=values.shape)
    result.raw_data = narrow.astype("<u2").tobytes()
    return result
