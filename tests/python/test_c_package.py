"""The installed package as C and C++ programs see it: the gateway filters of docs/examples, built
by plain cc and c++ with pkg-config's flags and by CMake, give the scores that Python gives.

Not: an install prefix (tests/cpp/test_package.cmake) and not misuse of the ABI (test_c_abi.cc). The
programs run with an empty environment: no Python, and the engine is found beside the package.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import csrm
from csrm.paths import default_artifact

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
NO_HURRY = "600000"  # ms
CONFIGS = ("bank-customer-service", "film-studio", "hr-assistant")
BROKEN = (
    ('{"messages": [', "BadConversation"),
    ('{"messages": []}', "EmptyConversation"),
    ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "BadUtf8"),
    ('{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "BadConversation"),
)


@dataclass(frozen=True)
class Decision:
    """A line of a filter's output."""

    decision: str
    reward: float
    compliance: float
    error: str


def run(
    command: Sequence[str | Path], env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


def pkg_config(*options: str) -> list[str]:
    program = shutil.which("pkg-config") or shutil.which("pkgconf")
    if program is None:
        pytest.skip("pkg-config is not installed")
    found = run([program, *options, "csrm"], {"PKG_CONFIG_PATH": str(csrm.get_pkgconfig_dir())})
    return found.stdout.split()


def compiler(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no compiler {names[0]}")
    return found


def built_by(how: str, folder: Path) -> Path:
    """gateway_filter built in `folder` as a user would; `how` is cc, c++, cmake-c or cmake-c++."""
    strict = ["-pedantic", "-Wall", "-Wextra", "-Werror"]
    flags = [] if how.startswith("cmake") else pkg_config("--cflags", "--libs")
    program = folder / "gateway_filter"
    if how == "cc":
        cc = compiler("cc", "gcc", "clang")
        run([cc, "-std=c99", *strict, EXAMPLES / "gateway_filter.c", *flags, "-o", program])
        return program
    if how == "c++":
        cxx = compiler("c++", "g++", "clang++")
        source = EXAMPLES / "gateway_filter.cc"
        run([cxx, "-std=c++17", *strict, "-pthread", source, *flags, "-o", program])
        return program
    cmake = compiler("cmake")
    run([cmake, "-S", EXAMPLES, "-B", folder, f"-Dcsrm_DIR={csrm.get_cmake_dir()}"])
    run([cmake, "--build", folder])
    return folder / ("gateway_filter_cc" if how.endswith("++") else "gateway_filter_c")


@pytest.fixture(scope="module", params=["cc", "c++", "cmake-c", "cmake-c++"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_by(request.param, tmp_path_factory.mktemp("filter"))


@pytest.fixture(scope="module")
def scorer() -> csrm.Scorer:
    return csrm.load()


def bodies_of(config: str) -> list[str]:
    lines = (ROOT / "configs" / "examples.jsonl").read_text().splitlines()
    return [line for line in lines if json.loads(line)["config"] == config]


def filtered(
    program: Path,
    config: csrm.SafetyConfig,
    bodies: Sequence[str],
    folder: Path,
    timeout_ms: str = NO_HURRY,
) -> tuple[int, list[Decision]]:
    """Exit status and the decisions in the order of `bodies`."""
    policy = folder / "policy.json"
    policy.write_text(config.to_json())
    done = subprocess.run(
        [program, timeout_ms, default_artifact(), policy],
        input="\n".join(bodies) + "\n",
        capture_output=True,
        text=True,
        env={},
        timeout=600,
    )
    assert done.returncode in (0, 1), done.stderr
    found = {}
    for line in done.stdout.splitlines():
        number, decision, reward, compliance, error = line.split()
        found[int(number)] = Decision(decision, float(reward), float(compliance), error)
    assert sorted(found) == list(range(1, len(bodies) + 1)), "a body without its one decision"
    return done.returncode, [found[number] for number in sorted(found)]


@pytest.mark.parametrize("name", CONFIGS)
def test_c_package_filter_scores_shipped_examples_as_python_does(
    program: Path, scorer: csrm.Scorer, name: str, tmp_path: Path
) -> None:
    config = csrm.SafetyConfig.load(ROOT / "configs" / f"{name}.yaml")
    bodies = bodies_of(name)
    status, decisions = filtered(program, config, bodies, tmp_path)
    for body, decision in zip(bodies, decisions, strict=True):
        expected = scorer.score(config, json.loads(body)["messages"])
        # Nine digits state a float exactly. One graph, one kind of CPU: equal bit for bit.
        assert np.float32(decision.reward) == np.float32(expected.reward)
        assert np.float32(decision.compliance) == np.float32(expected.compliance)
        assert decision.decision == ("allow" if expected.verdict == "compliant" else "block")
        assert decision.error == "-"
    assert status == 1, "each of these configs has examples that break it"


def test_c_package_filter_broken_bodies_are_unknown_and_never_pass(
    program: Path, tmp_path: Path
) -> None:
    config = csrm.SafetyConfig.from_rules(["Be polite."], threshold=0.0)  # would let all pass
    good = '{"messages": [{"role": "assistant", "content": "Good morning."}]}'
    bodies = [good, *(body for body, _ in BROKEN), good]
    status, decisions = filtered(program, config, bodies, tmp_path)
    assert status == 1
    assert [d.decision for d in decisions] == ["allow", *["unknown"] * len(BROKEN), "allow"]
    assert [d.error for d in decisions] == ["-", *(error for _, error in BROKEN), "-"]
    assert all(math.isnan(d.reward) and math.isnan(d.compliance) for d in decisions[1:-1])
    status, _ = filtered(program, config, [good], tmp_path)
    assert status == 0


def test_c_package_filter_past_the_deadline_is_unknown(program: Path, tmp_path: Path) -> None:
    config = csrm.SafetyConfig.from_rules(["Be polite."], threshold=0.0)
    status, decisions = filtered(program, config, bodies_of("hr-assistant")[:3], tmp_path, "0")
    assert status == 1
    assert {(d.decision, d.error) for d in decisions} == {("unknown", "DeadlineExceeded")}


def test_c_package_filter_without_model_or_config_does_not_start(
    program: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"rules": [""]}')
    model = default_artifact()
    commands: list[list[str | Path]] = [
        [program],
        [program, "soon", model, policy],
        [program, NO_HURRY, tmp_path, policy],  # no model
        [program, NO_HURRY, model, policy],  # a rule without text
        [program, NO_HURRY, model, tmp_path / "missing.json"],
    ]
    for command in commands:
        done = subprocess.run(command, input="", capture_output=True, text=True, env={})
        assert done.returncode == 2
        assert done.stdout == ""
        assert "gateway_filter" in done.stderr


def test_c_package_states_one_version() -> None:
    header = (csrm.get_include() / "csrm" / "csrm.h").read_text()
    version = re.search(r'(?m)^#define CSRM_VERSION "(.*)"$', header)
    assert version is not None
    assert version[1] == csrm.__version__
    assert pkg_config("--modversion") == [csrm.__version__]


def test_c_package_pkg_config_names_the_shipped_model() -> None:
    (folder,) = pkg_config("--variable=artifact_dir")
    assert Path(folder).resolve() == default_artifact().resolve()


def test_c_package_library_exports_its_interface_and_nothing_else() -> None:
    nm = compiler("nm")
    listed = run([nm, "-D", "-C", "--defined-only", "--format=posix", csrm.get_library()]).stdout
    names = {line.split("@")[0] for line in listed.splitlines()}
    strangers = [
        name for name in names if not re.match(r"csrm_|csrm::|RegisterCustomOps|CSRM_", name)
    ]
    assert not strangers
    header = (csrm.get_include() / "csrm" / "csrm.h").read_text()
    declared = set(re.findall(r"^CSRM_API [^;]*?\b(csrm_\w+)\(", header, re.MULTILINE))
    assert declared == {name for name in names if name.startswith("csrm_")}
    assert len(declared) > 30
