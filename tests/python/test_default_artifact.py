"""The shipped model: size, equal rewards over caches and batches, both variants, and that it reads
the config. Not a quality benchmark: that is `csrm evaluate`."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

import csrm
from csrm.bench.invariance import run as measure_invariance
from csrm.paths import default_artifact

CONFIGS = Path(__file__).parents[2] / "configs"
EXAMPLES = CONFIGS / "examples.jsonl"

# fp32 sums of a few hundred terms in another order: measured up to 4e-6 in log-odds.
SAME = 2e-5


@pytest.fixture(scope="module")
def scorer() -> csrm.Scorer:
    return csrm.load()


@pytest.fixture(scope="module")
def examples() -> dict[str, list[csrm.ConversationRecord]]:
    groups: dict[str, list[csrm.ConversationRecord]] = defaultdict(list)
    with EXAMPLES.open("rb") as stream:
        for record in csrm.read_conversations(stream):
            assert isinstance(record, csrm.ConversationRecord)
            groups[str(record.config)].append(record)
    return groups


def test_default_artifact_on_disk_is_under_30_megabytes() -> None:
    total = sum(path.stat().st_size for path in default_artifact().iterdir())
    assert total < 30_000_000


def test_default_artifact_manifest_names_only_permissive_sources() -> None:
    from csrm.train.corpus import PERMISSIVE

    manifest = json.loads((default_artifact() / "manifest.json").read_text())
    sources = manifest["provenance"]["sources"]
    assert sources
    assert set(sources) <= set(PERMISSIVE)


def test_default_artifact_over_caches_and_batches_gives_equal_rewards() -> None:
    for row in measure_invariance():
        assert row.max_difference <= SAME, row


def test_default_artifact_variants_give_equal_rewards(
    examples: dict[str, list[csrm.ConversationRecord]],
) -> None:
    config = csrm.SafetyConfig.load(CONFIGS / "bank-customer-service.yaml")
    conversations = [record.conversation for record in examples["bank-customer-service"]]
    rewards = [
        [score.reward for score in csrm.load(variant=variant).score_batch(config, conversations)]
        for variant in ("portable", "fused")
    ]
    assert rewards[0] == pytest.approx(rewards[1], abs=1e-5)


def test_default_artifact_on_examples_beats_always_answering_one_verdict(
    scorer: csrm.Scorer, examples: dict[str, list[csrm.ConversationRecord]]
) -> None:
    n_right = n_compliant = n = 0
    for name, records in examples.items():
        config = csrm.SafetyConfig.load(CONFIGS / f"{name}.yaml")
        scores = scorer.score_batch(config, [record.conversation for record in records])
        n_right += sum(s.verdict == r.expected for s, r in zip(scores, records, strict=True))
        n_compliant += sum(record.expected == "compliant" for record in records)
        n += len(records)
    assert n_right > max(n_compliant, n - n_compliant)


def test_default_artifact_same_words_under_two_configs_changes_the_reward(
    scorer: csrm.Scorer,
) -> None:
    conversation = [
        {"role": "user", "content": "My order arrived broken. What can you do?"},
        {"role": "assistant", "content": "I have refunded the full amount to your card."},
    ]
    strict = scorer.score(["Never promise or grant a refund."], conversation)
    lenient = scorer.score(["You may grant refunds for broken orders."], conversation)
    assert lenient.reward > strict.reward
