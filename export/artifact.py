"""Checkpoint folder -> artifact folder: graphs, tokenizer, manifest, model card.

What it is: `csrm export`. The artifact is what the runtime loads and verifies (every file's sha256
is in manifest.json). Not: parity measurement (csrm.export.parity), which runs on a finished
artifact.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import onnx

from csrm.errors import BadArgument, BadArtifact
from csrm.export.cuda_decoder_graph import build_cuda_decoder_graph
from csrm.export.cuda_graph import build_cuda_graph
from csrm.export.decoder_graph import build_decoder_graph
from csrm.export.fused_decoder_graph import build_fused_decoder_graph
from csrm.export.fused_graph import build_fused_graph
from csrm.export.graph import build_graph
from csrm.export.half_graph import half_graph
from csrm.export.int8_graph import int8_graph
from csrm.export.model_card import model_card
from csrm.export.shared_weights import share_weights
from csrm.export.signature_graph import Storage
from csrm.operating_point import OperatingPoint
from csrm.train.calibration.platt import Calibration
from csrm.train.chat_template import make_chat_template
from csrm.train.decoder import Decoder, DecoderShape, is_decoder_checkpoint, load_decoder
from csrm.train.model import Encoder, load_checkpoint
from csrm.train.template import TEMPLATE

SCHEMA_VERSION = 1
PORTABLE = "model.onnx"
FUSED = "model.fused.onnx"
INT8 = "model.int8.onnx"
CUDA = "model.cuda.onnx"
HALF = "model.half.onnx"


def export_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    *,
    name: str = "csrm-mini",
    evaluation: str | Path | None = None,
    storage: Storage = "int8",
    int8: bool = False,
    cuda: bool = False,
    half: bool = False,
) -> Path:
    """Writes the artifact of `checkpoint` into the folder `out`; the path of its manifest.

    evaluation: a JSON file written by `csrm evaluate`, whose figures go into the model card, as
    does the checkpoint's NOTES.md if there is one. storage: how weights lie in the file
    (csrm.export.storage). int8, half, cuda: also the variants of csrm.export.int8_graph,
    half_graph and cuda_graph or cuda_decoder_graph.
    Errors: BadArtifact (checkpoint), BadArgument (name; int8 of a decoder or of fp32 weights; half
    of a decoder), Unsupported (`write_cuda`).
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise BadArgument("an artifact's name is 1 to 64 of a-z, 0-9, dot, dash and underscore")
    source, target = Path(checkpoint), Path(out)
    model = load_decoder(source) if is_decoder_checkpoint(source) else load_checkpoint(source)
    if int8 and (isinstance(model, Decoder) or storage != "int8"):
        raise BadArgument("the int8 variant is for an encoder with weights stored as int8")
    if half and isinstance(model, Decoder):
        raise BadArgument("the half variant is for an encoder")
    calibration = read_calibration(source)
    provenance = read_json(source / "provenance.json")
    if provenance.get("attention", "block") != "block":
        raise BadArtifact("the checkpoint was trained with full attention; only block has a graph")
    tokenizer = read_bytes(source / "tokenizer.json")
    template = template_of(model, tokenizer)
    target.mkdir(parents=True, exist_ok=True)
    variants = write_graphs(model, calibration, target, storage)
    if int8:
        variants["int8"] = INT8
        write_int8(target)
    if cuda:
        variants["cuda"] = CUDA
        write_cuda(model, calibration, target, storage)
    if half:
        variants["half"] = HALF
        write_half(target)
    (target / "tokenizer.json").write_bytes(tokenizer)
    figures = None if evaluation is None else read_json(Path(evaluation))
    notes = source / "NOTES.md"
    text = notes.read_text(encoding="utf-8") if notes.is_file() else ""
    card = model_card(
        name, provenance, calibration, figures, text, is_decoder=isinstance(model, Decoder)
    )
    (target / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    files = (*variants.values(), "tokenizer.json", "MODEL_CARD.md")
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "licence": "that of the backbone" if isinstance(model, Decoder) else "Apache-2.0",
        "files": {file: describe(target / file) for file in files},
        "template": template,
        "model": described(model),
        "calibration": {
            "a": calibration.a,
            "b": calibration.b,
            "method": "platt",
            "n": calibration.n,
        },
        "threshold": 0.5,
        "operating_points": read_points(source),
        "variants": variants,
        "provenance": provenance,
    }
    path = target / "manifest.json"
    path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return path


def write_graphs(
    model: Encoder | Decoder, calibration: Calibration, folder: Path, storage: Storage
) -> dict[str, str]:
    """model.onnx, self-contained, and model.fused.onnx, whose weights lie in it.

    Returns the manifest's variants. Errors: BadArtifact when one file cannot hold the model.
    """
    if isinstance(model, Decoder):
        portable = serialised(build_decoder_graph(model, calibration, storage=storage))
        fused = build_fused_decoder_graph(model, calibration, storage=storage)
    else:
        portable = serialised(build_graph(model, calibration, storage=storage))
        fused = build_fused_graph(model, calibration, storage=storage)
    (folder / PORTABLE).write_bytes(portable)
    (folder / FUSED).write_bytes(serialised(share_weights(fused, portable, PORTABLE)))
    return {"portable": PORTABLE, "fused": FUSED}


