"""`Telemetry`: a span for each request, its stages and its evaluations, in OpenTelemetry's terms.

Not: whether it is on (telemetry.py), or the queues in front of the exporters (otel_outbox.py). Data
comes from `Call`s. What leaves the process are ids, digests, numbers, names of endpoints, tenants
and failures, and ids and versions of the operator's configs; never text of a user or of a rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import (
    LoggerProvider,
    LogRecordProcessor,
    ReadableLogRecord,
    ReadWriteLogRecord,
)
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import csrm
from csrm.serve.failures import STATUSES
from csrm.serve.metrics import Metrics
from csrm.serve.otel_outbox import Bounds, Outbox, Result
from csrm.serve.routes import PIN, ROWS
from csrm.serve.streaming import STREAM_PATH

if TYPE_CHECKING:
    from csrm.serve.call import Call
    from csrm.serve.judging import Judgement

Value = str | int | float | bool | Sequence[str]

EVENT = "gen_ai.evaluation.result"
EVALUATION = "csrm.compliance"
RESPONSE_ID_HEADER = "x-csrm-response-id"
_RESPONSE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_SCOPE = "csrm.serve"
_METHODS = frozenset(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
_ROUTES = {**{row.endpoint.name: row.path for row in ROWS}, "stream": STREAM_PATH}
_WORST_FIRST = ("violation", "unknown", "compliant")
_FLUSH_S = 5.0  # at the end of the process
# Facts of a request's log line that its span has too.
_ATTRIBUTES = {
    "request_id": "csrm.request.id",
    "tenant": "csrm.tenant",
    "artifact_digest": "csrm.artifact.digest",
    "config_id": "csrm.config.id",
    "config_digest": "csrm.config.digest",
    "compliance": "csrm.compliance",
    "tokens": "csrm.tokens",
}


class Telemetry:
    """Providers of its own, so that a program around csrm.serve keeps its global ones.

    spans, events: exporters, None = that signal is off. Requests never wait for them: there is a
    bounded queue in front of each. Belongs to the event loop's thread, but for `flush` and `close`.
    """

    def __init__(
        self,
        metrics: Metrics,
        spans: SpanExporter | None = None,
        events: LogRecordExporter | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        given = {} if environment is None else environment
        resource = _resource()
        self._outboxes: list[tuple[Outbox[ReadableSpan] | Outbox[ReadableLogRecord], Exporter]] = []
        self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
        if spans is not None:
            sent_spans = _span_outbox(spans, metrics, _bounds(given, "OTEL_BSP", 5.0))
            self._outboxes.append((sent_spans, spans))
            self._tracers.add_span_processor(_Spans(sent_spans))
        if events is not None:
            sent_events = _event_outbox(events, metrics, _bounds(given, "OTEL_BLRP", 1.0))
            self._outboxes.append((sent_events, events))
            self._loggers.add_log_record_processor(_Events(sent_events))
        self.tracer = self._tracers.get_tracer(_SCOPE, csrm.__version__)
        self.logger = None if events is None else self._loggers.get_logger(_SCOPE, csrm.__version__)

    def request(self, call: Call) -> RequestSpan:
        """The span of `call`, begun now."""
        return RequestSpan(self, call)

    def flush(self, timeout_s: float) -> bool:
        """Sends at once what waits; whether all of it was handed over in time. Blocks."""
        return all(outbox.flush(timeout_s) for outbox, _ in self._outboxes)

    def close(self) -> None:
        """Sends what waits, for some seconds, and drops the rest. Blocks."""
        for outbox, exporter in self._outboxes:
            outbox.close(_FLUSH_S / len(self._outboxes), exporter.shutdown)


class RequestSpan:
    """One request as a server span under the caller's, whose context `traceparent` states.

    The caller's tracestate and baggage are not read: their text would leave with the span.
    """

    def __init__(self, telemetry: Telemetry, call: Call) -> None:
        self._telemetry = telemetry
        self._call = call
        headers = call.connection.headers
        carrier = {"traceparent": headers.get("traceparent", "")}
        self._parent = TraceContextTextMapPropagator().extract(carrier, context=Context())
        stated = call.connection.scope.get("method", "GET")  # a WebSocket begins as a GET
        method = stated if stated in _METHODS else "_OTHER"
        pin = PIN if "config_id" in call.connection.path_params else ""
        route = pin + _ROUTES[call.name]
        self._span = telemetry.tracer.start_span(
            f"{method} {route}",
            context=self._parent,
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": method,
                "http.route": route,
                "url.scheme": call.connection.scope.get("scheme", "http"),
                "csrm.endpoint": call.name,
            },
        )
        self._context = set_span_in_context(self._span, Context())

    @property
    def trace_id(self) -> str:
        """In hex, for the log."""
        return format_trace_id(self._span.get_span_context().trace_id)

    @property
    def span_id(self) -> str:
        """In hex, for the log."""
        return format_span_id(self._span.get_span_context().span_id)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A child span for what is done within. An exception marks it, by its kind alone."""
        span = self._telemetry.tracer.start_span(name, context=self._context)
        try:
            yield
        except BaseException as error:
            span.set_attribute("error.type", getattr(error, "kind", type(error).__name__))
            raise
        finally:
            span.end()

    def evaluated(self, answers: Iterable[Judgement]) -> None:
        """An event for each answer, under the caller's span if it stated one, else under this."""
        logger = self._telemetry.logger
        if logger is None:
            return
        judged = get_current_span(self._parent).get_span_context()
        context = self._context if not judged.is_valid else _within(judged)
        common = self._common()
        for answer in answers:
            logger.emit(
                LogRecord(
                    context=context,
                    event_name=EVENT,
                    severity_number=SeverityNumber.INFO,
                    attributes={**common, **_evaluation(answer)},
                )
            )

    def end(self, status: int, outcome: str, facts: Mapping[str, object]) -> None:
        """Ends the span with what the log line says. status: of HTTP, or a WebSocket's close."""
        span = self._span
        for fact, attribute in _ATTRIBUTES.items():
            value = facts.get(fact)
            if isinstance(value, str | int | float):
                span.set_attribute(attribute, value)
        if status < 1000:
            span.set_attribute("http.response.status_code", status)
        if self._call.named is not None:
            span.set_attribute("csrm.config.version", self._call.named.public_version)
        counts = facts.get("verdicts")
        if isinstance(counts, Mapping):
            span.set_attribute("csrm.verdict", next(v for v in _WORST_FIRST if v in counts))
            span.set_attribute("csrm.conversations", sum(counts.values()))
        failures = facts.get("failures")
        kinds = [] if outcome in ("ok", "abandoned") else [outcome]
        kinds += sorted(failures) if isinstance(failures, Mapping) else []
        span.set_attribute("csrm.outcome", outcome)
        if kinds:
            span.set_attribute("error.type", kinds[0])
        if any(STATUSES.get(kind, 500) >= 500 for kind in kinds):
            span.set_status(StatusCode.ERROR)
        span.end()

    def _common(self) -> dict[str, Value]:
        call = self._call
        found: dict[str, Value] = {
            "gen_ai.evaluation.name": EVALUATION,
            "csrm.request.id": call.id,
            "csrm.artifact.digest": call.snapshot.model.digest,
        }
        given = call.own_header(RESPONSE_ID_HEADER)
        if given is not None and _RESPONSE_ID.fullmatch(given):
            found["gen_ai.response.id"] = given
        return found


