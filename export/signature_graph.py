"""What every csrm graph shares: the signature of docs/datapath.md and the nodes around it.

What it is: a base for csrm.export.graph (encoders) and csrm.export.decoder_graph: named inputs and
outputs, who sees whom, attention over a prefix that is never copied, stored weights, log-odds and
calibration. Not: any backbone's layers. Every method returns names of tensors.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from csrm.export.attention_nodes import Attended, attention, layer_of, own_bias
from csrm.export.onnx_builder import FLOAT, INT64, Attribute, OnnxBuilder
from csrm.export.storage import quantise
from csrm.train.calibration.platt import Calibration
from csrm.train.decoder import DecoderShape
from csrm.train.model import MASKED, ModelShape

OPSET = 20  # the first with Gelu

Storage = Literal["int8", "fp32"]
Array = NDArray[np.float32]


class SignatureGraph:
    """One model under construction; a subclass adds its layers and calls `close`."""

    prefix_type = FLOAT  # of prefix_key and prefix_value

    def __init__(
        self,
        model: nn.Module,
        sizes: ModelShape | DecoderShape,
        calibration: Calibration,
        storage: Storage,
    ) -> None:
        self.sizes = sizes
        self.calibration = calibration
        self.storage = storage
        self.onnx = OnnxBuilder()
        self.weights: dict[str, Array] = {
            name: tensor.detach().float().cpu().numpy()
            for name, tensor in model.state_dict().items()
        }

    def token_embeddings(self) -> str:
        """Rows of `tokens.weight` at input_ids: [B, T, hidden]."""
        onnx_ = self.onnx
        tokens = self.weights["tokens.weight"]
        if self.storage == "fp32":
            return onnx_.node("Gather", [onnx_.constant("tokens.weight", tokens), "input_ids"])
        # Gathered as int8: the table is never unfolded.
        stored = quantise(tokens)
        values = onnx_.constant("tokens.weight", stored.values)
        scale = onnx_.constant("tokens.scale", stored.scale[:, None])
        rows = onnx_.node("Gather", [values, "input_ids"])
        rows = onnx_.node("Cast", [rows], attributes={"to": FLOAT})
        return onnx_.node("Mul", [rows, onnx_.node("Gather", [scale, "input_ids"])])

    def own_bias(self) -> str:
        """[B, T, T]: 0 where a token may look in its own row, MASKED elsewhere."""
        return own_bias(self.onnx, "input_ids", MASKED)

    def clamped_pooled_at(self) -> str:
        """pooled_at with -1 replaced by 0: [B, J]."""
        return self.onnx.node("Max", ["pooled_at", self.onnx.int_scalar(0)])

    def taken(self, states: str, index: str) -> str:
        """Rows of `states` [B, T, ...] at `index` [B, J, 1]: [B, J, ...]."""
        return self.onnx.node("GatherND", [states, index], attributes={"batch_dims": 1})

    def attention(self, query: str, seen: Attended) -> str:
        """Context [B, heads, Q, D] of `query` [B, heads, Q, D] over the prefix and the row."""
        return attention(self.onnx, query, seen, self.sizes.head_dim)

    def write_scores(self, logits: str) -> None:
        """The outputs reward and compliance [B, J] of verbalizer logits [B, J, safe + unsafe]."""
        onnx_ = self.onnx
        safe, unsafe = self.split(logits, [self.sizes.n_safe, self.sizes.n_unsafe])
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

    def write_keys_values(self, keys: list[str], values: list[str]) -> None:
        """The outputs key and value [B, L, heads, T, D] of one tensor [B, 1, ...] per layer."""
        self.onnx.node("Concat", keys, output="key", attributes={"axis": 1})
        self.onnx.node("Concat", values, output="value", attributes={"axis": 1})

    def close(self, operators: dict[str, int]) -> onnx.ModelProto:
        """The model with its named inputs and outputs; `operators`: domains beside ONNX's own."""
        sizes = self.sizes
        tokens: list[str | int] = ["batch", "tokens"]
        judged: list[str | int] = ["batch", "judged"]
        prefix: list[str | int] = [sizes.layers, sizes.kv_heads, "prefix", sizes.head_dim]
        own: list[str | int] = ["batch", sizes.layers, sizes.kv_heads, "tokens", sizes.head_dim]
        inputs = {
            "input_ids": (INT64, tokens),
            "position_ids": (INT64, tokens),
            "segment_ids": (INT64, tokens),
            "visible": (INT64, tokens),
            "pooled_at": (INT64, judged),
            "prefix_key": (self.prefix_type, prefix),
            "prefix_value": (self.prefix_type, prefix),
        }
        outputs = {
            "key": (FLOAT, own),
            "value": (FLOAT, own),
            "reward": (FLOAT, judged),
            "compliance": (FLOAT, judged),
        }
        opsets = {"": OPSET, **operators}
        return self.onnx.model(inputs, outputs, opsets, {"csrm.signature": "1"})

    # Pieces.

    def product(self, name: str, states: str, parts: list[Array]) -> str:
        """states @ W for the stacked weights `parts` ([out, in] each)."""
        weight, scale = self.stored_weight(name, parts)
        if scale:  # the engine unfolds it to fp32 at load
            axis: dict[str, Attribute] = {"axis": 1}
            weight = self.onnx.node("DequantizeLinear", [weight, scale], attributes=axis)
        return self.onnx.node("MatMul", [states, weight])

    def linear(self, name: str, states: str, parts: list[tuple[Array, Array]]) -> str:
        """states @ W + b for the stacked `parts` (weight [out, in], bias [out])."""
        product = self.product(name, states, [weight for weight, _ in parts])
        return self.onnx.node("Add", [product, self.stored_bias(name, [bias for _, bias in parts])])

    def stored_weight(self, name: str, parts: list[Array]) -> tuple[str, str]:
        """The stacked weight [in, out] as it is stored, and its scale [out]; "" of fp32 storage."""
        if self.storage == "fp32":
            return self.onnx.constant(f"{name}.weight", np.concatenate(parts).T), ""
        stored = [quantise(part) for part in parts]
        values = np.concatenate([part.values for part in stored]).T
        scale = np.concatenate([part.scale for part in stored])
        return (
            self.onnx.constant(f"{name}.weight", values),
            self.onnx.constant(f"{name}.scale", scale),
        )

    def stored_bias(self, name: str, parts: list[Array]) -> str:
        """The stacked bias [out]."""
        return self.onnx.constant(f"{name}.bias", np.concatenate(parts))

    def layer_of(self, name: str, layer: int) -> str:
        """prefix_key or prefix_value of one layer: [heads, P, D]."""
        return layer_of(self.onnx, name, layer)

    def split(self, states: str, sizes: list[int]) -> list[str]:
        """Parts of the last axis."""
        inputs = [states, self.onnx.ints(*sizes)]
        axis: dict[str, Attribute] = {"axis": -1}
        return self.onnx.nodes_with_outputs("Split", inputs, [""] * len(sizes), "", axis)

    def reshaped(self, states: str, *sizes: int, axes: list[int] | None = None) -> str:
        """`states` reshaped (0 keeps a size, -1 infers it), then its axes reordered."""
        shaped = self.onnx.node("Reshape", [states, self.onnx.ints(*sizes)])
        if axes is None:
            return shaped
        return self.onnx.node("Transpose", [shaped], attributes={"perm": axes})

    def weight(self, name: str) -> str:
        """A parameter as it is."""
        return self.onnx.constant(name, self.weights[name])
