"""The gate in front of REST: who asks, how often and how much, and what the log says of it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import traceback
from collections.abc import Callable, Collection
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import control, nova, problems, startpage
from .errors import ConfigError, ConsoleError, Forbidden, RateLimited, Unauthorized, Unavailable
from .keys import Grant, Ring
from .rate import Buckets

BODY_MAX = 16384
"""Bytes of a request's body."""
BODY_TIMEOUT = 10.0
"""Seconds within which a request's body must have come."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""What is logged as it came; another one may be anything."""
UNREAD = {"Connection": "close"}
"""Header of an answer to a request that is not read to its end."""
HEALTH_PATHS = frozenset({"/healthz", "/healthz/ready"})
OPEN_PATHS = frozenset({*HEALTH_PATHS, nova.PREFIX, *startpage.files()})
"""What needs no key."""
ROUTINE = frozenset({*HEALTH_PATHS, "/metrics"})
"""What programs ask every few seconds: while all is well, no more than a debug line of the log."""

STRANGERS = 5.0
"""Requests a second of those without a good key, all together, that are noted: they must not fill
the disk. The others are counted."""

_Event = Literal["api_request", "api_unauthorized", "api_forbidden", "api_rate_limited"]

log = logging.getLogger("api")


class Gate:
    """An ASGI application around another one.

    It leaves percent-encoding in the path, so that a guest's name with ``/`` stays one segment;
    puts the caller's Grant into ``request.state.grant``; and logs each request by its route's
    template, never by its path or query or a method that is none: there may be a secret in these.

    Every caller has its own rate. Who has no good key has the one of their address: it bounds what
    they cost us, and cannot keep out a good key of the same address, since the key is looked at
    first. (Guessing is no matter of speed: a key has 256 random bits.)

    Args:
        app: the application behind the gate.
        ring: the API keys.
        uids: users who need no key where ``request.state.peer`` names them (api.sock).
        rate: requests a second of one caller; 0: no limit.
        tell: has an event written into the audit log.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        app: ASGIApp,
        ring: Ring,
        uids: Collection[int],
        rate: float,
        tell: Callable[[control.Audit], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._ring = ring
        self._uids = frozenset(uids)
        self._rate = rate
        self._tell = tell
        self._clock = clock
        self._known = Buckets(rate, clock)
        self._strangers = Buckets(rate, clock)
        self._notable = Buckets(STRANGERS, clock)
        self._left_out = 0

    def change(self, uids: Collection[int], rate: float) -> None:
        """Permit other uids, or another rate; who was slowed down begins anew."""
        self._uids = frozenset(uids)
        if rate != self._rate:
            self._rate = rate
            self._known, self._strangers = Buckets(rate, self._clock), Buckets(rate, self._clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        status = 0
        grant: Grant | None = None
        limited = quiet = False  # too fast; one of many such

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                if not any(name == b"cache-control" for name, _ in headers):
                    message["headers"] = [*headers, (b"cache-control", b"no-store")]
            await send(message)

        scope["path"] = _one_segment_a_name(scope["raw_path"])
        state = scope.setdefault("state", {})
        try:
            if scope["path"] in OPEN_PATHS:
                self._limit(self._strangers, f"open {_source(scope)}")
            else:
                grant = state["grant"] = self._grant(scope)
                self._limit(self._known, grant.name)
            body = await _body(receive)
            if isinstance(body, bytes):
                await self._app(scope, _replayed(body, receive), watched)
            elif body is not None:
                await body(scope, receive, watched)
        except _TooFast as error:
            limited, quiet = True, not error.first
            await problems.of_error(error)(scope, receive, watched)
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
            if not quiet:
                self._note(scope, grant, status, limited=limited)

    def _note(self, scope: Scope, grant: Grant | None, status: int, *, limited: bool) -> None:
        """Put a request into the log and the audit log."""
        left_out = 0
        if grant is None and scope["path"] not in OPEN_PATHS:
            if self._notable.take(""):
                self._left_out += 1
                return
            left_out, self._left_out = self._left_out, 0
        route = getattr(scope.get("route"), "path", "(no route)")
        method = scope["method"] if scope["method"] in METHODS else "(other)"
        who = grant.name if grant else "-"
        routine = scope["path"] in ROUTINE and status == 200
        level = logging.DEBUG if routine else logging.INFO
        log.log(level, "%s %s: %d, asked by %s", method, route, status, who)
        if routine or scope["path"] in OPEN_PATHS:
            return
        event: _Event = "api_request" if grant else "api_unauthorized"
        if limited:
            event = "api_rate_limited"
        elif grant and status == Forbidden.http:
            event = "api_forbidden"
        self._tell(
            control.Audit(
                event=event,
                key=grant.key if grant else "",
                by=grant.login if grant else "",
                source=_source(scope),
                method=method,
                route=route,
                status=status,
                left_out=left_out,
            )
        )

    def _limit(self, buckets: Buckets, name: str) -> None:
        """Count one request. Raises RateLimited."""
        wait = buckets.take(name)
        if wait:
            raise _TooFast(
                f"more than {self._rate:g} requests a second (api.rate); wait, then try again",
                retry_after=math.ceil(wait),
                first=buckets.first(name),
            )

    def _grant(self, scope: Scope) -> Grant:
        """Say who asks. Raises Unauthorized, RateLimited, or Unavailable where keys are broken."""
        try:
            return self._found(scope)
        except Unauthorized:
            self._limit(self._strangers, _source(scope))
            raise

    def _found(self, scope: Scope) -> Grant:
        header = _header(scope, b"authorization")
        if header is None and nova.is_for(scope["path"]):
            token = _header(scope, nova.KEY_HEADER)
            header = None if token is None else b"Bearer " + token
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


class _TooFast(RateLimited):
    """``first``: since this caller was last served."""

    def __init__(self, message: str, retry_after: int, *, first: bool) -> None:
        super().__init__(message, retry_after)
        self.first = first


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == wanted), None)


def _source(scope: Scope) -> str:
    """Return where a request comes from: an address, or a user on api.sock."""
    peer = scope.get("state", {}).get("peer")
    if peer is not None:
        return f"uid {peer.uid}"
    client = scope.get("client")
    return str(client[0]) if client else "-"


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
                        413,
                        "too_large",
                        f"a request may have at most {BODY_MAX} bytes; send less",
                        UNREAD,
                    )
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        return problems.problem(
            408, "request_timeout", f"the request did not come within {BODY_TIMEOUT:.0f} s", UNREAD
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
