"""csrm.train.decoder equals transformers' Llama, Qwen2 and Qwen3, whole and over a split prefix.

Tiny random models. Not: the ONNX graph (test_decoder_export.py) or training.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_decoder
import torch
from torch import Tensor

from csrm import errors
from csrm.train.decoder import Decoder, load_decoder, save_decoder
from csrm.train.decoder_files import (
    Verbalizers,
    is_decoder_folder,
    load_decoder_backbone,
    shape_of,
)
from csrm.train.model import Prefix, Rows

pytest.importorskip("transformers")

TOLERANCE = 1e-4
LENGTH = 40


def ids_of(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, tiny_decoder.SIZES["vocab_size"], (n,), generator=generator)


def rows_of(sequences: list[Tensor], pooled: list[list[int]], first: int = 0) -> Rows:
    """Causal rows whose positions begin at `first`, padded at the end."""
    longest = max(len(ids) for ids in sequences)
    columns = torch.arange(longest)
    lengths = torch.tensor([len(ids) for ids in sequences])[:, None]
    is_token = columns < lengths
    ids = torch.zeros(len(sequences), longest, dtype=torch.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
    return Rows(
        ids,
        torch.where(is_token, columns + first, 0),
        torch.zeros_like(ids),
        torch.where(is_token, columns + 1, 0),
        torch.tensor(pooled),
    )


def prefix_of(model: Decoder, ids: Tensor) -> Prefix:
    encoded = model(rows_of([ids], [[len(ids) - 1]]))
    return Prefix(encoded.key, encoded.value, torch.ones(1, len(ids), dtype=torch.bool))


def expected_reward(logits: Tensor) -> float:
    n_safe = len(tiny_decoder.VERBALIZERS.safe)
    return float(logits[:n_safe].logsumexp(-1) - logits[n_safe:].logsumexp(-1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    return tiny_decoder.write_files(folder, tiny_decoder.reference("llama"))


@pytest.mark.parametrize("kind", tiny_decoder.KINDS)
@torch.no_grad()
def test_decoder_equals_transformers_with_and_without_a_prefix(kind: str, tmp_path: Path) -> None:
    reference = tiny_decoder.reference(kind)
    model = tiny_decoder.decoder(tmp_path, kind)
    ids, shorter = ids_of(LENGTH), ids_of(LENGTH // 2, seed=1)
    pooled = [[LENGTH - 1, 7], [LENGTH // 2 - 1, -1]]
    whole = model(rows_of([ids, shorter], pooled)).reward
    expected = {at: expected_reward(tiny_decoder.head_logits(reference, ids, at)) for at in (7, 39)}
    of_shorter = expected_reward(tiny_decoder.head_logits(reference, shorter, len(shorter) - 1))
    assert abs(expected[7] - expected[39]) > 0.05
    wanted = torch.tensor([expected[39], expected[7], of_shorter])
    assert torch.allclose(whole.flatten()[:3], wanted, atol=TOLERANCE, rtol=0)
    assert whole[1, 1].isnan()
    for split in (1, 13, LENGTH - 1):
        prefix = prefix_of(model, ids[:split])
        rest = model(rows_of([ids[split:]], [[LENGTH - 1 - split]], first=split), prefix)
        assert abs(float(rest.reward) - expected[39]) <= TOLERANCE


@torch.no_grad()
def test_decoder_prefix_of_two_parts_equals_one(tmp_path: Path) -> None:
    model = tiny_decoder.decoder(tmp_path, "qwen3")
    ids = ids_of(LENGTH)
    first = prefix_of(model, ids[:9])
    second = model(rows_of([ids[9:21]], [[0]], first=9), first)
    keys = [torch.cat(pair, 1) for pair in zip(first.key, second.key, strict=True)]
    for mine, once in zip(keys, prefix_of(model, ids[:21]).key, strict=True):
        assert torch.allclose(mine, once, atol=1e-5)


def test_decoder_recomputed_layers_give_the_same_gradients(tmp_path: Path) -> None:
    model = tiny_decoder.decoder(tmp_path).train()
    rows = rows_of([ids_of(12), ids_of(9, seed=2)], [[11], [8]])
    gradients = []
    for is_checkpointed in (False, True):
        model.is_checkpointed = is_checkpointed
        model.zero_grad()
        model(rows).reward.sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(list(model.parameters()))
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.allclose(plain, recomputed, atol=1e-6)


def test_decoder_checkpoint_round_trip(tmp_path: Path) -> None:
    model = tiny_decoder.decoder(tmp_path / "files", "llama3")
    save_decoder(model, tmp_path / "checkpoint")
    again = load_decoder(tmp_path / "checkpoint")
    assert again.shape == model.shape
    assert torch.equal(again.frequencies, model.frequencies)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_decoder_files_bf16_and_parts_are_read(folder: Path, tmp_path: Path) -> None:
    reference = tiny_decoder.reference("llama").bfloat16()
    reference.save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model = load_decoder_backbone(tmp_path, tiny_decoder.VERBALIZERS)
    wide = load_decoder_backbone(folder, tiny_decoder.VERBALIZERS)
    for mine, theirs in zip(model.parameters(), wide.parameters(), strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, theirs.bfloat16().float())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gemma"}, "model_type"),
        ({"hidden_act": "gelu"}, "silu"),
        ({"use_sliding_window": True}, "sliding window"),
        ({"rope_parameters": None, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "RoPE"),
        ({"intermediate_size": None}, "lacks a size"),
        ({"intermediate_size": 81}, "misshapen"),
        ({"num_key_value_heads": 4}, "multiple"),
    ],
)
def test_decoder_files_of_another_kind_are_refused(
    changes: dict[str, object], said: str, folder: Path, tmp_path: Path
) -> None:
    tiny_decoder.write_files(tmp_path, tiny_decoder.reference("llama"))
    tiny_decoder.edit_config(tmp_path, **changes)
    with pytest.raises(errors.BadArtifact, match=said):
        load_decoder_backbone(tmp_path, tiny_decoder.VERBALIZERS)


def test_decoder_files_missing_or_with_foreign_verbalizers_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(errors.BadArtifact, match="cannot be read"):
        load_decoder_backbone(tmp_path, tiny_decoder.VERBALIZERS)
    with pytest.raises(errors.BadArtifact, match="vocabulary"):
        load_decoder_backbone(folder, Verbalizers((1,), (161,)))


def test_decoder_folder_is_told_from_an_encoder(folder: Path, tmp_path: Path) -> None:
    assert is_decoder_folder(folder)
    assert not is_decoder_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    assert not is_decoder_folder(tmp_path)


def test_decoder_shape_reads_rope_of_transformers_4_and_5() -> None:
    base = {**tiny_decoder.SIZES, "model_type": "llama"}
    old = {**base, "rope_theta": 5e4, "rope_scaling": tiny_decoder.LLAMA3_SCALING}
    new = {**base, "rope_parameters": {**tiny_decoder.LLAMA3_SCALING, "rope_theta": 5e4}}
    shapes = [shape_of(config, tiny_decoder.VERBALIZERS) for config in (old, new)]
    assert shapes[0] == shapes[1]
    assert shapes[0].rope_theta == 5e4
    assert shapes[0].rope_scaling is not None
