"""Evaluates an artifact on record files: figures with intervals, baselines, config sensitivity.

Reads records, has every case of `csrm.train.evaluation_sets` scored, and hands labels and
P(violation) to `csrm.train.metrics`; `csrm.train.evaluation_report` prints and plots the result. It
trains and calibrates nothing. A case whose scoring fails is unknown: counted, and left out of every
figure.

Beside the model, each file is measured for: `all_compliant` and `all_violation` (no model);
`empty_config` (the same model, every configuration replaced by one rule that says that no rules
apply) and `shuffled_config` (another record's configuration, seeded), which show what the
conversation alone gives away; and `last_turn` where every agent turn is judged (the last one only).
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from rich.console import Console

import csrm
from csrm.errors import BadArgument, Error
from csrm.progress_bar import Advance, progress_bar
from csrm.train import evaluation_report as report
from csrm.train import metrics
from csrm.train.evaluation_page import write_page
from csrm.train.evaluation_sets import Case, CaseComposer, EvaluationSet, Rule
from csrm.train.published import files_of, read_published
from csrm.train.records import SUFFIXES, DataFolder, Turn, read_records
from csrm.train.wording import load_wording

SCHEMA_VERSION = 1
EMPTY_CONFIG: tuple[Rule, ...] = (("", "No rules apply."),)
SENSITIVITY_GROUPS = ("forbid", "omit", "allow")
_BATCH = 64

Judge: TypeAlias = Literal["last", "assistant"]


class TurnScoreLike(Protocol):
    """One judged turn of a `ScoreLike`."""

    @property
    def compliance(self) -> float:
        """Calibrated probability in [0, 1] that the turn complies."""


class ScoreLike(Protocol):
    """What is read of a `csrm.Score`."""

    @property
    def reward(self) -> float:
        """Log-odds that the judged turns comply."""

    @property
    def compliance(self) -> float:
        """Calibrated probability in [0, 1] of that reward."""

    @property
    def turns(self) -> Sequence[TurnScoreLike]:
        """Every judged turn, in order."""


class RuleScorer(Protocol):
    """Scores conversations under one configuration given as (name, text) rules."""

    def score_rules(
        self,
        rules: Sequence[Rule],
        conversations: Sequence[Sequence[Turn]],
        judged: Judge,
    ) -> Sequence[ScoreLike | Error]:
        """A score or the typed error of each conversation, in order."""
        ...


class ArtifactScorer:
    """A `RuleScorer` on a model folder (None: the shipped default)."""

    def __init__(self, artifact: str | Path | None) -> None:
        self._scorer = csrm.load(artifact)

    def score_rules(
        self, rules: Sequence[Rule], conversations: Sequence[Sequence[Turn]], judged: Judge
    ) -> Sequence[ScoreLike | Error]:
        """See `RuleScorer`. Errors: those of the whole call (configuration, engine) are raised."""
        return self._scorer.score_batch(
            csrm.SafetyConfig.from_rules(list(rules)),
            [[{"role": r, "content": c} for r, c in turns] for turns in conversations],
            judged=judged,
            errors="return",
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """Reward (log-odds of compliance) and P(violation) of a case, and of its last judged turn."""

    reward: float
    p: float
    last_p: float


@dataclass(frozen=True, slots=True)
class Draws:
    """What every random draw depends on: its seed and how many resamples an interval takes."""

    seed: int = 0
    resamples: int = metrics.RESAMPLES


Outcomes: TypeAlias = list[Outcome | Error]
Labelled: TypeAlias = list[tuple[Case, float]]
"""Cases with a label and a score, and their P(violation)."""


def evaluate_files(
    paths: Sequence[str | Path],
    artifact: str | Path | None = None,
    json_path: str | Path | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    published: str | None = None,
    html_path: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Figures of `artifact` (None: the shipped one) on record files; prints them as tables.

    `limit` keeps that many records of each file, drawn by their ids. `json_path`: writes the result
    there, and reliability diagrams and sensitivity bars as PNG beside it. `html_path`: the same as
    one self-contained page. `published`: the files are of that set, in its original format
    (csrm.train.published). `progress`: a bar on stderr when a person watches. Taxonomy and
    rulebooks are taken from the folder above the file, or the file's own. Errors: BadArgument for
    an unusable path or file, BadConversation for a damaged record, and whatever `csrm.load` raises.
    The result is JSON-ready; NaN is None.
    """
    result = evaluate_with(
        ArtifactScorer(artifact),
        paths,
        limit=limit,
        seed=seed,
        published=published,
        progress=progress,
    )
    result["artifact"] = "default" if artifact is None else Path(artifact).name
    report.print_tables(result, Console())
    if json_path is not None:
        report.write(result, Path(json_path))
    if html_path is not None:
        write_page(result, Path(html_path))
    return result


