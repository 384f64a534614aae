"""csrm.train.model, batch and losses: who sees whom, one example at a time or many, exact losses.

A tiny random model: every property here holds for any weights.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from csrm import errors
from csrm.train.batch import Batch, Family, pack_rows, rewards
from csrm.train.losses import joint_loss, rewording_loss
from csrm.train.model import (
    Encoder,
    Prefix,
    Rows,
    load_backbone,
    load_checkpoint,
    save_checkpoint,
)

# fp32 sums of at most 150 terms in another order.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model() -> Encoder:
    return tiny.encoder()


@torch.no_grad()
def score(model: Encoder, batch: Batch) -> torch.Tensor:
    return rewards(model, batch)


def one(rules: tuple[tuple[str, str], ...], turns: tuple[tuple[str, str], ...]) -> Batch:
    return tiny.builder().build(Family([tiny.Example(rules, turns, 1.0)]))


@torch.no_grad()
def rule_prefix(model: Encoder) -> Prefix:
    """The prefix of tiny.RULES, one block after another."""
    blocks = [tiny.renderer().rule(name, text)[0] for name, text in tiny.RULES]
    encoded = [model(pack_rows([[block]])) for block in blocks]
    n_tokens = sum(len(ids) for ids, _ in blocks)
    layers = range(tiny.SHAPE.layers)
    return Prefix(
        [torch.cat([e.key[layer] for e in encoded], 1) for layer in layers],
        [torch.cat([e.value[layer] for e in encoded], 1) for layer in layers],
        torch.ones(1, n_tokens, dtype=torch.bool),
    )


def turn_blocks(turns: tuple[tuple[str, str], ...] = tiny.CHAT) -> list[tuple[np.ndarray, int]]:
    return tiny.builder().turn_blocks(turns)


def test_model_rule_order_does_not_change_reward(model: Encoder) -> None:
    found = [
        score(model, one(rules, tiny.CHAT)).item() for rules in itertools.permutations(tiny.RULES)
    ]
    assert found == pytest.approx([found[0]] * 6, abs=TOLERANCE)


def test_model_every_rule_and_turn_counts(model: Encoder) -> None:
    whole = score(model, one(tiny.RULES, tiny.CHAT)).item()
    for i in range(len(tiny.RULES)):
        fewer = score(model, one(tiny.RULES[:i] + tiny.RULES[i + 1 :], tiny.CHAT)).item()
        assert abs(fewer - whole) > 100 * TOLERANCE
    for turns in (tiny.CHAT[1:], (tiny.CHAT[1], tiny.CHAT[0], tiny.CHAT[2])):
        assert abs(score(model, one(tiny.RULES, turns)).item() - whole) > 100 * TOLERANCE


@torch.no_grad()
def test_model_rule_block_does_not_depend_on_other_rules(model: Encoder) -> None:
    blocks = [tiny.renderer().rule(name, text)[0] for name, text in tiny.RULES]
    together = model(pack_rows([[block] for block in blocks]))
    for row, block in enumerate(blocks):
        alone = model(pack_rows([[block]]))
        n = len(block[0])
        for layer in range(tiny.SHAPE.layers):
            torch.testing.assert_close(
                together.key[layer][row, :n], alone.key[layer][0], atol=TOLERANCE, rtol=0
            )
            torch.testing.assert_close(
                together.value[layer][row, :n], alone.value[layer][0], atol=TOLERANCE, rtol=0
            )


@torch.no_grad()
def test_model_turns_piecewise_over_prefix_equal_one_row(model: Encoder) -> None:
    blocks = turn_blocks()
    whole = model(pack_rows([blocks]), rule_prefix(model)).reward
    prefix = rule_prefix(model)
    for block in blocks:
        piece = model(pack_rows([[block]]), prefix)
        present = torch.ones(1, len(block[0]), dtype=torch.bool)
        prefix = Prefix(
            [torch.cat(pair, 1) for pair in zip(prefix.key, piece.key, strict=True)],
            [torch.cat(pair, 1) for pair in zip(prefix.value, piece.value, strict=True)],
            torch.cat([prefix.present, present], 1),
        )
    torch.testing.assert_close(piece.reward, whole, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_model_padding_does_not_change_rewards(model: Encoder) -> None:
    rows, prefix = pack_rows([turn_blocks()]), rule_prefix(model)
    alone = model(rows, prefix).reward
    wider = Rows(
        *(
            torch.nn.functional.pad(getattr(rows, name), (0, 0 if name == "pooled_at" else 9))
            for name in Rows.__dataclass_fields__
        )
    )
    absent = torch.zeros(1, 4, dtype=torch.bool)
    padded = Prefix(
        [torch.cat([x, torch.full_like(x[:, :4], 7.0)], 1) for x in prefix.key],
        [torch.cat([x, torch.full_like(x[:, :4], 7.0)], 1) for x in prefix.value],
        torch.cat([prefix.present, absent], 1),
    )
    torch.testing.assert_close(model(wider, padded).reward, alone, atol=TOLERANCE, rtol=0)
    longer = turn_blocks((*tiny.CHAT, ("user", tiny.letters(60))))
    both = model(pack_rows([turn_blocks(), longer]), prefix).reward
    torch.testing.assert_close(both[:1], alone, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_model_later_turns_do_not_change_an_earlier_reward(model: Encoder) -> None:
    blocks = turn_blocks((*tiny.CHAT, ("user", "q r s"), ("tool", "")))
    starts = np.cumsum([0, *(len(ids) for ids, _ in blocks[:-1])])
    rows = replace(pack_rows([blocks]), pooled_at=torch.tensor([starts.tolist()]))
    together = model(rows, rule_prefix(model)).reward[0]
    assert together.std() > 100 * TOLERANCE
    for n in range(1, len(blocks) + 1):
        first = model(pack_rows([blocks[:n]]), rule_prefix(model)).reward[0, 0]
        torch.testing.assert_close(together[n - 1], first, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_model_pooled_at_none_gives_nan(model: Encoder) -> None:
    rows = replace(pack_rows([turn_blocks()]), pooled_at=torch.tensor([[-1, 0, -1]]))
    reward = model(rows, rule_prefix(model)).reward
    assert reward.isnan().tolist() == [[True, False, True]]


def test_model_rewards_are_fp32_under_mixed_precision(model: Encoder) -> None:
    batch = tiny.builder().build(Family(tiny.examples(8)))
    exact = score(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = score(model, batch)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, atol=0.3, rtol=0)
    assert not torch.equal(mixed, mixed.bfloat16().float())


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_model_half_precision_with_padding_rows_stays_finite(dtype: torch.dtype) -> None:
    blocks = [tiny.renderer().rule("", tiny.letters(n))[0] for n in (2, 40)]
    small = tiny.encoder()
    for parameter in small.parameters():
        parameter.mul_(0.3)
    rows = pack_rows([[block] for block in blocks])
    small.to(dtype).verbalizers.float()  # the head computes in fp32
    assert torch.isfinite(small(rows).reward).all()


def test_rewards_of_a_batch_equal_each_example_alone(model: Encoder) -> None:
    examples = tiny.examples(23)
    alone = [score(model, one(e.rules, e.turns)).item() for e in examples]
    assert np.std(alone) > 100 * TOLERANCE
    for row_group in (1, 4, 16):
        together = score(model, tiny.builder(row_group).build(Family(examples)))
        assert together.tolist() == pytest.approx(alone, abs=TOLERANCE)


def test_rewards_full_attention_sees_config_and_conversation(model: Encoder) -> None:
    examples = tiny.examples(9)
    batch = tiny.builder(4).build_full(Family(examples))
    for i, found in enumerate(score(model, batch).tolist()):
        alone = tiny.builder().build_full(Family([examples[i]]))
        assert found == pytest.approx(score(model, alone).item(), abs=TOLERANCE)
    last = replace(examples[0], rules=(*examples[0].rules[:-1], ("", "q")))
    changed = tiny.builder().build_full(Family([last]))
    assert abs(score(model, changed).item() - score(model, batch)[0].item()) > TOLERANCE


def test_rewards_gradient_reaches_rules_once(model: Encoder) -> None:
    examples = tiny.examples(4)
    grown = tiny.encoder()
    rewards(grown, tiny.builder().build(Family(examples))).sum().backward()
    together = grown.tokens.weight.grad
    grown.tokens.weight.grad = None
    for example in examples:
        rewards(grown, one(example.rules, example.turns)).sum().backward()
    assert together is not None
    torch.testing.assert_close(together, grown.tokens.weight.grad, atol=1e-3, rtol=1e-3)


def test_joint_loss_equals_hand_computed_numbers() -> None:
    reward = torch.tensor([2.0, -1.0, 0.5], requires_grad=True)
    target, weight = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 0.5])
    loss = joint_loss(reward, target, weight, torch.tensor([[0, 1], [2, 0]]), gamma=0.3)
    # -log sigmoid: 0.126928 (2), 0.313262 (-1 against 0), 0.474077 (0.5, weight a half)
    assert loss.classification.item() == pytest.approx(0.270891, abs=1e-5)
    # softplus(-1 - 2) = 0.048587, softplus(2 - 0.5) = 1.701413
    assert loss.pairwise.item() == pytest.approx(0.875000, abs=1e-5)
    assert loss.total.item() == pytest.approx(0.270891 + 0.3 * 0.875, abs=1e-5)
    loss.total.backward()
    # (sigmoid(r) - t) w / 2.5 + 0.3 / 2 * (sum over pairs of -+ sigmoid(worse - better))
    classification = [-0.119203 / 2.5, 0.268941 / 2.5, -0.377541 * 0.5 / 2.5]
    first, second = 0.047426, 0.817574
    pairwise = [-first + second, first, -second]
    expected = [c + 0.15 * p for c, p in zip(classification, pairwise, strict=True)]
    assert reward.grad is not None
    assert reward.grad.tolist() == pytest.approx(expected, abs=1e-5)


def test_joint_loss_lenient_above_strict_lowers_it() -> None:
    none = torch.zeros(2)
    pair = torch.tensor([[0, 1]])  # (lenient, strict)
    right = joint_loss(torch.tensor([1.0, -1.0]), none, none, pair, 1.0)
    wrong = joint_loss(torch.tensor([-1.0, 1.0]), none, none, pair, 1.0)
    assert right.pairwise < wrong.pairwise
    assert right.total < wrong.total


def test_joint_loss_without_pairs_or_weights_is_finite() -> None:
    reward = torch.tensor([3.0], requires_grad=True)
    no_pairs = torch.empty((0, 2), dtype=torch.int64)
    loss = joint_loss(reward, torch.ones(1), torch.zeros(1), no_pairs, 0.3)
    loss.total.backward()
    assert loss.total.item() == 0.0
    assert reward.grad is not None
    assert reward.grad.tolist() == [0.0]


def test_checkpoint_saved_and_loaded_is_the_same_model(model: Encoder, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded.shape == tiny.SHAPE
    batch = one(tiny.RULES, tiny.CHAT)
    assert score(loaded, batch).tolist() == score(model, batch).tolist()


@pytest.mark.parametrize("file", ["shape.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"\x00\xff"])
def test_checkpoint_damaged_is_bad_artifact(
    model: Encoder, tmp_path: Path, file: str, content: bytes | None
) -> None:
    save_checkpoint(model, tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(errors.BadArtifact):
        load_checkpoint(tmp_path)


def test_backbone_weights_become_the_encoders(tmp_path: Path) -> None:
    tiny.write_backbone(tmp_path)
    loaded, original = load_backbone(tmp_path), tiny.encoder()
    assert loaded.shape == tiny.SHAPE
    for name in ("tokens.weight", "layers.1.down.weight", "layers.0.attention_norm.bias"):
        assert torch.equal(loaded.state_dict()[name], original.state_dict()[name])
    turns = loaded.segments.weight[1:]
    assert torch.equal(turns, turns[:1].expand_as(turns)), "turn order must start at zero"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 64),
        ("num_hidden_layers", 3),
        ("num_attention_heads", 5),
        ("max_position_embeddings", 128),
        ("hidden_act", "relu"),
        ("vocab_size", "many"),
        ("layer_norm_eps", None),
    ],
)
def test_backbone_config_that_does_not_fit_is_bad_artifact(
    tmp_path: Path, key: str, value: object
) -> None:
    tiny.write_backbone(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(errors.BadArtifact):
        load_backbone(tmp_path)


def test_backbone_with_missing_parts_is_bad_artifact(tmp_path: Path) -> None:
    tiny.write_backbone(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    kinds = tensors.pop("embeddings.token_type_embeddings.weight")
    for changed in (tensors, {**tensors, "embeddings.token_type_embeddings.weight": kinds[:1]}):
        save_file(changed, path)
        with pytest.raises(errors.BadArtifact):
            load_backbone(tmp_path)
    path.unlink()
    with pytest.raises(errors.BadArtifact):
        load_backbone(tmp_path)
    with pytest.raises(errors.BadArtifact):
        load_backbone(tmp_path / "nowhere")


def test_rewording_loss_equals_hand_computed_numbers() -> None:
    reward = torch.tensor([0.0, 0.5, 4.0], requires_grad=True)
    loss = rewording_loss(reward, torch.tensor([[0, 1], [1, 2]]))
    assert loss.item() == pytest.approx((0.5**2 / 2 + (3.5 - 0.5)) / 2)
    loss.backward()
    assert reward.grad is not None
    assert reward.grad.abs().max() <= 0.5  # half of 1: a bounded pull
    assert rewording_loss(reward, torch.empty((0, 2), dtype=torch.int64)).item() == 0
