"""python -m csrm.train.ablation: trains the parts of the method apart, under one budget.

What it is: the ablation table. Every arm changes some options of one recipe and keeps the others,
its steps and its seed; each is trained, then measured on the same record files through PyTorch. An
arm that has its result is not trained again, so a stopped run goes on where it was. Not: a search
for the best recipe.

The arms `block` and `full` compare the attention rule: both see only examples that fit one row.
`distilled` is `both` with the recipe's teacher, which the other arms leave out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

from csrm.errors import BadArgument
from csrm.train.checkpoint_scorer import CheckpointScorer
from csrm.train.evaluate import evaluate_with
from csrm.train.options import TrainOptions, load_options
from csrm.train.trainer import Trainer

# Share of the families that an augmentation takes, out of those of categories and rulebooks.
SHARE = 0.25
FIGURES = ("f1_violation", "f1_compliant", "auprc", "smooth_ece")


def arm_options(name: str, base: TrainOptions) -> TrainOptions:
    """The options of an arm. Errors: BadArgument for an unknown name, or for no teacher."""
    if name == "distilled":
        if not base.teacher:
            raise BadArgument("the arm 'distilled' needs the training option 'teacher'")
        return replace(arm_options("both", base), teacher=base.teacher)
    base = replace(base, teacher="")
    plain = replace(base, mixture=augmented(base.mixture, ()), fit_rows=True)
    if name == "block":
        return replace(plain, attention="block")
    if name == "full":
        return replace(plain, attention="full")
    kinds = {"none": (), "sa": ("strictness",), "cca": ("cca",), "both": ("strictness", "cca")}
    if name not in kinds:
        raise BadArgument(
            f"unknown arm {name!r}; known: {', '.join(kinds)}, distilled, block, full"
        )
    return replace(base, mixture=augmented(base.mixture, kinds[name]))


def augmented(mixture: Mapping[str, float], kinds: Sequence[str]) -> dict[str, float]:
    """`mixture` with the augmentations `kinds` in place of a share of its composed families."""
    plain = {kind: w for kind, w in mixture.items() if kind not in ("strictness", "cca")}
    composed = [kind for kind in ("categorised", "ruled") if kind in plain]
    total = sum(plain[kind] for kind in composed)
    if not kinds:
        return plain
    if not total:
        raise BadArgument("the mixture has no composed families that an augmentation could replace")
    for kind in composed:
        plain[kind] *= 1 - SHARE
    return plain | {kind: SHARE * total / len(kinds) for kind in kinds}


def run_arm(
    name: str, seed: int, base: TrainOptions, files: Sequence[Path], limit: int | None
) -> dict[str, Any]:
    """The result of one arm and seed; trains it unless the result is there already."""
    out = Path(base.out) / f"{name}-{seed}"
    path = out / "result.json"
    options = replace(arm_options(name, base), seed=seed, out=str(out))
    facts = {"arm": name, "seed": seed, "limit": limit, "options": json_ready(asdict(options))}
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text())
        if {key: found.get(key) for key in facts} == facts:
            return found
        raise BadArgument(f"'{out.name}' holds a result of other options; name another folder")
    resumes = (out / "last" / "state.pt").is_file()
    Trainer(options).fit(is_resumed=resumes)
    scorer = CheckpointScorer(out / "checkpoint")
    evaluation = evaluate_with(scorer, files, limit=limit, progress=True)
    provenance = json.loads((out / "checkpoint" / "provenance.json").read_text())
    result = {**facts, "held_out": provenance["held_out"], "evaluation": evaluation}
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def json_ready(values: dict[str, Any]) -> dict[str, Any]:
    """`values` as they come back from JSON."""
    loaded: dict[str, Any] = json.loads(json.dumps(values))
    return loaded


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: per arm and file the mean over seeds with their range, or one seed's interval.

    Held-out families are left out: they are drawn by the arm's own mixture and differ.
    """
    rows = [
        "| arm | seeds | set | n (violations) | F1 violation | F1 compliant | AUPRC | smECE"
        " | unsafe when forbidden, omitted, allowed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in dict.fromkeys(result["arm"] for result in results):
        own = [result for result in results if result["arm"] == arm]
        for i, first in enumerate(own[0]["evaluation"]["files"]):
            files = [result["evaluation"]["files"][i] for result in own]
            measured = [file["systems"].get("model") for file in files]
            if not all(measured):
                continue
            cells = " | ".join(cell([m[figure] for m in measured]) for figure in FIGURES)
            counts = f"{measured[0]['n']} ({measured[0]['n_violation']})"
            rows.append(
                f"| {arm} | {len(own)} | {first['file']} | {counts} | {cells} | {gating(files)} |"
            )
    return "\n".join(rows) + "\n"


def gating(files: Sequence[Mapping[str, Any]]) -> str:
    """The unsafe rates of harmful conversations under the three kinds of config, mean of seeds."""
    rates = [file["sensitivity"]["unsafe"] for file in files if file.get("sensitivity")]
    if not rates:
        return "-"
    kinds = ("forbid", "omit", "allow")
    return ", ".join(f"{mean(rate[kind]['value'] for rate in rates):.2f}" for kind in kinds)


def cell(figures: Sequence[Any]) -> str:
    """`mean [low, high]`: the 95 % interval of one seed, or the range over several."""
    triples = [list(f.values()) if isinstance(f, Mapping) else list(f) for f in figures]
    values = [triple[0] for triple in triples]
    if None in values:
        return "-"
    if len(values) > 1:
        return f"{mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"
    if None in triples[0]:
        return f"{values[0]:.3f}"
    return f"{values[0]:.3f} [{triples[0][1]:.3f}, {triples[0][2]:.3f}]"


def main() -> None:
    """Errors: BadArgument (options, arms, files), those of training."""
    parser = argparse.ArgumentParser(prog="python -m csrm.train.ablation", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="training options (YAML)")
    parser.add_argument("--arms", default="none,sa,cca,both,block,full", help="and distilled")
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--limit", type=int, default=None, help="records of each file")
    parser.add_argument("files", type=Path, nargs="+", help="record files to measure on")
    options = parser.parse_args()
    base = load_options(options.config)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    results = [
        run_arm(arm, seed, base, options.files, options.limit)
        for seed in seeds
        for arm in options.arms.split(",")
    ]
    text = table(results)
    (Path(base.out) / "table.md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
