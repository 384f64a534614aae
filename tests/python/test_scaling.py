"""csrm.bench.scaling_*: the rows, the files and the commands, on the shipped model."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from csrm.cli import main
from csrm.errors import BadArgument, EngineFailed
from csrm.paths import default_artifact

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from csrm.bench import (
    cpu_peaks,
    scaling_calls,
    scaling_configs,
    scaling_memory,
    scaling_rules,
    scaling_turns,
)
from csrm.bench.cpu_peaks import CpuPeaks
from csrm.bench.floor import Operations, set_floors
from csrm.bench.memory import rss_mb
from csrm.bench.texts import CaseTexts, case_texts, open_renderer, rule_ids


@pytest.fixture(scope="module")
def texts() -> CaseTexts:
    return case_texts(open_renderer(default_artifact()), "96+16")


def measured(report: Path, *args: str) -> list[dict[str, Any]]:
    """The rows that `csrm bench scaling ARGS` writes to `report`, with a chart beside it."""
    command = ["bench", "scaling", *args, "--json", str(report)]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert report.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    written = json.loads(report.read_text())
    assert written["env"]["python"]
    rows: list[dict[str, Any]] = written["rows"]
    assert all(f"{row['rss_mb']:.1f} MB" in done.stderr for row in rows if "stage" in row)
    if "median_ms" in rows[0]:
        assert written["peak_gflop_s"] > 0
        assert all(row["floor_ms"] > 0 and 0 < row["median_ms"] <= row["p99_ms"] for row in rows)
        assert f"median {rows[-1]['median_ms']:7.1f} " in done.stderr
    return rows


def test_scaling_turns_writes_a_row_for_each_turn_and_way(tmp_path: Path) -> None:
    args = ["--turns", "3", "--rounds", "2", "--threads", "1"]
    rows = measured(tmp_path / "turns.json", "turns", *args)
    assert [(row["engine"], row["turn"]) for row in rows] == [
        (engine, turn) for engine in ("csrm", "csrm reuse_turns") for turn in (1, 2, 3)
    ]
    assert [row["prefix_tokens"] for row in rows[:3]] == [256, 296, 336]
    assert [row["to_turn_2"] for row in rows[:2]] == [None, 1.0]
    assert rows[2]["floor_to_turn_2"] > 1.0


def test_scaling_single_turn_is_refused() -> None:
    with pytest.raises(BadArgument):
        scaling_turns.run_turns(None, n_turns=1)


def test_scaling_rules_writes_a_row_for_each_size_and_state_of_the_cache(tmp_path: Path) -> None:
    args = ["--rules", "1", "--rules", "20", "--rounds", "3", "--threads", "1"]
    rows = measured(tmp_path / "rules.json", "rules", *args)
    assert [(row["rules"], row["engine"]) for row in rows] == [
        (n, f"csrm {state}")
        for n in (1, 20)
        for state in ("cached", "one rule new", "nothing cached")
    ]
    assert [row["config_tokens"] for row in rows] == [32] * 3 + [640] * 3
    cached, edited, cold = (row["median_ms"] for row in rows[3:])
    # 640 tokens to encode besides the turn's 64, against 32 and none: 5 to 8 times the time.
    assert cold > 2 * max(cached, edited)
    assert rows[3]["floor_ms"] > rows[0]["floor_ms"]


@pytest.mark.parametrize(("n_rules", "expected"), [(1, 20), (100, 20), (1000, 3), (2000, 2)])
def test_cold_rounds_of_long_configs_are_few(n_rules: int, expected: int) -> None:
    assert scaling_rules.cold_rounds(n_rules, 20) == expected
    assert scaling_rules.cold_rounds(n_rules, 1) == 1


def test_edited_configs_differ_in_one_rule_of_the_same_length(texts: CaseTexts) -> None:
    renderer = open_renderer(default_artifact())
    configs = list(scaling_rules.edited_configs(texts, 7))
    assert len({config.rules for config in configs}) == 7
    for index, config in enumerate(configs):
        changed = [
            place
            for place, (rule, before) in enumerate(zip(config.rules, texts.rules, strict=True))
            if rule.text != before
        ]
        assert changed == [index % len(texts.rules)]
        assert len(rule_ids(renderer, config.rules[changed[0]].text)) == 32


def test_scaling_configs_that_outgrow_the_cache_miss_it(tmp_path: Path) -> None:
    args = ["--configs", "1", "--configs", "60", "--cache-tokens", "1024", "--requests", "12"]
    rows = measured(tmp_path / "configs.json", "configs", *args, "--threads", "1")
    assert [(row["configs"], row["engine"]) for row in rows] == [
        (n, f"csrm {draw}") for n in (1, 60) for draw in ("uniform", "zipf")
    ]
    for row in rows[:2]:
        assert (row["hit_rate"], row["evictions"], row["miss_ms"]) == (1.0, 0, None)
    for row in rows[2:]:
        assert row["hit_rate"] < 0.8
        assert row["evictions"] > 0
        assert row["miss_ms"] > rows[0]["hit_ms"]
    assert all(row["rss_mb"] is not None for row in rows) or rss_mb() is None


def test_drawn_zipf_prefers_the_first_places_and_uniform_none() -> None:
    zipf = Counter(scaling_configs.drawn("zipf", 50, 2000))
    uniform = Counter(scaling_configs.drawn("uniform", 50, 2000))
    # Expected of place 0: 2000 / (1 + 1/2 + ... + 1/50) = 444, and 40; eight deviations apart.
    assert 350 < zipf[0] < 540
    assert zipf[0] > zipf[4] > zipf[40]
    assert uniform[0] < 90
    assert set(zipf) | set(uniform) <= set(range(50))


def test_config_at_is_one_config_for_each_place(texts: CaseTexts) -> None:
    configs = [scaling_configs.config_at(texts, place) for place in (0, 1, 0)]
    assert configs[0] == configs[2]
    assert not {rule.text for rule in configs[0].rules} & {rule.text for rule in configs[1].rules}


def test_set_floors_again_puts_every_row_on_the_higher_peak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: list[dict[str, Any]] = [{"batch": 1, "arithmetic": "fp32"}]

    def operations(row: dict[str, Any]) -> Operations:
        return Operations(4_000_000 * row["batch"], 2_000_000 * row["batch"])

    found = iter((1e9, 2e9, 1.5e9))
    monkeypatch.setattr(cpu_peaks, "fp32_peak", lambda _: next(found))
    peaks = CpuPeaks(1)
    peaks.measure(["fp32"])
    set_floors(rows, operations, peaks)
    assert (rows[0]["floor_ms"], rows[0]["floor_gop_s"]) == (6.0, {"fp32": 1.0})
    rows.append({"batch": 2, "arithmetic": "fp32"})
    for _ in range(2):  # the lower one that comes last changes nothing
        peaks.measure(["fp32"])
        set_floors(rows, operations, peaks)
        assert [row["floor_ms"] for row in rows] == [3.0, 6.0]


def test_scaling_batch_writes_a_row_for_each_size(tmp_path: Path) -> None:
    args = ["--batch", "1", "--batch", "3", "--rounds", "2", "--threads", "1"]
    one, three = measured(tmp_path / "batch.json", "batch", *args)
    assert (one["batch"], three["batch"]) == (1, 3)
    # Both are rounded to a microsecond, which an int8 floor is near to.
    assert three["floor_ms"] == pytest.approx(3 * one["floor_ms"], abs=2.1e-3)
    assert three["conversation_ms"] == pytest.approx(three["median_ms"] / 3, abs=1e-3)


def test_batch_action_scores_so_many_new_turns(texts: CaseTexts) -> None:
    class Scorer:
        """Keeps what it is asked."""

        calls: list[list[list[dict[str, str]]]]

        def score_batch(self, config: object, conversations: list[Any]) -> None:
            self.calls.append(conversations)

    scorer: Any = Scorer()
    scorer.calls = []
    action = scaling_calls.batch_action(scorer, texts, 4)
    action()
    action()
    turns = [conversation[0]["content"] for call in scorer.calls for conversation in call]
    assert [len(call) for call in scorer.calls] == [4, 4]
    assert len(set(turns)) == 8


def test_scaling_threads_compares_with_the_first_number(tmp_path: Path) -> None:
    args = ["--threads", "2", "--threads", "1", "--rounds", "2"]
    rows = measured(tmp_path / "threads.json", "threads", *args)
    assert [(row["case"], row["threads"]) for row in rows] == [
        (case, n) for case in ("256+128", "64+64") for n in (2, 1)
    ]
    assert [row["faster"] for row in rows if row["threads"] == 2] == [1.0, 1.0]
    for row in rows:
        assert row["faster_low"] <= row["faster"] <= row["faster_high"]


def test_scaling_memory_grows_by_the_keys_and_values_of_the_cache(tmp_path: Path) -> None:
    if rss_mb() is None:
        pytest.skip("there is no /proc")
    args = ["--rules", "1", "--rules", "20", "--threads", "1"]
    rows = measured(tmp_path / "memory.json", "memory", *args)
    assert [row["cached_tokens"] for row in rows] == [0, 0, 32, 32 + 2 * 20 * 32]
    assert {row["floor_bytes"] for row in rows} == {6 * 2 * 384 * 4}
    assert rows[0]["rss_mb"] < rows[1]["rss_mb"] < rows[3]["rss_mb"]
    # Nothing may be smaller than what it holds; the engine's buffers come on top.
    assert 6 * 2 * 384 * 4 < rows[3]["bytes_per_cached_token"] < rows[3]["bytes_per_rule_token"]


def test_holder_of_a_process_that_failed_is_a_typed_error(tmp_path: Path) -> None:
    with scaling_memory.Holder() as holder:
        assert holder.answer()["cached_tokens"] == 0
        with pytest.raises(EngineFailed, match="ended with 1"):
            holder.ask({"artifact": str(tmp_path), "n_threads": 1, "cache_tokens": 0})
