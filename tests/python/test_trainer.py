"""csrm.train.trainer on a tiny model and made-up records: a run, its resumption, its families.

Not: whether training learns anything; the log in docs/ has the figures of real runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import small_data
import tiny
import torch
import yaml
from click.testing import CliRunner

from csrm import errors
from csrm.cli import main
from csrm.export.artifact import export_checkpoint
from csrm.train.batch import Family, RuleText
from csrm.train.compose import CategorisedComposer, CategoryConfig
from csrm.train.corpus import Corpus
from csrm.train.families import FamilyDataset, load_corpora
from csrm.train.model import load_checkpoint
from csrm.train.options import TrainOptions, load_options
from csrm.train.records import DataFolder, Turn
from csrm.train.trainer import Trainer, train_from_file
from csrm.train.wording import Wording, load_wording

MIXTURE = {"categorised": 0.4, "ruled": 0.2, "policy": 0.2, "preference": 0.2}
FILES = (
    "model.safetensors", "shape.json", "tokenizer.json", "calibration.json",
    "operating_points.json", "provenance.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    small_data.write_data(folder / "data")
    tiny.write_backbone(folder / "backbone")
    return folder


@pytest.fixture(scope="module")
def options(folder: Path) -> TrainOptions:
    base = small_data.train_options(folder, MIXTURE)
    return replace(
        base, steps=4, batches=2, family_size=8, dropout=0.0, validate_every=1, validation_batches=5
    )


@pytest.fixture(scope="module")
def corpora(options: TrainOptions) -> tuple[DataFolder, Corpus, Corpus]:
    return load_corpora(options, tiny.renderer())


@pytest.fixture(scope="module")
def finished(options: TrainOptions) -> Path:
    """The run's folder after four steps without interruption."""
    Trainer(options).fit(is_resumed=False)
    return Path(options.out)


def write_options(path: Path, options: TrainOptions, **changes: object) -> Path:
    values = {**asdict(options), "sources": list(options.sources), **changes}
    path.write_text(yaml.safe_dump(values))
    return path


