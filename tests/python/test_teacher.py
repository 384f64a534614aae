"""csrm.train.teacher: an encoder that learns from an encoder and from a decoder; composing ahead.

Not: whether distillation makes a better model; the log in docs/ has the figures of real runs.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_data
import tiny
import tiny_decoder
import torch

from csrm import errors
from csrm.export.artifact import export_checkpoint
from csrm.train.batch import rewards
from csrm.train.calibration.platt import Calibration, apply_platt
from csrm.train.losses import distillation_loss
from csrm.train.model import load_checkpoint
from csrm.train.options import TrainOptions
from csrm.train.teacher import Teacher
from csrm.train.trainer import Trainer

CPU = torch.device("cpu")
MIXTURE = {"categorised": 0.6, "ruled": 0.4}


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    folder = tmp_path_factory.mktemp("taught")
    small_data.write_data(folder / "data")
    tiny.write_backbone(folder / "backbone")
    base = small_data.train_options(folder, MIXTURE)
    return replace(base, steps=2, family_size=6, validate_every=2, validation_batches=2)


@pytest.fixture(scope="module")
def encoder_checkpoint(options: TrainOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("encoder")
    Trainer(replace(options, out=str(out), seed=5)).fit(is_resumed=False)
    return out / "checkpoint"


@pytest.fixture(scope="module")
def decoder_checkpoint(options: TrainOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("decoder")
    tiny_decoder.write_backbone(out / "files")
    taught = replace(options, out=str(out), backbone=str(out / "files"), steps=1)
    Trainer(taught).fit(is_resumed=False)
    return out / "checkpoint"


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_train_with_a_teacher_follows_it_and_names_its_sources(
    kind: str, options: TrainOptions, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    teacher: Path = request.getfixturevalue(f"{kind}_checkpoint")
    provenance = json.loads((teacher / "provenance.json").read_text())
    (teacher / "provenance.json").write_text(json.dumps({**provenance, "sources": ["elsewhere"]}))
    weights = {}
    for name, changes in (("plain", {}), ("taught", {"teacher": str(teacher)})):
        run = replace(options, out=str(tmp_path / name), **changes)  # type: ignore[arg-type]
        Trainer(run).fit(is_resumed=False)
        weights[name] = load_checkpoint(tmp_path / name / "checkpoint").state_dict()
    assert not torch.equal(*(w["layers.0.query.weight"] for w in weights.values()))
    sources = json.loads((tmp_path / "taught/checkpoint/provenance.json").read_text())["sources"]
    assert sources == [*small_data.SOURCES, "elsewhere"]


def test_teacher_compliance_is_its_calibrated_reward(
    options: TrainOptions, encoder_checkpoint: Path
) -> None:
    (encoder_checkpoint / "calibration.json").write_text(
        json.dumps({"a": 0.5, "b": -0.25, "n": 9, "nll_before": 1.0, "nll_after": 0.5})
    )
    teacher = Teacher(encoder_checkpoint, CPU)
    trainer = Trainer(replace(options, teacher=str(encoder_checkpoint)))
    batch = trainer.families[0]
    assert batch.taught is not None
    expected = apply_platt(
        Calibration(0.5, -0.25, 9, 1.0, 0.5),
        rewards(load_checkpoint(encoder_checkpoint), batch).detach().numpy(),
    )
    np.testing.assert_allclose(teacher.compliance(batch.taught).numpy(), expected, atol=1e-6)


def test_teacher_out_of_an_artifact_is_the_one_of_its_checkpoint(
    encoder_checkpoint: Path, options: TrainOptions, tmp_path: Path
) -> None:
    artifact = export_checkpoint(
        encoder_checkpoint, tmp_path / "a", name="t", storage="fp32"
    ).parent
    checkpoint, unpacked = Teacher(encoder_checkpoint, CPU), Teacher(artifact, CPU)
    assert unpacked.sources == checkpoint.sources
    assert unpacked.calibration.a == checkpoint.calibration.a
    batch = Trainer(replace(options, teacher=str(artifact))).families[0].taught
    assert batch is not None
    found = [teacher.compliance(batch) for teacher in (checkpoint, unpacked)]
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=0)


def test_teacher_reads_conversations_as_they_were_before_preambles(
    options: TrainOptions, encoder_checkpoint: Path
) -> None:
    taught = replace(options, teacher=str(encoder_checkpoint), preamble=1.0)
    families = Trainer(taught).families
    batch = families[0]
    assert batch.taught is not None
    plain = families.builder.build(families.family(0).as_it_was())
    assert batch.taught.n_tokens == plain.n_tokens < batch.n_tokens
    rows = zip(batch.taught.groups, plain.groups, strict=True)
    assert all(torch.equal(one.rows.input_ids, two.rows.input_ids) for one, two in rows)
    assert len(batch.taught.target) == len(batch.target)


def test_distillation_loss_is_least_where_both_agree() -> None:
    soft = torch.tensor([0.9, 0.2])
    exact = torch.logit(soft)
    least = distillation_loss(exact, soft)
    assert all(distillation_loss(exact + move, soft) > least for move in (-0.3, 0.3))
    assert distillation_loss(-exact, soft) > 2 * least


def test_teacher_under_full_attention_or_damaged_is_refused(
    encoder_checkpoint: Path, tmp_path: Path
) -> None:
    for file in encoder_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    (tmp_path / "provenance.json").write_text(json.dumps({**provenance, "attention": "full"}))
    with pytest.raises(errors.BadArgument, match="full attention"):
        Teacher(tmp_path, CPU)
    (tmp_path / "provenance.json").unlink()
    with pytest.raises(errors.BadArtifact):
        Teacher(tmp_path, CPU)


# Python 3.12 warns of any fork of a process with threads; the workers only compose batches.
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_train_with_workers_equals_the_run_without(options: TrainOptions, tmp_path: Path) -> None:
    for workers in (0, 2):
        run = replace(options, steps=4, workers=workers, out=str(tmp_path / str(workers)))
        Trainer(run).fit(is_resumed=False)
    one, other = (load_checkpoint(tmp_path / w / "checkpoint").state_dict() for w in ("0", "2"))
    assert all(torch.equal(other[name], tensor) for name, tensor in one.items())


def test_train_with_another_row_group_gives_the_same_rewards(options: TrainOptions) -> None:
    found = [
        rewards(trainer.bare_model().eval(), trainer.families[0]).detach()
        for trainer in (Trainer(replace(options, row_group=size)) for size in (3, 64))
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=0)
