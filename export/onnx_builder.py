"""A small writer of ONNX graphs: nodes and initialisers in the order they are computed.

Not: the model (csrm.export.graph). Every method returns the name of a tensor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Attribute = int | float | str | Sequence[int]


class OnnxBuilder:
    """Collects nodes and initialisers; `model` closes the graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: dict[str, onnx.TensorProto] = {}
        self._n = 0

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        *,
        domain: str = "",
        output: str = "",
        attributes: dict[str, Attribute] | None = None,
    ) -> str:
        """One node with one output."""
        return self.nodes_with_outputs(operator, inputs, [output], domain, attributes)[0]

    def nodes_with_outputs(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        domain: str = "",
        attributes: dict[str, Attribute] | None = None,
    ) -> list[str]:
        """One node with several outputs; "" names one automatically."""
        names = [name or self._fresh(operator) for name in outputs]
        node = helper.make_node(
            operator, list(inputs), names, name=self._fresh(operator), domain=domain
        )
        node.attribute.extend(
            helper.make_attribute(key, value) for key, value in sorted((attributes or {}).items())
        )
        self.nodes.append(node)
        return names

    def split(self, states: str, sizes: Sequence[int]) -> list[str]:
        """Parts of the last axis."""
        inputs = [states, self.ints(*sizes)]
        return self.nodes_with_outputs("Split", inputs, [""] * len(sizes), "", {"axis": -1})

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """An initialiser, written once per name."""
        if name not in self.initialisers:
            # ascontiguousarray alone makes a vector of a scalar.
            lying = np.ascontiguousarray(value).reshape(np.shape(value))
            self.initialisers[name] = numpy_helper.from_array(lying, name)
        return name

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        name = "ints_" + "_".join(str(value).replace("-", "m") for value in values)
        return self.constant(name, np.array(values, dtype=np.int64))

    def int_scalar(self, value: int) -> str:
        """An int64 scalar."""
        return self.constant(f"int_{value}".replace("-", "m"), np.array(value, dtype=np.int64))

    def float_scalar(self, name: str, value: float) -> str:
        """An fp32 scalar."""
        return self.constant(name, np.array(value, dtype=np.float32))

    def model(
        self,
        inputs: dict[str, tuple[int, list[str | int]]],
        outputs: dict[str, tuple[int, list[str | int]]],
        opsets: dict[str, int],
        metadata: dict[str, str],
    ) -> onnx.ModelProto:
        """The closed model; inputs and outputs: name -> (element type, shape)."""
        infos = [
            [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in group]
            for group in (inputs.items(), outputs.items())
        ]
        graph = helper.make_graph(
            self.nodes, "csrm", infos[0], infos[1], list(self.initialisers.values())
        )
        imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        model = helper.make_model(graph, opset_imports=imports, ir_version=9, producer_name="csrm")
        helper.set_model_props(model, metadata)
        return model

    def _fresh(self, stem: str) -> str:
        self._n += 1
        return f"{stem}_{self._n}"


FLOAT = int(TensorProto.FLOAT)
FLOAT16 = int(TensorProto.FLOAT16)
INT64 = int(TensorProto.INT64)
