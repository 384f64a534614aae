"""csrm bench serving: a server is started, asked and ended; the rows are complete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import serve_client  # skips this file without csrm[serve]
from click.testing import CliRunner

from csrm.bench import serving
from csrm.cli import main
from csrm.errors import BadArgument

WAIT_S = serve_client.WAIT_S


def test_bench_serving_rows_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    options = ["--length", "16", "--clients", "2", "--threads", "1", "--rounds", "3"]
    found = CliRunner().invoke(main, ["bench", "serving", *options, "--json", str(path)])
    assert found.exit_code == 0, found.output
    single, clients = json.loads(path.read_text())["rows"]
    assert (single["way"], single["turn_tokens"]) == ("single", 16)
    assert 0 < single["alive_ms"] < single["http_ms"] <= single["http_p99_ms"] < WAIT_S * 1e3
    assert 0 < single["plain_ms"] <= single["plain_p99_ms"]
    assert single["slower_low"] <= single["slower"] <= single["slower_high"]
    assert (clients["way"], clients["clients"]) == ("clients", 2)
    assert 0 < clients["p50_ms"] <= clients["p99_ms"]
    assert clients["requests_per_s"] > 0


def test_bench_serving_bad_count_is_refused() -> None:
    with pytest.raises(BadArgument):
        serving.run(rounds=0)
