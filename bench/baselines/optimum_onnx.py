"""Hugging Face optimum's ORTModel, exported from a BertModel folder and optimised by optimum.

Levels O2 (fused attention, norm and GELU operators of ONNX Runtime) and O3 (GELU approximated
besides). It computes a plain bidirectional BERT (bert_folder.py): optimum's export has no mask
between rules, so its rewards are not csrm's and only its time is compared. Threads do not spin.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from optimum.onnxruntime import (
    AutoOptimizationConfig,
    ORTModelForFeatureExtraction,
    ORTOptimizer,
)

from csrm.bench.baselines.bert_folder import write_bert
from csrm.bench.baselines.interface import Rewards, Rows, bert_rows


class OptimumO2:
    """See the module. `artifact` is the folder."""

    level = "O2"

    def __init__(self, artifact: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with tempfile.TemporaryDirectory() as scratch:
            source, optimised = Path(scratch) / "bert", Path(scratch) / "optimised"
            source.mkdir()
            self._head = write_bert(artifact, source)
            exported = ORTModelForFeatureExtraction.from_pretrained(source, export=True)
            config = getattr(AutoOptimizationConfig, self.level)()
            ORTOptimizer.from_pretrained(exported).optimize(
                optimization_config=config, save_dir=optimised
            )
            self._model = ORTModelForFeatureExtraction.from_pretrained(
                optimised, session_options=options, provider="CPUExecutionProvider"
            )
        self._inputs: Rows = {}
        self._pooled_at = np.zeros(0, np.int64)

    def prepare(self, rows: Rows) -> Rows:
        """See `Baseline.prepare`. Errors: Unsupported, more tokens than positions."""
        taken = bert_rows(rows)
        self._inputs = {
            "input_ids": taken["input_ids"],
            "attention_mask": np.ones_like(taken["input_ids"]),
            "token_type_ids": taken["segment_ids"],
        }
        self._pooled_at = taken["pooled_at"][:, 0]
        return taken

    def run(self) -> Rewards:
        """See `Baseline.run`."""
        states = self._model(**self._inputs).last_hidden_state
        return self._head.rewards(states[np.arange(len(states)), self._pooled_at])

    def close(self) -> None:
        """See `Baseline.close`."""


class OptimumO3(OptimumO2):
    """See the module."""

    level = "O3"