def write_int8(folder: Path) -> None:
    """model.int8.onnx from the folder's model.fused.onnx; weights lie in model.onnx as for that."""
    fused = onnx.load(folder / FUSED, load_external_data=False)
    (folder / INT8).write_bytes(int8_graph(fused).SerializeToString())


def write_cuda(
    model: Encoder | Decoder, calibration: Calibration, folder: Path, storage: Storage
) -> None:
    """model.cuda.onnx; weights stored as int8 lie in the folder's model.onnx.

    Errors: Unsupported (a decoder with sizes that csrm's operators for CUDA do not take),
    BadArtifact (a weight that fp16 does not hold).
    """
    if isinstance(model, Decoder):
        graph = build_cuda_decoder_graph(model, calibration, storage=storage)
    else:
        graph = build_cuda_graph(model, calibration, storage=storage)
    shared = share_weights(graph, (folder / PORTABLE).read_bytes(), PORTABLE)
    (folder / CUDA).write_bytes(serialised(shared))


def write_half(folder: Path) -> None:
    """model.half.onnx from the folder's model.fused.onnx; weights lie in model.onnx as for that."""
    fused = onnx.load(folder / FUSED, load_external_data=False)
    (folder / HALF).write_bytes(half_graph(fused).SerializeToString())


def serialised(graph: onnx.ModelProto) -> bytes:
    """The bytes of `graph`. Errors: BadArtifact over protobuf's 2 GiB."""
    try:
        data: bytes = graph.SerializeToString()
    except Exception as error:  # protobuf's EncodeError has no public base
        raise BadArtifact(
            f"the model does not fit one file of 2 GiB ({type(error).__name__}); store it as int8"
        ) from error
    return data


def described(model: Encoder | Decoder) -> dict[str, Any]:
    """The manifest's "model" object."""
    shape = model.shape
    fields: dict[str, Any] = {
        "backbone": "decoder" if isinstance(model, Decoder) else "encoder",
        "layers": shape.layers,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "verbalizers": {"safe": shape.n_safe, "unsafe": shape.n_unsafe},
    }
    if isinstance(shape, DecoderShape):
        fields["max_positions"] = shape.max_positions
    return fields


def template_of(model: Encoder | Decoder, tokenizer_json: bytes) -> dict[str, Any]:
    """The manifest's "template" object. Errors: BadArtifact when the model does not fit it."""
    if isinstance(model, Decoder):
        return make_chat_template(tokenizer_json)
    check_template(model)
    return TEMPLATE


def check_template(model: Encoder) -> None:
    """Errors: BadArtifact when the model has too few positions or segments for the template."""
    shape = model.shape
    for name, has in (
        ("max_block_tokens", shape.max_block_tokens),
        ("n_turn_indices", shape.n_turn_indices),
    ):
        if has < TEMPLATE[name]:
            raise BadArtifact(f"the model's {name} is {has}; the template needs {TEMPLATE[name]}")


def read_calibration(checkpoint: Path) -> Calibration:
    """The calibration fitted with the checkpoint. Errors: BadArtifact."""
    try:
        calibration = Calibration(**read_json(checkpoint / "calibration.json"))
    except TypeError as error:
        raise BadArtifact(
            "calibration.json of the checkpoint has other fields than a Platt fit"
        ) from error
    try:
        is_finite = math.isfinite(calibration.a) and math.isfinite(calibration.b)
    except TypeError:
        is_finite = False
    if not is_finite:
        raise BadArtifact("the calibration's a and b must be finite numbers")
    if calibration.is_floored or calibration.a <= 0:
        raise BadArtifact("the calibration's slope is not positive: the model does not separate")
    return calibration


def read_points(checkpoint: Path) -> list[dict[str, float | None]]:
    """The operating points fitted with the checkpoint; none if it has no such file."""
    path = checkpoint / "operating_points.json"
    if not path.is_file():
        return []
    points: list[dict[str, float | None]] = read_json(path).get("points", [])
    return points


def points_json(points: Sequence[OperatingPoint]) -> list[dict[str, float | None]]:
    """Operating points as a manifest holds them: NaN, which JSON lacks, is null."""
    return [
        {name: None if value != value else value for name, value in asdict(point).items()}
        for point in points
    ]


def read_bytes(path: Path) -> bytes:
    """The bytes of a file of the checkpoint. Errors: BadArtifact."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadArtifact(f"{path.name} cannot be read: {type(error).__name__}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Errors: BadArtifact."""
    try:
        value = json.loads(read_bytes(path), parse_constant=not_json)
    except ValueError as error:
        raise BadArtifact(f"{path.name} is not JSON: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise BadArtifact(f"{path.name} must hold a JSON object")
    return value


def not_json(constant: str) -> None:
    """Refuses NaN and the infinities, which the runtime's parser does not take either."""
    raise ValueError(constant)


def describe(path: Path) -> dict[str, Any]:
    """Digest and size of a file, as the manifest lists them."""
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
