"""`open_telemetry`: whether, and with which signals, a server reports to OpenTelemetry.

Not: spans and events (otel.py), which need csrm[otel] and are imported only when the environment
asks for them. Data comes from the standard OTEL_* variables. As OpenTelemetry wants it, a value
that cannot be used is logged and turns the signal off; it never keeps a server from starting.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from csrm.serve.logs import log_event, log_exception
from csrm.serve.metrics import Metrics

if TYPE_CHECKING:
    from csrm.serve.otel import Telemetry

SIGNALS = ("traces", "logs")


def open_telemetry(environment: Mapping[str, str], metrics: Metrics) -> Telemetry | None:
    """What reports the signals that `environment` asks for; None if there are none."""
    signals = wanted_signals(environment)
    if not signals:
        return None
    try:
        from csrm.serve.otel import open_exporters

        return open_exporters(signals, environment, metrics)
    except ImportError:
        log_event("telemetry_off", logging.WARNING, note="install csrm[otel] for OTEL_* to count")
    except Exception as error:  # a library's refusal of one of the OTEL_* values
        log_exception("telemetry_off", error)
    return None


def wanted_signals(environment: Mapping[str, str]) -> frozenset[str]:
    """Of "traces" and "logs" those that have an endpoint, or name otlp as their exporter."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return frozenset()
    return frozenset(signal for signal in SIGNALS if _is_wanted(signal, environment))


def _is_wanted(signal: str, environment: Mapping[str, str]) -> bool:
    exporter = environment.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip()
    if exporter not in ("", "otlp", "none"):
        return _refused(signal, "the only exporters are otlp and none")
    has_endpoint = any(
        environment.get(f"OTEL_EXPORTER_OTLP_{part}ENDPOINT") for part in ("", f"{signal.upper()}_")
    )
    if exporter == "none" or not (exporter or has_endpoint):
        return False
    protocols = (f"OTEL_EXPORTER_OTLP_{part}PROTOCOL" for part in (f"{signal.upper()}_", ""))
    protocol = next(filter(None, (environment.get(name) for name in protocols)), "http/protobuf")
    if protocol.strip() != "http/protobuf":
        return _refused(signal, "the only protocol is http/protobuf, usually on port 4318")
    return True


def _refused(signal: str, note: str) -> bool:
    log_event("telemetry_off", logging.WARNING, signal=signal, note=note)
    return False
