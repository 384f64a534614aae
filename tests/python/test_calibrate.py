"""`csrm calibrate`: fits, cross-fitting, operating points and the new artifact."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from tiny import CALIBRATION, encoder, write_checkpoint

import csrm
from csrm.cli import main
from csrm.errors import BadArgument, BadArtifact
from csrm.export.artifact import export_checkpoint
from csrm.export.recalibrate import recalibrate
from csrm.operating_point import OperatingPoint, read_operating_points
from csrm.train.calibration.comparison import (
    METHODS,
    Rewards,
    best_method,
    cross_fitted,
    fold_of,
)
from csrm.train.calibration.isotonic import fit_isotonic
from csrm.train.calibration.operating_points import operating_points
from csrm.train.calibration.platt import MAX_SLOPE, Calibration, fit_temperature
from csrm.train.metrics import smooth_ece

Floats = NDArray[np.float64]
POINT = OperatingPoint(0.05, 0.25, 0.04, 0.08, 0.5, 100, 60)


def drawn(n: int, a: float, b: float, seed: int = 1) -> Rewards:
    """Rewards whose true compliance is sigmoid(a * reward + b)."""
    rng = np.random.default_rng(seed)
    reward = rng.normal(0.3, 2.5, n)
    label = (rng.random(n) > 1 / (1 + np.exp(-(a * reward + b)))).astype(np.float64)
    return Rewards(reward, label, [f"r{i // 2}" for i in range(n)])


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate")
    checkpoint = write_checkpoint(folder / "checkpoint", encoder())
    return export_checkpoint(checkpoint, folder / "model", name="model").parent


def test_fit_isotonic_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    reward = np.round(rng.normal(0, 2, 400), 1)  # ties
    label = (rng.random(400) > 1 / (1 + np.exp(-reward))).astype(np.float64)
    oracle = IsotonicRegression(out_of_bounds="clip").fit(reward, 1 - label)
    asked = np.linspace(-8, 8, 333)
    ours = fit_isotonic(reward, label).apply(asked)
    np.testing.assert_allclose(ours, oracle.predict(asked), atol=1e-12)


def test_fit_temperature_equals_regression_without_intercept() -> None:
    data = drawn(20_000, 1.6, 0.0)
    oracle = LogisticRegression(C=1e9, tol=1e-9, fit_intercept=False)
    oracle.fit(data.reward[:, None], 1 - data.label)
    fit = fit_temperature(data.reward, data.label)
    assert fit.a == pytest.approx(oracle.coef_[0, 0], rel=1e-3)
    assert (fit.b, fit.is_floored) == (0.0, False)


def test_fit_temperature_extreme_data_stays_in_bounds() -> None:
    assert 100 < fit_temperature([-1.0, 1.0], [1, 0]).a <= MAX_SLOPE
    assert fit_temperature([-1.0, 1.0], [0, 1]).is_floored


def test_fold_of_keeps_records_together_and_folds_even() -> None:
    records = [f"r{i % 50}" for i in range(200)]
    fold = fold_of(records, 5, seed=3)
    by_record = {
        record: {int(f) for r, f in zip(records, fold, strict=True) if r == record}
        for record in records
    }
    assert all(len(folds) == 1 for folds in by_record.values())
    assert np.bincount(fold).tolist() == [40] * 5


def test_cross_fitted_case_does_not_depend_on_its_own_label() -> None:
    data = drawn(300, 1.0, 0.0)
    before = cross_fitted(data, CALIBRATION)
    label = data.label.copy()
    label[:2] = 1 - label[:2]  # both cases of record r0
    after = cross_fitted(replace(data, label=label), CALIBRATION)
    for method in METHODS:
        np.testing.assert_array_equal(before[method][:2], after[method][:2])
    fold = fold_of(data.record, 5, 0)
    others = fold != fold[0]
    assert (before["platt"][others] != after["platt"][others]).all()


def test_cross_fitted_platt_wins_where_there_is_an_offset() -> None:
    data = drawn(4000, 0.6, -1.2)
    current = Calibration(a=1.0, b=0.0, n=0, nll_before=math.nan, nll_after=math.nan)
    compliance = cross_fitted(data, current)
    error = {name: smooth_ece(data.label, 1 - p) for name, p in compliance.items()}
    assert best_method(data.label, compliance) == "platt"
    assert error["platt"] < 0.03 < error["temperature"] < error["current"]


def test_cross_fitted_too_few_violations_is_bad_argument() -> None:
    data = Rewards(np.zeros(100), np.array([1.0] * 19 + [0.0] * 81), [str(i) for i in range(100)])
    with pytest.raises(BadArgument, match="19 cases"):
        cross_fitted(data, CALIBRATION)


def test_operating_points_flag_at_most_the_rate_and_no_stricter_threshold_does() -> None:
    rng = np.random.default_rng(4)
    label = (rng.random(3000) < 0.4).astype(np.float64)
    compliance = np.round(np.where(label == 1, rng.beta(1, 3, 3000), rng.beta(4, 1, 3000)), 3)
    good = np.sort(compliance[label == 0])
    for point in operating_points(compliance, label, (0.05, 0.01)):
        assert point.fpr == (good < point.threshold).mean() <= point.max_fpr
        above = good[good > point.threshold]
        assert (good < above[0]).mean() > point.max_fpr  # the next threshold up flags too many
        assert point.fpr < point.fpr_upper < point.fpr + 0.02
        assert point.recall == (compliance[label == 1] < point.threshold).mean()


def test_operating_points_rate_that_the_data_cannot_show_is_left_out() -> None:
    compliance = np.linspace(0, 1, 40)
    points = operating_points(compliance, [0.0] * 40, (0.01, 0.05))
    assert [point.max_fpr for point in points] == [0.05]
    assert math.isnan(points[0].recall)


@pytest.mark.parametrize("rate", [0.0, 1.0, math.nan])
def test_operating_points_bad_rate_is_bad_argument(rate: float) -> None:
    with pytest.raises(BadArgument):
        operating_points([0.1, 0.9], [1, 0], (rate,))


def test_recalibrate_changes_compliance_but_no_reward(artifact: Path, tmp_path: Path) -> None:
    fit = Calibration(a=0.5, b=0.25, n=77, nll_before=0.7, nll_after=0.6)
    out = recalibrate(artifact, tmp_path / "new", fit, method="platt", points=[POINT]).parent
    rules, chat = ["a b c", "d e"], [{"role": "user", "content": "f g h"}]
    for variant in ("portable", "fused"):
        old = csrm.load(artifact, variant=variant).score(rules, chat)
        scorer = csrm.load(out, variant=variant)
        new = scorer.score(rules, chat)
        assert new.reward == old.reward
        assert new.compliance == pytest.approx(1 / (1 + math.exp(-0.5 * new.reward - 0.25)), 1e-5)
        assert new.compliance != pytest.approx(old.compliance, 1e-3)
        assert scorer.operating_points() == (POINT,)
    assert csrm.load(artifact).operating_points() == ()


def test_recalibrate_onto_itself_is_refused_and_changes_nothing(artifact: Path) -> None:
    before = (artifact / "manifest.json").read_bytes()
    with pytest.raises(BadArgument, match="in place"):
        recalibrate(artifact, artifact, CALIBRATION, method="platt")
    assert (artifact / "manifest.json").read_bytes() == before


def test_recalibrate_slope_that_ranks_nothing_is_refused(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="slope"):
        recalibrate(artifact, tmp_path / "x", replace(CALIBRATION, is_floored=True), method="platt")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "points", ["text", [3], [{"max_fpr": 0.1}], [{**POINT.__dict__, "threshold": 2.0}]]
)
def test_read_operating_points_of_a_wrong_shape_is_bad_artifact(
    points: object, tmp_path: Path
) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"operating_points": points}))
    with pytest.raises(BadArtifact):
        read_operating_points(tmp_path)


def write_policies(path: Path, artifact: Path, n: int) -> Path:
    """Records of kind policy that the artifact's rewards rank, though not without error."""
    texts = [" ".join("cdefghij"[int(digit)] for digit in f"{i:03o}") for i in range(n)]
    chats = [
        [{"role": "user", "content": "a b"}, {"role": "assistant", "content": text}]
        for text in texts
    ]
    scores = csrm.load(artifact).score_batch(["k l m"], chats)
    rewards = np.array([score.reward for score in scores])
    noise = np.random.default_rng(0).normal(0, rewards.std() / 2, n)
    compliant = rewards + noise > np.median(rewards)
    fields = {
        "source": "made", "licence": "Apache-2.0", "kind": "policy", "judged": "last_assistant",
        "label_by": "construction", "policy": ["k l m"],
    }  # fmt: skip
    rows = [
        {**fields, "id": f"p{i}", "conversation": chat, "compliant": bool(compliant[i])}
        for i, chat in enumerate(chats)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_calibrate_command_writes_an_artifact_report_and_plot(
    artifact: Path, tmp_path: Path
) -> None:
    data = write_policies(tmp_path / "mine.jsonl", artifact, 240)
    out, report = tmp_path / "out", tmp_path / "report.json"
    call = ["calibrate", "--data", data, "--model", artifact, out, "--json", report]
    done = CliRunner().invoke(main, [*map(str, call), "--method", "platt", "--max-fpr", "0.1"])
    assert done.exit_code == 0, done.output
    result = json.loads(report.read_text())
    assert [file["file"] for file in result["files"]] == ["mine"]
    assert set(result["files"][0]["methods"]) == set(METHODS)
    brier = {name: row["brier"]["value"] for name, row in result["files"][0]["methods"].items()}
    assert brier["platt"] < brier["current"]
    assert report.with_suffix(".reliability.png").stat().st_size > 1000
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["calibration"]["method"] == "platt"
    assert manifest["calibration"]["n"] == 240
    (point,) = csrm.load(out).operating_points()
    assert (point.max_fpr, point.n_compliant + point.n_violation) == (0.1, 240)
    assert "Calibrated again" in (out / "MODEL_CARD.md").read_text()


def test_calibrate_command_with_reversed_labels_is_refused(artifact: Path, tmp_path: Path) -> None:
    data = write_policies(tmp_path / "mine.jsonl", artifact, 240)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    data.write_text(
        "".join(json.dumps({**row, "compliant": not row["compliant"]}) + "\n" for row in rows)
    )
    call = ["calibrate", "--data", data, "--model", artifact, tmp_path / "out"]
    done = CliRunner().invoke(main, [*map(str, call)])
    assert done.exit_code == 2
    assert "slope is not positive" in done.output
    assert not (tmp_path / "out").exists()


def test_score_command_max_fpr_uses_the_stored_threshold(artifact: Path, tmp_path: Path) -> None:
    point = replace(POINT, threshold=1.0)
    out = recalibrate(artifact, tmp_path / "new", CALIBRATION, method="platt", points=[point])
    config, chat = tmp_path / "rules.txt", tmp_path / "chat.jsonl"
    config.write_text("a b c\n")
    chat.write_text(json.dumps({"messages": [{"role": "user", "content": "d e"}]}) + "\n")
    call = ["score", "--config", config, "--model", out.parent, "--json", "--max-fpr"]
    done = CliRunner().invoke(main, [*map(str, call), "0.05", str(chat)])
    assert (done.exit_code, json.loads(done.stdout)["verdict"]) == (0, "violation")
    unknown = CliRunner().invoke(main, [*map(str, call), "0.5", str(chat)])
    assert unknown.exit_code == 2
    assert "the model has a threshold for: 0.05" in unknown.output
