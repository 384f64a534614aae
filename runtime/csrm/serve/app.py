"""`create_app`: the ASGI application around a `Service`, with health, metrics and OpenAPI.

Not: the endpoints' work (native.py and the adapters) or the server process (run.py).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route, WebSocketRoute

from csrm.serve.failures import Failure
from csrm.serve.logs import log_event, log_failure
from csrm.serve.metrics import CONTENT_TYPE
from csrm.serve.openapi import document
from csrm.serve.playground import page_routes
from csrm.serve.reload import watch
from csrm.serve.routes import PIN, ROWS
from csrm.serve.service import Service
from csrm.serve.streaming import STREAM_PATH, stream_endpoint


def create_app(service: Service) -> Starlette:
    """The application. Its lifespan loads the model beside serving, and drains at the end."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(_start(service)), asyncio.ensure_future(watch(service))]
        try:
            yield
        finally:
            await service.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    page = page_routes() if service.has_page else []
    app = Starlette(
        routes=[*_guarded(service), *_streams(service), *_open(service), *page],
        exception_handlers={HTTPException: _no_route(service)},
        lifespan=lifespan,
    )
    # A redirect is no verdict, and its Location would repeat the path: another path is a 404.
    app.router.redirect_slashes = False
    return app


async def _start(service: Service) -> None:
    try:
        await service.start()
    except Exception as error:
        log_failure("load_failed", error)


def _guarded(service: Service) -> list[Route]:
    """Routes of the table; those with a fixed config too."""
    routes = []
    for row in ROWS:
        serve = row.endpoint.bound_to(service)
        paths = (row.path, PIN + row.path) if row.is_pinnable else (row.path,)
        routes += [Route(path, serve, methods=list(row.methods)) for path in paths]
    return routes


def _streams(service: Service) -> list[WebSocketRoute]:
    """The WebSocket, with and without a fixed config."""
    serve = stream_endpoint(service)
    return [WebSocketRoute(path, serve) for path in (STREAM_PATH, PIN + STREAM_PATH)]


def _open(service: Service) -> list[Route]:
    """Routes without a key: nothing of a tenant is in their answers."""
    api = json.dumps(document()).encode()

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": service.state}, 500 if service.state == "failed" else 200)

    async def readyz(request: Request) -> Response:
        return JSONResponse({"status": service.state}, 200 if service.state == "ready" else 503)

    async def metrics(request: Request) -> Response:
        service.metrics.in_flight.set(service.n_in_flight)
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    async def openapi(request: Request) -> Response:
        return Response(api, media_type="application/json")

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/openapi.json", openapi),
    ]


def _no_route(service: Service) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        is_method = isinstance(error, HTTPException) and error.status_code == 405
        kind = "MethodNotAllowed" if is_method else "NotFound"
        failure = Failure(kind, "see GET /openapi.json for the paths and methods")
        service.metrics.requests.labels("none", kind).inc()
        log_event("request", endpoint="none", status=failure.status, outcome=kind)
        headers = {"allow": ", ".join(_methods(request))} if is_method else None
        body = {"error": failure.fields(), "verdict": "unknown", "flagged": True}
        return JSONResponse(body, failure.status, headers)

    return answer


def _methods(request: Request) -> list[str]:
    """Those that this path knows: it may have several routes, and Starlette names one's."""
    routes = (route for route in request.app.routes if isinstance(route, Route))
    found = [route for route in routes if route.matches(request.scope)[0] != Match.NONE]
    return sorted({method for route in found for method in route.methods or ()})
