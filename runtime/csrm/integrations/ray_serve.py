"""`serve_app`: the application of `csrm serve` as a Ray Serve deployment, on as many machines.

Not: endpoints (csrm.serve), nor batches (ray.py). Configs are read where `serve_app` is called and
travel to the replicas as text; the model is read from each replica's disk. A replica takes requests
when its model is loaded and its configs are encoded.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import serve
from starlette.applications import Starlette

from csrm.config import SafetyConfig
from csrm.config_files import config_files
from csrm.errors import EngineFailed
from csrm.serve import ServeOptions, Service, create_app
from csrm.serve.logs import log_to_stderr

_WAIT_S = 0.02


def serve_app(
    config: str | os.PathLike[str],
    *,
    n_threads: int = 1,
    deployment: Mapping[str, Any] | None = None,
    **options: Any,
) -> serve.Application:
    """An application for `serve.run`, which answers as `csrm serve --config CONFIG` does.

    config: a config file or a folder of them, read now. n_threads: engine threads of a replica,
    which asks Ray for as many CPUs. deployment: options of Ray's deployment (num_replicas,
    autoscaling_config, ...). options: those of csrm.serve.ServeOptions; paths among them (model,
    tenants) are read on every replica's machine. Errors: those of SafetyConfig.load; TypeError for
    an unknown option.
    """
    texts = {}
    for path in config_files(Path(config)):
        SafetyConfig.load(path)
        texts[path.name] = path.read_text(encoding="utf-8")
    # A replica has no files to watch: deploying anew changes the configs.
    chosen = {"n_threads": n_threads, **options, "poll_s": 0}
    ServeOptions(config=Path(config), **chosen)
    settings: dict[str, Any] = {
        "name": "csrm",
        "ray_actor_options": {"num_cpus": max(1, n_threads)},
        # Ray's own default of 5 would leave the scheduler nothing to batch.
        "max_ongoing_requests": 256,
        **(deployment or {}),
    }

    # Ray calls a function for the application in each replica; an application cannot be pickled.
    def build() -> Starlette:
        return _build_app(texts, chosen)

    return serve.deployment(serve.ingress(build)(_Replica)).options(**settings).bind()


class _Replica:
    """One copy of the server, in an actor. `app` is what Ray built for it."""

    app: Starlette

    async def check_health(self) -> None:
        """Ray's check: waits while the model is being loaded. Errors: why it cannot be."""
        service: Service = self.app.state.service
        while service.state == "loading":
            await asyncio.sleep(_WAIT_S)
        if service.state == "failed":
            raise service.error or EngineFailed("the model could not be loaded; see the log")


def _build_app(texts: Mapping[str, str], options: Mapping[str, Any]) -> Starlette:
    log_to_stderr()
    with tempfile.TemporaryDirectory(prefix="csrm-configs-") as name:
        for file, text in texts.items():
            (Path(name) / file).write_text(text, encoding="utf-8")
        service = Service(ServeOptions(config=Path(name), **options))
    app = create_app(service)
    app.state.service = service
    return app
