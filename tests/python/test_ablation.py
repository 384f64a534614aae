"""csrm.train.ablation and the checkpoint scorer it measures with, on a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import small_data
import tiny

import csrm
from csrm.errors import BadArgument, BadArtifact, Error, LimitExceeded
from csrm.export.artifact import export_checkpoint
from csrm.train.ablation import FIGURES, SHARE, arm_options, augmented, run_arm, table
from csrm.train.checkpoint_scorer import CheckpointScorer
from csrm.train.options import TrainOptions

RULES = (("no a", "a b c"), ("", "d e"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    folder = tmp_path_factory.mktemp("ablation")
    small_data.write_data(folder / "data")
    tiny.write_backbone(folder / "backbone")
    return TrainOptions(
        data=str(folder / "data"),
        out=str(folder / "runs"),
        backbone=str(folder / "backbone"),
        sources=small_data.SOURCES,
        mixture={"categorised": 0.5, "ruled": 0.3, "policy": 0.2},
        steps=2,
        family_size=6,
        families_per_batch=1,
        validation_batches=1,
        freeze_tokens=False,
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("checkpoint"), tiny.encoder())


def test_arms_differ_in_nothing_but_what_they_are_named_for(base: TrainOptions) -> None:
    both = arm_options("both", base)
    assert sum(both.mixture.values()) == pytest.approx(sum(base.mixture.values()))
    assert both.mixture["policy"] == base.mixture["policy"]
    assert both.mixture["strictness"] == both.mixture["cca"] == pytest.approx(SHARE * 0.8 / 2)
    assert replace(both, mixture=base.mixture) == base
    assert arm_options("none", both).mixture.keys() == base.mixture.keys()
    block, full = arm_options("block", base), arm_options("full", base)
    assert replace(full, attention="block") == block
    taught = replace(base, teacher="a/checkpoint")
    assert arm_options("distilled", taught) == replace(both, teacher="a/checkpoint")
    assert arm_options("both", taught) == both
    with pytest.raises(BadArgument, match="teacher"):
        arm_options("distilled", base)
    with pytest.raises(BadArgument, match="unknown arm"):
        arm_options("other", base)
    with pytest.raises(BadArgument, match="no composed families"):
        augmented({"policy": 1.0}, ("cca",))


def test_checkpoint_scorer_equals_the_artifact(checkpoint: Path, tmp_path: Path) -> None:
    artifact = export_checkpoint(checkpoint, tmp_path / "model", name="model").parent
    chats = [
        [("user", "a b c"), ("assistant", "d e f g"), ("user", "h"), ("assistant", "i")],
        [("user", "k"), ("assistant", "l m")],
    ]
    for judged in ("last", "assistant"):
        ours = CheckpointScorer(checkpoint).score_rules(RULES, chats, judged)
        theirs = csrm.load(artifact).score_batch(
            csrm.SafetyConfig.from_rules(list(RULES)),
            [[{"role": role, "content": text} for role, text in chat] for chat in chats],
            judged=judged,
        )
        for mine, other in zip(ours, theirs, strict=True):
            assert not isinstance(mine, Error)
            assert mine.reward == pytest.approx(other.reward, abs=0.2)  # int8 weights
            assert len(mine.turns) == len(other.turns)
            assert mine.reward == min(turn.reward for turn in mine.turns)


def test_checkpoint_scorer_refuses_what_it_cannot_read_whole(checkpoint: Path) -> None:
    chats = [[("user", tiny.letters(600))], [("user", "a")]]
    long, short = CheckpointScorer(checkpoint).score_rules(RULES, chats, "last")
    assert isinstance(long, LimitExceeded)
    assert not isinstance(short, Error)


def test_export_of_a_full_attention_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "provenance.json").write_text(json.dumps({"attention": "full"}))
    try:
        with pytest.raises(BadArtifact, match="full attention"):
            export_checkpoint(checkpoint, tmp_path / "x", name="x")
        assert CheckpointScorer(checkpoint).is_full
    finally:
        (checkpoint / "provenance.json").write_text(json.dumps({"sources": ["rbr"], "seed": 0}))


def test_run_arm_trains_once_and_refuses_a_result_of_other_options(
    base: TrainOptions, tmp_path: Path
) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [
        {
            "id": str(i), "source": "made", "licence": "MIT", "kind": "policy",
            "judged": "last_user", "label_by": "construction", "policy": ["a b"],
            "compliant": i % 2 == 0, "conversation": [{"role": "user", "content": f"c {i}"}],
        }
        for i in range(8)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = [run_arm(arm, 1, base, [file], None) for arm in ("block", "full")]
    weights = Path(base.out) / "full-1" / "checkpoint" / "model.safetensors"
    trained = weights.stat().st_mtime_ns
    assert run_arm("full", 1, base, [file], None) == results[1]
    assert weights.stat().st_mtime_ns == trained
    with pytest.raises(BadArgument, match="other options"):
        run_arm("full", 1, replace(base, steps=3), [file], None)
    shown = table(results)
    assert "| block | 1 | mine | 8 (4) |" in shown
    assert "| full | 1 | mine | 8 (4) |" in shown


def test_table_shows_the_mean_of_seeds_and_their_range() -> None:
    def result(seed: int, value: float) -> dict[str, object]:
        figure = {"value": value, "low": 0.0, "high": 1.0}
        model = {"n": 4, "n_violation": 2, **dict.fromkeys(FIGURES, figure)}
        sensitivity = {"unsafe": dict.fromkeys(("forbid", "omit", "allow"), figure)}
        file = {"file": "mine", "systems": {"model": model}, "sensitivity": sensitivity}
        return {"arm": "both", "seed": seed, "evaluation": {"files": [file]}}

    row = table([result(1, 0.5), result(2, 0.75)]).splitlines()[-1]
    assert row.startswith("| both | 2 | mine | 4 (2) | 0.625 [0.500, 0.750] |")
    assert row.endswith("| 0.62, 0.62, 0.62 |")
