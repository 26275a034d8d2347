"""The REST interface. It holds the API keys and asks the supervisor for everything else.

A key that covers only some guests meets the others as if they did not exist, with their sessions
and tokens. The supervisor knows keys by name only, not what they cover, and cannot be asked whose
an unused token is: so the API remembers which guest each token that it issued is for, and such a
key can revoke those, and the ones behind sessions of its guests. Any other token is unknown to it.
"""

from __future__ import annotations

import functools
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote

from anyio import CapacityLimiter, fail_after, to_thread
from fastapi import Body, Depends, FastAPI, Path, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from . import __version__, channel, control, metrics, nova, problems, startpage, views
from .config import escape_byte
from .errors import (
    ConfigError,
    ConsoleError,
    Forbidden,
    NoSuchGuest,
    NoSuchSession,
    NoSuchToken,
    SupervisorUnavailable,
    Unauthorized,
    Unavailable,
)
from .keys import Grant, Key, Ring
from .names import shown
from .reload import Current

log = logging.getLogger("api")
T = TypeVar("T")

NAME_MAX = 400
"""Characters of a guest's name or an id; libvirt's files leave a name less than 256. With this and
the longest of all other fields a request still fits in control.REQUEST_MAX."""
PROMPT = 5.0
"""Seconds within which those who ask how things are have their answer; where neither libvirt nor a
relay answers the supervisor, it needs 2.5."""
PROMPT_THREADS = 8
"""How many of them are asked for at a time, beside the 40 threads of anyio's for all the rest."""
CONSOLE_MAX = 128
"""Characters of an alias."""
# For OpenAPI alone: our own checks, which come after, say better what to do.
_ESCAPE: dict[str, Any] = {"pattern": r"^(?:(?:[Cc][Tt][Rr][Ll]-|\^)[A-Za-z@\[\\\]^_])?$"}
_ADDRESS: dict[str, Any] = {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}
_PRINTABLE: dict[str, Any] = {"pattern": r"^[^\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]*$"}


