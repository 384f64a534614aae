"""The config's keys and values for the ONNX baselines, computed by the graph itself.

What it is: block after block through a graph with the outputs key and value, joined to what the
signature's inputs prefix_key and prefix_value take. Not: an engine (onnxruntime_*.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csrm.bench.baselines.interface import CachedRows
from csrm.bench.baselines.onnx_model import PREFIX
from csrm.errors import BadArtifact

Arrays = dict[str, NDArray[Any]]


def empty_prefix(artifact: Path, dtype: type[np.floating[Any]] = np.float32) -> Arrays:
    """prefix_key and prefix_value of no tokens. Errors: BadArtifact."""
    try:
        model = json.loads((artifact / "manifest.json").read_text())["model"]
        shape = (model["layers"], model["kv_heads"], 0, model["head_dim"])
    except (OSError, ValueError, KeyError) as error:
        raise BadArtifact(f"the model cannot be read: {type(error).__name__}") from error
    return {name: np.zeros(shape, dtype) for name in PREFIX}


def prefix_of(
    rows: CachedRows, empty: Arrays, encode: Callable[[Arrays], list[NDArray[Any]]]
) -> Arrays:
    """The blocks of `rows` as a prefix, in the precision of `empty`.

    encode: all inputs of the signature -> key and value [1, L, heads, T, D].
    """
    parts = [encode({**block, **empty}) for block in rows.blocks]
    return {
        name: np.concatenate([part[side][0] for part in parts], axis=2).astype(empty[name].dtype)
        for side, name in enumerate(PREFIX)
    }
