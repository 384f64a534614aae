"""Guidelines by severity, the dominance test, and families of strictness."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("torch")

from csrm.errors import BadArgument
from csrm.train.augment.__main__ import rated as rated_rows
from csrm.train.augment.dominance import (
    dominance,
    draw_pool,
    find_pairs,
    load_pairs,
    monotonicity,
    write_report,
)
from csrm.train.augment.judges import LabelJudge
from csrm.train.augment.severity import STYLES, check_scales, guideline, load_scales, violates
from csrm.train.augment.strictness import StrictnessComposer
from csrm.train.compose import CategorisedComposer
from csrm.train.corpus import Corpus
from csrm.train.records import Category, DataFolder, Origin, Severity
from csrm.train.wording import load_wording

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SCALES = load_scales()
TAXONOMY = {
    "hate_offensive": Category("hate_offensive", "both", "both", ("hate", "profanity")),
}
HARMS = {
    "convabuse": "harassment",
    "davidson": "hate_offensive",
    "pyrit/violence": "violence",
}
DIGEST = """
import hashlib, random, sys
sys.path.insert(0, sys.argv[1])
from test_strictness import composer_of, rows_of
rng, composer = random.Random(3), composer_of(rows_of(70))
print(hashlib.sha256(repr([composer.family(rng, 14) for _ in range(20)]).encode()).hexdigest())
"""


def rated(scale: str, raters: tuple[float, ...], number: int = 0) -> Severity:
    name = f"{scale}-{raters}-{number}"
    origin = Origin(name, scale, "MIT", "human", "last_user")
    mean = round(sum(raters) / len(raters), 4)
    return Severity(origin, (("user", name),), mean, raters, scale, HARMS.get(scale, "hate"))


def rows_of(n: int) -> list[Severity]:
    """`n` rows at every level of three scales, by three raters who agree."""
    return [
        rated(scale, (level,) * 3, number)
        for scale in HARMS
        for level, _ in SCALES[scale].levels
        for number in range(n)
    ]


def composer_of(rows: list[Severity], pairs=None) -> StrictnessComposer:
    categorised = CategorisedComposer(Corpus(), TAXONOMY, load_wording())
    return StrictnessComposer(Corpus(rated=rows), categorised, pairs)


class FixedJudge:
    """Breaks the guidelines of a table: k -> set of row numbers."""

    def __init__(self, table):
        self.table = table

    def unsafe(self, guide, rows):
        return [i in self.table[guide.k] for i in range(len(rows))]


@pytest.mark.parametrize("name", SCALES)
def test_guideline_every_style_and_k_places_each_level_once(name):
    scale = SCALES[name]
    for style, k in itertools.product(range(len(STYLES)), range(1, scale.strictest + 1)):
        text = guideline(scale, style, k).rule[1]
        assert [text.count(level) for _, level in scale.levels] == [1] * len(scale.levels)
        # All forbidden levels on one side of all allowed ones, the worst of either first.
        order = [i for _, i in sorted((text.index(t), i) for i, (_, t) in enumerate(scale.levels))]
        n = len(scale.levels)
        forbidden, allowed = list(range(n - 1, n - k - 1, -1)), list(range(n - k - 1, -1, -1))
        assert order in (forbidden + allowed, allowed + forbidden)


def test_guideline_texts_are_distinct():
    texts = [
        guideline(scale, style, k).rule
        for scale in SCALES.values()
        for style in range(len(STYLES))
        for k in range(1, scale.strictest + 1)
    ]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(("style", "k"), [(-1, 1), (len(STYLES), 1), (0, 0), (0, 5)])
def test_guideline_out_of_range_raises(style, k):
    with pytest.raises(BadArgument):
        guideline(SCALES["convabuse"], style, k)


def test_violates_agreed_level_follows_the_guideline():
    for scale in SCALES.values():
        for k, (place, (level, _)) in itertools.product(
            range(1, scale.strictest + 1), enumerate(scale.levels)
        ):
            row = rated(scale.name, (level,))
            assert violates(guideline(scale, 0, k), row) is (place >= len(scale.levels) - k)


def test_violates_every_rating_of_three_is_monotone_in_k():
    scale = SCALES["convabuse"]
    rank = {False: 0, None: 1, True: 2}
    seen = Counter()
    for raters in itertools.product([level for level, _ in scale.levels], repeat=3):
        row = rated(scale.name, raters)
        labels = [violates(guideline(scale, 0, k), row) for k in range(1, scale.strictest + 1)]
        assert sorted(labels, key=rank.__getitem__) == labels
        seen.update(labels)
    assert min(seen[label] for label in rank) >= 48


def test_violates_split_raters_is_open():
    guide = guideline(SCALES["davidson"], 0, 1)
    assert violates(guide, rated("davidson", (1.0, 0.5))) is None
    assert violates(guide, rated("davidson", (1.0, 1.0, 0.5))) is True


def test_check_scales_other_levels_raise():
    published = {name: scale.levels for name, scale in SCALES.items()}
    check_scales(SCALES, published)
    with pytest.raises(BadArgument, match="convabuse"):
        check_scales(SCALES, {**published, "convabuse": ((0.0, "a"), (1.0, "b"))})


def test_dominance_open_labels_are_left_out():
    strict, lenient = [True, False, None, True, None], [True, True, True, None, False]
    assert dominance(strict, lenient)[:2] == (2, 1)


@pytest.mark.parametrize(
    ("n", "misses", "is_kept"), [(58, 0, False), (59, 0, True), (100, 1, True), (100, 2, False)]
)
def test_find_pairs_counts_decide_what_is_kept(n, misses, is_kept):
    scale = SCALES["davidson"]
    judge = FixedJudge({1: set(range(n)), 2: set(range(misses, 200))})
    rows = [rated("davidson", (1.0,), number) for number in range(200)]
    report = find_pairs(rows, {"davidson": scale}, judge)
    assert len(report.candidates) == len(STYLES)
    for candidate in report.candidates:
        assert (candidate.n, candidate.n_both) == (n, n - misses)
        assert candidate.is_kept is is_kept
    assert len(report.kept) == (len(STYLES) if is_kept else 0)


def test_find_pairs_reversed_order_is_dropped_and_not_monotone():
    judge = FixedJudge({1: set(range(150)), 2: set(range(60))})
    rows = [rated("davidson", (1.0,), number) for number in range(200)]
    report = find_pairs(rows, {"davidson": SCALES["davidson"]}, judge)
    assert monotonicity(report.candidates) == (0, len(STYLES))
    assert report.kept == ()


def test_find_pairs_label_judge_keeps_what_has_59_rows(tmp_path):
    scales = {name: SCALES[name] for name in HARMS}
    assert find_pairs(rows_of(58), scales, LabelJudge(), pool=58).kept == ()
    report = find_pairs(rows_of(59), scales, LabelJudge(), pool=1000)
    assert len(report.kept) == len(report.candidates) == len(STYLES) * (6 + 1 + 6)
    rising, adjacent = monotonicity(report.kept)
    assert rising == adjacent == len(STYLES) * (3 + 1 + 3)
    write_report(report, tmp_path / "new")
    content = json.loads((tmp_path / "new" / "strictness.json").read_text())
    assert content["adjacent_rising_after"] == [rising, adjacent]
    table = (tmp_path / "new" / "strictness.md").read_text()
    assert f"| all | {59 * (4 + 2 + 4)} | 65 | 65 | 35 of 35 | 35 of 35 |" in table
    pairs = json.loads((tmp_path / "new" / "strictness_pairs.json").read_text())
    assert [tuple(pair) for pair in pairs] == [
        (c.scale, c.style, c.strict, c.lenient) for c in report.kept
    ]


@pytest.mark.parametrize("numbers", [{"pool": 0}, {"alpha": 0.0}, {"bound": 1.0}])
def test_find_pairs_bad_number_raises(numbers):
    with pytest.raises(BadArgument):
        find_pairs([], SCALES, LabelJudge(), **numbers)


def test_draw_pool_is_even_over_levels_and_harmless_rows_stay_out():
    rows = rows_of(9) + [rated("convabuse", (0.5,) * 3, 100 + n) for n in range(50)]
    scale = SCALES["convabuse"]
    pool = draw_pool([row for row in rows if row.scale == scale.name], scale, 32)
    assert Counter(row.severity for row in pool) == {0.25: 8, 0.5: 8, 0.75: 8, 1.0: 8}
    backwards = [row for row in reversed(rows) if row.scale == scale.name]
    assert draw_pool(backwards, scale, 32) == pool


def test_load_pairs_names_guidelines_that_exist():
    assert load_pairs()
    for scale, style, strict, lenient in load_pairs():
        assert 1 <= lenient < strict <= SCALES[scale].strictest
        assert 0 <= style < len(STYLES)


@pytest.mark.skipif(not DATA.is_dir(), reason="the data folder shared/data is not beside the repo")
def test_load_pairs_are_those_of_the_ratings_on_the_training_split():
    data = DataFolder(DATA)
    check_scales(SCALES, data.severity_scales)
    report = find_pairs(rated_rows(data), SCALES, LabelJudge())
    assert {(c.scale, c.style, c.strict, c.lenient) for c in report.kept} == load_pairs()


def guides_of(example, scale_names=tuple(HARMS)):
    """The guidelines in a config."""
    every = {
        guideline(SCALES[name], style, k).rule: guideline(SCALES[name], style, k)
        for name in scale_names
        for style in range(len(STYLES))
        for k in range(1, SCALES[name].strictest + 1)
    }
    return [every[rule] for rule in example.rules if rule in every]


def test_family_targets_pairs_and_configs_agree_with_the_ratings():
    rows = {row.conversation: row for row in rows_of(20)}
    composer, rng = composer_of(list(rows.values())), random.Random(1)
    n_pairs = 0
    for _ in range(200):
        family = composer.family(rng, 14, rng.choice((0.2, 1.0)))
        for example in family.examples:
            (guide,) = guides_of(example)
            row = rows[example.turns]
            assert guide.scale == row.scale
            assert example.weight == 0 or violates(guide, row) is (example.target == 0)
        for better, worse in family.pairs:
            n_pairs += 1
            lenient, strict = family.examples[better], family.examples[worse]
            assert lenient.turns == strict.turns
            assert [a == b for a, b in zip(lenient.rules, strict.rules, strict=True)].count(
                False
            ) == 1
            (a,), (b,) = guides_of(strict), guides_of(lenient)
            assert (a.scale, a.style, a.k, b.k) in load_pairs()
        assert 4 <= len(family.examples) <= 20
    assert n_pairs > 100


def test_family_unsettled_rows_make_pairs_without_targets():
    unsettled = [rated("davidson", (1.0, 0.5), 900 + n) for n in range(20)]
    turns = {row.conversation for row in unsettled}
    composer, rng = composer_of(rows_of(20) + unsettled), random.Random(1)
    n_seen = 0
    for family in (composer.family(rng, 16) for _ in range(100)):
        places = [i for i, example in enumerate(family.examples) if example.turns in turns]
        n_seen += len(places)
        assert all(family.examples[i].weight == 0 for i in places)
        assert set(places) <= {place for pair in family.pairs for place in pair}
    assert n_seen > 20


def test_family_dropped_pairs_make_no_pairs():
    composer, rng = composer_of(rows_of(20), pairs=()), random.Random(1)
    families = [composer.family(rng, 14) for _ in range(50)]
    assert not any(family.pairs for family in families)
    assert all(family.examples for family in families)


def test_family_labels_are_balanced_under_each_config():
    composer, rng = composer_of(rows_of(20)), random.Random(2)
    counts = Counter()
    for _ in range(300):
        for example in composer.family(rng, 16).examples:
            if example.weight:
                (guide,) = guides_of(example)
                counts[guide.scale, guide.k, example.target] += 1
    for scale in HARMS:
        n = [sum(v for (s, _, t), v in counts.items() if s == scale and t == x) for x in (0, 1)]
        assert 0.45 < n[0] / sum(n) < 0.55
        for k in range(1, SCALES[scale].strictest + 1):
            share = counts[scale, k, 0.0] / (counts[scale, k, 0.0] + counts[scale, k, 1.0])
            assert 0.35 < share < 0.65


def test_family_config_speaks_of_no_neighbour_of_the_harm():
    wording, composer, rng = load_wording(), composer_of(rows_of(5)), random.Random(4)
    labels = composer.categorised.labels
    owner = {
        text: name
        for name, category in wording.categories.items()
        for text in (*category.forbid, *category.allow)
    }
    for _ in range(200):
        for example in composer.family(rng, 14).examples:
            parts = labels.parts(HARMS[guides_of(example)[0].scale])
            around = {n for part in parts for n in labels.neighbours(part)} | set(parts)
            assert not {owner[text] for _, text in example.rules if text in owner} & around


def test_composer_without_rated_rows_has_no_scale():
    assert composer_of([]).scales == {}
    assert composer_of([rated("unknown", (1.0,))]).scales == {}


def test_family_other_hash_seeds_give_the_same_families():
    digests = set()
    for seed in ("0", "1", "77"):
        result = subprocess.run(
            [sys.executable, "-c", DIGEST, os.path.dirname(__file__)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(result.stdout)
    assert len(digests) == 1
