"""The encoder as an ONNX graph with the signature of docs/datapath.md.

What it is: csrm.train.model written once more in ONNX operators, fast by construction: no expanded
prefix, no concatenated keys, one matrix product for query, key and value, and in the last layer
only the tokens that the head reads. `fused` puts csrm's own RewardHead operator at the end;
everything else is standard (opset 20). Not: files (csrm.export.artifact) or int8 rounding
(csrm.export.storage).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from csrm.export.onnx_builder import FLOAT, INT64, OnnxBuilder
from csrm.export.storage import Int8Weight, quantise
from csrm.train.calibration.platt import Calibration
from csrm.train.model import MASKED, Encoder, ModelShape

OPSET = 20  # the first with Gelu
OPERATOR_DOMAIN = "csrm"
OPERATOR_VERSION = 1

Storage = Literal["int8", "fp32"]
Head = Literal["portable", "fused"]
Array = NDArray[np.float32]


@dataclass(frozen=True)
class _Attended:
    """Tensor names of one layer's keys and values and what queries see of them."""

    key: str  # [B, heads, T, D]
    value: str  # [B, heads, T, D]
    prefix_key: str  # [heads, P, D]
    prefix_value: str  # [heads, P, D]
    bias: str  # [B, 1, Q, T]


class EncoderGraph:
    """Writes one Encoder as a graph. Use `build_graph`."""

    def __init__(self, model: Encoder, calibration: Calibration, storage: Storage) -> None:
        self.shape: ModelShape = model.shape
        self.calibration = calibration
        self.storage = storage
        self.onnx = OnnxBuilder()
        self.weights: dict[str, Array] = {
            name: tensor.detach().float().cpu().numpy()
            for name, tensor in model.state_dict().items()
        }

    def build(self, head: Head) -> onnx.ModelProto:
        """The whole graph."""
        onnx_ = self.onnx
        hidden = self.embed()
        bias = self.own_bias()
        index = onnx_.node("Unsqueeze", [self.clamped_pooled_at(), onnx_.ints(-1)])  # [B, J, 1]
        keys, values = [], []
        for layer in range(self.shape.layers):
            is_last = layer == self.shape.layers - 1
            queries = hidden
            if is_last:
                take: dict[str, int | float | str] = {"batch_dims": 1}
                queries = onnx_.node("GatherND", [hidden, index], attributes=dict(take))
                bias = onnx_.node("GatherND", [bias, index], attributes=dict(take))  # [B, J, T]
            query, key, value = self.project(layer, hidden, queries, is_last)
            seen = _Attended(
                key,
                value,
                self.layer_of("prefix_key", layer),
                self.layer_of("prefix_value", layer),
                onnx_.node("Unsqueeze", [bias, onnx_.ints(1)]),
            )
            keys.append(onnx_.node("Unsqueeze", [key, onnx_.ints(1)]))
            values.append(onnx_.node("Unsqueeze", [value, onnx_.ints(1)]))
            residual = self.transform(layer, queries, self.attend(query, seen))
            if not is_last:
                hidden = self.norm(f"layers.{layer}.output_norm", residual)
        onnx_.node("Concat", keys, output="key", attributes={"axis": 1})
        onnx_.node("Concat", values, output="value", attributes={"axis": 1})
        if head == "fused":
            self.fused_head(residual)
        else:
            self.portable_head(residual)
        return self.close(head)

    # The stages, in order.

    def embed(self) -> str:
        """Token + position + segment embeddings, normalised: [B, T, hidden]."""
        onnx_ = self.onnx
        tokens = self.weights["tokens.weight"]
        if self.storage == "int8":
            # Gathered as int8: the table is never unfolded.
            stored = quantise(tokens)
            values = onnx_.constant("tokens.weight", stored.values)
            scale = onnx_.constant("tokens.scale", stored.scale[:, None])
            rows = onnx_.node("Gather", [values, "input_ids"])
            rows = onnx_.node("Cast", [rows], attributes={"to": FLOAT})
            token = onnx_.node("Mul", [rows, onnx_.node("Gather", [scale, "input_ids"])])
        else:
            token = onnx_.node("Gather", [onnx_.constant("tokens.weight", tokens), "input_ids"])
        position = onnx_.node("Gather", [self.weight("positions.weight"), "position_ids"])
        segment = onnx_.node("Gather", [self.weight("segments.weight"), "segment_ids"])
        total = onnx_.node("Add", [onnx_.node("Add", [token, position]), segment])
        return self.norm("embedding_norm", total)

    def own_bias(self) -> str:
        """[B, T, T]: 0 where a token may look in its own row, MASKED elsewhere."""
        onnx_ = self.onnx
        length = onnx_.node("Gather", [onnx_.node("Shape", ["input_ids"]), onnx_.int_scalar(1)])
        columns = onnx_.node("Range", [onnx_.int_scalar(0), length, onnx_.int_scalar(1)])
        sees = onnx_.node("Less", [columns, onnx_.node("Unsqueeze", ["visible", onnx_.ints(2)])])
        zero = onnx_.float_scalar("zero", 0.0)
        return onnx_.node("Where", [sees, zero, onnx_.float_scalar("masked", MASKED)])

    def clamped_pooled_at(self) -> str:
        """pooled_at with -1 replaced by 0: [B, J]."""
        return self.onnx.node("Max", ["pooled_at", self.onnx.int_scalar(0)])

    def project(self, layer: int, hidden: str, queries: str, is_last: bool) -> tuple[str, str, str]:
        """Query [B, heads, Q, D], key and value [B, heads, T, D] of one layer."""
        parts = self.projections(layer)
        width = self.shape.hidden
        if is_last:
            query = self.linear(f"layers.{layer}.query", queries, [parts[0]])
            both = self.linear(f"layers.{layer}.key_value", hidden, parts[1:])
            key, value = self.split(both, [width, width])
        else:
            all_three = self.linear(f"layers.{layer}.query_key_value", hidden, parts)
            query, key, value = self.split(all_three, [width, width, width])
        return self.heads(query), self.heads(key), self.heads(value)

    def projections(self, layer: int) -> list[tuple[Array, Array]]:
        """(weight [out, in], bias [out]) of query, key, value."""
        names = [f"layers.{layer}.{part}" for part in ("query", "key", "value")]
        return [(self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]) for name in names]

    def attend(self, query: str, seen: _Attended) -> str:
        """Context [B, Q, hidden] of `query` over the prefix and the row itself."""
        onnx_ = self.onnx
        swap: dict[str, list[int]] = {"own": [0, 1, 3, 2], "prefix": [0, 2, 1]}
        own_keys = onnx_.node("Transpose", [seen.key], attributes={"perm": swap["own"]})
        prefix_keys = onnx_.node(
            "Transpose", [seen.prefix_key], attributes={"perm": swap["prefix"]}
        )
        scale = onnx_.float_scalar("query_scale", self.shape.head_dim**-0.5)
        query = onnx_.node("Mul", [query, scale])
        own = onnx_.node("Add", [onnx_.node("MatMul", [query, own_keys]), seen.bias])
        over_prefix = onnx_.node("MatMul", [query, prefix_keys])  # [B, heads, Q, P]
        weights = onnx_.node("Concat", [over_prefix, own], attributes={"axis": -1})
        weights = onnx_.node("Softmax", [weights], attributes={"axis": -1})
        n_prefix = onnx_.node("Shape", ["prefix_key"], attributes={"start": 2, "end": 3})
        far = onnx_.ints(np.iinfo(np.int64).max)
        last = onnx_.ints(-1)
        prefix_weights = onnx_.node("Slice", [weights, onnx_.ints(0), n_prefix, last])
        own_weights = onnx_.node("Slice", [weights, n_prefix, far, last])
        context = onnx_.node(
            "Add",
            [
                onnx_.node("MatMul", [prefix_weights, seen.prefix_value]),
                onnx_.node("MatMul", [own_weights, seen.value]),
            ],
        )
        context = onnx_.node("Transpose", [context], attributes={"perm": [0, 2, 1, 3]})
        return onnx_.node("Reshape", [context, onnx_.ints(0, 0, self.shape.hidden)])

    def transform(self, layer: int, queries: str, context: str) -> str:
        """The rest of a layer, before its last norm: [B, Q, hidden]."""
        onnx_ = self.onnx
        name = f"layers.{layer}"
        attended = self.linear(f"{name}.attended", context, [self.parameters(f"{name}.attended")])
        hidden = self.norm(f"{name}.attention_norm", onnx_.node("Add", [queries, attended]))
        up = self.linear(f"{name}.up", hidden, [self.parameters(f"{name}.up")])
        down = self.linear(
            f"{name}.down", onnx_.node("Gelu", [up]), [self.parameters(f"{name}.down")]
        )
        return onnx_.node("Add", [hidden, down])

    def portable_head(self, residual: str) -> None:
        """Final norm, verbalizer rows, log-odds, calibration: reward and compliance [B, J]."""
        onnx_ = self.onnx
        states = self.norm(self.final_norm(), residual)
        rows = onnx_.constant("verbalizers.rows", self.weights["verbalizers.weight"].T)
        logits = onnx_.node("MatMul", [states, rows])
        logits = onnx_.node("Add", [logits, self.weight("verbalizers.bias")])
        safe, unsafe = self.split(logits, [self.shape.n_safe, self.shape.n_unsafe])
        last = onnx_.ints(-1)
        odds = onnx_.node(
            "Sub",
            [
                onnx_.node("ReduceLogSumExp", [safe, last], attributes={"keepdims": 0}),
                onnx_.node("ReduceLogSumExp", [unsafe, last], attributes={"keepdims": 0}),
            ],
        )
        absent = onnx_.node("Less", ["pooled_at", onnx_.int_scalar(0)])
        nan = onnx_.float_scalar("nan", float("nan"))
        reward = onnx_.node("Where", [absent, nan, odds], output="reward")
        slope = onnx_.float_scalar("calibration.a", self.calibration.a)
        offset = onnx_.float_scalar("calibration.b", self.calibration.b)
        logit = onnx_.node("Add", [onnx_.node("Mul", [reward, slope]), offset])
        onnx_.node("Sigmoid", [logit], output="compliance")

    def fused_head(self, residual: str) -> None:
        """The same in one csrm.RewardHead; `residual` holds one state per judged block already."""
        onnx_ = self.onnx
        n_judged = onnx_.node("Gather", [onnx_.node("Shape", ["pooled_at"]), onnx_.int_scalar(1)])
        places = onnx_.node("Range", [onnx_.int_scalar(0), n_judged, onnx_.int_scalar(1)])
        absent = onnx_.node("Less", ["pooled_at", onnx_.int_scalar(0)])
        index = onnx_.node("Where", [absent, onnx_.int_scalar(-1), places])
        calibration = np.array([self.calibration.a, self.calibration.b], dtype=np.float32)
        norm = self.final_norm()
        onnx_.nodes_with_outputs(
            "RewardHead",
            [
                residual,
                index,
                self.weight(f"{norm}.weight"),
                self.weight(f"{norm}.bias"),
                self.weight("verbalizers.weight"),
                self.weight("verbalizers.bias"),
                onnx_.constant("calibration", calibration),
            ],
            ["reward", "compliance"],
            OPERATOR_DOMAIN,
            {"n_safe": self.shape.n_safe, "epsilon": self.shape.norm_epsilon},
        )

    def close(self, head: Head) -> onnx.ModelProto:
        """The model with its named inputs and outputs."""
        shape = self.shape
        tokens: list[str | int] = ["batch", "tokens"]
        judged: list[str | int] = ["batch", "judged"]
        prefix: list[str | int] = [shape.layers, shape.heads, "prefix", shape.head_dim]
        own: list[str | int] = ["batch", shape.layers, shape.heads, "tokens", shape.head_dim]
        inputs = {
            "input_ids": (INT64, tokens),
            "position_ids": (INT64, tokens),
            "segment_ids": (INT64, tokens),
            "visible": (INT64, tokens),
            "pooled_at": (INT64, judged),
            "prefix_key": (FLOAT, prefix),
            "prefix_value": (FLOAT, prefix),
        }
        outputs = {
            "key": (FLOAT, own),
            "value": (FLOAT, own),
            "reward": (FLOAT, judged),
            "compliance": (FLOAT, judged),
        }
        opsets = {"": OPSET}
        if head == "fused":
            opsets[OPERATOR_DOMAIN] = OPERATOR_VERSION
        return self.onnx.model(inputs, outputs, opsets, {"csrm.signature": "1"})

    # Pieces.

    def linear(self, name: str, states: str, parts: list[tuple[Array, Array]]) -> str:
        """states @ W + b for the stacked `parts` (weight [out, in], bias [out])."""
        onnx_ = self.onnx
        bias = onnx_.constant(f"{name}.bias", np.concatenate([bias for _, bias in parts]))
        if self.storage == "fp32":
            stacked = np.concatenate([weight for weight, _ in parts]).T
            weight = onnx_.constant(f"{name}.weight", stacked)
        else:
            stored = [quantise(weight) for weight, _ in parts]
            weight = self.int8_weight(name, stored)
        return onnx_.node("Add", [onnx_.node("MatMul", [states, weight]), bias])

    def int8_weight(self, name: str, parts: list[Int8Weight]) -> str:
        """The fp32 weight [in, out] of int8 storage; the engine folds it at load."""
        values = np.concatenate([part.values for part in parts]).T
        scale = np.concatenate([part.scale for part in parts])
        inputs = [
            self.onnx.constant(f"{name}.weight", values),
            self.onnx.constant(f"{name}.scale", scale),
        ]
        return self.onnx.node("DequantizeLinear", inputs, attributes={"axis": 1})

    def norm(self, name: str, states: str) -> str:
        """LayerNorm over the last axis."""
        inputs = [states, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        attributes: dict[str, int | float | str] = {
            "axis": -1,
            "epsilon": self.shape.norm_epsilon,
        }
        return self.onnx.node("LayerNormalization", inputs, attributes=dict(attributes))

    def heads(self, states: str) -> str:
        """[B, N, hidden] -> [B, heads, N, D]."""
        sizes = self.onnx.ints(0, 0, self.shape.heads, self.shape.head_dim)
        split = self.onnx.node("Reshape", [states, sizes])
        return self.onnx.node("Transpose", [split], attributes={"perm": [0, 2, 1, 3]})

    def layer_of(self, name: str, layer: int) -> str:
        """prefix_key or prefix_value of one layer: [heads, P, D]."""
        inputs = [name, self.onnx.int_scalar(layer)]
        return self.onnx.node("Gather", inputs, attributes={"axis": 0})

    def split(self, states: str, sizes: list[int]) -> list[str]:
        """Parts of the last axis."""
        inputs = [states, self.onnx.ints(*sizes)]
        return self.onnx.nodes_with_outputs("Split", inputs, [""] * len(sizes), "", {"axis": -1})

    def weight(self, name: str) -> str:
        """A parameter as it is."""
        return self.onnx.constant(name, self.weights[name])

    def parameters(self, name: str) -> tuple[Array, Array]:
        """(weight, bias) of a linear layer."""
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def final_norm(self) -> str:
        """The last layer's norm, which belongs to the head."""
        return f"layers.{self.shape.layers - 1}.output_norm"


def build_graph(
    model: Encoder, calibration: Calibration, *, head: Head, storage: Storage = "int8"
) -> onnx.ModelProto:
    """`model` as a self-contained ONNX model (no external data).

    head: "portable" uses standard operators only; "fused" ends in csrm.RewardHead. storage: see
    csrm.export.storage.
    """
    return EncoderGraph(model, calibration, storage).build(head)
