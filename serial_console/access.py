"""The gate in front of REST: who asks, how much may be sent, and what the log says of it."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Collection
from urllib.parse import quote, unquote_to_bytes

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import problems
from .errors import ConfigError, ConsoleError, Unauthorized, Unavailable
from .keys import Grant, Ring

BODY_MAX = 16384
"""Bytes of a request's body."""
BODY_TIMEOUT = 10.0
"""Seconds within which a request's body must have come."""
OPEN_PATHS = frozenset({"/healthz"})
"""What needs no key."""

log = logging.getLogger("api")


class Gate:
    """An ASGI application around another one.

    It leaves percent-encoding in the path, so that a guest's name with ``/`` stays one segment;
    puts the caller's Grant into ``request.state.grant``; and logs each request by its route's
    template, never by its path or query, where someone may have put a secret.

    Args:
        app: the application behind the gate.
        ring: the API keys.
        uids: users who need no key where ``request.state.peer`` names them (api.sock).
    """

    def __init__(self, app: ASGIApp, ring: Ring, uids: Collection[int]) -> None:
        self._app = app
        self._ring = ring
        self._uids = frozenset(uids)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        status = 0
        who = "-"

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"cache-control", b"no-store")]
            await send(message)

        scope["path"] = _one_segment_a_name(scope["raw_path"])
        state = scope.setdefault("state", {})
        try:
            if scope["path"] not in OPEN_PATHS:
                state["grant"] = self._grant(scope)
                who = state["grant"].name
            body = await _body(receive)
            if isinstance(body, bytes):
                await self._app(scope, _replayed(body, receive), watched)
            elif body is not None:
                await body(scope, receive, watched)
        except ConsoleError as error:
            await problems.of_error(error)(scope, receive, watched)
        except Exception as error:  # noqa: BLE001 - the last one who can answer and log
            # Not its message: pydantic's and others' repeat values, and so perhaps a secret.
            frames = traceback.extract_tb(error.__traceback__)[-8:]
            where = " < ".join(f"{at.filename}:{at.lineno} {at.name}" for at in reversed(frames))
            log.error("unexpected %s at %s", type(error).__name__, where)
            if not status:
                await problems.unexpected()(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "(no route)")
            log.info("%s %s: %d, asked by %s", scope["method"], route, status, who)

    def _grant(self, scope: Scope) -> Grant:
        """Say who asks. Raises Unauthorized, or Unavailable where the keys are broken."""
        header = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        if header is None:
            peer = scope["state"].get("peer")
            if peer is not None and peer.uid in self._uids:
                return Grant(name=f"uid {peer.uid}")
            hint = f"add uid {peer.uid} to api.peer_uids, or " if peer is not None else ""
            raise Unauthorized(
                f"an API key is needed; {hint}send 'Authorization: Bearer <API key>'"
            )
        # A key that is sent counts, on api.sock too: one may wish to be held to its limits.
        scheme, _, secret = header.partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthorized("this needs an API key; send 'Authorization: Bearer <API key>'")
        try:
            key = self._ring.find(secret.strip().decode("latin-1"))
        except ConfigError as error:
            log.error("every key is refused: %s", error)
            raise Unavailable("the API keys cannot be read now; see the API's log") from None
        if key is None:
            raise Unauthorized(
                "this API key is unknown or revoked; make one with 'serial-console key add'"
            )
        return key


def _one_segment_a_name(raw: bytes) -> str:
    """Return the path with each segment percent-encoded in one way, ``/`` within it included."""
    return "/".join(quote(unquote_to_bytes(part), safe="") for part in raw.split(b"/"))


async def _body(receive: Receive) -> bytes | Response | None:
    """Return the request's body, or why it is refused, or None if the client went away."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                body += message.get("body", b"")
                if len(body) > BODY_MAX:
                    return problems.problem(
                        413, "too_large", f"a request may have at most {BODY_MAX} bytes; send less"
                    )
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        return problems.problem(
            408, "request_timeout", f"the request did not come within {BODY_TIMEOUT:.0f} s"
        )


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give the application the body that has been read already."""
    unread = True

    async def replay() -> Message:
        nonlocal unread
        if unread:
            unread = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay
