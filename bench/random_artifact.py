"""An artifact of a given shape with random weights: as fast as a trained one, and good for nothing.

What it is: csrm's own graphs over int8 matrices that are drawn from a fixed seed and written in a
stream (csrm.export.weights_file), so that 8 billion weights need a file and no memory. They are
scaled so that states keep a size of about 1 through any number of layers, in fp16 too, and
attention looks at a few tokens, not at all alike: rewards then depend on every part. The
tokenizer is the shipped model's; a decoder gets ChatML's control tokens on two of its unused ids.
Not: an export of a checkpoint (csrm.export.artifact).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from csrm.bench.shapes import Sizes
from csrm.export.artifact import CUDA, FUSED, PORTABLE, SCHEMA_VERSION, describe, described
from csrm.export.cuda_decoder_graph import CudaDecoderGraph
from csrm.export.cuda_graph import CudaEncoderGraph
from csrm.export.decoder_graph import DecoderGraph
from csrm.export.fused_decoder_graph import FusedDecoderGraph
from csrm.export.fused_graph import FusedEncoderGraph
from csrm.export.graph import EncoderGraph
from csrm.export.signature_graph import Array, SignatureGraph
from csrm.export.storage import Int8Weight, is_stored_as_int8
from csrm.export.weights_file import FiledBuilder, WeightsFile
from csrm.paths import default_artifact
from csrm.train.calibration.platt import Calibration
from csrm.train.chat_template import make_chat_template
from csrm.train.decoder import Decoder, DecoderShape
from csrm.train.model import Encoder
from csrm.train.template import TEMPLATE

WEIGHTS = "model.weights"
SEED = 0
_LARGEST = 127
_SPREAD = _LARGEST / 3**0.5  # standard deviation of the integers
_CALIBRATION = Calibration(a=1.0, b=0.0, n=0, nll_before=0.0, nll_after=0.0)
_CONTROL = {"<|im_start|>": 97, "<|im_end|>": 98}  # [unused96] and [unused97] of BERT's table


def write_random_artifact(sizes: Sizes, folder: Path, name: str) -> Path:
    """Writes the artifact into `folder`; the folder. A finished one is taken as it is."""
    manifest_path = folder / "manifest.json"
    if manifest_path.is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    model = hollow(sizes)
    tokenizer = tokenizer_of(sizes)
    (folder / "tokenizer.json").write_bytes(tokenizer)
    variants = {"portable": PORTABLE, "fused": FUSED, "cuda": CUDA}
    with WeightsFile(folder / WEIGHTS) as file:
        for variant, make in graphs_of(model).items():
            graph = make(model, _CALIBRATION, "int8")
            graph.onnx = FiledBuilder(file)
            # Int8Weight, where they are matrices: the graph's own rounding leaves those alone.
            drawn = DrawnWeights(model, is_blank=bool(file.places))
            graph.weights = cast(dict[str, Array], drawn)
            (folder / variants[variant]).write_bytes(graph.build().SerializeToString())
        files = {WEIGHTS: file.describe()}
    listed = ("tokenizer.json", *(variants[variant] for variant in graphs_of(model)))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "created": "2026-01-01T00:00:00Z",
        "licence": "Apache-2.0",
        "files": {**files, **{one: describe(folder / one) for one in listed}},
        "template": make_chat_template(tokenizer) if isinstance(model, Decoder) else TEMPLATE,
        "model": described(model),
        "calibration": {"a": 1.0, "b": 0.0, "method": "platt", "n": 0},
        "threshold": 0.5,
        "operating_points": [],
        "variants": {variant: variants[variant] for variant in graphs_of(model)},
        "provenance": {"sources": [], "weights": "random"},
    }
    manifest_path.write_text(json.dumps(manifest, indent=1) + "\n")
    return folder


def graphs_of(model: Encoder | Decoder) -> dict[str, Any]:
    """Variant -> the class that writes its graph, the one that names the matrices first."""
    found: dict[str, type[SignatureGraph]]
    if isinstance(model, Decoder):
        found = {"portable": DecoderGraph, "fused": FusedDecoderGraph, "cuda": CudaDecoderGraph}
    else:
        found = {"portable": EncoderGraph, "fused": FusedEncoderGraph, "cuda": CudaEncoderGraph}
    return dict(found)


def hollow(sizes: Sizes) -> Encoder | Decoder:
    """A model of `sizes` whose parameters take no memory; all are zero."""
    with torch.device("meta"):
        model = Decoder(sizes) if isinstance(sizes, DecoderShape) else Encoder(sizes)
    state = {name: torch.zeros(1).expand(t.shape) for name, t in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    if isinstance(model, Decoder):
        model.frequencies = model.shape.frequencies()
    return model


def tokenizer_of(sizes: Sizes) -> bytes:
    """The shipped tokenizer.json, with ChatML's control tokens for a decoder."""
    data = (default_artifact() / "tokenizer.json").read_bytes()
    if not isinstance(sizes, DecoderShape):
        return data
    tokenizer = json.loads(data)
    tokenizer["added_tokens"] += [
        {"id": id_, "content": text, "special": True} for text, id_ in _CONTROL.items()
    ]
    return json.dumps(tokenizer).encode()


class DrawnWeights(Mapping[str, Any]):
    """Parameter name -> its value, drawn anew at each look: Int8Weight of a matrix, else fp32.

    The same seed and name give the same value. is_blank: integers are zeros that take no memory,
    for a graph whose matrices are written already; scales are as ever.
    """

    def __init__(self, model: nn.Module, *, is_blank: bool = False) -> None:
        self._shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
        layers = sum(name.endswith(".down.weight") for name in self._shapes)
        self._damping = float((2 * layers) ** -0.5)  # of what is added to the residual stream
        self._is_blank = is_blank

    def __getitem__(self, name: str) -> Array | Int8Weight:
        shape = self._shapes[name]
        rng = np.random.Generator(np.random.SFC64([SEED, zlib.crc32(name.encode())]))
        if "norm" in name:
            ones = name.endswith(".weight")
            return np.full(shape, float(ones), np.float32)
        if name.endswith(".bias"):
            return (0.02 * rng.standard_normal(shape)).astype(np.float32)
        if not is_stored_as_int8(name):
            return (rng.standard_normal(shape) * self._deviation(name)).astype(np.float32)
        scale = np.full(shape[0], self._deviation(name) / _SPREAD, np.float32)
        if self._is_blank:
            return Int8Weight(np.broadcast_to(np.int8(0), shape), scale)
        return Int8Weight(self._integers(rng, shape), scale)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def _deviation(self, name: str) -> float:
        """Standard deviation of a parameter's values, of mean 0."""
        if name in ("tokens.weight", "positions.weight", "segments.weight"):
            return 0.3
        kept = float(self._shapes[name][1] ** -0.5)  # keeps the size of what it multiplies
        if name == "verbalizers.weight":
            return 2.0 * kept  # rewards of about 2 log-odds either way
        if name.endswith("query.weight"):
            return 3.0 * kept
        is_added = name.endswith("down.weight")
        return kept * self._damping if is_added else kept

    @staticmethod
    def _integers(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int8]:
        """[rows, columns] that lie column by column, as graphs store them. -127 to 127.

        Each row has its largest: rounding the weights again then gives the same integers.
        """
        drawn = np.frombuffer(rng.bytes(shape[0] * shape[1]), np.int8).reshape(shape[::-1])
        values = np.maximum(drawn, -_LARGEST)
        values[0] = _LARGEST
        return values.T