Exporter = SpanExporter | LogRecordExporter


class _Spans(SpanProcessor):
    """Sampled spans, when they end, into the outbox."""

    def __init__(self, outbox: Outbox[ReadableSpan]) -> None:
        self._outbox = outbox

    def on_end(self, span: ReadableSpan) -> None:
        """Never blocks."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._outbox.put(span)


class _Events(LogRecordProcessor):
    """Events into the outbox."""

    def __init__(self, outbox: Outbox[ReadableLogRecord]) -> None:
        self._outbox = outbox

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Never blocks."""
        self._outbox.put(
            ReadableLogRecord(
                log_record=log_record.log_record,
                resource=log_record.resource or Resource.get_empty(),
                instrumentation_scope=log_record.instrumentation_scope,
                limits=log_record.limits,
            )
        )

    def shutdown(self) -> None:
        """Nothing: `Telemetry.close` ends the outbox."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Whether all was handed over in time."""
        return self._outbox.flush(timeout_millis / 1000)


def open_exporters(
    signals: frozenset[str], environment: Mapping[str, str], metrics: Metrics
) -> Telemetry:
    """OTLP over HTTP for `signals`. Errors: the exporters', for values that they cannot use."""
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    spans = OTLPSpanExporter() if "traces" in signals else None
    events = OTLPLogExporter() if "logs" in signals else None
    return Telemetry(metrics, spans, events, environment)


def _span_outbox(exporter: SpanExporter, metrics: Metrics, bounds: Bounds) -> Outbox[ReadableSpan]:
    def export(batch: list[ReadableSpan]) -> bool:
        return exporter.export(batch) is SpanExportResult.SUCCESS

    def count(result: Result, n: int) -> None:
        metrics.telemetry.labels("traces", result).inc(n)

    return Outbox("csrm-traces", export, count, bounds)


def _event_outbox(
    exporter: LogRecordExporter, metrics: Metrics, bounds: Bounds
) -> Outbox[ReadableLogRecord]:
    def export(batch: list[ReadableLogRecord]) -> bool:
        return exporter.export(batch) is LogRecordExportResult.SUCCESS

    def count(result: Result, n: int) -> None:
        metrics.telemetry.labels("logs", result).inc(n)

    return Outbox("csrm-logs", export, count, bounds)


def _bounds(environment: Mapping[str, str], prefix: str, delay_s: float) -> Bounds:
    """What the variables of the batch processors say; what is not a positive number is ignored."""
    default = Bounds(delay_s=delay_s)

    def stated(name: str, otherwise: int) -> int:
        text = environment.get(f"{prefix}_{name}", "").strip()
        return int(text) if text.isdecimal() and 0 < int(text) < 10**9 else otherwise

    size = stated("MAX_QUEUE_SIZE", default.size)
    return Bounds(
        size=size,
        batch=min(size, stated("MAX_EXPORT_BATCH_SIZE", default.batch)),
        delay_s=stated("SCHEDULE_DELAY", round(delay_s * 1000)) / 1000,
    )


def _resource() -> Resource:
    """That of the OTEL_* variables; the service is named csrm if they give no name."""
    found = Resource.create({SERVICE_VERSION: csrm.__version__})
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: "csrm"}))
    return found


def _within(parent: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _evaluation(answer: Judgement) -> dict[str, Value]:
    named = answer.named
    found: dict[str, Value] = {
        "gen_ai.evaluation.score.label": answer.verdict,
        "csrm.config.id": named.id,
        "csrm.config.version": named.public_version,
        "csrm.config.digest": named.digest,
        "csrm.threshold": named.config.threshold,
    }
    if answer.score is not None:
        found["gen_ai.evaluation.score.value"] = answer.score.compliance
        found["csrm.reward"] = answer.score.reward
        found["csrm.tokens"] = answer.score.scored_tokens
    if answer.failure is not None:
        found["error.type"] = answer.failure.kind
    return found