def metrics(run: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without timings."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in lines]


def test_train_checkpoint_is_complete_and_exports(finished: Path, tmp_path: Path) -> None:
    checkpoint = finished / "checkpoint"
    assert sorted(path.name for path in checkpoint.iterdir()) == sorted(FILES)
    assert load_checkpoint(checkpoint).shape == tiny.SHAPE
    provenance = json.loads((checkpoint / "provenance.json").read_text())
    assert provenance["steps"] == 4
    assert provenance["sources"] == list(small_data.SOURCES)
    # 28 + 12 ruled + 6 + 4 + 2 of 3 graded, in each split
    assert (provenance["n_records"], provenance["n_held_out"]) == (52, 52)
    assert yaml.safe_load((finished / "options.yaml").read_text())["steps"] == 4
    calibration = json.loads((checkpoint / "calibration.json").read_text())
    (checkpoint / "calibration.json").write_text(
        json.dumps({**calibration, "a": 1.0, "is_floored": False})
    )
    export_checkpoint(checkpoint, tmp_path / "artifact", name="tiny")
    (checkpoint / "calibration.json").write_text(json.dumps(calibration))


def test_train_changes_weights_and_validates_every_step(finished: Path) -> None:
    trained, start = load_checkpoint(finished / "checkpoint"), tiny.encoder()
    for name in ("positions.weight", "layers.0.query.weight", "layers.1.down.bias"):
        assert not torch.equal(trained.state_dict()[name], start.state_dict()[name])
    held = [line for line in metrics(finished) if "held_loss" in line and "seed" not in line]
    assert [line["step"] for line in held] == [1, 2, 3, 4]
    assert len({line["held_loss"] for line in held}) == 4
    assert {line["held_n"] for line in held} == {held[0]["held_n"]}


def test_train_same_seed_gives_the_same_run(
    finished: Path, options: TrainOptions, tmp_path: Path
) -> None:
    again = replace(options, out=str(tmp_path / "again"))
    Trainer(again).fit(is_resumed=False)
    assert metrics(tmp_path / "again") == metrics(finished)
    other = replace(options, out=str(tmp_path / "other"), seed=2)
    Trainer(other).fit(is_resumed=False)
    assert metrics(tmp_path / "other") != metrics(finished)


def test_train_resumed_run_equals_uninterrupted_run(
    finished: Path, options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    trainer = Trainer(replace(options, out=str(run)))
    one_step = trainer.one_step

    def stop_at_two(*args: Any) -> dict[str, float]:
        if trainer.step == 2:
            raise KeyboardInterrupt
        return one_step(*args)

    monkeypatch.setattr(trainer, "one_step", stop_at_two)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(is_resumed=False)
    assert not (run / "checkpoint").exists()
    Trainer(replace(options, out=str(run))).fit(is_resumed=True)
    assert metrics(run) == metrics(finished)
    for name, tensor in load_checkpoint(run / "checkpoint").state_dict().items():
        expected = load_checkpoint(finished / "checkpoint").state_dict()[name]
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=0)


def test_train_resume_without_checkpoint_is_bad_argument(
    options: TrainOptions, tmp_path: Path
) -> None:
    with pytest.raises(errors.BadArgument):
        Trainer(replace(options, out=str(tmp_path / "empty"))).fit(is_resumed=True)


def test_train_starts_from_a_checkpoint(
    finished: Path, options: TrainOptions, tmp_path: Path
) -> None:
    more = replace(options, out=str(tmp_path), start_from=str(finished / "checkpoint"), steps=1)
    trainer = Trainer(more)
    expected = load_checkpoint(finished / "checkpoint").state_dict()
    for name, tensor in trainer.bare_model().state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_train_blend_saves_weights_between_the_first_and_the_last(
    finished: Path, options: TrainOptions, tmp_path: Path
) -> None:
    start = finished / "checkpoint"
    saved = []
    for blend in (1.0, 0.25):
        out = tmp_path / str(blend)
        run = replace(options, out=str(out), start_from=str(start), steps=2, blend=blend)
        Trainer(run).fit(is_resumed=False)
        saved.append(load_checkpoint(out / "checkpoint").state_dict())
    learned, blended = saved
    n_moved = 0
    for name, first in load_checkpoint(start).state_dict().items():
        torch.testing.assert_close(blended[name], first + 0.25 * (learned[name] - first))
        n_moved += not torch.equal(blended[name], first)
    assert n_moved > 10


def test_train_command_trains_from_a_file(options: TrainOptions, tmp_path: Path) -> None:
    path = write_options(tmp_path / "run.yaml", options, out=str(tmp_path / "run"), steps=2)
    result = CliRunner().invoke(main, ["train", "--config", str(path)], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout == f"checkpoint: {tmp_path / 'run' / 'checkpoint'}\n"
    assert "held-out records" in result.stderr
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoint").iterdir()) == sorted(FILES)


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 4},
        {"steps": "four"},
        {"steps": 0},
        {"steps": -1},
        {"batches": 0},
        {"families_per_batch": 0},
        {"families_per_batch": 65},
        {"family_size": 0},
        {"validation_batches": 0},
        {"checkpoint_every": 0},
        {"validate_every": 0},
        {"learning_rate": float("nan")},
        {"learning_rate": -1.0},
        {"dropout": 1.0},
        {"blend": 0.0},
        {"blend": 0.5, "lora_rank": 4},
        {"blend": 0.5, "fsdp": True},
        {"label_smoothing": 0.5},
        {"fit_rows": 1},
        {"attention": "sparse"},
        {"precision": "fp8"},
        {"sources": "rbr"},
        {"sources": []},
        {"sources": ["no-such-source"]},
        {"sources": ["nolicence-made"]},
        {"mixture": {}},
        {"mixture": {"categorised": 0.0}},
        {"mixture": {"categorised": -1.0, "ruled": 2.0}},
        {"mixture": {"categorised": "much"}},
        {"mixture": {"categorised": float("nan")}},
        {"mixture": {"made-up": 1.0}},
        {"data": "no-such-folder"},
    ],
    ids=str,
)
def test_train_bad_option_is_refused_with_a_typed_error(
    options: TrainOptions, folder: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    nolicence = folder / "data" / "train" / "nolicence-made.jsonl.gz"
    nolicence.write_bytes((folder / "data" / "train" / "made-harms.jsonl.gz").read_bytes())
    path = write_options(tmp_path / "run.yaml", options, out=str(tmp_path / "run"), **changes)
    with pytest.raises(errors.BadArgument):
        train_from_file(path)
    assert not (tmp_path / "run").exists()
    result = CliRunner().invoke(main, ["train", "--config", str(path)])
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize("text", ["[a, b]", "steps: [", "steps: 1\nsteps: ]", "\x00", "a"])
def test_train_options_that_are_no_mapping_are_bad_argument(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(errors.BadArgument):
        load_options(path)


def test_train_kind_without_records_is_bad_argument(options: TrainOptions, tmp_path: Path) -> None:
    for kind, source in (
        ("categorised", "made-rules"),
        ("ruled", "made-harms"),
        ("policy", "made-harms"),
        ("preference", "made-harms"),
    ):
        with pytest.raises(errors.BadArgument, match=kind):
            Trainer(replace(options, sources=(source,), mixture={kind: 1.0}, out=str(tmp_path)))


def dataset(
    options: TrainOptions, corpora: tuple[DataFolder, Corpus, Corpus], seed: int = 1
) -> FamilyDataset:
    data, train, _ = corpora
    return FamilyDataset(train, data, tiny.renderer(), options, 40, seed)


def test_families_are_a_pure_function_of_seed_and_index(
    options: TrainOptions, corpora: tuple[DataFolder, Corpus, Corpus]
) -> None:
    first, second = dataset(options, corpora), dataset(options, corpora)
    families = [first.family(i) for i in range(30)]
    for i in reversed(range(30)):
        assert second.family(i) == families[i]
    other = dataset(options, corpora, seed=2)
    assert [other.family(i) for i in range(30)] != families
    assert len({str(family) for family in families}) > 20


def test_families_of_one_batch_keep_their_pairs(
    options: TrainOptions, corpora: tuple[DataFolder, Corpus, Corpus]
) -> None:
    several = dataset(replace(options, families_per_batch=4, mixture={"policy": 1.0}), corpora)
    for i in range(5):
        batch = several.family(i)
        assert len(batch.pairs) > 3
        assert len(set(batch.pairs)) == len(batch.pairs)
        for better, worse in batch.pairs:
            assert batch.examples[better].target > batch.examples[worse].target
            assert batch.examples[better].turns == batch.examples[worse].turns


def test_families_of_every_kind_have_sound_targets_and_pairs(
    options: TrainOptions, corpora: tuple[DataFolder, Corpus, Corpus]
) -> None:
    for kind in (*MIXTURE, "procedure"):
        one_kind = dataset(replace(options, mixture={kind: 1.0}), corpora)
        n_pairs = 0
        for i in range(10):
            family = one_kind.family(i)
            assert family.examples
            for better, worse in family.pairs:
                n_pairs += 1
                assert better != worse
                assert family.examples[better].target > family.examples[worse].target
        assert n_pairs


def test_families_with_fit_rows_fit_one_row(
    options: TrainOptions, corpora: tuple[DataFolder, Corpus, Corpus]
) -> None:
    fitting = dataset(replace(options, fit_rows=True), corpora)
    whole = dataset(options, corpora)
    n_left_out = 0
    for i in range(20):
        family = fitting.family(i)
        n_left_out += len(whole.family(i).examples) - len(family.examples)
        for example in family.examples:
            blocks = [b for rule in example.rules for b in fitting.builder.rule_blocks(rule)]
            blocks += fitting.builder.turn_blocks(example.turns)
            assert sum(len(ids) for ids, _ in blocks) <= 512
        assert all(max(pair) < len(family.examples) for pair in family.pairs)
    assert n_left_out > 0, "every family fits anyway, so nothing was tested"


def test_contrasts_pair_other_conversations_under_one_config(
    options: TrainOptions, corpora: tuple[DataFolder, Corpus, Corpus]
) -> None:
    plain = dataset(replace(options, contrasts=False), corpora)
    contrasted = dataset(replace(options, contrasts=True), corpora)
    n_added = 0
    for i in range(20):
        family, more = plain.family(i), contrasted.family(i)
        assert more.examples == family.examples
        added = more.pairs[len(family.pairs) :]
        assert more.pairs[: len(family.pairs)] == family.pairs
        for better, worse in added:
            assert more.examples[better].rules == more.examples[worse].rules
            assert more.examples[better].target > 0.5 > more.examples[worse].target
            assert min(more.examples[better].weight, more.examples[worse].weight) > 0
        n_added += len(added)
    assert n_added > 20


def sets_in_words(rules: Sequence[RuleText], wording: Wording) -> CategoryConfig:
    """What the texts of a composed config say, read back from the wording."""
    texts = {text for _, text in rules}
    categories = wording.categories.items()
    return CategoryConfig(
        tuple(rules),
        frozenset(n for n, w in categories if texts & {*w.forbid, *w.framed_forbid}),
        frozenset(n for n, w in categories if texts & {*w.allow, *w.framed_allow}),
        bool(texts & set(wording.forbid_all)),
    )


def test_composed_labels_obey_what_the_rules_say(
    corpora: tuple[DataFolder, Corpus, Corpus],
) -> None:
    import random

    data, train, _ = corpora
    composer = CategorisedComposer(train, data.taxonomy, load_wording())
    harms = {row.turns: row.harms for row in train.labelled}
    n_judged = {True: 0, False: 0}
    n_refused = n_slipped = 0
    for seed in range(40):
        family: Family = composer.family(random.Random(seed), 20)
        for example in family.examples:
            reply = example.turns[-1][1]
            if reply in composer.wording.refusals:
                assert example.target == 1.0
                n_refused += 1
                continue
            turns = without_slip(example.turns, composer.wording)
            n_slipped += turns != example.turns
            config = sets_in_words(example.rules, composer.wording)
            violates = config.judge(harms[turns], composer.labels)
            assert violates is not None
            assert example.target == (0.0 if violates else 1.0)
            if harms[turns]:
                n_judged[violates] += 1
        for better, worse in family.pairs:
            assert family.examples[better].target > family.examples[worse].target
            assert family.examples[better].turns[:-1] == family.examples[worse].turns[:-1]
    assert min(n_judged.values()) > 50, "both labels must occur for harmful conversations"
    assert n_refused > n_slipped > 5


def without_slip(turns: tuple[Turn, ...], wording: Wording) -> tuple[Turn, ...]:
    """`turns` before a slip was put in front of the reply."""
    role, reply = turns[-1]
    slip = next((text for text in wording.slips if reply.startswith(text)), "")
    return (*turns[:-1], (role, reply.removeprefix(slip).lstrip()))


def test_composed_config_of_all_and_of_none_say_so(
    corpora: tuple[DataFolder, Corpus, Corpus],
) -> None:
    import random

    composer = CategorisedComposer(corpora[1], corpora[0].taxonomy, load_wording())
    for seed in range(30):
        rng = random.Random(seed)
        everything = sets_in_words(composer.config_of_all(rng, 1.0).rules, composer.wording)
        nothing = sets_in_words(composer.config_of_none(rng, 1.0).rules, composer.wording)
        for category in composer.wording.categories:
            assert everything.judge([category], composer.labels) is True
            assert nothing.judge([category], composer.labels) is False


@pytest.mark.parametrize(
    ("forbidden", "allowed", "forbids_rest", "harms", "violates"),
    [
        ({"violence"}, set(), False, ["violence"], True),
        ({"violence"}, set(), False, ["privacy"], False),
        ({"violence"}, set(), False, ["privacy", "violence"], True),
        ({"violence"}, set(), True, ["privacy"], True),
        ({"violence"}, {"privacy"}, True, ["privacy"], False),
        ({"violence"}, {"privacy"}, False, [], False),
        (set(), set(), True, [], False),
        ({"violence"}, set(), False, ["violent_extremism"], None),  # the meanings overlap
        ({"violence"}, {"violent_extremism"}, False, ["violent_extremism"], False),
    ],
)
def test_category_config_judges_by_forbidden_and_allowed(
    corpora: tuple[DataFolder, Corpus, Corpus],
    forbidden: set[str],
    allowed: set[str],
    forbids_rest: bool,
    harms: list[str],
    violates: bool | None,
) -> None:
    composer = CategorisedComposer(corpora[1], corpora[0].taxonomy, load_wording())
    config = CategoryConfig((), frozenset(forbidden), frozenset(allowed), forbids_rest)
    assert config.judge(harms, composer.labels) is violates


FAMILY_DIGEST = """
import hashlib, random
from csrm.train.compose import CategorisedComposer
from csrm.train.corpus import Corpus, Labelled
from csrm.train.dialogues import DialogueComposer
from csrm.train.wording import load_wording

wording = load_wording()
rows = [
    Labelled("made-harms", (("user", f"{category} {i}"),), (category,), (category,))
    for category in wording.categories
    for i in range(12)
]
composers = (
    CategorisedComposer(Corpus(labelled=rows), {}, wording),
    DialogueComposer(wording),
)
digest = hashlib.sha256()
for seed in range(40):
    for composer in composers:
        digest.update(repr(composer.family(random.Random(seed), 14)).encode())
print(digest.hexdigest())
"""


def test_families_in_processes_with_other_string_hashes_are_equal() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", FAMILY_DIGEST],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(digests) == 1
