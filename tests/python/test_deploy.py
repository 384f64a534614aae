"""deploy/: the image, the Kubernetes manifest, dashboard and alerts name only what exists.

Each of the outside checkers (kubernetes-validate, hadolint, promtool) is skipped aloud where it is
not installed: `pip install --group deploy`; promtool is part of Prometheus.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from serve_client import CHAT, RunningApp, serve_artifact, shared_app

from csrm.cli.serve import serve_command
from csrm.config import SafetyConfig
from csrm.score import Verdict
from csrm.serve import ServeOptions
from csrm.serve.failures import STATUSES
from csrm.serve.metrics import _SCHEDULER
from csrm.serve.otel_outbox import Result
from csrm.serve.tenants import read_tenants

fixtures = (serve_artifact, shared_app)  # made known to pytest here

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
_NAME = re.compile(r"\b(?:csrm|process)_[a-z_]+\b")
_MATCHED = re.compile(r"\b((?:csrm|process)_[a-z_]+)\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')
# Added by Prometheus when it scrapes.
_TARGET_LABELS = {"job", "instance"}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [one for one in documents("kubernetes.yaml") if one["kind"] == kind]
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in documents("alerts.yaml")[0]["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    """Every PromQL expression of the alerts and the dashboard."""
    board = json.loads((DEPLOY / "grafana.json").read_text())
    targets = [target for panel in board["panels"] for target in panel.get("targets", ())]
    variables = [one["query"] for one in board["templating"]["list"]]
    return [*(rule["expr"] for rule in rules()), *(one["expr"] for one in targets), *variables]


@pytest.fixture(scope="module")
def exposed(shared_app: RunningApp) -> dict[str, set[str]]:
    """The label names of each sample that /metrics can have, by its name."""
    metrics = shared_app.service.metrics
    metrics.fail_open.labels("litellm")
    metrics.telemetry.labels("traces", "sent")
    assert shared_app.post("/v1/score", {"messages": CHAT}).status_code == 200
    found: dict[str, set[str]] = {}
    for line in shared_app.ask("GET", "/metrics").text.splitlines():
        sample = re.match(r"(\w+)(?:\{(.*)\})? ", line)
        if sample and not line.startswith("#") and not sample[1].endswith("_created"):
            found[sample[1]] = set(re.findall(r'(\w+)="', sample[2] or ""))
    return found


def test_deploy_every_metric_named_is_exposed(exposed: dict[str, set[str]]) -> None:
    labels = set().union(*exposed.values())
    for expression in expressions():
        named = set(_NAME.findall(re.sub(r'"[^"]*"', "", expression))) - labels
        assert named <= set(exposed), expression


def test_deploy_every_label_and_value_named_exists(exposed: dict[str, set[str]]) -> None:
    values = {
        "outcome": {*STATUSES, "ok", "abandoned"},
        "verdict": set(get_args(Verdict)),
    }
    results = {
        "csrm_scheduler_jobs_total": set(_SCHEDULER.values()),
        "csrm_telemetry_total": set(get_args(Result)),
        "csrm_reloads_total": {"loaded", "failed"},
    }
    n_checked = 0
    for expression in expressions():
        for metric, matchers in _MATCHED.findall(expression):
            for label, value in _MATCHER.findall(matchers):
                assert label in exposed[metric] | _TARGET_LABELS, expression
                known = results[metric] if label == "result" else values.get(label)
                if known is not None:
                    assert set(value.split("|")) <= known, expression
                    n_checked += 1
        for by in re.findall(r"by \(([^)]*)\)", expression):
            names = {name.strip() for name in by.split(",")}
            assert names <= {*_TARGET_LABELS, *set().union(*exposed.values())}, expression
    assert n_checked > 15


def test_deploy_recorded_series_used_are_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for expression in expressions():
        assert set(re.findall(r"\bcsrm:[\w:]+", expression)) <= recorded


def test_deploy_dashboard_has_no_id_or_place_twice() -> None:
    panels = json.loads((DEPLOY / "grafana.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)


def test_deploy_every_alert_leads_to_a_heading_of_the_runbook() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    slugs = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len(alerts) > 15
    for alert in alerts:
        page, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert page == "docs/operations.md"
        assert anchor in slugs, alert["alert"]
        assert f"`{alert['alert']}`" in text, alert["alert"]


def test_deploy_operations_explains_every_metric(exposed: dict[str, set[str]]) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed}
    missing = sorted(name for name in families if f"`{name}" not in text)
    assert not [name for name in missing if name.startswith("csrm_")]


def option_names() -> set[str]:
    """Every option of `csrm serve`, as it is written."""
    return {name for given in serve_command.params for name in (*given.opts, *given.secondary_opts)}


def container() -> dict[str, Any]:
    (found,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_deploy_manifest_options_and_variables_exist() -> None:
    for argument in container()["args"]:
        assert argument.partition("=")[0] in option_names(), argument
    known = {f"CSRM_SERVE_{(given.name or '').upper()}" for given in serve_command.params}
    assert {one["name"] for one in container()["env"]} <= known
    stated = re.findall(r"\bCSRM_SERVE_\w+", (DEPLOY / "Containerfile").read_text())
    assert len(stated) >= 4
    assert set(stated) <= known


def test_deploy_grace_period_covers_the_drain() -> None:
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    given = dict(
        argument.lstrip("-").split("=") for argument in container()["args"] if "=" in argument
    )
    drain_s = float(given["drain-delay-s"]) + float(given["drain-timeout-s"])
    before_s = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    # What was accepted at the very end of a drain has its deadline still.
    after_s = ServeOptions(config=Path("x")).deadline_s
    assert pod["terminationGracePeriodSeconds"] >= before_s + drain_s + after_s
    # Until no endpoint names the pod: the readiness probe has failed by then.
    probe = container()["readinessProbe"]
    assert probe["httpGet"]["path"] == "/readyz"


def test_deploy_manifest_configs_and_keys_are_read(tmp_path: Path) -> None:
    texts = manifest("ConfigMap")["data"]
    configs = {SafetyConfig.parse(text, "yaml").id for text in texts.values()}
    assert {f"--default-config={id}" for id in configs} & set(container()["args"])
    (keys,) = manifest("Secret")["stringData"].items()
    (tmp_path / keys[0]).write_text(keys[1])
    (tenant,) = read_tenants(tmp_path / keys[0], {}, writes=False).known
    assert {tenant.config, *tenant.configs} <= configs
    assert not tenant.admin
    mounts = {one["name"]: one["mountPath"] for one in container()["volumeMounts"]}
    assert f"--config={mounts['configs']}" in container()["args"]
    assert f"--tenants={mounts['keys']}/{keys[0]}" in container()["args"]
    assert all("subPath" not in one for one in container()["volumeMounts"])  # never updated


def test_deploy_manifest_gives_the_process_no_rights() -> None:
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert manifest("NetworkPolicy")["spec"]["egress"] == []
    assert all(one["readOnly"] for one in container()["volumeMounts"])


def test_deploy_manifest_objects_select_the_same_pods(exposed: dict[str, set[str]]) -> None:
    label = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("Service")["spec"]["selector"] == label
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == label
    assert manifest("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == label
    scaler = manifest("HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == manifest("Deployment")["metadata"]["name"]
    (metric,) = [one["pods"]["metric"]["name"] for one in scaler["metrics"] if "pods" in one]
    assert metric in exposed


def test_deploy_image_has_the_sources_and_runs_as_nobody() -> None:
    lines = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    copied = {
        part.rstrip("/")
        for line in words
        if line[0] == "COPY" and not line[1].startswith("--from")
        for part in line[1:-1]
    }
    assert all((ROOT / part).exists() for part in copied)
    with (ROOT / "Makefile").open() as stream:
        text = stream.read().replace("\\\n", " ")
    sources = re.search(r"^SOURCES := (.*)$", text, re.MULTILINE)
    assert sources is not None
    needed = set(re.findall(r"[\w.]+", sources[1].partition("-type")[0])) - {"shell", "find"}
    assert needed <= copied
    (user,) = [line[1] for line in words if line[0] == "USER"]
    pod = manifest("Deployment")["spec"]["template"]["spec"]["securityContext"]
    assert user == f"{pod['runAsUser']}:{pod['runAsGroup']}"
    assert ":latest" not in " ".join(lines)


def test_deploy_constraints_pin_what_the_extras_need() -> None:
    pinned = re.findall(r"^([\w.-]+)==\S+$", (DEPLOY / "constraints.txt").read_text(), re.MULTILINE)
    names = {name.lower().replace("_", "-") for name in pinned}
    project = (ROOT / "pyproject.toml").read_text()
    for key in ("dependencies", "serve", "otel"):
        given = re.search(rf"^{key} = \[(.*?)\]$", project, re.MULTILINE | re.DOTALL)
        assert given is not None
        wanted = set(re.findall(r'"([\w-]+)(?=[>=\[])', given[1]))
        assert wanted
        assert wanted <= names


def checker(name: str) -> str:
    """The program `name` of this environment or the PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"NOT CHECKED: {name} is not installed")
    return found


@pytest.mark.parametrize(
    "command",
    [
        ("kubernetes-validate", "--strict", "kubernetes.yaml"),
        ("hadolint", "Containerfile"),
        ("promtool", "check", "rules", "alerts.yaml"),
        ("promtool", "test", "rules", "alerts_test.yaml"),
    ],
    ids=" ".join,
)
def test_deploy_file_passes_its_checker(command: tuple[str, ...]) -> None:
    program = checker(command[0])
    done = subprocess.run([program, *command[1:]], cwd=DEPLOY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
