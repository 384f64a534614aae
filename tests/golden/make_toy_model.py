"""Writes a toy artifact: a model with csrm's exact signature that loads in milliseconds.

Not a trained model: two layers of plain attention over random weights, a vocabulary of 64. Used by
the tests of the runtime, which compare it with themselves and with the graph run directly.

    python tests/golden/make_toy_model.py FOLDER
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

LAYERS, HEADS, DIM, VOCAB = 2, 2, 4, 64
N_SAFE, N_UNSAFE = 1, 2  # verbalizers
HIDDEN = HEADS * DIM
MAX_BLOCK_TOKENS, N_TURN_INDICES = 32, 8
CALIBRATION: dict[str, Any] = {"a": 1.5, "b": 0.25, "method": "platt", "n": 0}
TEMPLATE: dict[str, Any] = {
    "id": "csrm-blocks-1",
    "cls": 8,
    "sep": 9,
    "rule": 1,
    "name_end": 2,
    "roles": {"system": 3, "user": 4, "assistant": 5, "tool": 6},
    "max_block_tokens": MAX_BLOCK_TOKENS,
    "n_turn_indices": N_TURN_INDICES,
}
VARIANTS = {"portable": "model.onnx", "fused": "model.fused.onnx"}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
FIRST_LETTER = 10  # id of the word "a"; the word "b" has the next one


@dataclass
class Graph:
    """The nodes and weights of a graph under construction."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: object) -> str:
        """Adds a node with one output and returns the output's name."""
        name = out or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: NDArray[np.generic]) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def scalar(self, value: float | int) -> str:
        kind = np.int64 if isinstance(value, int) else np.float32
        return self.constant(np.array(value, dtype=kind))

    def random(self, *shape: int, scale: float = 0.7) -> str:
        return self.constant(self.rng.normal(0.0, scale, shape).astype(np.float32))


def _embed(g: Graph) -> str:
    hidden = g.op("Gather", g.random(VOCAB, HIDDEN, scale=1.0), "input_ids")
    position = g.op("Gather", g.random(MAX_BLOCK_TOKENS, HIDDEN), "position_ids")
    segment = g.op("Gather", g.random(N_TURN_INDICES + 1, HIDDEN), "segment_ids")
    return g.op("Add", g.op("Add", hidden, position), segment)


def _mask(g: Graph) -> str:
    """bool [B, 1, T, P + T]: column c is seen if it is prefix or own token before visible[t]."""
    n_own = g.op("Gather", g.op("Shape", "input_ids"), g.scalar(1))
    n_prefix = g.op("Gather", g.op("Shape", "prefix_key"), g.scalar(2))
    columns = g.op("Range", g.scalar(0), g.op("Add", n_prefix, n_own), g.scalar(1))
    bound = g.op("Unsqueeze", g.op("Add", "visible", n_prefix), g.ints(1, 3))
    return g.op("Less", columns, bound)


def _heads(g: Graph, hidden: str) -> str:
    """[B, T, HIDDEN] -> [B, HEADS, T, DIM] by a random projection."""
    projected = g.op("MatMul", hidden, g.random(HIDDEN, HIDDEN, scale=0.5))
    split = g.op("Reshape", projected, g.ints(0, 0, HEADS, DIM))
    return g.op("Transpose", split, perm=[0, 2, 1, 3])


def _with_prefix(g: Graph, name: str, layer: int, own: str) -> str:
    """[B, HEADS, P + T, DIM]: the layer's prefix in front of every row's own tokens."""
    prefix = g.op("Gather", name, g.ints(layer))
    n_rows = g.op("Slice", g.op("Shape", "input_ids"), g.ints(0), g.ints(1))
    shape = g.op("Concat", n_rows, g.ints(1, 1, 1), axis=0)
    return g.op("Concat", g.op("Expand", prefix, shape), own, axis=2)


def _layer(g: Graph, hidden: str, mask: str, layer: int) -> tuple[str, str, str]:
    query, key, value = (_heads(g, hidden) for _ in range(3))
    all_keys = g.op("Transpose", _with_prefix(g, "prefix_key", layer, key), perm=[0, 1, 3, 2])
    scores = g.op("Mul", g.op("MatMul", query, all_keys), g.scalar(DIM**-0.5))
    # A large finite number, not -inf: a padded row sees nothing and must still not become NaN.
    weights = g.op("Softmax", g.op("Where", mask, scores, g.scalar(-1e9)), axis=-1)
    mixed = g.op("MatMul", weights, _with_prefix(g, "prefix_value", layer, value))
    joined = g.op("Reshape", g.op("Transpose", mixed, perm=[0, 2, 1, 3]), g.ints(0, 0, HIDDEN))
    output = g.op("MatMul", joined, g.random(HIDDEN, HIDDEN, scale=0.5))
    ones = g.constant(np.ones(HIDDEN, dtype=np.float32))
    normed = g.op("LayerNormalization", g.op("Add", hidden, output), ones, axis=-1)
    return normed, key, value


