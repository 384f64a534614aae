"""Decoders in `csrm.train`: batches, adapters, and runs of a tiny one from files to an artifact."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_data
import tiny
import tiny_decoder
import torch
from test_trainer import MIXTURE, metrics
from toy import open_scorer

from csrm import errors
from csrm.export.artifact import export_checkpoint
from csrm.train.batch import Batch, Example, Family, rewards
from csrm.train.chat_batch import ChatBatchBuilder, causal_rows
from csrm.train.chat_template import chat_renderer_of, make_chat_renderer, make_chat_template
from csrm.train.decoder import Decoder, load_decoder
from csrm.train.lora import LoraLinear, add_lora, merged, trained_state
from csrm.train.losses import joint_loss
from csrm.train.options import TrainOptions
from csrm.train.trainer import Trainer

pytest.importorskip("transformers")

SIZES = {"max_position_embeddings": 1500}


def builder(row_group: int = 8) -> ChatBatchBuilder:
    return ChatBatchBuilder(make_chat_renderer(tiny_decoder.tokenizer_json()), row_group)


def family(n: int) -> Family:
    made = Family()
    for example in tiny.examples(n):
        made.add(example)
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    return tiny_decoder.decoder(tmp_path_factory.mktemp("files"), **SIZES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    small_data.write_data(folder / "data")
    tiny_decoder.write_backbone(folder / "backbone", **SIZES)
    return folder


@pytest.fixture(scope="module")
def options(folder: Path) -> TrainOptions:
    base = small_data.train_options(folder, MIXTURE)
    return replace(base, steps=3, family_size=4, validate_every=2, validation_batches=2)


@torch.no_grad()
def test_chat_batch_rewards_equal_one_row_per_example(model: Decoder) -> None:
    examples = family(7)
    maker = builder(row_group=3)
    batch = maker.build(examples)
    assert sum(len(rows.input_ids) for rows in batch.rule_rows) == len(
        {example.rules for example in examples.examples}
    )
    found = rewards(model, batch)
    for example, reward in zip(examples.examples, found, strict=True):
        ids = [*maker.config_ids(example.rules), *maker.conversation_ids(example.turns)]
        assert len(ids) == maker.n_tokens(example)
        alone = model(causal_rows([(torch.tensor(ids).numpy(), 0)])).reward
        assert abs(float(alone) - float(reward)) < 1e-4


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_decoder_in_bf16_stays_near_fp32_and_has_gradients(kind: str, tmp_path: Path) -> None:
    learner = tiny_decoder.decoder(tmp_path, kind, **SIZES)
    batch = short_batch()
    with torch.no_grad():
        wide = rewards(learner, batch)
    learner.train().is_checkpointed = True
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = rewards(learner, batch)
    narrow.sum().backward()
    assert narrow.dtype == torch.float32
    assert not torch.equal(narrow, wide)
    assert (narrow - wide).abs().mean() < 0.1 * wide.abs().mean()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learner.parameters())


def test_lora_starts_as_the_model_and_merges_to_what_it_computes(model: Decoder) -> None:
    adapted = copy.deepcopy(model)
    add_lora(adapted, rank=3, alpha=6.0)
    batch = builder().build(family(3))
    assert torch.equal(rewards(adapted, batch), rewards(model, batch))
    generator = torch.Generator().manual_seed(0)
    adapters = [m for m in adapted.modules() if isinstance(m, LoraLinear)]
    assert len(adapters) == 7 * model.shape.layers
    with torch.no_grad():
        for adapter in adapters:
            adapter.lora_up.normal_(std=0.2, generator=generator)
        plain = merged(adapted, adapted.state_dict()).eval()
        assert torch.allclose(rewards(plain, batch), rewards(adapted, batch), atol=1e-4)
        assert not torch.allclose(rewards(plain, batch), rewards(model, batch), atol=1e-2)
    trained = trained_state(adapted, adapted.state_dict())
    assert len(trained) == 2 * len(adapters) + 1


def short_family() -> Family:
    """Twenty examples of one turn under two short configs, labels without a pattern."""
    made = Family()
    rng = random.Random(0)
    for i in range(20):
        rules = (("", tiny.letters(6, i % 2)),)
        turns = (("user", tiny.letters(8, 3 * i)),)
        made.add(Example(rules, turns, float(rng.random() < 0.5)))
    return made


def short_batch() -> Batch:
    """The batch of `short_family` with a template of single letters."""
    template = {
        **make_chat_template(tiny_decoder.tokenizer_json()),
        "config_head": [tiny_decoder.IM_START, "a"],
        "cue": [tiny_decoder.IM_START, "b"],
    }
    renderer = chat_renderer_of(tiny_decoder.tokenizer_json(), template)
    return ChatBatchBuilder(renderer, row_group=20).build(short_family())


def train(model: Decoder, batch: Batch, rate: float, steps: int) -> None:
    """`steps` full-batch steps."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    for _ in range(steps):
        loss = joint_loss(
            rewards(model.train(), batch), batch.target, batch.weight, batch.pairs, 1.0
        )
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()


