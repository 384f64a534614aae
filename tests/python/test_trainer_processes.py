"""`csrm train` in two processes: the run of one process with twice the batches, written once."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import small_data
import tiny_decoder
import torch
from test_trainer import MIXTURE, metrics, write_options

from csrm.train.decoder import load_decoder
from csrm.train.trainer import Trainer

pytest.importorskip("transformers")

LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def test_two_processes_stopped_and_resumed_equal_one_with_twice_the_batches(tmp_path: Path) -> None:
    small_data.write_data(tmp_path / "data")
    tiny_decoder.write_backbone(tmp_path / "backbone", max_position_embeddings=1500)
    options = replace(
        small_data.train_options(tmp_path, MIXTURE),
        steps=4,
        family_size=4,
        validate_every=2,
        validation_batches=2,
        lora_rank=4,
        dropout=0.0,
    )
    one, two = (replace(options, out=str(tmp_path / name)) for name in ("one", "two"))
    path = write_options(tmp_path / "two.yaml", two, batches=1)
    worker = Path(__file__).with_name("two_processes.py")
    launched = subprocess.run(
        [sys.executable, *LAUNCH, str(worker), str(path), "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert launched.returncode == 0, launched.stderr[-2000:]
    torch.manual_seed(0)
    Trainer(replace(one, batches=2)).fit(is_resumed=False)
    lines, expected = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    for line, other in zip(lines, expected, strict=True):
        assert line.get("held_loss", 0.0) == pytest.approx(other.get("held_loss", 0.0), rel=1e-4)
    found, wanted = (load_decoder(tmp_path / run / "checkpoint") for run in ("two", "one"))
    for name, tensor in wanted.state_dict().items():
        assert torch.allclose(found.state_dict()[name], tensor, atol=1e-5), name