def evaluate_with(
    scorer: RuleScorer,
    paths: Sequence[str | Path],
    *,
    limit: int | None = None,
    seed: int = 0,
    resamples: int = metrics.RESAMPLES,
    published: str | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """The result of `evaluate_files` for any scorer; prints and writes nothing but the bar.

    `resamples`: bootstrap draws behind each interval.
    """
    if not paths:
        raise BadArgument("no record files given; name at least one .jsonl or .jsonl.gz file")
    if limit is not None and limit < 1:
        raise BadArgument(f"limit is {limit}; give at least 1, or none for all records")
    sets = [
        (Path(path), read_cases(Path(path), limit=limit, seed=seed, published=published))
        for path in paths
    ]
    files = []
    draws = Draws(seed, resamples)
    for path, cases in sets:
        with progress_bar(path.name, 3 * len(cases.cases), is_shown=progress) as advance:
            files.append({"file": stem(path), **evaluate_set(scorer, cases, draws, advance)})
    result = {
        "schema_version": SCHEMA_VERSION,
        "seed": seed,
        "limit": limit,
        "set": published,
        "data": {name: sha256_of(file) for name, file in named_files(paths, published)},
        "files": files,
    }
    return {key: report.without_nan(value) for key, value in result.items()}


def read_cases(
    path: Path, *, limit: int | None = None, seed: int = 0, published: str | None = None
) -> EvaluationSet:
    """The cases of one record file, with the taxonomy and rulebooks of its data folder if any."""
    homes = [p for p in path.resolve().parents[:2] if (p / "taxonomy.json").is_file()]
    folder = DataFolder(homes[0]) if homes else None
    has_books = folder is not None and (folder.path / "rulebooks.json").is_file()
    composer = CaseComposer(
        load_wording(),
        folder.taxonomy if folder is not None else {},
        folder.rulebooks if folder is not None and has_books else {},
        seed,
    )
    records = read_records(path) if published is None else read_published(path, published)
    return composer.compose(records, limit)


def evaluate_set(
    scorer: RuleScorer, cases: EvaluationSet, draws: Draws, advance: Advance
) -> dict[str, Any]:
    """The figures of one file; `advance` is told how many cases have been scored."""
    rows = cases.cases
    other = shuffled_configs(rows, draws.seed)
    runs = {
        "model": score_cases(scorer, rows, [case.rules for case in rows], advance),
        "empty_config": score_cases(scorer, rows, [EMPTY_CONFIG] * len(rows), advance),
        "shuffled_config": score_cases(scorer, rows, other, advance),
    }
    errors = {
        name: dict(Counter(type(o).__name__ for o in run if isinstance(o, Error)))
        for name, run in runs.items()
    }
    return {
        "n_records": cases.n_records,
        "n_skipped": cases.n_skipped,
        "n_cases": len(rows),
        "n_unknown": {name: sum(kinds.values()) for name, kinds in errors.items()},
        "errors": errors,
        **_classification(rows, runs, draws),
        "pairs": _pairs(rows, runs, draws),
        "sensitivity": _sensitivity(rows, runs["model"], draws),
    }


def score_cases(
    scorer: RuleScorer,
    cases: Sequence[Case],
    configs: Sequence[tuple[Rule, ...]],
    advance: Advance,
) -> Outcomes:
    """The outcome of each case under its entry of `configs`; equal requests are scored once."""
    waiting: dict[tuple[tuple[Rule, ...], Judge], dict[tuple[Turn, ...], list[int]]] = {}
    for index, (case, rules) in enumerate(zip(cases, configs, strict=True)):
        asked = waiting.setdefault((rules, case.judged), {})
        asked.setdefault(case.conversation, []).append(index)
    outcomes: dict[int, Outcome | Error] = {}
    for (rules, judged), asked in waiting.items():
        conversations = list(asked)
        for start in range(0, len(conversations), _BATCH):
            batch = conversations[start : start + _BATCH]
            for turns, outcome in zip(batch, _score(scorer, rules, batch, judged), strict=True):
                outcomes.update(dict.fromkeys(asked[turns], outcome))
            advance(sum(len(asked[turns]) for turns in batch))
    return [outcomes[index] for index in range(len(cases))]


def shuffled_configs(cases: Sequence[Case], seed: int) -> list[tuple[Rule, ...]]:
    """For each case the configuration of a case of another record; a pair gets the same one."""
    shuffled = []
    for case in cases:
        key = case.record if case.violation is None else case.id
        rng = random.Random(hashlib.sha256(f"{seed}\0shuffle\0{key}".encode()).digest())
        drawn = rng.sample(cases, min(len(cases), 50))
        others = (row.rules for row in drawn if row.record != case.record)
        shuffled.append(next(others, case.rules))
    return shuffled


def _score(
    scorer: RuleScorer, rules: tuple[Rule, ...], batch: Sequence[tuple[Turn, ...]], judged: Judge
) -> Outcomes:
    try:
        scores = scorer.score_rules(rules, batch, judged)
    except Error as error:  # of the configuration: it fails for every conversation
        return [error] * len(batch)
    return [
        score
        if isinstance(score, Error)
        else Outcome(
            reward=score.reward,
            p=1.0 - score.compliance,
            last_p=1.0 - (score.turns[-1] if score.turns else score).compliance,
        )
        for score in scores
    ]


def _classification(
    cases: Sequence[Case], runs: dict[str, Outcomes], draws: Draws
) -> dict[str, Any]:
    """Figures per system over all labelled cases, and of the model per type of configuration."""
    scored = {
        name: [
            (case, outcome)
            for case, outcome in zip(cases, run, strict=True)
            if case.violation is not None and isinstance(outcome, Outcome)
        ]
        for name, run in runs.items()
    }
    if not any(case.violation is not None for case in cases):
        return {"systems": {}, "groups": {}, "reliability": None}
    rows: dict[str, Labelled] = {n: [(c, o.p) for c, o in run] for n, run in scored.items()}
    model = rows["model"]
    if any(case.judged == "assistant" for case, _ in model):
        rows["last_turn"] = [(case, outcome.last_p) for case, outcome in scored["model"]]
    rows["all_compliant"] = [(case, 0.0) for case, _ in model]
    rows["all_violation"] = [(case, 1.0) for case, _ in model]
    groups = sorted({case.group for case in cases})
    bins = metrics.reliability_bins([bool(c.violation) for c, _ in model], [p for _, p in model])
    return {
        "systems": {name: _measure(row, draws) for name, row in rows.items()},
        "groups": {g: _measure([row for row in model if row[0].group == g], draws) for g in groups},
        "reliability": {"predicted": bins.predicted.tolist(), "observed": bins.observed.tolist()},
    }


def _measure(rows: Labelled, draws: Draws) -> dict[str, Any]:
    return asdict(
        metrics.measure(
            [bool(case.violation) for case, _ in rows],
            [p for _, p in rows],
            clusters=[case.record for case, _ in rows],
            resamples=draws.resamples,
            seed=draws.seed,
        )
    )


def _pairs(cases: Sequence[Case], runs: dict[str, Outcomes], draws: Draws) -> dict[str, Any]:
    """Per system, how the chosen replies fare against the rejected ones."""
    found: dict[str, Any] = {}
    for name, run in runs.items():
        rewards = {
            (case.record, case.group): outcome.reward
            for case, outcome in zip(cases, run, strict=True)
            if case.violation is None and isinstance(outcome, Outcome)
        }
        both = [r for r, group in rewards if group == "chosen" and (r, "rejected") in rewards]
        if both:
            found[name] = asdict(
                metrics.measure_pairs(
                    [rewards[record, "chosen"] for record in both],
                    [rewards[record, "rejected"] for record in both],
                    resamples=draws.resamples,
                    seed=draws.seed,
                )
            )
    return found


def _sensitivity(cases: Sequence[Case], run: Outcomes, draws: Draws) -> dict[str, Any]:
    """Unsafe rates of unsafe and safe rows when their categories are forbidden, omitted, allowed.

    Only records scored under all three configurations count, so that the rates compare.
    """
    flagged: dict[str, dict[str, bool]] = {}
    unsafe = {case.record for case in cases if case.group == "forbid" and case.violation}
    for case, outcome in zip(cases, run, strict=True):
        if case.group in SENSITIVITY_GROUPS and isinstance(outcome, Outcome):
            flagged.setdefault(case.record, {})[case.group] = outcome.p > metrics.THRESHOLD
    table: dict[str, Any] = {}
    for kind, is_unsafe in (("unsafe", True), ("safe", False)):
        rows = [
            by_group
            for record, by_group in flagged.items()
            if len(by_group) == len(SENSITIVITY_GROUPS) and (record in unsafe) == is_unsafe
        ]
        if rows:
            table[kind] = {"n": len(rows)}
            for group in SENSITIVITY_GROUPS:
                rate = metrics.mean_interval(
                    [row[group] for row in rows], resamples=draws.resamples, seed=draws.seed
                )
                table[kind][group] = asdict(rate)
    return table


def sha256_of(path: Path) -> str:
    """The digest of a file, so that a result names the data it is of."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def named_files(paths: Sequence[str | Path], published: str | None) -> Iterator[tuple[str, Path]]:
    """The files that a run reads; one in a folder is named with it."""
    for path in map(Path, paths):
        for file in files_of(path, published):
            yield (file.name if file == path else f"{path.name}/{file.name}"), file


def stem(path: Path) -> str:
    """The name of a record file without its suffixes."""
    suffix = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(s)), "")
    return path.name.removesuffix(suffix)
