"""How far the engines and storages of one model are apart, on real inputs.

What it is: rewards of the same rows from PyTorch (with the artifact's rounded weights and with the
checkpoint's own), from model.onnx and from model.fused.onnx. Not: timing (csrm.bench).
`python -m csrm.export.parity CHECKPOINT ARTIFACT DATA.jsonl.gz` prints the table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from csrm.export.storage import rounded
from csrm.paths import get_library
from csrm.train.batch import Batch, BatchBuilder, Example, Family, rewards
from csrm.train.evaluation_sets import CaseComposer
from csrm.train.model import Encoder, Rows, load_checkpoint
from csrm.train.records import DataFolder, read_records
from csrm.train.template import make_renderer
from csrm.train.wording import load_wording

Rewards = NDArray[np.float64]


@dataclass(frozen=True)
class Parity:
    """Largest and 99th-percentile reward difference over `n` inputs, per comparison."""

    n: int
    portable_vs_pytorch_max: float  # same (rounded) weights: arithmetic only
    fused_vs_portable_max: float
    storage_max: float  # rounded against the checkpoint's fp32 weights
    storage_p99: float


class OnnxEngine:
    """One ONNX file in Python's ONNX Runtime. Thread-safe."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        # Unfold the int8-stored weights to fp32 once, at load.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        # Two sessions and PyTorch take turns: threads that spin while idle would slow the others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.register_custom_ops_library(str(get_library()))
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def run(
        self, rows: Rows, prefix_key: NDArray[np.float32], prefix_value: NDArray[np.float32]
    ) -> list[NDArray[np.float32]]:
        """key, value [B, L, heads, T, D], reward, compliance [B, J]."""
        feeds = {name: getattr(rows, name).numpy() for name in Rows.__dataclass_fields__}
        feeds |= {"prefix_key": prefix_key, "prefix_value": prefix_value}
        outputs: list[NDArray[np.float32]] = self.session.run(
            ["key", "value", "reward", "compliance"], feeds
        )
        return outputs


def onnx_rewards(engine: OnnxEngine, batch: Batch, model: Encoder) -> Rewards:
    """Rewards [N] of a one-config batch: rules first, then each group over their prefix."""
    shape = model.shape
    keys, values = [], []
    for rows in batch.rule_rows:
        empty = np.zeros((shape.layers, shape.heads, 0, shape.head_dim), dtype=np.float32)
        key, value, _, _ = engine.run(rows, empty, empty)
        valid = (rows.visible > 0).numpy()
        keys.append(key.transpose(0, 3, 1, 2, 4)[valid])  # [tokens, L, heads, D]
        values.append(value.transpose(0, 3, 1, 2, 4)[valid])
    key, value = np.concatenate(keys), np.concatenate(values)
    out = np.zeros(len(batch.target))
    for group in batch.groups:
        for row, member in enumerate(group.members):
            index = group.prefix_index[row]
            seen = index[index >= 0].numpy()
            one = Rows(*(getattr(group.rows, n)[row : row + 1] for n in Rows.__dataclass_fields__))
            prefix = [np.ascontiguousarray(x[seen].transpose(1, 2, 0, 3)) for x in (key, value)]
            out[member] = engine.run(one, prefix[0], prefix[1])[2][0, 0]
    return out


@torch.no_grad()
def torch_rewards(model: Encoder, batch: Batch) -> Rewards:
    """The same from PyTorch in fp32."""
    return rewards(model, batch).double().numpy()


def examples_of(paths: Sequence[Path], data: DataFolder) -> Iterator[Example]:
    """Real inputs: the cases that `csrm evaluate` makes of these files."""
    composer = CaseComposer(load_wording(), data.taxonomy, data.rulebooks)
    for path in paths:
        for case in composer.compose(read_records(path)).cases:
            yield Example(tuple(case.rules), tuple(case.conversation), 1.0)


def measure_parity(
    checkpoint: Path, artifact: Path, paths: Sequence[Path], data: DataFolder, n: int = 500
) -> Parity:
    """Parity over the first `n` inputs of `paths`."""
    original = load_checkpoint(checkpoint)
    stored = rounded(original)
    portable = OnnxEngine(artifact / "model.onnx")
    fused = OnnxEngine(artifact / "model.fused.onnx")
    builder = BatchBuilder(make_renderer((artifact / "tokenizer.json").read_bytes()))
    columns: list[list[Rewards]] = [[], [], [], []]
    for example in islice(examples_of(paths, data), n):
        batch = builder.build(Family([example]))
        columns[0].append(torch_rewards(original, batch))
        columns[1].append(torch_rewards(stored, batch))
        columns[2].append(onnx_rewards(portable, batch, stored))
        columns[3].append(onnx_rewards(fused, batch, stored))
    fp32, kept, onnx, head = (np.concatenate(column) for column in columns)
    return Parity(
        len(fp32),
        float(np.abs(onnx - kept).max()),
        float(np.abs(head - onnx).max()),
        float(np.abs(kept - fp32).max()),
        float(np.quantile(np.abs(kept - fp32), 0.99)),
    )


if __name__ == "__main__":
    files = [Path(argument) for argument in sys.argv[3:]]
    folder = DataFolder(files[0].parent.parent)
    result = measure_parity(Path(sys.argv[1]), Path(sys.argv[2]), files, folder)
    print(json.dumps(asdict(result), indent=1))