def _head(g: Graph, hidden: str, fused: bool) -> None:
    """reward and compliance [B, J]; `fused` makes them with csrm's own operator."""
    norm = g.random(HIDDEN), g.random(HIDDEN)
    rows, row_bias = g.random(N_SAFE + N_UNSAFE, HIDDEN), g.random(N_SAFE + N_UNSAFE)
    calibration = [CALIBRATION["a"], CALIBRATION["b"]]
    if fused:
        weights = [*norm, rows, row_bias, g.constant(np.array(calibration, dtype=np.float32))]
        inputs, outputs = [hidden, "pooled_at", *weights], ["reward", "compliance"]
        g.nodes.append(
            helper.make_node(
                "RewardHead", inputs, outputs, domain="csrm", n_safe=N_SAFE, epsilon=1e-5
            )
        )
        return
    index = g.op("Max", "pooled_at", g.scalar(0))
    pooled = g.op("GatherND", hidden, g.op("Unsqueeze", index, g.ints(2)), batch_dims=1)
    normed = g.op("LayerNormalization", pooled, *norm, axis=-1, epsilon=1e-5)
    logits = g.op("Add", g.op("MatMul", normed, g.op("Transpose", rows, perm=[1, 0])), row_bias)
    safe = g.op("Slice", logits, g.ints(0), g.ints(N_SAFE), g.ints(2))
    unsafe = g.op("Slice", logits, g.ints(N_SAFE), g.ints(N_SAFE + N_UNSAFE), g.ints(2))
    sums = [g.op("ReduceLogSumExp", part, axes=[2], keepdims=0) for part in (safe, unsafe)]
    is_none = g.op("Less", "pooled_at", g.scalar(0))
    reward = g.op("Sub", *sums)
    g.op("Where", is_none, g.scalar(float("nan")), reward, out="reward")
    scaled = g.op("Mul", "reward", g.scalar(calibration[0]))
    g.op("Sigmoid", g.op("Add", scaled, g.scalar(calibration[1])), out="compliance")


def build_model(seed: int = 0, fused: bool = False) -> onnx.ModelProto:
    """The toy model, with weights drawn from `seed`; the same function for both values of fused."""
    g = Graph(np.random.default_rng(seed))
    hidden, mask = _embed(g), _mask(g)
    keys, values = [], []
    for layer in range(LAYERS):
        hidden, key, value = _layer(g, hidden, mask, layer)
        keys.append(g.op("Unsqueeze", key, g.ints(1)))
        values.append(g.op("Unsqueeze", value, g.ints(1)))
    g.op("Concat", *keys, out="key", axis=1)
    g.op("Concat", *values, out="value", axis=1)
    _head(g, hidden, fused)

    def tensor(name: str, kind: int, *dims: str | int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, list(dims))

    row = [
        tensor(name, TensorProto.INT64, "B", "T")
        for name in ("input_ids", "position_ids", "segment_ids", "visible")
    ]
    prefix = [
        tensor(name, TensorProto.FLOAT, LAYERS, HEADS, "P", DIM)
        for name in ("prefix_key", "prefix_value")
    ]
    cache = [
        tensor(name, TensorProto.FLOAT, "B", LAYERS, HEADS, "T", DIM) for name in ("key", "value")
    ]
    scores = [tensor(name, TensorProto.FLOAT, "B", "J") for name in ("reward", "compliance")]
    graph = helper.make_graph(
        g.nodes,
        "toy",
        [*row, tensor("pooled_at", TensorProto.INT64, "B", "J"), *prefix],
        [*cache, *scores],
        g.weights,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("csrm", 1)]
    model = helper.make_model(graph, opset_imports=opsets[: 1 + fused], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def tokenizer_json() -> str:
    """A WordPiece tokenizer: single letters are words, everything else is made of them."""
    words = ["[PAD]", *(f"[unused{i}]" for i in range(6)), "[UNK]", "[CLS]", "[SEP]"]
    words += [*LETTERS, *(f"##{letter}" for letter in LETTERS), ",", "."]
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {word: i for i, word in enumerate(words)},
    }
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    }
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": normalizer,
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": None,
            "decoder": None,
            "model": model,
        }
    )


def write_manifest(folder: Path, files: list[str]) -> None:
    """manifest.json for the `files` now in `folder`."""
    listed = {}
    for name in files:
        data = (folder / name).read_bytes()
        listed[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest = {
        "schema_version": 1,
        "name": "toy",
        "created": "2026-01-01T00:00:00Z",
        "files": listed,
        "template": TEMPLATE,
        "model": {
            "backbone": "encoder",
            "layers": LAYERS,
            "kv_heads": HEADS,
            "head_dim": DIM,
            "vocab_size": VOCAB,
            "verbalizers": {"safe": N_SAFE, "unsafe": N_UNSAFE},
        },
        "calibration": CALIBRATION,
        "variants": {kind: name for kind, name in VARIANTS.items() if name in files},
        "threshold": 0.5,
        "provenance": {},
        "licence": "Apache-2.0",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def write_toy_artifact(folder: Path, seed: int = 0) -> Path:
    """Writes both variants of the model, tokenizer.json and manifest.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in VARIANTS.values():
        model = build_model(seed, fused=name == VARIANTS["fused"])
        (folder / name).write_bytes(model.SerializeToString())
    (folder / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    write_manifest(folder, [*VARIANTS.values(), "tokenizer.json"])
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(write_toy_artifact(Path(sys.argv[1])))
