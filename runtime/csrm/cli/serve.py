"""`csrm serve`: the HTTP server. Options become a `ServeOptions`; csrm.serve does the rest.

Not: serving. csrm[serve] is imported when the command runs.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from csrm.cli.device_option import DEVICE_OPTION
from csrm.cli.failures import import_extra


@click.command("serve")
@click.option(
    "--config",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="A config file, the default of every endpoint; or a folder of them.",
)
@click.option("--default-config", default="", help="Id of the default in a folder.")
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    help="Artifact folder; default: the shipped csrm-mini.",
)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option(
    "--tenants",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="YAML file of API keys (hashed); also: CSRM_API_KEYS=name=key,...",
)
@click.option(
    "--tls-cert",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="PEM file of the certificate and its chain; with --tls-key the server speaks HTTPS only.",
)
@click.option(
    "--tls-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="PEM file of its private key, not encrypted. Both are read again when they change.",
)
@click.option(
    "--fail-mode",
    type=click.Choice(["closed", "open"]),
    default="closed",
    show_default=True,
    help="What gateways are told when csrm itself fails: block, or let by.",
)
@click.option(
    "--inline-configs/--no-inline-configs",
    default=True,
    show_default=True,
    help="Whether requests to /v1/score may bring their own rules.",
)
@click.option("--config-writes", is_flag=True, help="Without keys: anyone may PUT configs.")
@click.option(
    "--page/--no-page",
    default=None,
    help="Whether / shows the playground page; default: only on a server without keys.",
)
@click.option("--threads", type=click.IntRange(min=0), default=0, help="0 = physical cores.")
@DEVICE_OPTION
@click.option("--workers", type=click.IntRange(min=1), default=1, help="Engine calls at a time.")
@click.option("--cache-tokens", type=click.IntRange(min=0), default=16384, show_default=True)
@click.option("--max-queue-requests", type=click.IntRange(min=1), default=1024, show_default=True)
@click.option("--max-queue-tokens", type=click.IntRange(min=1), default=65536, show_default=True)
@click.option("--max-in-flight", type=click.IntRange(min=1), default=1024, show_default=True)
@click.option("--max-body-bytes", type=click.IntRange(min=1), default=1 << 20, show_default=True)
@click.option("--max-turns", type=click.IntRange(min=1), default=500, show_default=True)
@click.option("--max-batch", type=click.IntRange(1, 4096), default=256, show_default=True)
@click.option("--deadline-s", type=float, default=10.0, show_default=True)
@click.option("--poll-s", type=float, default=1.0, show_default=True, help="0 = SIGHUP only.")
@click.option("--drain-delay-s", type=float, default=0.0, show_default=True)
@click.option("--drain-timeout-s", type=float, default=30.0, show_default=True)
def serve_command(host: str, port: int, threads: int, workers: int, **given: Any) -> None:
    """Serve scores over HTTP: csrm's own API, OpenAI moderations, LiteLLM, Envoy, reward servers.

    \b
    Signals: SIGTERM drains and exits, SIGHUP reloads configs, tenants and model.
    Exit status: 0 drained; 2 a file or the model cannot be loaded, or the port is taken.
    """
    serve = import_extra("csrm.serve", "serve")
    names = {field.name for field in fields(serve.Limits)}
    limits = serve.Limits(**{name: given.pop(name) for name in names & set(given)})
    options = serve.ServeOptions(n_threads=threads, n_workers=workers, limits=limits, **given)
    serve.run(options, host, port)
