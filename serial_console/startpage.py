"""The start page at ``/`` of the API's port: a few files, which need no key and know none."""

from __future__ import annotations

import functools
import os

from fastapi import FastAPI, Request
from starlette.responses import Response

DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "web", "start")
PALETTE = os.path.join(os.path.dirname(DIRECTORY), "palette.css")
"""The consoles' page looks alike."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",  # as frame-ancestors, for older browsers
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@functools.cache
def files() -> dict[str, tuple[str, bytes]]:
    """Return type and content of all that is served, by path. It is read once, so that the files
    of a page are of one version; nothing else is reachable."""
    found = {}
    for path in [PALETTE, *(os.path.join(DIRECTORY, name) for name in os.listdir(DIRECTORY))]:
        name = os.path.basename(path)
        kind = _TYPES.get(os.path.splitext(name)[1])
        if kind is not None:
            with open(path, "rb") as file:
                found["/" if name == "index.html" else f"/{name}"] = kind, file.read()
    return found


def install(app: FastAPI) -> None:
    """Have an application serve the page; it is no part of OpenAPI."""

    async def page(request: Request) -> Response:
        kind, content = files()[request.scope["route"].path]
        return Response(content, media_type=kind, headers=_HEADERS)

    for path in files():
        app.add_api_route(path, page, methods=["GET", "HEAD"], include_in_schema=False)
