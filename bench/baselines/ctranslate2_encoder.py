"""CTranslate2's encoder in fp32 and int8, converted by its own converter from a BertModel folder.

It computes a plain bidirectional BERT (bert_folder.py): its encoder has no mask between rules, so
its rewards are not csrm's and only its time is compared. The head runs in NumPy on the states of
the pooled tokens.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import ctranslate2
import numpy as np
from ctranslate2.converters import TransformersConverter

from csrm.bench.baselines.bert_folder import write_bert
from csrm.bench.baselines.interface import Rewards, Rows, bert_rows


class Ctranslate2Fp32:
    """See the module. `artifact` is the folder."""

    compute_type = "float32"

    def __init__(self, artifact: Path, threads: int) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            source, converted = Path(scratch) / "bert", Path(scratch) / "converted"
            source.mkdir()
            self._head = write_bert(artifact, source)
            TransformersConverter(str(source)).convert(str(converted))
            self._encoder = ctranslate2.Encoder(
                str(converted), device="cpu", compute_type=self.compute_type, intra_threads=threads
            )
        self._ids: list[list[int]] = []
        self._segments: list[list[int]] = []
        self._pooled_at = np.zeros(0, np.int64)

    def prepare(self, rows: Rows) -> Rows:
        """See `Baseline.prepare`. Errors: Unsupported, more tokens than positions."""
        taken = bert_rows(rows)
        self._ids = taken["input_ids"].tolist()
        self._segments = taken["segment_ids"].tolist()
        self._pooled_at = taken["pooled_at"][:, 0]
        return taken

    def run(self) -> Rewards:
        """See `Baseline.run`."""
        output = self._encoder.forward_batch(self._ids, token_type_ids=self._segments)
        states = np.asarray(output.last_hidden_state)
        return self._head.rewards(states[np.arange(len(states)), self._pooled_at])

    def close(self) -> None:
        """See `Baseline.close`."""


class Ctranslate2Int8(Ctranslate2Fp32):
    """See the module."""

    compute_type = "int8"
