"""csrm bench soak in small: nothing is lost, and what is wrong is noticed."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import serve_client  # skips this file without csrm[serve]
from click.testing import CliRunner

from csrm.bench import soak
from csrm.bench.soak_traffic import Golden, Seen, Traffic, golden_of
from csrm.cli import main
from csrm.errors import BadArgument, EngineFailed

WAIT_S = serve_client.WAIT_S


def test_bench_soak_small_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "soak.json"
    options = ["--reloads", "3", "--swaps", "1", "--drains", "1", "--kills", "1"]
    found = CliRunner().invoke(main, ["bench", "soak", *options, "--json", str(path)])
    assert found.exit_code == 0, found.output
    rows = {row["what"]: row for row in json.loads(path.read_text())["rows"]}
    assert {what: row["n"] for what, row in rows.items()} == {
        "reloads": 3,
        "swaps": 1,
        "drains": 1,
        "kills": 1,
    }
    assert all(row["answers"] >= 3 and soak.is_good(row) for row in rows.values())
    assert 0 < rows["reloads"]["switch_ms"] <= rows["reloads"]["max_switch_ms"] < WAIT_S * 1e3
    assert 0 < rows["kills"]["ready_s"] < WAIT_S


def test_bench_soak_wrong_answers_are_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def other(*given: Any) -> Any:
        golden = golden_of(*given)
        for scores in golden.scores.values():
            scores[::2] = [replace(one, reward=one.reward + 1e-4) for one in scores[::2]]
        return golden

    monkeypatch.setattr(soak, "golden_of", other)
    options = ["--reloads", "1", "--swaps", "0", "--drains", "0", "--kills", "0"]
    path = tmp_path / "soak.json"
    found = CliRunner().invoke(main, ["bench", "soak", *options, "--json", str(path)])
    assert found.exit_code == 1, found.output
    (row,) = json.loads(path.read_text())["rows"]
    assert 0 < row["mismatches"] < row["answers"]


@pytest.mark.parametrize("name", ["errors", "mismatches", "lost"])
def test_bench_soak_row_with_a_loss_is_bad(name: str) -> None:
    row = {"answers": 5, "errors": 0, "mismatches": 0, "lost": 0}
    assert soak.is_good(row)
    assert not soak.is_good({**row, name: 1})
    assert not soak.is_good({**row, "answers": 0})


def test_bench_soak_requests_that_are_served_and_not_answered_are_lost() -> None:
    class Server:
        def named(self, event: str) -> list[dict[str, Any]]:
            if event == "stopped":
                return [{"abandoned": 1}]
            return [{"trace_id": id, "outcome": "ok"} for id in "abc"]

    assert soak._lost(Server(), Seen(answered={"a", "b"})) == 2  # type: ignore[arg-type]


def test_bench_soak_answer_that_cannot_be_read_fails_the_run() -> None:
    """While a server ends, too, when clients may be refused."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 400 Bad\r\ncontent-length: 4\r\n\r\ntext")

        thread = threading.Thread(target=answer)
        thread.start()
        traffic = Traffic(server.getsockname()[1], [b"{}"], Golden((), {}), 1)
        traffic.is_ending = True
        with pytest.raises(EngineFailed), traffic:
            thread.join(WAIT_S)
        assert not thread.is_alive()


def test_bench_soak_bad_count_is_refused() -> None:
    with pytest.raises(BadArgument):
        soak.run(threads=0)
