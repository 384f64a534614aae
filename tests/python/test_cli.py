"""The command line over a fake scorer: output, order, exit status, messages; one real run.

Not: scores. Commands that need optional packages are tested for what they pass on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fake_scorer import FakeNative

from csrm import errors, paths, scorer
from csrm.cli import main
from csrm.config import SafetyConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


LATENCY = {
    "artifact": None,
    "cases": ["256+128", "64+64"],
    "batch": [1],
    "threads": 3,
    "rounds": 50,
    "lead": 0,
    "json_path": None,
    "engines": ["installed"],
    "environments": "build/bench/environments",
    "device": "cpu",
    "int8": False,
    "shape": None,
    "shape_folder": None,
}

THROUGHPUT = {
    "artifact": None,
    "clients": [2],
    "configs": [1, 3],
    "threads": 2,
    "rounds": 3,
    "requests": 96,
    "json_path": None,
}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text("id: test\nrules:\n  - name: Tone\n    text: Be kind.\n  - No refunds.\n")
    return path


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeNative:
    native = FakeNative()
    monkeypatch.setattr(scorer, "_open_native", lambda artifact, options: native)
    monkeypatch.setattr(scorer, "default_artifact", lambda: tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    return native


def line(content: object, id: object = None, **more: object) -> str:
    message = {"role": "assistant", "content": content}
    return json.dumps({"id": id, "messages": [message], **more})


def score(policy: Path, lines: list[str], *options: str) -> Result:
    args = ["score", "--config", str(policy), *options]
    return CliRunner().invoke(main, args, input="\n".join(lines), catch_exceptions=False)


def records(result: Result) -> list[dict[str, Any]]:
    return [json.loads(text) for text in result.stdout.splitlines()]


def test_score_good_lines_give_json_in_order_and_status_0(policy: Path, native: FakeNative) -> None:
    lines = [line("bad" if i % 3 == 0 else "fine", i) for i in range(70)]
    result = score(policy, lines)
    assert result.exit_code == 0
    assert result.stderr == ""
    found = records(result)
    assert [record["id"] for record in found] == list(range(70))
    assert [record["verdict"] == "violation" for record in found] == [i % 3 == 0 for i in range(70)]
    assert found[0] == {
        "id": 0,
        "reward": -1.0,
        "compliance": 0.2689414,
        "verdict": "violation",
    }
    assert native.batches == [32, 32, 6]


def test_score_bad_lines_give_error_records_in_place_and_status_1(
    policy: Path, native: FakeNative
) -> None:
    lines = [line("fine", "a"), "not json", "", line(7, "c"), line("crash", "d"), line("bad", "e")]
    result = score(policy, lines)
    assert result.exit_code == 1
    assert "could not be scored: 3;" in result.stderr
    found = records(result)
    assert [record["verdict"] for record in found] == [
        "compliant",
        "unknown",
        "unknown",
        "unknown",
        "violation",
    ]
    assert found[1]["line"] == 2
    assert "id" not in found[1]
    assert found[1]["error"]["code"] == "BadConversation"
    assert (found[2]["line"], found[2]["id"]) == (4, "c")
    assert found[3] == {
        "line": 5,
        "id": "d",
        "error": {"code": "EngineFailed", "message": "the engine returned an error"},
        "verdict": "unknown",
    }


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], False),
        (["--explain"], True),
        (["--explain-fast"], "fast"),
        (["--explain", "--explain-fast"], "fast"),
    ],
)
def test_score_explain_flags_reach_the_scorer(
    policy: Path, native: FakeNative, flags: list[str], expected: object
) -> None:
    records(score(policy, [line("bad")], *flags))
    assert native.explained == [expected]


def test_score_explain_and_judged_add_rules_and_turns(policy: Path, native: FakeNative) -> None:
    (record,) = records(score(policy, [line("bad")], "--explain", "--judged", "assistant"))
    assert [(rule["index"], rule["name"]) for rule in record["rules"]] == [(0, "Tone"), (1, "")]
    assert record["turns"] == [{"turn": 0, "reward": -1.0, "compliance": 0.2689414}]


def test_score_threshold_option_replaces_that_of_the_config(
    policy: Path, native: FakeNative
) -> None:
    assert records(score(policy, [line("x")], "--threshold", "0.8"))[0]["verdict"] == "violation"
    result = score(policy, [line("x")], "--threshold", "1.8")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "BadArgument" in result.stderr


def test_score_no_lines_give_nothing_and_status_0(policy: Path, native: FakeNative) -> None:
    result = score(policy, [])
    assert (result.exit_code, result.output) == (0, "")


def test_score_bad_config_gives_one_line_with_position_and_status_2(
    tmp_path: Path, native: FakeNative
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("id: a\nrules:\n  - text: No refunds.\n    txt: x\n")
    result = score(path, [line("x")])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"{path}:4:5: BadConfig: unknown key in rule 1")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--config", "no-such-file.yaml"],
        ["--config", "{policy}", "no-such-file.jsonl"],
        ["--config", "{policy}", "--model", "no-such-folder"],
        ["--config", "{policy}", "--judged", "first"],
        ["--config", "{policy}", "--threads", "-1"],
        ["--config", "{policy}", "--no-such-option"],
    ],
    ids=" ".join,
)
def test_score_unusable_call_gives_status_2_and_no_output(
    args: list[str], policy: Path, native: FakeNative
) -> None:
    args = [arg.replace("{policy}", str(policy)) for arg in args]
    result = CliRunner().invoke(main, ["score", *args], input=line("x"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr


def test_score_engine_failure_of_a_batch_marks_its_lines(
    policy: Path, native: FakeNative, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> list[Any]:
        raise errors.EngineFailed("the engine returned an error")

    monkeypatch.setattr(native, "score_batch", fail)
    result = score(policy, [line("x", 1), line("y", 2)])
    assert result.exit_code == 1
    assert [record["verdict"] for record in records(result)] == ["unknown", "unknown"]


def test_score_config_refused_by_the_runtime_gives_status_2(
    policy: Path, native: FakeNative, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> list[Any]:
        raise errors.LimitExceeded("the config has 70,000 tokens; limit is 65,536")

    monkeypatch.setattr(native, "score_batch", refuse)
    result = score(policy, [line("x")])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "LimitExceeded: the config has 70,000 tokens; limit is 65,536\n"


def test_score_options_have_twins_in_the_environment(
    policy: Path, native: FakeNative, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSRM_SCORE_CONFIG", str(policy))
    monkeypatch.setenv("CSRM_SCORE_THRESHOLD", "0.8")
    result = CliRunner().invoke(main, ["score"], input=line("x"))
    assert records(result)[0]["verdict"] == "violation"


def test_score_table_shows_verdicts_agreement_and_that_it_shortens(
    policy: Path, native: FakeNative
) -> None:
    lines = [
        line("bad " * 100, "a", expected="violation"),
        line("fine", "b", expected="violation"),
        "not json",
    ]
    result = score(policy, lines, "--format", "table", "--explain")
    assert result.exit_code == 1
    assert "violation \u2713" in result.stdout
    assert "violation \u2717" in result.stdout
    assert "1 compliant, 1 violation, 1 unknown under test (threshold 0.5)" in result.stdout
    assert "1 agree of 2 with an expected verdict" in result.stdout
    assert "shortened for display only" in result.stdout
    assert "0.269" in result.stdout
    assert "BadConversation" in result.stdout


def test_score_table_never_passes_control_characters_to_the_terminal(
    policy: Path, native: FakeNative
) -> None:
    text = "\x1b[31mred\x1b]0;title\x07 \u202eevil [bold]markup[/bold]\r\n\x9b1m"
    out = score(policy, [line(text, "\x1b[2J")], "--format", "table").stdout
    assert "[bold]markup[/bold]" in out
    assert not [c for c in out if not c.isprintable() and c != "\n"]


def test_demo_scores_each_example_under_its_config(tmp_path: Path, native: FakeNative) -> None:
    (tmp_path / "a.txt").write_text("- Be kind.\n")
    (tmp_path / "b.yaml").write_text("threshold: 0.9\nrules: [Be kind.]\n")
    examples = tmp_path / "examples.jsonl"
    examples.write_text(
        line("fine", 1, config="a", expected="compliant")
        + "\n"
        + line("fine", 2, config="b", expected="compliant")
    )
    args = ["demo", str(examples), "--configs", str(tmp_path)]
    result = CliRunner().invoke(main, args, catch_exceptions=False)
    assert result.exit_code == 0
    assert "All 2 configs: 1 of 2 verdicts as expected." in result.stdout


def test_demo_config_name_outside_the_folder_is_refused(tmp_path: Path, native: FakeNative) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "secret.txt").write_text("- Be kind.\n")
    examples = tmp_path / "examples.jsonl"
    examples.write_text(line("fine", 1, config="../secret"))
    args = ["demo", str(examples), "--configs", str(tmp_path / "configs")]
    assert CliRunner().invoke(main, args).exit_code == 2


def test_lint_good_file_shows_the_rules_and_a_bad_one_its_position(
    policy: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("rules:\n  - 7\n")
    result = CliRunner().invoke(main, ["config", "lint", str(policy), str(bad)])
    assert result.exit_code == 1
    assert "2 rules, format yaml" in result.stdout
    assert "1. [Tone] Be kind." in result.stdout
    assert result.stderr.startswith(f"{bad}:2:5: BadConfig: ")


def test_lint_json_and_yaml_are_machine_readable(policy: Path, tmp_path: Path) -> None:
    repeated = tmp_path / "r.txt"
    repeated.write_text("- A\n- a\n")
    result = CliRunner().invoke(main, ["config", "lint", "--json", str(repeated)])
    report = json.loads(result.stdout)
    assert (report["format"], report["n_rules"]) == ("text", 2)
    assert report["warnings"] == ["rule 2 repeats rule 1"]
    shown = CliRunner().invoke(main, ["config", "lint", "--yaml", str(policy)]).stdout
    assert "name: Tone" in shown


def test_config_json_writes_what_reads_back_equal(policy: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["config", "json", str(policy)])
    written = tmp_path / "policy.json"
    written.write_text(result.stdout)
    assert SafetyConfig.load(written) == SafetyConfig.load(policy)
    assert json.loads(result.stdout)["rules"]
    policy.write_text("rules: []")
    result = CliRunner().invoke(main, ["config", "json", str(policy)])
    assert (result.exit_code, result.stdout) == (2, "")


def test_info_shows_the_model(native: FakeNative) -> None:
    result = CliRunner().invoke(main, ["info", "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["name"] == "fake"


@pytest.mark.parametrize(
    ("args", "module", "function", "expected"),
    [
        (
            ["train", "--config", "{file}", "--resume"],
            "csrm.train.trainer",
            "train_from_file",
            (("{file}",), {"resume": True}),
        ),
        (
            ["export", "{file}", "{folder}/out"],
            "csrm.export.artifact",
            "export_checkpoint",
            (
                ("{file}", "{folder}/out"),
                {"name": "out", "int8": False, "half": False, "cuda": False},
            ),
        ),
        (
            ["evaluate", "--data", "{file}", "{file}", "--json", "{folder}/r.json"],
            "csrm.train.evaluate",
            "evaluate_files",
            (
                (["{file}", "{file}"], None, "{folder}/r.json"),
                {"limit": None, "published": None, "html_path": None},
            ),
        ),
        (
            ["bench", "latency", "--threads", "3"],
            "csrm.bench.latency",
            "run",
            ((), LATENCY),
        ),
        (
            ["bench", "throughput", "--clients", "2", "--configs", "1", "--configs", "3"],
            "csrm.bench.throughput",
            "run",
            ((), THROUGHPUT),
        ),
        (["bench", "kernels"], "csrm.bench.kernels", "run", ((None,), {})),
        (
            ["bench", "scaling", "turns", "--turns", "9"],
            "csrm.bench.scaling_turns",
            "run_turns",
            ((None,), {"n_turns": 9, "threads": 2, "rounds": 20, "json_path": None}),
        ),
        (
            ["bench", "scaling", "configs", "--configs", "7", "--cache-tokens", "0"],
            "csrm.bench.scaling_configs",
            "run_configs",
            (
                (None,),
                {
                    "configs": [7],
                    "cache_tokens": 0,
                    "threads": 2,
                    "requests": 400,
                    "json_path": None,
                },
            ),
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_command_passes_its_arguments_on(
    args: list[str],
    module: str,
    function: str,
    expected: tuple[Any, Any],
    tmp_path: Path,
    policy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Any] = []
    fake = ModuleType(module)
    setattr(fake, function, lambda *args, **options: calls.append((args, options)))
    monkeypatch.setitem(sys.modules, module, fake)
    monkeypatch.setattr("csrm.cli.failures.import_module", lambda name: sys.modules[name])

    def filled(text: str) -> str:
        return text.replace("{file}", str(policy)).replace("{folder}", str(tmp_path))

    result = CliRunner().invoke(main, [filled(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0
    assert json.dumps(calls[0], default=str) == filled(json.dumps(expected))


def test_command_with_missing_packages_names_the_extra(
    policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("csrm.cli.failures.import_module", fail)
    result = CliRunner().invoke(main, ["train", "--config", str(policy)])
    assert result.exit_code == 2
    assert "needs torch" in result.stderr
    assert "pip install 'csrm[train]'" in result.stderr


def test_cli_help_imports_neither_torch_nor_the_native_module() -> None:
    code = (
        "import sys; from csrm.cli import main; main(['--help'], standalone_mode=False); "
        "bad = {'torch', 'csrm._core', 'onnxruntime', 'rich'} & set(sys.modules); "
        "sys.exit(bool(bad))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_score_real_run_with_the_shipped_model() -> None:
    pytest.importorskip("csrm._core")
    try:
        paths.default_artifact()
    except errors.BadArtifact:
        pytest.skip("this build ships no default model")
    config = CONFIGS / "general-default.yaml"
    command = [sys.executable, "-m", "csrm", "score", "--config", str(config), "--explain"]
    lines = "\n".join([line("Paris is the capital of France.", "a"), "not json"])
    done = subprocess.run(command, input=lines, capture_output=True, text=True)
    assert done.returncode == 1
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["verdict"] in ("compliant", "violation")
    assert 0 <= first["compliance"] <= 1
    assert len(first["rules"]) == 14
    assert second["verdict"] == "unknown"
