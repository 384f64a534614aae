"""The routes of the playground: / and the files of the folder page/, held in memory.

Not: scores. The page asks the endpoints for those, with its user's key, as any client does; here is
nothing that a key would protect. The headers let the page load and ask its own server only, and
let no other site frame it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


def page_routes() -> list[Route]:
    """GET / and GET /page/NAME for each file. Files are read once, here."""
    files = {path.name: path for path in sorted(FOLDER.iterdir()) if path.suffix in _TYPES}
    places = {f"/page/{name}": path for name, path in files.items() if name != INDEX}
    return [_route("/", files[INDEX]), *(_route(place, path) for place, path in places.items())]


def _route(place: str, path: Path) -> Route:
    data = path.read_bytes()
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {**_HEADERS, "content-type": _TYPES[path.suffix], "etag": tag}

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers)

    return Route(place, answer)