def _decoded(name: str) -> str:
    try:
        return unquote(name, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("must be UTF-8, percent-encoded") from None


def _escape(text: str | None) -> str | None:
    try:
        escape_byte(text or "")
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


async def _grant(request: Request) -> Grant:  # async: FastAPI runs a plain one in a thread
    grant: Grant = request.state.grant
    return grant


By = Annotated[Grant, Depends(_grant)]
Name = Annotated[
    str,
    Path(description="The guest's name (percent-encoded) or UUID.", max_length=NAME_MAX),
    BeforeValidator(_decoded),
]
Id = Annotated[str, Path(max_length=NAME_MAX), BeforeValidator(_decoded)]


Whole = Annotated[int, BeforeValidator(_whole)]
"""An integer as JSON Schema has it: 30.0 is one as well."""


class TokenRequest(BaseModel):
    """What a token is to be good for; everything has a default."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    user: str = Field(default="", max_length=control.USER_MAX, json_schema_extra=_PRINTABLE)
    """Who will use it: for listings, logs and the limit per user."""
    mode: Literal["rw", "ro"] | None = None
    """``ro`` only watches. Default: what the API key may."""
    console: str | None = Field(default=None, max_length=CONSOLE_MAX)
    """The console's alias, such as ``serial0``. Default: the guest's first."""
    ttl: Annotated[int | None, BeforeValidator(_whole)] = Field(
        default=None, ge=1, le=control.TTL_MAX
    )
    """Seconds within which it must be used. Default: the configuration's ``tokens.ttl``."""
    takeover: bool = False
    """Take the console from the client that has it."""
    notices: bool | None = None
    """Whether notices are shown in the output. Default: the configuration's."""
    replay: bool | Annotated[Whole, Field(ge=0, le=1 << 24)] = True
    """Recent output shown at the start: how many bytes, or false for none, or true for the
    configuration's number."""
    escape: Annotated[
        Annotated[str, Field(max_length=16, json_schema_extra=_ESCAPE)] | None,
        AfterValidator(_escape),
    ] = None
    """The key that ends the session, such as ``ctrl-q``; empty for none. Default: the
    configuration's."""
    client_address: Annotated[str, Field(max_length=64, json_schema_extra=_ADDRESS)] | None = None
    """The only client address that may use it."""
    resume: Whole = Field(default=0, ge=0, le=control.RESUME_MAX)
    """Seconds that the session waits for its client after a lost connection: the same token then
    comes back to it, and gets the output that it missed."""


class GuestList(BaseModel):
    """The guests that the API key covers, sorted by name."""

    guests: list[views.Guest]


class SessionList(BaseModel):
    """The open sessions of the guests that the API key covers."""

    sessions: list[views.Session]


class _Desk:
    """Asks the supervisor on behalf of callers, each held to what they may."""

    def __init__(self, current: Current) -> None:
        self._current = current
        self._ring = Ring(current.config.api.keys)
        self._issued: OrderedDict[str, str] = OrderedDict()
        self._prompt = CapacityLimiter(PROMPT_THREADS)

    async def ask(self, request: control.Message) -> dict[str, Any]:
        return await _threaded(
            functools.partial(channel.call, self._current.config.paths.admin, request)
        )

    async def ask_how_things_are(self, request: control.Health | control.Metrics) -> dict[str, Any]:
        """Return the answer within PROMPT, however many requests wait for a supervisor that hangs.

        Raises:
            SupervisorUnavailable: there is none.
        """
        path = self._current.config.paths.admin
        try:
            with fail_after(PROMPT):
                return await _threaded(
                    functools.partial(channel.call, path, request, PROMPT), self._prompt
                )
        except TimeoutError:
            raise SupervisorUnavailable(
                f"the supervisor gave no answer within {PROMPT:g} s; see its log"
            ) from None

    async def listing(
        self, request: control.ListGuests | control.ListSessions, key: str
    ) -> list[dict[str, Any]]:
        return await _threaded(
            functools.partial(channel.call_all, self._current.config.paths.admin, request, key)
        )

    async def guest(self, name: str, by: Grant) -> views.Guest:
        try:
            found = views.guest(_member(await self.ask(control.GetGuest(guest=name)), "guest"))
        except NoSuchGuest:
            raise _unknown(name) from None
        if not by.covers(found.name):
            raise _unknown(name)
        return found

    async def session(self, id_: str, by: Grant) -> views.Session:
        unknown = NoSuchSession("there is no such session; GET /v1/sessions lists those there are")
        try:
            found = views.session(_member(await self.ask(control.GetSession(id=id_)), "session"))
        except NoSuchSession:
            raise unknown from None
        if not by.covers(found.guest):
            raise unknown
        return found

    async def issue(self, name: str, asked: TokenRequest, by: Grant) -> views.Token:
        mode = asked.mode or by.mode
        if by.mode == "ro" and (mode != "ro" or asked.takeover):
            raise Forbidden(
                "this API key is read-only; ask for mode ro without takeover, or use another key"
            )
        known = None if by.unlimited else await self.guest(name, by)
        replay = None if asked.replay is True else int(asked.replay)
        request = control.Issue(
            guest=known.uuid if known else name,
            user=asked.user,
            mode=mode,
            console=asked.console,
            ttl=asked.ttl,
            takeover=asked.takeover,
            notices=asked.notices,
            replay=replay,
            escape=asked.escape,
            client_address=asked.client_address,
            resume=asked.resume,
            by=by.login,
            key=by.key,
        )
        try:
            token = views.token(self._current.config, await self.ask(request))
        except NoSuchGuest:
            raise _unknown(name) from None
        # Another guest may be named like this one's UUID, or this one may just have been renamed.
        if known and (token.uuid != known.uuid or not by.covers(token.guest)):
            await self.ask(control.Revoke(id=token.id, by=by.login, key=by.key))
            raise _unknown(name)
        if not self._holds(by):  # revoked meanwhile, perhaps before this token could be with it
            await self.ask(control.Revoke(id=token.id, by=by.login, key=by.key))
            raise Unauthorized("this API key was just revoked, or limited in another way")
        self._issued[token.id] = token.guest
        while len(self._issued) > self._current.config.limits.tokens:
            self._issued.popitem(last=False)
        return token

    async def revoke(self, id_: str, by: Grant) -> None:
        unknown = NoSuchToken("there is no such token, or it is of no use any more")
        if not by.unlimited:
            guest = self._issued.get(id_)
            for one in await self.listing(control.ListSessions(), "sessions"):
                if one.get("token_id") == id_:
                    guest = views.session(one).guest
            if guest is None or not by.covers(guest):
                raise unknown
        try:
            own = by.mode == "ro"  # who may only watch ends what it began itself, and no more
            await self.ask(control.Revoke(id=id_, own=own, by=by.login, key=by.key))
        except NoSuchToken:
            raise unknown from None
        self._issued.pop(id_, None)

    def _holds(self, by: Grant) -> bool:
        try:
            return not isinstance(by, Key) or self._ring.holds(by)
        except ConfigError:
            return False


def build(current: Current) -> FastAPI:
    """Make the application; it needs access.Gate in front."""
    app = FastAPI(
        title="Serial console",
        description="Tokens, guests and sessions of the browser serial console for libvirt guests.",
        version=__version__,
        docs_url=None,  # like redoc, it loads scripts from another host
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,  # no header at all is JSON too; a key protects, not a header
    )
    problems.install(app)
    startpage.install(app)
    desk = _Desk(current)

    @app.post("/v1/guests/{guest}/tokens", status_code=201, summary="Issue a token")
    async def issue(
        guest: Name, by: By, asked: Annotated[TokenRequest | None, Body()] = None
    ) -> views.Token:
        return await desk.issue(guest, asked or TokenRequest(), by)

    @app.post("/v1/guests/{guest}/remote-consoles", summary="Issue a token, in nova's shape")
    @app.post(
        f"{nova.PREFIX}/servers/{{guest}}/remote-consoles", summary="The same, for nova's clients"
    )
    async def remote_console(
        guest: Name, by: By, asked: nova.RemoteConsoleRequest, response: Response
    ) -> nova.RemoteConsoleAnswer:
        token = await desk.issue(guest, TokenRequest(), by)
        response.headers.update(nova.HEADERS)
        console = nova.RemoteConsole(**dict(asked.remote_console), url=token.websocket_url)
        return nova.RemoteConsoleAnswer(remote_console=console)

    @app.get(nova.PREFIX, include_in_schema=False)
    async def nova_version() -> dict[str, Any]:
        return nova.version()

    @app.get("/v1/guests", summary="List guests")
    async def guests(by: By) -> GuestList:
        found = map(views.guest, await desk.listing(control.ListGuests(), "guests"))
        return GuestList(guests=[one for one in found if by.covers(one.name)])

    @app.get("/v1/guests/{guest}", summary="Describe a guest")
    async def guest(guest: Name, by: By) -> views.Guest:
        return await desk.guest(guest, by)

    @app.get("/v1/sessions", summary="List sessions")
    async def sessions(by: By) -> SessionList:
        found = map(views.session, await desk.listing(control.ListSessions(), "sessions"))
        return SessionList(sessions=[one for one in found if by.covers(one.guest)])

    @app.get("/v1/sessions/{id}", summary="Describe a session")
    async def session(id: Id, by: By) -> views.Session:  # noqa: A002 - the name in the path
        return await desk.session(id, by)

    @app.delete("/v1/sessions/{id}", status_code=204, summary="Close a session")
    async def close(id: Id, by: By) -> None:  # noqa: A002
        _must_write(by)
        await desk.session(id, by)
        await desk.ask(control.Close(id=id, by=by.login, key=by.key))

    @app.delete(
        "/v1/tokens/{id}", status_code=204, summary="Revoke a token and close what it opened"
    )
    async def revoke(id: Id, by: By) -> None:  # noqa: A002
        await desk.revoke(id, by)

    @app.get("/healthz", summary="Tell that the API lives")
    async def healthz() -> views.Life:
        return views.Life(status="ok", version=__version__)

    @app.get(
        "/healthz/ready",
        summary="Tell whether consoles can be had",
        responses={503: {"model": views.Health, "description": "A part is unavailable."}},
    )
    async def ready(response: Response) -> views.Health:
        try:
            health = views.health(await desk.ask_how_things_are(control.Health()))
        except ConsoleError as error:
            log.info("not ready: %s", error)
            health = views.Health("unavailable", "unavailable", "unknown", 0, "")
        response.status_code = 200 if health.status == "ok" else 503
        return health

    @app.get(
        "/metrics",
        summary="Tell figures to Prometheus",
        description="For API keys that cover all guests: the figures are the host's.",
        response_class=PlainTextResponse,
    )
    async def scrape(by: By) -> Response:
        if not by.unlimited:
            raise Forbidden(
                "metrics are of the whole host, and this API key is for some guests; use one for "
                "all, such as of 'serial-console key add prometheus --mode ro'"
            )
        try:
            totals = metrics.totals(await desk.ask_how_things_are(control.Metrics()))
        except ConsoleError as error:
            log.info("no figures: %s", error)
            totals = None
        return Response(metrics.exposition(totals), media_type=metrics.CONTENT_TYPE)

    return app


def _must_write(by: Grant) -> None:
    if by.mode == "ro":
        raise Forbidden(
            "this API key is read-only and can close no session; revoke the token that it issued "
            "for its own, or use a key of mode rw"
        )


def _unknown(name: str) -> NoSuchGuest:
    return NoSuchGuest(
        f'there is no guest "{shown(name)}"; GET /v1/guests lists those that this key may see'
    )


def _member(answer: dict[str, Any], name: str) -> dict[str, Any]:
    found = answer.get(name)
    if not isinstance(found, dict):
        raise SupervisorUnavailable("the supervisor's answer is not understood; restart it")
    return found


async def _threaded(work: Callable[[], T], limiter: CapacityLimiter | None = None) -> T:
    """Run what blocks in a thread; a server that stops does not wait for it.

    Raises:
        Unavailable: the host gives us no thread.
    """
    try:
        return await to_thread.run_sync(work, abandon_on_cancel=True, limiter=limiter)
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        log.error("cannot ask the supervisor: %s", error)
        raise Unavailable(
            "the host cannot start another thread now; try again in a while"
        ) from None
