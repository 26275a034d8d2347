"""RFC 9457 problem documents: how REST says what went wrong, and how OpenAPI tells of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from . import nova
from .errors import ConsoleError, RateLimited, Unauthorized

MEDIA_TYPE = "application/problem+json"
NAME_MAX = 32
"""Characters of a field's name; a longer one is no mistyped name, and perhaps a secret."""

_SCHEMA = {
    "type": "object",
    "title": "Problem",
    "description": "What was wrong, why, and what to do (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string", "description": "The name of the HTTP status."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "A sentence fit to show."},
        "code": {
            "type": "string",
            "description": "Stable, for programs: no_such_guest, in_use ...",
        },
        "errors": {
            "type": "array",
            "description": "With code bad_request and status 422: each field that was wrong.",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
_HTTP_CODES = {
    400: ("bad_request", "the body is not JSON that can be read; send one JSON object"),
    404: ("not_found", "there is nothing at this path; /openapi.json lists what there is"),
    405: ("method_not_allowed", "this path does not have that method; /openapi.json lists them"),
}


class Problem(JSONResponse):
    """A problem document; where nova's clients ask, nova's fault of the same words."""

    media_type = MEDIA_TYPE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if not nova.is_for(scope["path"]):
            await super().__call__(scope, receive, send)
            return
        fault = nova.fault(self.status_code, json.loads(bytes(self.body))["detail"])
        kept = {"www-authenticate", "retry-after", "allow", "connection"}
        headers = {name: value for name, value in self.headers.items() if name in kept}
        await JSONResponse(fault, self.status_code, headers | nova.HEADERS)(scope, receive, send)


def problem(
    status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Problem:
    """Make the answer for something that went wrong; ``more`` are further members."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **more,
    }
    return Problem(body, status, headers)


def of_error(error: ConsoleError) -> JSONResponse:
    """Make the answer for an expected failure."""
    headers = None
    if isinstance(error, Unauthorized):
        headers = {"WWW-Authenticate": 'Bearer realm="serial-console"'}
    elif isinstance(error, RateLimited):
        headers = {"Retry-After": str(error.retry_after)}
    return problem(error.http, error.code, str(error), headers)


def unexpected() -> JSONResponse:
    """Make the answer for a mistake of ours, which tells nothing of it."""
    return problem(
        500, "internal_error", "something went wrong here that should not; see the API's log"
    )


def install(app: FastAPI) -> None:
    """Make every error of the app a problem document, and its OpenAPI tell of them."""

    @app.exception_handler(ConsoleError)
    async def expected(_: Request, error: ConsoleError) -> JSONResponse:
        return of_error(error)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        code, detail = _HTTP_CODES.get(error.status_code, ("bad_request", str(error.detail)))
        headers = error.headers
        if error.status_code == 405:  # starlette knows of one route of a path only
            headers = {"Allow": _allowed(app, request.scope["path"])}
        return problem(error.status_code, code, detail, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Without pydantic's "input": what was sent may hold a secret.
        wrong = [{"field": _field(one["loc"]), "message": one["msg"]} for one in error.errors()]
        detail = "; ".join(f"{one['field'] or 'body'}: {one['message']}" for one in wrong)
        return problem(422, "bad_request", f"the request is wrong: {detail}", errors=wrong)

    @app.exception_handler(Exception)
    async def other(_: Request, __: Exception) -> JSONResponse:
        return unexpected()

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _field(place: Sequence[str | int]) -> str:
    """Name a field, where it is of a length that a name may have."""
    name = ".".join(map(str, place[1:]))
    return name if len(name) <= NAME_MAX else "(a long name)"


def _allowed(app: FastAPI, path: str) -> str:
    routes = [one for one in app.routes if isinstance(one, Route) and one.path_regex.match(path)]
    return ", ".join(sorted({method for one in routes for method in one.methods or ()}))


def _described(app: FastAPI) -> dict[str, Any]:
    spec = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    parts = spec.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _SCHEMA
    schemas["Fault"] = nova.FAULT_SCHEMA
    parts["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key of 'serial-console key add'. "
            "Over api.sock a permitted user needs none.",
        },
        "nova": {
            "type": "apiKey",
            "in": "header",
            "name": "X-Auth-Token",
            "description": "The same key, where OpenStack's clients put theirs.",
        },
    }
    spec["security"] = [{"key": []}]
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    fault = {"application/json": {"schema": {"$ref": "#/components/schemas/Fault"}}}
    for path, item in spec["paths"].items():
        for operation in item.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {
                "description": "Refused or failed; the code says why.",
                "content": fault if nova.is_for(path) else problem,
            }
            if path.startswith("/healthz"):
                operation["security"] = []
            elif nova.is_for(path):
                operation["security"] = [{"key": []}, {"nova": []}]
    return spec
