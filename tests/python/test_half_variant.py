"""The half variant: exported, loaded, chosen, and its scores to the bit whatever is cached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny
import torch
from onnx import TensorProto

import csrm
from csrm import errors
from csrm.export.artifact import describe, export_checkpoint
from csrm.export.half_graph import half_graph
from csrm.export.recalibrate import recalibrate
from csrm.train.batch import TurnText

SOUND = {"compliance_p99": 0.0002, "f1_change": 0.0}
RULES = list(tiny.RULES)
N_VALUES = 2 * tiny.SHAPE.layers * tiny.SHAPE.hidden  # keys and values of a token


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half")
    checkpoint = tiny.write_checkpoint(folder / "checkpoint", tiny.encoder())
    return export_checkpoint(checkpoint, folder / "artifact", name="tiny", half=True).parent


def with_parity(artifact: Path, folder: Path, parity: Any) -> Path:
    """A copy whose manifest says what was measured."""
    folder.mkdir()
    for file in artifact.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((artifact / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"half_parity": parity}))
    return folder


def load(artifact: Path, **options: Any) -> csrm.Scorer:
    return csrm.load(artifact, n_threads=1, variant="half", **options)


def messages(turns: Sequence[TurnText]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def chats() -> list[list[dict[str, str]]]:
    """Of one turn to many, one of them more than a row of 1,024 tokens."""
    long = [("assistant" if t % 2 else "user", tiny.letters(60, t)) for t in range(24)]
    turns = [tiny.CHAT, *(example.turns for example in tiny.examples(6, seed=3)), long]
    return [[*messages(chat), {"role": "assistant", "content": "a b c"}] for chat in turns]


def test_half_variant_scores_near_the_portable_one(artifact: Path) -> None:
    portable, half = csrm.load(artifact, n_threads=1, variant="portable"), load(artifact)
    assert half.info()["variant"] == "half"
    expected = [portable.score(RULES, chat).reward for chat in chats()]
    found = [half.score(RULES, chat).reward for chat in chats()]
    # Keys and values are other numbers; a reward may come out equal in its last bit by chance.
    assert found != expected
    # Eleven bits of each, with weights drawn wide.
    assert found == pytest.approx(expected, abs=0.02)


def test_half_variant_halves_a_cached_token(artifact: Path) -> None:
    fused = csrm.load(artifact, n_threads=1, variant="fused")
    assert fused.info()["cache_token_bytes"] == 4 * N_VALUES
    half = load(artifact)
    assert half.info()["cache_token_bytes"] == 2 * N_VALUES
    for scorer in (fused, half):
        scorer.score(RULES, messages(tiny.CHAT))
    assert half.cache_stats() == fused.cache_stats()  # which count tokens


@pytest.mark.parametrize("judged", ["last", "assistant"])
def test_half_variant_cold_warm_batched_and_incremental_scores_are_equal_bits(
    artifact: Path, judged: Any
) -> None:
    warm, uncached = load(artifact), load(artifact, cache_tokens=0)
    together = warm.score_batch(RULES, chats(), judged)
    for chat, batched in zip(chats(), together, strict=True):
        cold = load(artifact).score(RULES, chat, judged)
        assert batched == cold
        assert warm.score(RULES, chat, judged) == cold
        assert uncached.score(RULES, chat, judged) == cold
        assert load(artifact, batch_tokens=1).score(RULES, chat, judged) == cold
        # Turn by turn from the cache: what it kept is what the whole row reads.
        grown = load(artifact)
        for n in range(1, len(chat)):
            grown.score(RULES, chat[:n], reuse_turns=True)
        assert grown.score(RULES, chat, judged, reuse_turns=True) == cold
        grown.check_integrity()


def test_half_variant_stream_ends_in_the_score_of_the_whole(artifact: Path) -> None:
    chat = chats()[0]
    scorer = load(artifact)
    stream = scorer.stream(RULES, chat[:-1], every_tokens=3)
    for word in chat[-1]["content"].split():
        stream.append(f"{word} ")
    assert stream.finish().reward == load(artifact).score(RULES, chat).reward


def test_half_variant_fast_explanation_does_not_depend_on_the_cache(artifact: Path) -> None:
    rules = [*RULES, ("", "k l m"), ("q", "r s t u"), ("", "a z")]
    warm = load(artifact)
    for chat in chats()[:3]:
        fast = load(artifact).score(rules, chat, explain="fast")
        assert warm.score(rules, chat, explain="fast") == fast
        assert warm.score(rules, chat, explain="fast") == fast
        assert fast.reward == warm.score(rules, chat).reward
        exact = warm.score(rules, chat, explain=True)
        assert min(r.reward for r in fast.rules) == min(r.reward for r in exact.rules)


def test_half_variant_key_too_large_is_non_finite(tmp_path: Path) -> None:
    """In fp32 such a key is a number; in half precision it must not become another one."""
    model = tiny.encoder()
    with torch.no_grad():
        model.layers[0].key.bias[3] = -1e6  # type: ignore[index, union-attr]
    checkpoint = tiny.write_checkpoint(tmp_path / "checkpoint", model)
    folder = export_checkpoint(checkpoint, tmp_path / "out", name="tiny", half=True).parent
    chat = messages(tiny.CHAT)
    csrm.load(folder, n_threads=1, variant="fused").score(RULES, chat)
    with pytest.raises(errors.NonFinite):
        load(folder).score(RULES, chat)


def test_half_variant_holds_no_weight_of_its_own(artifact: Path) -> None:
    fused, half = (
        onnx.load(artifact / f"model.{name}.onnx", load_external_data=False).graph
        for name in ("fused", "half")
    )
    assert {t.name: t for t in half.initializer}.items() <= {
        t.name: t for t in fused.initializer
    }.items()
    assert len(half.node) < len(fused.node)
    types = {
        t.name: t.type.tensor_type.elem_type
        for t in (*half.input, *half.output)
        if t.type.tensor_type.elem_type != TensorProto.INT64
    }
    names = ("prefix_key", "prefix_value", "key", "value")
    assert types == dict.fromkeys(names, TensorProto.FLOAT16) | dict.fromkeys(
        ("reward", "compliance"), TensorProto.FLOAT
    )


def test_half_variant_without_a_measurement_is_not_chosen(artifact: Path) -> None:
    assert csrm.load(artifact, n_threads=1).info()["variant"] == "fused"


@pytest.mark.parametrize(
    ("parity", "chosen"),
    [
        (SOUND, "half"),
        ({"compliance_p99": 0.011, "f1_change": 0.0}, "fused"),
        ({"compliance_p99": 0.002, "f1_change": 0.004}, "fused"),
    ],
)
def test_half_variant_is_chosen_if_it_was_measured_as_alike(
    artifact: Path, tmp_path: Path, parity: dict[str, float], chosen: str
) -> None:
    folder = with_parity(artifact, tmp_path / "a", parity)
    assert csrm.load(folder, n_threads=1).info()["variant"] == chosen


@pytest.mark.parametrize("parity", [{}, {"compliance_p99": "small", "f1_change": 0}, [0.001]])
def test_half_variant_damaged_measurement_is_bad_artifact(
    artifact: Path, tmp_path: Path, parity: Any
) -> None:
    with pytest.raises(errors.BadArtifact, match="half_parity"):
        csrm.load(with_parity(artifact, tmp_path / "a", parity), n_threads=1)


def test_half_variant_absent_is_unsupported(tmp_path: Path) -> None:
    checkpoint = tiny.write_checkpoint(tmp_path / "checkpoint", tiny.encoder())
    plain = export_checkpoint(checkpoint, tmp_path / "plain", name="tiny").parent
    with pytest.raises(errors.Unsupported, match="no half variant"):
        load(plain)


def test_half_variant_recalibrated_is_to_be_measured_again(artifact: Path, tmp_path: Path) -> None:
    folder = with_parity(artifact, tmp_path / "a", SOUND)
    recalibrate(folder, tmp_path / "b", tiny.CALIBRATION, method="platt")
    assert "half_parity" not in json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert load(tmp_path / "b").info()["variant"] == "half"


@pytest.mark.parametrize("name", ["prefix_key", "prefix_value", "key", "value"])
def test_half_variant_with_floats_among_its_halves_is_bad_artifact(
    name: str, artifact: Path, tmp_path: Path
) -> None:
    folder = with_parity(artifact, tmp_path / "a", SOUND)
    model = onnx.load(folder / "model.half.onnx", load_external_data=False)
    graph, inner = model.graph, f"{name}_half"
    for node in graph.node:
        for names in (node.input, node.output):
            for i, known in enumerate(names):
                names[i] = inner if known == name else known
    if name.startswith("prefix"):
        kind = TensorProto.FLOAT16
        graph.node.insert(0, onnx.helper.make_node("Cast", [name], [inner], to=kind))
    else:
        graph.node.append(onnx.helper.make_node("Cast", [inner], [name], to=TensorProto.FLOAT))
    (info,) = (t for t in (*graph.input, *graph.output) if t.name == name)
    info.type.tensor_type.elem_type = TensorProto.FLOAT
    (folder / "model.half.onnx").write_bytes(model.SerializeToString())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model.half.onnx"] = describe(folder / "model.half.onnx")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(errors.BadArtifact, match="another type or shape"):
        load(folder)


def test_half_graph_of_another_graph_is_bad_artifact(artifact: Path) -> None:
    for name in ("model.onnx", "model.half.onnx"):
        graph = onnx.load(artifact / name, load_external_data=False)
        with pytest.raises(errors.BadArtifact, match=r"model\.fused\.onnx"):
            half_graph(graph)
