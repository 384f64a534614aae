"""Writes a copy of an artifact with another calibration: same weights, other a, b and thresholds.

What it is: new values of the calibration's constants in its graphs, a new manifest and model card.
Not: fitting (csrm.train.calibration). The original is not touched.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from csrm.errors import BadArgument, BadArtifact
from csrm.export.artifact import describe, points_json, read_json
from csrm.export.shared_weights import share_weights
from csrm.operating_point import OperatingPoint
from csrm.train.calibration.platt import Calibration

CARD = "MODEL_CARD.md"


def recalibrate(
    artifact: str | Path,
    out: str | Path,
    calibration: Calibration,
    *,
    method: str,
    points: Sequence[OperatingPoint] = (),
    threshold: float = 0.5,
    note: str = "",
) -> Path:
    """Writes `artifact` with `calibration` into the folder `out`; the path of its manifest.

    method: what the manifest calls the fit. points: stored as the manifest's operating points.
    threshold: the verdict's default. note: Markdown added to the model card. Errors: BadArtifact
    for an artifact without the expected constants, BadArgument for a slope that is not positive or
    an `out` that is the artifact itself.
    """
    source, target = Path(artifact), Path(out)
    if not calibration.a > 0 or calibration.is_floored:
        raise BadArgument("the fit's slope is not positive: these rewards do not rank these labels")
    if target.resolve() == source.resolve():
        raise BadArgument("the artifact cannot be changed in place; name another folder")
    manifest = read_json(source / "manifest.json")
    files = manifest.get("files")
    variants = manifest.get("variants")
    if not isinstance(files, dict) or not isinstance(variants, dict):
        raise BadArtifact("manifest.json lists no files; export the artifact again")
    target.mkdir(parents=True, exist_ok=True)
    graphs = set(variants.values())
    for name in sorted(set(files) - graphs):
        shutil.copyfile(source / name, target / name)
    write_graphs(source, target, variants, calibration)
    if note and CARD in files:
        card = (target / CARD).read_text(encoding="utf-8")
        (target / CARD).write_text(f"{card}\n{note}", encoding="utf-8")
    manifest["files"] = {name: describe(target / name) for name in files}
    manifest["calibration"] = {
        "a": calibration.a,
        "b": calibration.b,
        "method": method,
        "n": calibration.n,
    }
    for parity in ("int8_parity", "half_parity"):  # measured with the calibration before
        manifest.pop(parity, None)
    manifest["threshold"] = threshold
    manifest["operating_points"] = points_json(points)
    path = target / "manifest.json"
    path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return path


def write_graphs(
    source: Path, target: Path, variants: dict[str, Any], calibration: Calibration
) -> None:
    """All graphs with new constants; those in csrm's operators point into the portable one."""
    a, b = np.float32(calibration.a), np.float32(calibration.b)
    portable_name = str(variants["portable"])
    portable = onnx.load(source / portable_name)
    replace_constant(portable, "calibration.a", np.asarray(a))
    replace_constant(portable, "calibration.b", np.asarray(b))
    host = portable.SerializeToString()
    (target / portable_name).write_bytes(host)
    for name in sorted(set(variants) - {"portable"}):
        graph = onnx.load(source / str(variants[name]))
        replace_constant(graph, "calibration", np.array([a, b]))
        shared = share_weights(graph, host, portable_name)
        (target / str(variants[name])).write_bytes(shared.SerializeToString())


def replace_constant(model: onnx.ModelProto, name: str, value: np.ndarray[Any, Any]) -> None:
    """Gives the initialiser `name` a new value; its shape stays. Errors: BadArtifact."""
    for tensor in model.graph.initializer:
        if tensor.name == name and math.prod(tensor.dims) == value.size:
            shaped = value.reshape(tuple(tensor.dims))
            tensor.CopyFrom(numpy_helper.from_array(shaped, name))
            return
    raise BadArtifact(f"the graph has no constant {name!r} to replace; export the artifact again")
