"""A Scorer on the toy artifact in which "z" cannot be scored, and a Guard on it.

Not: the server's application on the same artifact (serve_client.py).
"""

from __future__ import annotations

import pytest
import toy

import csrm
from csrm.integrations.guard import FailMode, Guard


@pytest.fixture(scope="session")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> csrm.Scorer:
    folder = tmp_path_factory.mktemp("scorer")
    whole = toy.make_toy_model.write_toy_artifact(folder / "whole")
    return csrm.load(toy.without_finite_z(whole, folder / "artifact"), n_threads=1)


def guard(
    scorer: csrm.Scorer,
    threshold: float = 0,
    fail_mode: FailMode = "closed",
    deadline_s: float = 60,
) -> Guard:
    """Under the config "policy" of one rule: threshold 0 passes everything, 1 nothing."""
    config = csrm.SafetyConfig.from_rules(["a b c d"], id="policy", threshold=threshold)
    return Guard(config, model=scorer, fail_mode=fail_mode, deadline_s=deadline_s)
