"""OpenTelemetry of csrm.serve with exporters in memory: spans, events, and what never leaves.

The protocol on the wire is in tests/integrations/test_otel.py.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import canaries  # skips this file without csrm[serve]
import pytest
from serve_client import (
    CHAT,
    EMPTY_TURN,
    WAIT_S,
    RunningApp,
    options_for,
    serve_artifact,
    shared_app,
    wait_for,
    write_configs,
)
from test_serve_redaction import CANARY, CASES
from test_serve_stream import answers

from csrm.serve.metrics import Metrics
from csrm.serve.telemetry import open_telemetry, wanted_signals

_WHY = "NO TELEMETRY TESTED: csrm[otel] is not installed; pip install 'csrm[otel]'"
pytest.importorskip("opentelemetry.sdk", reason=_WHY)
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason=_WHY)

from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: E402
    InMemorySpanExporter,
)
from opentelemetry.trace import SpanKind, StatusCode  # noqa: E402

from csrm.serve.otel import Telemetry  # noqa: E402
from csrm.serve.otel_outbox import Bounds, Outbox  # noqa: E402

fixtures = (serve_artifact, shared_app)  # made known to pytest here

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"


class Observed:
    """An application whose telemetry ends in memory."""

    def __init__(self, app: RunningApp, environment: dict[str, str] | None = None) -> None:
        self.app = app
        self._spans, self._events = InMemorySpanExporter(), InMemoryLogRecordExporter()
        metrics = app.service.metrics
        self.telemetry = Telemetry(metrics, self._spans, self._events, environment)
        app.service.telemetry = self.telemetry

    def spans(self) -> dict[str, Any]:
        """Those that have ended, by name."""
        assert self.telemetry.flush(WAIT_S)
        return {span.name: span for span in self._spans.get_finished_spans()}

    def events(self) -> list[Any]:
        """The log records so far."""
        assert self.telemetry.flush(WAIT_S)
        return [one.log_record for one in self._events.get_finished_logs()]

    def text(self) -> str:
        """Everything that would leave the process."""
        assert self.telemetry.flush(WAIT_S)
        found = [span.to_json() for span in self._spans.get_finished_spans()]
        return "\n".join([*found, *(one.to_json() for one in self._events.get_finished_logs())])


@pytest.fixture
def observed(shared_app: RunningApp) -> Iterator[Observed]:
    found = Observed(shared_app)
    yield found
    shared_app.service.telemetry = None
    found.telemetry.close()


def test_span_of_a_request_is_the_callers_child_with_its_stages(observed: Observed) -> None:
    body = {"messages": CHAT, "config": "strict"}
    answer = observed.app.post("/v1/score", body, traceparent=TRACEPARENT).json()
    spans = observed.spans()
    assert set(spans) == {"POST /v1/score", "read", "score"}
    server = spans["POST /v1/score"]
    assert server.kind is SpanKind.SERVER
    assert (server.context.trace_id, server.parent.span_id) == (int(TRACE, 16), int(CALLER, 16))
    for stage in ("read", "score"):
        assert spans[stage].parent.span_id == server.context.span_id
        assert server.start_time <= spans[stage].start_time <= spans[stage].end_time
    assert spans["read"].end_time <= spans["score"].start_time <= server.end_time
    assert dict(server.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/score",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "csrm.endpoint": "score",
        "csrm.outcome": "ok",
        "csrm.request.id": answer["id"],
        "csrm.tenant": "anyone",
        "csrm.artifact.digest": answer["artifact_digest"],
        "csrm.config.id": "strict",
        "csrm.config.version": "1",
        "csrm.config.digest": answer["config_digest"],
        "csrm.verdict": "violation",
        "csrm.conversations": 1,
        "csrm.compliance": pytest.approx(answer["compliance"], abs=1e-6),
        "csrm.tokens": answer["scored_tokens"],
    }
    assert server.status.status_code is StatusCode.UNSET


def test_span_without_a_usable_context_begins_a_trace(observed: Observed) -> None:
    for given in ({}, {"traceparent": "00-0-0-0"}, {"traceparent": CANARY}):
        observed.app.post("/configs/strict/v1/score", {"messages": CHAT}, **given)
        server = observed.spans()["POST /configs/{config_id}/v1/score"]
        assert server.parent is None
        (event, *_) = reversed(observed.events())
        assert event.span_id == server.context.span_id


def test_span_and_log_line_name_each_other(
    observed: Observed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="csrm.serve")
    observed.app.post("/v1/score", {"messages": CHAT})
    server = observed.spans()["POST /v1/score"]
    (line,) = [vars(record)["csrm"] for record in caplog.records if record.msg == "request"]
    assert int(line["trace_id"], 16) == server.context.trace_id
    assert int(line["span_id"], 16) == server.context.span_id


def test_event_of_each_conversation_is_under_the_callers_span(observed: Observed) -> None:
    given = {"traceparent": TRACEPARENT, "x_csrm_response_id": "chatcmpl-Ab1:2"}
    body = {"conversations": [CHAT, EMPTY_TURN], "config": "lenient"}
    good, bad = observed.app.post("/v1/score", body, **given).json()["results"]
    scored, unknown = observed.events()
    for event in (scored, unknown):
        assert event.event_name == "gen_ai.evaluation.result"
        assert (event.trace_id, event.span_id) == (int(TRACE, 16), int(CALLER, 16))
        assert event.body is None
        assert event.attributes["gen_ai.evaluation.name"] == "csrm.compliance"
        assert event.attributes["gen_ai.response.id"] == "chatcmpl-Ab1:2"
        assert event.attributes["csrm.config.digest"] == good["config_digest"]
    value = scored.attributes["gen_ai.evaluation.score.value"]
    assert value == pytest.approx(good["compliance"], abs=1e-6)
    assert scored.attributes["gen_ai.evaluation.score.label"] == "compliant"
    assert unknown.attributes["gen_ai.evaluation.score.label"] == "unknown"
    assert unknown.attributes["error.type"] == bad["error"]["code"] == "EmptyConversation"
    assert "gen_ai.evaluation.score.value" not in unknown.attributes
    server = observed.spans()["POST /v1/score"]
    assert server.attributes["csrm.verdict"] == "unknown"  # the worst of them
    assert server.attributes["error.type"] == "EmptyConversation"
    assert server.status.status_code is StatusCode.UNSET  # it was the caller's fault


@pytest.mark.parametrize(
    ("path", "id"), [("/v1/score", f"{CANARY} {CANARY}"), ("/v1/score", ""), ("/ext_authz", "a-1")]
)
def test_event_response_id_must_be_an_id_of_the_callers_own(
    observed: Observed, path: str, id: str
) -> None:
    observed.app.post(path, {"messages": CHAT[:1]}, x_csrm_response_id=id)
    (event,) = observed.events()
    assert "gen_ai.response.id" not in event.attributes


def test_span_of_a_server_failure_is_an_error(observed: Observed) -> None:
    observed.app.post("/v1/score", {"messages": CHAT, "deadline_ms": 0.0001})
    server = observed.spans()["POST /v1/score"]
    assert server.attributes["error.type"] == "DeadlineExceeded"
    assert server.attributes["http.response.status_code"] == 504
    assert server.status.status_code is StatusCode.ERROR
    assert not server.status.description


def test_span_of_a_refused_body_marks_the_stage(observed: Observed) -> None:
    observed.app.ask("POST", "/v1/score", content=b"{")
    spans = observed.spans()
    assert spans["read"].attributes["error.type"] == "BadJson"
    assert spans["POST /v1/score"].attributes["csrm.outcome"] == "BadJson"
    assert "score" not in spans


@pytest.mark.parametrize("is_good", [True, False])
def test_span_of_a_stream_lasts_as_long_and_has_one_event(
    observed: Observed, is_good: bool
) -> None:
    last = {"finish": True} if is_good else {CANARY: CANARY}
    opening = {"messages": CHAT[:1], "config": "strict"}
    sent = answers(observed.app, [opening, {"append": "a b c."}, last], traceparent=TRACEPARENT)
    server = observed.spans()["GET /v1/stream"]
    (event,) = observed.events()
    assert server.parent.span_id == event.span_id == int(CALLER, 16)
    assert server.attributes["csrm.verdict"] == sent[-2]["verdict"]
    assert event.attributes["gen_ai.evaluation.score.label"] == sent[-2]["verdict"]
    assert server.attributes["csrm.outcome"] == ("ok" if is_good else "BadRequest")
    assert "http.response.status_code" not in server.attributes
    assert CANARY not in observed.text()


def test_telemetry_holds_no_text_of_a_request(observed: Observed) -> None:
    carried = {"tracestate": f"a={CANARY}", "baggage": f"a={CANARY}", "user-agent": CANARY}
    for method, path, body, headers in CASES:
        given = {"content": body} if isinstance(body, bytes) else {"json": body}
        headers = {"traceparent": TRACEPARENT, **carried, **headers}
        observed.app.ask(method, path, headers=headers, **given)
    turn = {"role": "user", "content": CANARY}
    rules = [{"name": CANARY, "text": CANARY}]
    observed.app.post("/v1/score", {"messages": [turn], "rules": rules, "explain": True})
    text = observed.text()
    assert text.count("gen_ai.evaluation.result") > 10
    assert CANARY not in text.lower()


def test_telemetry_holds_none_of_the_canaries(observed: Observed) -> None:
    for case in canaries.requests():
        observed.app.ask(case.method, case.path, **case.given)
    text = observed.text()
    assert text.count('"csrm.endpoint"') > 100
    assert canaries.WORD not in text.lower()


def test_telemetry_full_queue_drops_and_never_waits(shared_app: RunningApp) -> None:
    """An exporter that hangs costs a request nothing; what it makes lost is counted."""
    release = threading.Event()

    class Stuck(InMemorySpanExporter):
        def export(self, spans: Any) -> Any:
            release.wait(WAIT_S)
            return super().export(spans)

    bounds = {"OTEL_BSP_MAX_QUEUE_SIZE": "2", "OTEL_BSP_SCHEDULE_DELAY": "1"}
    telemetry = Telemetry(shared_app.service.metrics, Stuck(), None, bounds)
    shared_app.service.telemetry = telemetry
    try:
        before = counted(shared_app, "traces", "queue_full")
        for _ in range(10):
            assert shared_app.post("/v1/score", {"messages": CHAT}).status_code == 200
        assert counted(shared_app, "traces", "queue_full") - before >= 30 - 4
    finally:
        shared_app.service.telemetry = None
        release.set()
        telemetry.close()


def test_telemetry_failing_exporter_is_counted(shared_app: RunningApp) -> None:
    class Broken(InMemorySpanExporter):
        def export(self, spans: Any) -> Any:
            raise OSError(CANARY)

    telemetry = Telemetry(shared_app.service.metrics, Broken())
    shared_app.service.telemetry = telemetry
    try:
        before = counted(shared_app, "traces", "export_failed")
        assert shared_app.post("/v1/score", {"messages": CHAT}).status_code == 200
        assert telemetry.flush(WAIT_S)
        wait_for(lambda: counted(shared_app, "traces", "export_failed") - before == 3)
    finally:
        shared_app.service.telemetry = None
        telemetry.close()


def test_outbox_close_ends_a_hanging_exporter_and_counts_what_is_left() -> None:
    counts: dict[str, int] = {}
    hang, interrupted = threading.Event(), threading.Event()

    def export(batch: list[int]) -> bool:
        hang.set()
        return not interrupted.wait(WAIT_S)

    def count(result: str, n: int) -> None:
        counts[result] = counts.get(result, 0) + n

    outbox = Outbox("test", export, count, Bounds(size=10, batch=2, delay_s=WAIT_S))
    for item in range(5):
        outbox.put(item)
    assert hang.wait(WAIT_S)
    began = time.monotonic()
    outbox.close(0.05, interrupted.set)
    outbox.put(5)
    assert time.monotonic() - began < 5
    wait_for(lambda: sum(counts.values()) == 6)
    assert counts == {"export_failed": 2, "shut_down": 4}


def test_outbox_close_sends_what_waits() -> None:
    sent: list[int] = []

    def export(batch: list[int]) -> bool:
        sent.extend(batch)
        return True

    outbox = Outbox("test", export, lambda result, n: None, Bounds(delay_s=WAIT_S))
    for item in range(700):
        outbox.put(item)
    outbox.close(WAIT_S, lambda: None)
    assert sent == list(range(700))


def test_telemetry_unsampled_trace_sends_events_and_no_spans(
    shared_app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "guard-1")
    found = Observed(shared_app)
    try:
        shared_app.post("/v1/score", {"messages": CHAT})
        assert found.spans() == {}
        assert len(found.events()) == 1
        assert '"service.name": "guard-1"' in found.text()
    finally:
        shared_app.service.telemetry = None
        found.telemetry.close()


def test_telemetry_service_name_is_csrm_by_default(observed: Observed) -> None:
    observed.app.post("/v1/score", {"messages": CHAT})
    assert observed.spans()["POST /v1/score"].resource.attributes["service.name"] == "csrm"


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environment", "signals"),
    [
        ({}, set()),
        ({"OTEL_SERVICE_NAME": "csrm"}, set()),
        (ENDPOINT, {"traces", "logs"}),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, set()),
        ({**ENDPOINT, "OTEL_LOGS_EXPORTER": "none"}, {"traces"}),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://127.0.0.1:1/x"}, {"logs"}),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, {"traces"}),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "console"}, {"logs"}),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, set()),
        (
            {
                **ENDPOINT,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            {"traces"},
        ),
    ],
)
def test_telemetry_environment_chooses_the_signals(
    environment: dict[str, str], signals: set[str]
) -> None:
    assert wanted_signals(environment) == signals


@pytest.mark.parametrize("lack", ["package", "value"])
def test_telemetry_that_cannot_be_opened_is_off_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lack: str
) -> None:
    if lack == "package":
        monkeypatch.setitem(sys.modules, "csrm.serve.otel", None)
    else:
        monkeypatch.setenv("OTEL_ATTRIBUTE_COUNT_LIMIT", "unheard-of")
    assert open_telemetry(ENDPOINT, Metrics()) is None
    assert [record.msg for record in caplog.records] == ["telemetry_off"]


def test_telemetry_without_variables_is_never_imported(
    serve_artifact: Path, tmp_path: Path
) -> None:
    with RunningApp(options_for(serve_artifact, write_configs(tmp_path / "c"))) as app:
        assert app.service.telemetry is None
    program = (
        "import sys, csrm, csrm.serve\n"
        "from pathlib import Path\n"
        "csrm.serve.Service(csrm.serve.ServeOptions(Path(sys.argv[1]), Path(sys.argv[2])), {})\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "c"), str(serve_artifact)]
    subprocess.run(command, check=True, timeout=WAIT_S)


def counted(app: RunningApp, signal: str, result: str) -> float:
    """The counter csrm_telemetry_total."""
    return app.service.metrics.telemetry.labels(signal, result)._value.get()
