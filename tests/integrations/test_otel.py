"""`csrm serve` with OpenTelemetry's own exporters, to a collector that reads OTLP over HTTP.

The collector is part of this test: it decodes the protobuf that arrives, and can refuse or hang.
"""

from __future__ import annotations

import gzip
import http.server
import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from csrm_server import WAIT_S, Server, Traffic, start_server
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KINDS = {"/v1/traces": ExportTraceServiceRequest, "/v1/logs": ExportLogsServiceRequest}


class Collector:
    """Listens on a loopback port. status: what it answers; `is_open` unset = it never does."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.is_open = threading.Event()
        self.is_open.set()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """One export."""
        data = request.rfile.read(int(request.headers["content-length"]))
        self.is_open.wait(WAIT_S)
        if self.status == 200:
            assert request.headers["content-type"] == "application/x-protobuf"
            if request.headers.get("content-encoding") == "gzip":
                data = gzip.decompress(data)
            message = KINDS[request.path]()
            message.ParseFromString(data)
            self.raw.append(data)
            self.headers.append({key.lower(): value for key, value in request.headers.items()})
            self.messages.append(message)
        request.send_response(self.status)
        request.send_header("content-type", "application/x-protobuf")
        request.send_header("content-length", "0")
        request.end_headers()

    def spans(self) -> list[Any]:
        """All that arrived."""
        return [
            span
            for message in self.messages
            if isinstance(message, ExportTraceServiceRequest)
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def events(self) -> list[Any]:
        """All that arrived."""
        return [
            record
            for message in self.messages
            if isinstance(message, ExportLogsServiceRequest)
            for resource in message.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def close(self) -> None:
        """Stops listening."""
        self.is_open.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


@contextmanager
def observed_server(folder: Path, **variables: str) -> Iterator[Server]:
    """`csrm serve` with these OTEL_ variables."""
    named = {f"OTEL_{name}": value for name, value in variables.items()}
    with mock.patch.dict(os.environ, named):
        server = start_server(folder)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            assert server.stop() == 0


def ask(server: Server, text: str, **headers: str) -> dict[str, Any]:
    """What /v1/score answers."""
    request = urllib.request.Request(
        f"{server.url}/v1/score",
        json.dumps({"messages": [{"role": "user", "content": text}]}).encode(),
        {key.replace("_", "-"): value for key, value in headers.items()},
    )
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def values(attributes: Any) -> dict[str, Any]:
    """OTLP's attributes as a dict."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def metric(server: Server, sample: str) -> float:
    """A sample of /metrics, 0 if it is not there."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=WAIT_S) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"{sample} "):
                return float(line.rpartition(" ")[2])
    return 0.0


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + WAIT_S
    while not what() and time.monotonic() < until:
        time.sleep(0.02)
    assert what()


def test_otlp_span_and_event_of_a_verdict_arrive(
    collector: Collector, tmp_path: Path, traffic: Traffic
) -> None:
    variables = {
        "EXPORTER_OTLP_ENDPOINT": collector.url,
        "EXPORTER_OTLP_HEADERS": "x-token=secret",
        "EXPORTER_OTLP_COMPRESSION": "gzip",
        "RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "BSP_SCHEDULE_DELAY": "50",
        "BLRP_SCHEDULE_DELAY": "50",
    }
    with observed_server(tmp_path, **variables) as server:
        answer = ask(
            server,
            traffic.violating,
            traceparent=f"00-{TRACE}-{CALLER}-01",
            x_csrm_response_id="chatcmpl-7",
        )
        assert answer["verdict"] == "violation"
        wait_for(lambda: len(collector.spans()) == 3 and len(collector.events()) == 1)
    spans = {span.name: span for span in collector.spans()}
    server_span = spans["POST /v1/score"]
    assert server_span.trace_id.hex() == TRACE
    assert server_span.parent_span_id.hex() == CALLER
    assert server_span.kind == server_span.SPAN_KIND_SERVER
    assert {spans[stage].parent_span_id for stage in ("read", "score")} == {server_span.span_id}
    assert values(server_span.attributes)["csrm.config.digest"] == answer["config_digest"]
    (event,) = collector.events()
    assert event.event_name == "gen_ai.evaluation.result"
    assert (event.trace_id.hex(), event.span_id.hex()) == (TRACE, CALLER)
    found = values(event.attributes)
    assert found["gen_ai.evaluation.score.label"] == "violation"
    assert found["gen_ai.evaluation.score.value"] == pytest.approx(answer["compliance"], abs=1e-6)
    assert found["gen_ai.response.id"] == "chatcmpl-7"
    resources = [
        values(message.resource_spans[0].resource.attributes)
        for message in collector.messages
        if isinstance(message, ExportTraceServiceRequest)
    ]
    assert resources[0]["service.name"] == "csrm"
    assert resources[0]["deployment.environment.name"] == "test"
    assert {headers["x-token"] for headers in collector.headers} == {"secret"}
    words = traffic.violating.encode().split()
    assert not any(traffic.violating.encode() in raw or words[3] in raw for raw in collector.raw)


def test_otlp_end_of_the_process_sends_what_waits(
    collector: Collector, tmp_path: Path, traffic: Traffic
) -> None:
    delays = {"BSP_SCHEDULE_DELAY": "60000", "BLRP_SCHEDULE_DELAY": "60000"}
    endpoint = {"EXPORTER_OTLP_ENDPOINT": collector.url}
    with observed_server(tmp_path, **endpoint, **delays) as server:
        ask(server, traffic.allowed)
        assert not collector.messages
        assert server.stop() == 0
    assert (len(collector.spans()), len(collector.events())) == (3, 1)


@pytest.mark.parametrize("fault", ["refuses", "fails", "hangs"])
def test_otlp_broken_collector_fails_no_request(
    collector: Collector, tmp_path: Path, traffic: Traffic, fault: str
) -> None:
    if fault == "refuses":
        collector.close()
    elif fault == "fails":
        collector.status = 503
    else:
        collector.is_open.clear()
    variables = {
        "EXPORTER_OTLP_ENDPOINT": collector.url,
        "EXPORTER_OTLP_TIMEOUT": "1",
        "BSP_SCHEDULE_DELAY": "10",
        "BSP_MAX_QUEUE_SIZE": "4",
        "BSP_MAX_EXPORT_BATCH_SIZE": "1",
        "BLRP_SCHEDULE_DELAY": "10",
    }
    with observed_server(tmp_path, **variables) as server:
        for _ in range(8):
            assert ask(server, traffic.allowed)["verdict"] == "compliant"
        failed = 'csrm_telemetry_total{result="export_failed",signal="traces"}'
        wait_for(lambda: metric(server, failed) >= 1)
        full = 'csrm_telemetry_total{result="queue_full",signal="traces"}'
        assert metric(server, full) >= 1
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 15
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert {line["event"] for line in lines} >= {"listening", "request", "stopped"}
    assert {line["status"] for line in lines if line["event"] == "request"} == {200}
