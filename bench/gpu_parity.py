"""Does a device give the CPU's scores? python -m csrm.bench.gpu_parity [--device cuda] ...

What it is: real inputs (the example conversations of a checkout's configs/, each under its own
config and others) scored by a device's variants and by the portable graph in fp32 on the CPU; a
table of the differences; and whether the same calls give the same bits twice. Not: quality, and not
speed (csrm bench latency). Exit status: 0 alike, 1 not alike, 77 skipped: there is no such device.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

import csrm
from csrm.bench.own_engines import with_variant
from csrm.engine import devices
from csrm.errors import BadArgument
from csrm.paths import default_artifact
from csrm.scorer import Device

SKIPPED_STATUS = 77
N_TESTS = 3  # parity, equal bits, equal bits in batches; of each variant
# Largest change of compliance by variant: fp16 rounds states and weights to 11 bits.
LIMITS = {"portable": 1e-4, "cuda": 5e-3, "fused": 1e-4}
VARIANTS: dict[str, tuple[str, ...]] = {"cpu": ("fused",), "cuda": ("portable", "cuda")}
BATCH = 16


@dataclass(frozen=True)
class Case:
    """A conversation under a config."""

    config: csrm.SafetyConfig
    conversation: object


@dataclass(frozen=True)
class Agreement:
    """One variant against the CPU in fp32, over `n` cases."""

    device: str
    variant: str
    n: int
    compliance_max: float
    compliance_p99: float
    reward_max: float
    verdicts_changed: int
    is_repeatable: bool  # two runs of two Scorers, to the bit
    is_batch_repeatable: bool

    @property
    def is_alike(self) -> bool:
        """Whether it is within the limits, and repeats itself."""
        return (
            self.compliance_max <= LIMITS[self.variant]
            and self.is_repeatable
            and self.is_batch_repeatable
        )


def cases(configs: Path, n: int) -> list[Case]:
    """`n` cases from the folder `configs` of a checkout: every conversation under its own config,
    then under the next ones. Errors: BadArgument when there are not as many.
    """
    policies = {
        path.stem: csrm.SafetyConfig.load(path)
        for path in sorted(configs.iterdir())
        if path.suffix in (".yaml", ".md", ".txt") and path.stem != "README"
    }
    records = []
    for line in (configs / "examples.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        records.append((record["config"], record["messages"]))
    names = list(policies)
    found = []
    for shift in range(len(names)):
        for own, messages in records:
            config = policies[names[(names.index(own) + shift) % len(names)]]
            found.append(Case(config, messages))
    if len(found) < n:
        raise BadArgument(f"there are {len(found)} cases; {n} were asked for")
    return found[:n]


def scores(scorer: csrm.Scorer, asked: Sequence[Case], batch: int) -> NDArray[np.float64]:
    """[N, 2] compliance and reward of each case; `batch` cases of one config in a call."""
    found = np.empty((len(asked), 2))
    start = 0
    while start < len(asked):
        end = start + 1
        while end < len(asked) and end - start < batch and asked[end].config == asked[start].config:
            end += 1
        config = asked[start].config
        answers = scorer.score_batch(config, [case.conversation for case in asked[start:end]])
        found[start:end] = [(answer.compliance, answer.reward) for answer in answers]
        start = end
    return found


def compare(
    artifact: Path,
    device: Device,
    variant: str,
    asked: Sequence[Case],
    expected: NDArray[np.float64],
) -> Agreement:
    """The Agreement of one variant. Errors: those of `csrm.load` and of a score."""
    runs = []
    for batch in (1, BATCH):
        for _ in range(2):
            scorer = csrm.load(artifact, device=device, variant=variant)
            runs.append(scores(scorer, asked, batch))
    change = np.abs(runs[0] - expected)
    thresholds = np.array([case.config.threshold for case in asked])
    flips = (runs[0][:, 0] >= thresholds) != (expected[:, 0] >= thresholds)
    return Agreement(
        device=device,
        variant=variant,
        n=len(asked),
        compliance_max=float(change[:, 0].max()),
        compliance_p99=float(np.quantile(change[:, 0], 0.99)),
        reward_max=float(change[:, 1].max()),
        verdicts_changed=int(flips.sum()),
        is_repeatable=bool(np.array_equal(runs[0], runs[1])),
        is_batch_repeatable=bool(np.array_equal(runs[2], runs[3])),
    )


def report(found: Sequence[Agreement]) -> str:
    """The table."""
    lines = [
        "device    variant      n  compliance max / p99   reward max  verdicts  repeats  in batches"
    ]
    for row in found:
        lines.append(
            f"{row.device:9} {row.variant:9} {row.n:4}  {row.compliance_max:9.2e} / "
            f"{row.compliance_p99:9.2e}  {row.reward_max:9.2e}  {row.verdicts_changed:8}  "
            f"{row.is_repeatable!s:7}  {row.is_batch_repeatable!s:7}"
            f"  {'alike' if row.is_alike else 'NOT ALIKE'}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="csrm.bench.gpu_parity")
    parser.add_argument("--device", choices=list(VARIANTS), default="cuda")
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--configs", type=Path, default=Path("configs"))
    parser.add_argument("--n", type=int, default=500)
    given = parser.parse_args(arguments)
    variants = VARIANTS[given.device]
    for found in devices():
        if found.name == given.device and not found.is_available:
            n_tests = N_TESTS * len(variants)
            print(f"SKIPPED: {n_tests} GPU tests, no GPU ({found.detail})", file=sys.stderr)
            return SKIPPED_STATUS
    asked = cases(given.configs, given.n)
    artifact = default_artifact() if given.model is None else given.model
    with tempfile.TemporaryDirectory() as folder:
        if given.device == "cuda":
            artifact = with_variant(artifact, Path(folder), "cuda")
        expected = scores(csrm.load(artifact, device="cpu", variant="portable"), asked, 1)
        device = cast(Device, given.device)
        results = [compare(artifact, device, variant, asked, expected) for variant in variants]
    print(report(results))
    return 0 if all(result.is_alike for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