@pytest.mark.parametrize("rank", [0, 8])
def test_decoder_overfits_twenty_examples(model: Decoder, rank: int) -> None:
    learner = copy.deepcopy(model)
    if rank:
        add_lora(learner, rank, alpha=16.0)
    learner.is_checkpointed = rank > 0
    batch = short_batch()
    assert ((rewards(learner, batch) > 0) != (batch.target > 0.5)).any()
    train(learner, batch, rate=1e-2 if rank else 3e-3, steps=40)
    found = rewards(learner.eval(), batch)
    assert ((found > 0) == (batch.target > 0.5)).all()


@pytest.mark.parametrize("rank", [0, 4])
def test_train_decoder_runs_resumes_and_exports(
    rank: int, options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(options, lora_rank=rank, gradient_checkpointing=rank > 0)
    Trainer(replace(options, out=str(tmp_path / "whole"))).fit(is_resumed=False)
    stopped = Trainer(replace(options, out=str(tmp_path / "run")))
    one_step = stopped.one_step

    def stop_at_two(*args: Any) -> dict[str, float]:
        if stopped.step == 2:
            raise KeyboardInterrupt
        return one_step(*args)

    monkeypatch.setattr(stopped, "one_step", stop_at_two)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(is_resumed=False)
    Trainer(replace(options, out=str(tmp_path / "run"))).fit(is_resumed=True)
    checkpoints = [tmp_path / run / "checkpoint" for run in ("whole", "run")]
    once, twice = (load_decoder(checkpoint) for checkpoint in checkpoints)
    start = tiny_decoder.decoder(tmp_path / "files", **SIZES)
    for name, tensor in once.state_dict().items():
        assert torch.allclose(twice.state_dict()[name], tensor, atol=1e-6)
    changed = {n for n, t in once.state_dict().items() if not torch.equal(t, start.state_dict()[n])}
    assert "layers.1.gate.weight" in changed
    assert ("output_norm.weight" in changed) == (rank == 0)
    assert "tokens.weight" not in changed
    assert metrics(tmp_path / "whole")[-1]["steps"] == 3
    calibration = checkpoints[0] / "calibration.json"
    fitted = json.loads(calibration.read_text())
    calibration.write_text(json.dumps({**fitted, "a": 1.0, "is_floored": False}))
    artifact = export_checkpoint(checkpoints[0], tmp_path / "artifact", name="tiny").parent
    score = open_scorer(artifact).score_batch([("", "a b")], 0.5, [[("user", "c")]], "last", False)
    assert score[0][0] != "error"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention": "full"}, "encoders only"),
        ({"fit_rows": True}, "encoders only"),
        ({"start_from": "csrm-mini"}, "decoder's checkpoint"),
    ],
)
def test_train_decoder_refuses_options_for_encoders(
    changes: dict[str, Any], said: str, options: TrainOptions
) -> None:
    with pytest.raises(errors.BadArgument, match=said):
        Trainer(replace(options, **changes))


@pytest.mark.parametrize("changes", [{"lora_rank": 4}, {"gradient_checkpointing": True}])
def test_train_encoder_refuses_options_for_decoders(
    changes: dict[str, Any], options: TrainOptions, tmp_path: Path
) -> None:
    backbone = tiny.write_backbone(tmp_path / "encoder")
    with pytest.raises(errors.BadArgument, match="decoders only"):
        Trainer(replace(options, backbone=str(backbone), **changes))
