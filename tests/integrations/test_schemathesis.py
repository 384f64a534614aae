"""Schemathesis holds a running `csrm serve` to its OpenAPI document, with good and bad requests.

Bounded: a fixed number of examples for each operation, the same ones in each run. No answer may be
a 5xx, none may contradict the document, and what the document forbids must be refused: with an
error, or by a gateway's own word for "do not pass".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from csrm_server import POLICY, Server, start_server
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from csrm.serve.openapi import document

MAX_EXAMPLES = 20
CONFIG = POLICY.stem
DEADLINE_S = 60.0
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
# They answer "blocked" with the status of a decision, whatever they are sent.
GATEWAYS = ("litellm", "agentgateway", "portkey", "ext_authz")


@pytest.fixture(scope="session")
def writable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes configs from everyone and has time for every request."""
    folder = tmp_path_factory.mktemp("schemathesis")
    server = start_server(folder, "--config-writes", "--deadline-s", str(DEADLINE_S))
    yield server
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert [line for line in lines if line["event"] == "unexpected"] == []


def described() -> dict[str, Any]:
    """What GET /openapi.json answers, but for a bound that would cost minutes to try."""
    found: dict[str, Any] = json.loads(json.dumps(document()))
    del found["components"]["schemas"]["Config"]["properties"]["rules"]["maxItems"]
    return found


# Read here, so that each operation is a test of its own.
schema = schemathesis.openapi.from_dict(described())


def give_what_exists(case: schemathesis.Case) -> None:
    """A config that is there, and time enough: else most requests would be 404 or 504."""
    if "config_id" in case.path_parameters:
        case.path_parameters["config_id"] = CONFIG
    if "x-csrm-config" in case.headers:
        case.headers["x-csrm-config"] = CONFIG
    if "x-csrm-deadline-ms" in case.headers:
        case.headers["x-csrm-deadline-ms"] = str(1000 * DEADLINE_S)
    if isinstance(case.body, dict) and "deadline_ms" in case.body:
        case.body["deadline_ms"] = 1000 * DEADLINE_S


@schema.parametrize()
@settings(
    max_examples=MAX_EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_schemathesis_answers_conform_to_the_document(
    case: schemathesis.Case, writable: Server
) -> None:
    if case.meta.generation.mode.is_positive:
        give_what_exists(case)
    response = case.call(base_url=writable.url, timeout=DEADLINE_S)
    is_gateway = str(case.operation.definition.raw["operationId"]).startswith(GATEWAYS)
    checks = CHECKS if is_gateway else [*CHECKS, negative_data_rejection]
    case.validate_response(response, checks=checks)
