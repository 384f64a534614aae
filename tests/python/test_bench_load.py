"""csrm bench load in small: rows are complete, and what the generator saw is counted right."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
import serve_client  # skips this file without csrm[serve]
from click.testing import CliRunner

from csrm.bench import load, load_generator
from csrm.cli import main
from csrm.errors import BadArgument

WAIT_S = serve_client.WAIT_S


def test_bench_load_small_rows_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "PATIENT", (0.5,))
    monkeypatch.setattr(load, "BOUNDED", (0.5,))
    monkeypatch.setattr(load, "N_HALVINGS", 1)
    path = tmp_path / "load.json"
    options = ["--length", "16", "--seconds", "1", "--threads", "1", "--rounds", "3"]
    options += ["--bound-ms", "2000"]
    found = CliRunner().invoke(main, ["bench", "load", *options, "--json", str(path)])
    assert found.exit_code == 0, found.output
    single, *rows, summary = json.loads(path.read_text())["rows"]
    assert (single["way"], summary["way"]) == ("single", "summary")
    assert [row["is_bounded"] for row in rows] == [False, False, True, True]
    for row in rows:
        n_counted = row["refused"] + row["expired"] + row["other"]
        assert n_counted + round(row["answered_per_s"]) == row["n"]
        assert row["other"] == 0
        assert row["lag_p99_ms"] is None or math.isfinite(row["lag_p99_ms"])
        assert row["healthz_p99_ms"] > 0
    assert rows[-1]["offered_per_s"] == pytest.approx(5 * max(1.0, summary["peak_goodput_per_s"]))
    assert path.with_suffix(".png").stat().st_size > 1000


def seen(**changes: Any) -> dict[str, Any]:
    """Five requests: two in time, one late, one refused, one without an answer."""
    return {
        "intended": [0.0, 0.1, 0.2, 0.3, 0.4],
        "sent": [0.001, 0.101, 0.201, 0.301, None],
        "done": [0.02, 0.12, 0.3, 0.304, None],
        "status": [200, 200, 200, 429, None],
        "health": [0.002],
        "cpu_s": 0.1,
        **changes,
    }


def test_bench_load_counts_from_the_intended_arrival() -> None:
    row = load.open_row(seen(), 10.0, 50.0, 0.5, is_bounded=True)
    assert (row["answered_per_s"], row["goodput_per_s"], row["late"]) == (6.0, 4.0, 0.6)
    assert (row["p99_ms"], row["refused"], row["refused_p99_ms"]) == (100.0, 1, 4.0)
    assert (row["expired"], row["other"]) == (0, 1)
    assert (row["healthz_p99_ms"], row["lag_p99_ms"], row["generator_cpu"]) == (2.0, 1.0, 0.2)


def test_bench_load_halves_towards_the_highest_rate_in_time() -> None:
    def measure(rate: float) -> dict[str, Any]:
        return {"offered_per_s": rate, "late": 0.5 if rate > 13 else 0.0}

    found = load.halved([measure(10.0), measure(20.0)], measure)
    assert [row["offered_per_s"] for row in found] == [15.0, 12.5, 13.75]


class Late(asyncio.Protocol):
    """Answers every request 0.7 s after it came."""

    transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
        asyncio.get_running_loop().call_later(0.7, self.transport.write, answer)


def test_bench_load_generator_counts_late_answers_of_healthz_whole() -> None:
    async def play() -> dict[str, Any]:
        server = await asyncio.get_running_loop().create_server(Late, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        job = {"rate": 5.0, "seconds": 1.5, "seed": 1, "bodies": ["{}"]}
        answer = await load_generator._played(port, job)
        server.close()
        await asyncio.sleep(0.1)  # both sides of the connections close
        return answer

    answer = asyncio.run(play())
    assert set(answer["status"]) == {200}
    assert len(answer["health"]) >= 5
    assert min(answer["health"]) >= 0.69


def test_bench_load_bad_numbers_are_refused() -> None:
    with pytest.raises(BadArgument):
        load.run(seconds=0)
