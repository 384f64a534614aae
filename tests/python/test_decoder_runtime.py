"""A tiny random decoder through the C++ runtime: scores equal PyTorch's over one plain sequence.

Not: the renderer (test_render_chat.py) or the graph alone (test_decoder_graph.py). A score may
differ by the rounding of float addition only: TOLERANCE is fp32 through three wide layers.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import onnx
import pytest
import tiny_decoder
import torch
from toy import Rules, ToyOptions, Turns, letters, open_scorer

import csrm
from csrm import _core, errors
from csrm.bench.texts import open_renderer
from csrm.export.artifact import export_checkpoint
from csrm.export.recalibrate import recalibrate
from csrm.export.storage import rounded
from csrm.export.unpack import encoder_of
from csrm.scorer import Judged
from csrm.train.calibration.platt import Calibration
from csrm.train.chat_batch import causal_rows
from csrm.train.chat_template import make_chat_renderer
from csrm.train.decoder import Decoder

pytest.importorskip("transformers")

TOLERANCE = 1e-4
MAX_POSITIONS = 3000
RULES: Rules = [("no a", "a b c d"), ("", "e f g"), ("x", "never say z , or y x w")]
CHAT: Turns = [
    ("system", "a b"),
    ("user", "hello c d"),
    ("assistant", "e f g h i"),
    ("user", "why"),
    ("assistant", "z y x w"),
]
LONG: Turns = [
    ("user", letters(700)),
    ("assistant", letters(650, 3)),
    ("assistant", letters(90, 5)),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    folder = tmp_path_factory.mktemp("files")
    return rounded(
        tiny_decoder.decoder(folder, "qwen3", max_position_embeddings=MAX_POSITIONS).eval()
    )


@pytest.fixture(scope="module")
def artifact(model: Decoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    checkpoint = tiny_decoder.write_checkpoint(folder / "checkpoint", model)
    return export_checkpoint(checkpoint, folder / "artifact", name="tiny", storage="fp32").parent


@pytest.fixture(scope="module")
def scorer(artifact: Path) -> _core.Scorer:
    return open_scorer(artifact)


@torch.no_grad()
def expected(model: Decoder, rules: Rules, turns: Turns) -> float:
    """The reward of the last turn from one row without a prefix."""
    renderer = make_chat_renderer(tiny_decoder.tokenizer_json())
    [(conversation, _)] = renderer.conversation(turns)
    ids = [*renderer.config(rules).tolist(), *conversation.tolist()]
    rows = causal_rows([(torch.tensor(ids).numpy(), 0)])
    return float(model(rows).reward)


def rewards(
    scorer: _core.Scorer, rules: Rules, conversations: list[Turns], judged: str = "last"
) -> list[float]:
    scores = scorer.score_batch(rules, 0.5, conversations, judged, False)
    assert all(score[0] != "error" for score in scores), scores
    return [score[0] for score in scores]


def test_decoder_artifact_says_what_it_is(artifact: Path, scorer: _core.Scorer) -> None:
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert manifest["template"]["id"] == "csrm-chat-1"
    assert manifest["variants"] == {"portable": "model.onnx", "fused": "model.fused.onnx"}
    assert set(manifest["variants"].values()) <= set(manifest["files"])
    info = scorer.info()
    assert info["variant"] == "fused"
    assert (info["backbone"], info["max_positions"]) == ("decoder", MAX_POSITIONS)
    assert (info["layers"], info["kv_heads"], info["head_dim"]) == (3, 2, 16)


def test_decoder_artifact_is_refused_where_only_encoders_are_known(artifact: Path) -> None:
    with pytest.raises(errors.BadArtifact, match="encoder artifacts only"):
        open_renderer(artifact)
    with pytest.raises(errors.BadArtifact, match="no encoder"):
        encoder_of(artifact)


def test_decoder_artifact_is_recalibrated_in_both_variants(artifact: Path, tmp_path: Path) -> None:
    fit = Calibration(a=0.5, b=0.25, n=77, nll_before=0.7, nll_after=0.6)
    new = recalibrate(artifact, tmp_path / "new", fit, method="platt").parent
    for variant in ("portable", "fused"):
        options = ToyOptions(variant=variant)
        [old], [score] = (
            open_scorer(folder, options).score_batch(RULES, 0.5, [CHAT], "last", False)
            for folder in (artifact, new)
        )
        assert score[0] == old[0]
        assert score[1] == pytest.approx(1 / (1 + math.exp(-0.5 * score[0] - 0.25)), 1e-5)
        assert score[1] != pytest.approx(old[1], 1e-3)


def test_decoder_int8_storage_is_shared_by_both_variants(model: Decoder, tmp_path: Path) -> None:
    checkpoint = tiny_decoder.write_checkpoint(tmp_path / "checkpoint", model)
    artifact = export_checkpoint(checkpoint, tmp_path / "artifact", name="tiny").parent
    fused = onnx.load(artifact / "model.fused.onnx", load_external_data=False)
    shared = {t.name for t in fused.graph.initializer if t.external_data}
    assert {"tokens.weight", "layers.0.query_key_value.weight", "layers.2.query.weight"} <= shared
    large = {
        t.name
        for t in fused.graph.initializer
        if len(t.raw_data) >= 4096 and t.data_type == onnx.TensorProto.INT8
    }
    assert not large
    scores = [
        rewards(open_scorer(artifact, ToyOptions(variant=variant)), RULES, [CHAT, LONG])
        for variant in ("portable", "fused")
    ]
    assert scores[1] == pytest.approx(scores[0], abs=TOLERANCE)


@pytest.mark.parametrize("variant", ["portable", "fused"])
@pytest.mark.parametrize("turns", [CHAT, CHAT[:2], LONG], ids=["chat", "short", "long"])
def test_decoder_score_equals_pytorch(
    artifact: Path, model: Decoder, turns: Turns, variant: str
) -> None:
    scorer = open_scorer(artifact, ToyOptions(variant=variant))
    assert scorer.info()["variant"] == variant
    [reward] = rewards(scorer, RULES, [turns])
    assert abs(reward - expected(model, RULES, turns)) <= TOLERANCE


def test_decoder_long_config_is_encoded_in_parts_and_exact(
    scorer: _core.Scorer, model: Decoder
) -> None:
    rules: Rules = [("long", letters(900)), ("", letters(300, 9))]
    [reward] = rewards(scorer, rules, [CHAT])
    assert abs(reward - expected(model, rules, CHAT)) <= TOLERANCE


@pytest.mark.parametrize("turns", [CHAT, LONG], ids=["chat", "long"])
def test_decoder_every_assistant_turn_scores_as_if_it_were_last(
    scorer: _core.Scorer, model: Decoder, turns: Turns
) -> None:
    [score] = scorer.score_batch(RULES, 0.5, [turns], "assistant", False)
    judged = [i for i, (role, _) in enumerate(turns) if role == "assistant"]
    assert [turn for turn, _, _ in score[3]] == judged
    for turn, reward, _ in score[3]:
        assert abs(reward - expected(model, RULES, turns[: turn + 1])) <= TOLERANCE
    assert score[0] == min(reward for _, reward, _ in score[3])


def test_decoder_scores_do_not_depend_on_cache_or_batch(
    artifact: Path, scorer: _core.Scorer
) -> None:
    conversations: list[Turns] = [CHAT, CHAT[:2], CHAT[:3], LONG]
    alone = [rewards(scorer, RULES, [turns])[0] for turns in conversations]
    scorer.clear_cache()
    cold = rewards(scorer, RULES, conversations)
    warm = rewards(scorer, RULES, conversations)
    uncached = rewards(open_scorer(artifact, ToyOptions(cache_tokens=0)), RULES, conversations)
    small = rewards(open_scorer(artifact, ToyOptions(batch_tokens=1)), RULES, conversations)
    threads = rewards(open_scorer(artifact, ToyOptions(n_threads=2)), RULES, conversations)
    # The fused graph takes each row's sums in one order.
    for other in (cold, warm, uncached, small, threads):
        assert other == alone
    portable = open_scorer(artifact, ToyOptions(variant="portable"))
    assert rewards(portable, RULES, conversations) == pytest.approx(alone, abs=TOLERANCE)
    scorer.check_integrity()


def test_decoder_scheduler_scores_equal_those_of_the_scorer(artifact: Path) -> None:
    scorer = csrm.load(artifact, n_threads=1)
    chats = [
        [{"role": role, "content": text} for role, text in turns]
        for turns in (CHAT, CHAT[:3], LONG)
    ]
    judged: tuple[Judged, ...] = ("last", "assistant")
    requests = [
        (chat, how, explain) for chat in chats for how in judged for explain in (False, True)
    ]
    with csrm.Scheduler(scorer) as scheduler:
        futures = [
            scheduler.submit(RULES, chat, judged=how, explain=explain)
            for chat, how, explain in requests
        ]
        scores = [future.result(60) for future in futures]
    for score, (chat, how, explain) in zip(scores, requests, strict=True):
        alone = scorer.score(RULES, chat, how, explain)
        for one, other in zip(
            (score, *score.turns, *score.rules), (alone, *alone.turns, *alone.rules), strict=True
        ):
            assert one.reward == pytest.approx(other.reward, abs=TOLERANCE)


def test_decoder_config_is_cached_whole_and_by_order(scorer: _core.Scorer, model: Decoder) -> None:
    scorer.clear_cache()
    before = scorer.cache_stats()
    rewards(scorer, RULES, [CHAT])
    rewards(scorer, RULES, [CHAT[:3]])
    after = scorer.cache_stats()
    assert after["n_entries"] == 1
    assert (after["n_hits"] - before["n_hits"], after["n_misses"] - before["n_misses"]) == (1, 1)
    turned = RULES[::-1]
    [reward] = rewards(scorer, turned, [CHAT])
    assert scorer.cache_stats()["n_entries"] == 2
    assert abs(reward - expected(model, turned, CHAT)) <= TOLERANCE
    assert abs(reward - expected(model, RULES, CHAT)) > 10 * TOLERANCE


def test_decoder_explain_is_each_rule_as_a_config(scorer: _core.Scorer, model: Decoder) -> None:
    [score] = scorer.score_batch(RULES, 0.5, [CHAT], "last", True)
    assert [rule for rule, *_ in score[4]] == [0, 1, 2]
    for rule, reward, _, _ in score[4]:
        assert abs(reward - expected(model, [RULES[rule]], CHAT)) <= TOLERANCE


def test_decoder_fast_explanation_is_unsupported(artifact: Path, scorer: _core.Scorer) -> None:
    with pytest.raises(errors.Unsupported, match="decoder"):
        scorer.score_batch(RULES, 0.5, [CHAT], "last", "fast")
    chat = [{"role": role, "content": text} for role, text in CHAT]
    with (
        csrm.Scheduler(csrm.load(artifact, n_threads=1)) as scheduler,
        pytest.raises(errors.Unsupported, match="decoder"),
    ):
        scheduler.submit(RULES, chat, explain="fast").result(60)


def test_decoder_too_long_sequence_is_an_error_of_its_own(scorer: _core.Scorer) -> None:
    too_long: Turns = [("user", letters(MAX_POSITIONS - 100))]
    good, bad = scorer.score_batch(RULES, 0.5, [CHAT, too_long], "last", False)
    assert good[0] != "error"
    assert bad[:2] == ("error", "LimitExceeded")
    assert "3000 positions" in bad[2]
    with pytest.raises(errors.LimitExceeded, match="3000 positions"):
        scorer.score_batch([("", letters(MAX_POSITIONS))], 0.5, [CHAT], "last", False)


def test_decoder_sequence_that_just_fits_is_scored(scorer: _core.Scorer, model: Decoder) -> None:
    renderer = make_chat_renderer(tiny_decoder.tokenizer_json())
    used = len(renderer.config(RULES)) + len(renderer.conversation([("user", "a")])[0][0])
    fits: Turns = [("user", letters(MAX_POSITIONS - used + 1))]
    [reward] = rewards(scorer, RULES, [fits])
    assert abs(reward - expected(model, RULES, fits)) <= TOLERANCE
    over: Turns = [("user", letters(MAX_POSITIONS - used + 2))]
    assert scorer.score_batch(RULES, 0.5, [over], "last", False)[0][:2] == (
        "error",
        "LimitExceeded",
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("template", "cue"), []),
        (("template", "cue"), [161]),
        (("template", "cue"), [1.5]),
        (("template", "turn_end"), "text"),
        (("template", "roles"), {"user": [1]}),
        (("model", "max_positions"), 0),
    ],
)
def test_decoder_manifest_that_is_wrong_is_refused(
    artifact: Path, tmp_path: Path, path: tuple[str, str], value: object
) -> None:
    for file in artifact.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest[path[0]][path[1]] = value
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(errors.BadArtifact, match="manifest"):
        open_scorer(tmp_path)


@pytest.mark.parametrize("judged", ["last", "assistant"])
@pytest.mark.parametrize("turns", [CHAT, LONG], ids=["chat", "long"])
def test_decoder_reused_turns_are_bit_equal_to_uncached(
    artifact: Path, scorer: _core.Scorer, turns: Turns, judged: str
) -> None:
    cached = open_scorer(artifact, ToyOptions(cache_tokens=8192))
    uncached = open_scorer(artifact, ToyOptions(cache_tokens=0))
    for n in range(2, len(turns) + 1):
        if judged == "assistant" and all(role != "assistant" for role, _ in turns[:n]):
            continue
        args = (RULES, 0.5, [turns[:n]], judged, False)
        (answer,) = cached.score_batch(*args, reuse_turns=True)
        assert answer == uncached.score_batch(*args, reuse_turns=True)[0]
        assert answer == cached.score_batch(*args, reuse_turns=True)[0]
        (ordinary,) = scorer.score_batch(*args)
        for (_, reward, _), (_, expected_reward, _) in zip(answer[3], ordinary[3], strict=True):
            assert reward == pytest.approx(expected_reward, abs=TOLERANCE)
        cached.check_integrity()


def test_decoder_reused_turn_not_judged_before_is_asked_about(artifact: Path) -> None:
    cached = open_scorer(artifact, ToyOptions(cache_tokens=8192))
    uncached = open_scorer(artifact, ToyOptions(cache_tokens=0))
    cached.score_batch(RULES, 0.5, [CHAT[:4]], "last", False, reuse_turns=True)
    for _ in range(2):
        args = (RULES, 0.5, [CHAT], "assistant", False)
        assert cached.score_batch(*args, reuse_turns=True) == uncached.score_batch(
            *args, reuse_turns=True
        )
        cached.check_integrity()


def test_decoder_stream_equals_score_of_the_finished_turn(artifact: Path) -> None:
    scorer = csrm.load(artifact, n_threads=1)
    messages = [{"role": role, "content": text} for role, text in CHAT[:4]]
    stream = scorer.stream(["a b", "c d"], messages, every_tokens=7)
    text = letters(600)
    scores = [stream.append(text[i : i + 200]) for i in range(0, len(text), 200)]
    assert all(scores)
    whole = scorer.score(
        ["a b", "c d"], [*messages, {"role": "assistant", "content": text}], reuse_turns=True
    )
    assert stream.finish() == whole
