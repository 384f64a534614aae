"""`csrm train` in two processes: the run of one process with twice the batches, written once.

With the option `fsdp` too, which splits the model over both. They run on the CPU, over gloo.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import small_data
import tiny
import tiny_decoder
import torch
from test_trainer import MIXTURE, metrics, write_options
from toy import open_scorer
from two_processes import recorded

from csrm import errors
from csrm.export.artifact import export_checkpoint
from csrm.train.backbone import first_model, renderer_of
from csrm.train.decoder import load_decoder
from csrm.train.options import TrainOptions
from csrm.train.sharding import check_processes
from csrm.train.trainer import Trainer

pytest.importorskip("transformers")

WORKER = str(Path(__file__).with_name("two_processes.py"))
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", WORKER)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    folder = tmp_path_factory.mktemp("small")
    small_data.write_data(folder / "data")
    tiny_decoder.write_backbone(folder / "backbone", max_position_embeddings=1500)
    return replace(
        small_data.train_options(folder, MIXTURE),
        steps=4,
        family_size=4,
        validate_every=2,
        validation_batches=2,
        row_group=3,
    )


def launch(options: TrainOptions, folder: Path, program: tuple[str, ...], n_before: int) -> None:
    """Trains in `folder` by new processes, with a stop after `n_before` steps."""
    path = write_options(folder.with_suffix(".yaml"), options, out=str(folder))
    launched = subprocess.run(
        [sys.executable, *program, str(path), str(n_before)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert launched.returncode == 0, launched.stderr[-3000:]


def run_one(options: TrainOptions, folder: Path) -> Trainer:
    """One process with twice the batches, without a stop."""
    trainer = Trainer(replace(options, out=str(folder), batches=2 * options.batches))
    trainer.one_step = recorded(trainer)  # type: ignore[method-assign]
    trainer.fit(is_resumed=False)
    return trainer


def steps(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    left_out = ("tokens_per_second", "n_kept")
    return [{k: v for k, v in line.items() if k not in left_out} for line in lines]


def n_kept(folder: Path) -> float:
    """Numbers of the model that the main process keeps."""
    return float(json.loads((folder / "steps.jsonl").read_text().splitlines()[-1])["n_kept"])


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_rank": 4},
        {"fsdp": True, "freeze_tokens": False, "batches": 2},
        {"fsdp": True, "lora_rank": 4, "gradient_checkpointing": True},
    ],
    ids=["lora", "fsdp", "fsdp-lora"],
)
def test_two_processes_stopped_and_resumed_equal_one_with_twice_the_batches(
    changes: dict[str, Any], options: TrainOptions, tmp_path: Path
) -> None:
    options = replace(options, max_grad_norm=0.5, **changes)
    launch(options, tmp_path / "two", TWO, n_before=2)
    trainer = run_one(replace(options, fsdp=False), tmp_path / "one")
    batches = [trainer.families[i] for i in range(len(trainer.families))]
    calls = [(len(batch.rule_rows), len(batch.groups)) for batch in batches]
    assert calls[0::2] != calls[1::2], "both processes call the model equally often anyway"
    if options.fsdp:
        assert 0.5 <= n_kept(tmp_path / "two") / n_kept(tmp_path / "one") < 0.52
    found, wanted = steps(tmp_path / "two"), steps(tmp_path / "one")
    assert len(found) == len(wanted) == options.steps
    for step, other in zip(found, wanted, strict=True):
        assert step == pytest.approx(other, rel=1e-4, abs=1e-6)
        assert step["gradient_norm"] > options.max_grad_norm, "no step is clipped"
    lines, expected = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    for line, other in zip(lines, expected, strict=True):
        assert line.get("held_loss", 0.0) == pytest.approx(other.get("held_loss", 0.0), rel=1e-4)
    trained, same = (load_decoder(tmp_path / run / "checkpoint") for run in ("two", "one"))
    for name, tensor in same.state_dict().items():
        assert torch.allclose(trained.state_dict()[name], tensor, atol=1e-5), name
    assert_scores(tmp_path / "two" / "checkpoint", tmp_path / "artifact")
    # The state of two processes, split or not, is the state of one.
    resumed = Trainer(replace(options, fsdp=False, out=str(tmp_path / "two")))
    resumed.load_state()
    assert resumed.step == options.steps
    moments, expected_moments = (t.optimizer.state_dict()["state"] for t in (resumed, trainer))
    for index, state in expected_moments.items():
        for name, tensor in state.items():
            assert torch.allclose(moments[index][name], tensor, atol=1e-5), name


def assert_scores(checkpoint: Path, artifact: Path) -> None:
    """The checkpoint can be exported, and its artifact judges a conversation."""
    calibration = checkpoint / "calibration.json"
    fitted = json.loads(calibration.read_text())
    calibration.write_text(json.dumps({**fitted, "a": 1.0, "is_floored": False}))
    folder = export_checkpoint(checkpoint, artifact, name="tiny").parent
    score = open_scorer(folder).score_batch([("", "a b")], 0.5, [[("user", "c")]], "last", False)
    assert score[0][0] != "error"


def test_two_processes_that_split_a_model_in_bf16_stay_near_one_in_bf16(
    options: TrainOptions, tmp_path: Path
) -> None:
    options = replace(options, precision="bf16", learning_rate=1e-4, steps=2, validation_batches=1)
    launch(replace(options, fsdp=True), tmp_path / "two", TWO, n_before=-1)
    # A process has one precision for all its runs, and this one has another.
    launch(replace(options, batches=2), tmp_path / "one", (WORKER,), n_before=-1)
    found, wanted = steps(tmp_path / "two"), steps(tmp_path / "one")
    for step, other in zip(found, wanted, strict=True):
        assert step["loss"] == pytest.approx(other["loss"], rel=0.05)
        assert step["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=0.2)
    trained = load_decoder(tmp_path / "two" / "checkpoint").state_dict()
    for name, tensor in load_decoder(tmp_path / "one" / "checkpoint").state_dict().items():
        # AdamW moves a weight by about the rate in each step, whichever way its gradient is rounded
        assert (trained[name] - tensor).abs().max() < 4 * options.learning_rate, name
        assert trained[name].dtype == torch.float32


@pytest.mark.parametrize(
    ("n_processes", "precision", "kind", "fsdp", "said"),
    [
        (1, "no", "NO", True, "several processes"),
        (2, "fp16", "MULTI_GPU", True, "precision no or bf16"),
        (2, "no", "FSDP", True, "without plugins"),
        (2, "no", "FSDP", False, "without plugins"),
        (2, "bf16", "DEEPSPEED", False, "without plugins"),
    ],
)
def test_check_processes_refuses_what_cannot_train(
    n_processes: int, precision: str, kind: str, fsdp: bool, said: str
) -> None:
    accelerator: Any = SimpleNamespace(
        num_processes=n_processes, mixed_precision=precision, distributed_type=kind
    )
    with pytest.raises(errors.BadArgument, match=said):
        check_processes(accelerator, fsdp=fsdp)


def test_train_with_fsdp_in_one_process_is_bad_argument(options: TrainOptions) -> None:
    with pytest.raises(errors.BadArgument, match="several processes"):
        Trainer(replace(options, fsdp=True))


def test_fsdp_of_an_encoder_is_bad_argument(options: TrainOptions, tmp_path: Path) -> None:
    backbone = tiny.write_backbone(tmp_path / "encoder")
    renderer = renderer_of(backbone, (backbone / "tokenizer.json").read_bytes())
    with pytest.raises(errors.BadArgument, match="decoders only"):
        first_model(replace(options, fsdp=True), backbone, renderer)
