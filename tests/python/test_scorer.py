"""csrm.Scorer over a fake native scorer: checks, order, errors, options.

Not: real scores (tests of the native runtime do those).
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from fake_scorer import FakeNative

import csrm
from csrm import SafetyConfig, Scorer, errors, scorer

GOOD = [{"role": "user", "content": "Hello."}]
BAD = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "bad"}]


@pytest.fixture
def native() -> FakeNative:
    return FakeNative()


@pytest.fixture
def fake(native: FakeNative, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scorer:
    monkeypatch.setattr(scorer, "_open_native", lambda artifact, options: native)
    return csrm.load(tmp_path)


def test_score_gives_all_fields(fake: Scorer) -> None:
    score = fake.score([("Tone", "Be kind.")], BAD, judged="assistant", explain=True)
    assert (score.reward, score.verdict, score.scored_tokens) == (-1.0, "violation", 8)
    assert [turn.turn for turn in score.turns] == [1]
    assert [(rule.index, rule.name) for rule in score.rules] == [(0, "Tone")]


def test_score_threshold_of_the_config_decides_the_verdict(fake: Scorer) -> None:
    verdicts = [
        fake.score(SafetyConfig.from_rules(["a"], threshold=t), GOOD).verdict for t in (0.7, 0.8)
    ]
    assert verdicts == ["compliant", "violation"]


def test_score_reuse_turns_reaches_the_native_scorer(fake: Scorer, native: FakeNative) -> None:
    fake.score(["a"], GOOD)
    fake.score(["a"], GOOD, reuse_turns=True)
    fake.score_batch(["a"], [GOOD, BAD], reuse_turns=True)
    assert native.reused == [False, True, True]


def test_score_config_may_be_a_path(fake: Scorer, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("- a\n- b\n")
    assert len(fake.score(path, GOOD, explain=True).rules) == 2


def test_score_batch_return_puts_errors_in_place(fake: Scorer, native: FakeNative) -> None:
    crash = [{"role": "user", "content": "crash"}]
    answers = fake.score_batch(["a"], [GOOD, [], crash, BAD, "x"], errors="return")
    kinds = [type(answer).__name__ for answer in answers]
    assert kinds == ["Score", "EmptyConversation", "EngineFailed", "Score", "BadConversation"]
    assert native.batches == [3]


def test_score_batch_raise_names_the_conversation(fake: Scorer) -> None:
    with pytest.raises(errors.EmptyConversation, match=r"^conversation 1: "):
        fake.score_batch(["a"], [GOOD, []])
    assert [score.verdict for score in fake.score_batch(["a"], [GOOD, BAD])] == [
        "compliant",
        "violation",
    ]


def test_score_batch_of_nothing_checks_the_config_and_gives_nothing(fake: Scorer) -> None:
    assert fake.score_batch(["a"], []) == []
    with pytest.raises(errors.EmptyConfig):
        fake.score_batch([], [])


def test_score_unknown_options_get_bad_argument(fake: Scorer) -> None:
    with pytest.raises(errors.BadArgument):
        fake.score(["a"], GOOD, judged="first")  # type: ignore[arg-type]
    with pytest.raises(errors.BadArgument):
        fake.score_batch(["a"], [GOOD], errors="ignore")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "options",
    [
        {"n_threads": -1},
        {"n_threads": True},
        {"cache_tokens": 1.5},
        {"batch_tokens": 2**40},
        {"variant": None},
        {"tenant_salt": b"x"},
    ],
)
def test_load_option_out_of_range_gets_bad_argument(
    options: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(errors.BadArgument, match=next(iter(options))):
        csrm.load(tmp_path, **options)  # type: ignore[arg-type]


def test_scorer_pickled_loads_the_same_artifact_with_the_same_options(
    native: FakeNative, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = []

    def open_native(artifact: Path, options: scorer.LoadOptions) -> FakeNative:
        opened.append((artifact, options))
        return native

    monkeypatch.setattr(scorer, "_open_native", open_native)
    pickle.loads(pickle.dumps(csrm.load(tmp_path, n_threads=3, tenant_salt="t")))
    assert opened[0] == opened[1] == (tmp_path, scorer.LoadOptions(n_threads=3, tenant_salt="t"))


def test_engine_library_is_found_without_importing_onnxruntime() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from csrm.engine import engine_library; print(engine_library().name); "
        "print('onnxruntime' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    name, imported = done.stdout.splitlines()
    assert "onnxruntime" in name
    assert imported == "False False"


@pytest.mark.parametrize(("given", "kept"), [(None, "1"), ("0", "0")])
def test_import_declines_the_engines_telemetry_unless_told(given: str | None, kept: str) -> None:
    import subprocess
    import sys

    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    if given is not None:
        environment["ORT_DISABLE_TELEMETRY"] = given
    code = "import csrm, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == kept


def test_engine_library_missing_package_gives_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csrm.engine.find_spec", lambda name: None)
    with pytest.raises(errors.EngineUnavailable, match="pip install"):
        csrm.engine.engine_library()
