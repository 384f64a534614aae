"""OpenVINO on the CPU in three precisions, from onnx_model.py's graph, with dynamic shapes.

fp32 and bf16 are OpenVINO's inference precision of the same fp32 model; int8 is NNCF's full
post-training quantisation (weights and activations, its preset for transformers), calibrated on
synthetic rows of several lengths. The latency hint is set and nothing else: it gives one stream.
"""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from csrm.bench.baselines.interface import Rewards, Rows, plain_rows
from csrm.bench.baselines.onnx_model import plain_model
from csrm.bench.texts import case_texts, open_renderer, turn_ids
from csrm.errors import Unsupported

_CALIBRATION_CASES = ("31+50", "64+64", "128+97", "256+128")
_CALIBRATION_SEEDS = 16


class OpenvinoFp32:
    """See the module. `artifact` is the folder."""

    precision = "f32"

    def __init__(self, artifact: Path, threads: int) -> None:
        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.precision,
        }
        if self.precision == "bf16" and "BF16" not in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise Unsupported("OpenVINO finds no bf16 arithmetic in this processor")
        self._request = core.compile_model(
            self.model(core, artifact), "CPU", settings
        ).create_infer_request()
        self._rows: Rows = {}

    def model(self, core: openvino.Core, artifact: Path) -> openvino.Model:
        """The model to compile."""
        return core.read_model(plain_model(artifact).SerializeToString())

    def prepare(self, rows: Rows) -> Rows:
        """See `Baseline.prepare`."""
        self._rows = rows
        return rows

    def run(self) -> Rewards:
        """See `Baseline.run`."""
        self._request.infer(self._rows, share_inputs=True)
        return np.array(self._request.get_tensor("reward").data[:, 0], np.float64)

    def close(self) -> None:
        """See `Baseline.close`."""


class OpenvinoBf16(OpenvinoFp32):
    """See the module. Errors: Unsupported on a processor without bf16 arithmetic."""

    precision = "bf16"


class OpenvinoInt8(OpenvinoFp32):
    """See the module."""

    def model(self, core: openvino.Core, artifact: Path) -> openvino.Model:
        """The quantised model."""
        import nncf

        nncf.set_log_level(logging.ERROR)
        rows = calibration_rows(artifact)
        return nncf.quantize(
            super().model(core, artifact),
            nncf.Dataset(rows),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(rows),
        )


def calibration_rows(artifact: Path) -> list[dict[str, Any]]:
    """Single rows of synthetic configs and turns of several lengths."""
    renderer = open_renderer(artifact)
    rows = []
    for case in _CALIBRATION_CASES:
        for seed in range(_CALIBRATION_SEEDS):
            texts = case_texts(renderer, case, seed=100 + seed)
            turn = turn_ids(renderer, texts.permuted(random.Random(seed)))
            rows.append(plain_rows(texts.config_ids, [turn]))
    return rows
