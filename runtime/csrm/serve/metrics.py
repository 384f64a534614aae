"""The Prometheus metrics of a server, in a registry of their own.

Not: measuring (endpoint.py, judging.py call these counters). Labels are names of endpoints, kinds
of failures, and ids and versions of the operator's configs; never text of a user. One process
serves, so the counts are whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from csrm.serve.model import Model

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
_SHARES = tuple(step / 20 for step in range(1, 20))
_SCHEDULER = {
    "n_accepted": "accepted",
    "n_refused": "refused",
    "n_finished": "finished",
    "n_failed": "failed",
    "n_expired": "expired",
    "n_cancelled": "cancelled",
}
_ENGINE = {
    "n_batches": ("csrm_batches", "Engine calls for rows of conversations."),
    "n_rows": ("csrm_batch_rows", "Rows in them."),
    "real_tokens": ("csrm_batch_tokens", "Tokens of these rows."),
    "padded_tokens": ("csrm_batch_padded_tokens", "The same with padding."),
    "n_prefix_calls": ("csrm_prefix_batches", "Engine calls for rules."),
    "queue_s": ("csrm_queue_seconds", "Time from submission to the first engine call, summed."),
}


class Metrics:
    """Counters of requests and verdicts; the scheduler's and the cache's own when they are read."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        ProcessCollector(registry=registry)  # memory, CPU time, descriptors, start
        self.requests = Counter(
            "csrm_requests", "Requests by outcome.", ["endpoint", "outcome"], registry=registry
        )
        self.seconds = Histogram(
            "csrm_request_duration_seconds",
            "From the head of a request to its answer.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.verdicts = Counter(
            "csrm_verdicts",
            "Judged conversations.",
            ["config_id", "config_version", "verdict"],
            registry=registry,
        )
        self.compliance = Histogram(
            "csrm_compliance",
            "Compliance of judged conversations.",
            buckets=_SHARES,
            registry=registry,
        )
        self.fail_open = Counter(
            "csrm_fail_open",
            "Unknown verdicts let by in fail mode open.",
            ["endpoint"],
            registry=registry,
        )
        self.reloads = Counter("csrm_reloads", "Reloads by result.", ["result"], registry=registry)
        for result in ("loaded", "failed"):  # from 0 on, or the first one would be no increase
            self.reloads.labels(result)
        self.loaded_at = Gauge(
            "csrm_loaded_timestamp_seconds", "When the set was loaded.", registry=registry
        )
        self.telemetry = Counter(
            "csrm_telemetry",
            "Spans and events of OpenTelemetry by what became of them.",
            ["signal", "result"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "csrm_requests_in_flight", "Requests being served.", registry=registry
        )

    def watch(self, model: Callable[[], Model | None], version: str) -> None:
        """Adds what the model counts itself, read anew for each scrape."""
        self._registry.register(_ModelCollector(model, version))

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self._registry)


class _ModelCollector:
    def __init__(self, model: Callable[[], Model | None], version: str) -> None:
        self._model = model
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Sums over the lanes of the model in use."""
        model = self._model()
        if model is None:
            return
        labels = {
            "version": self._version,
            "artifact": model.digest,
            "backend": str(model.info.get("variant", "")),
        }
        build = GaugeMetricFamily("csrm_build_info", "What is running.", labels=list(labels))
        build.add_metric(list(labels.values()), 1)
        yield build
        yield from _scheduler_metrics([lane.scheduler.stats() for lane in model.lanes])
        caches = [lane.scorer.cache_stats() for lane in model.lanes]
        for key in ("n_hits", "n_misses", "n_evictions"):
            what = key.removeprefix("n_")
            yield CounterMetricFamily(
                f"csrm_prefix_cache_{what}", f"{what} of the prefix cache.", _sum(caches, key)
            )


def _scheduler_metrics(stats: list[dict[str, float]]) -> Iterator[Metric]:
    yield GaugeMetricFamily("csrm_queue_depth", "Conversations that wait.", _sum(stats, "n_queued"))
    yield GaugeMetricFamily(
        "csrm_queue_tokens", "Tokens that wait or are scored.", _sum(stats, "held_tokens")
    )
    jobs = CounterMetricFamily(
        "csrm_scheduler_jobs", "Conversations by what became of them.", labels=["result"]
    )
    for key, result in _SCHEDULER.items():
        jobs.add_metric([result], _sum(stats, key))
    yield jobs
    for key, (name, help) in _ENGINE.items():
        yield CounterMetricFamily(name, help, _sum(stats, key))


def _sum(stats: list[dict[str, float]] | list[dict[str, int]], key: str) -> float:
    return float(sum(one.get(key, 0) for one in stats))
