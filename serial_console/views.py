"""The objects of the REST interface, made from the supervisor's answers.

The API sends them and the command line prints them with ``--json``, so both speak alike.
"""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import msgspec

from .config import Config, address
from .errors import SupervisorUnavailable
from .times import rfc3339

View = TypeVar("View")


class _Documented:
    """Lets FastAPI put the docstrings of a view's fields into OpenAPI."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"use_attribute_docstrings": True}


@dataclasses.dataclass(frozen=True)
class Token(_Documented):
    """A fresh token and where to take it."""

    id: str
    """Names the token without being a secret."""
    token: str
    """The bearer secret: opens one session, once."""
    guest: str
    uuid: str
    console: str
    """The console's alias, such as ``serial0``."""
    mode: str
    """``rw``, or ``ro`` for a watcher."""
    user: str
    expires_at: str
    """RFC 3339, UTC."""
    websocket_url: str
    page_url: str
    """The page with the token in its fragment; open it in a browser."""


@dataclasses.dataclass(frozen=True)
class Console(_Documented):
    """One serial or console device of a guest."""

    alias: str
    type: str
    """libvirt's type, such as ``pty``."""
    supported: bool
    """Whether it can be opened from here."""


@dataclasses.dataclass(frozen=True)
class Guest(_Documented):
    """One guest; its first console is the default."""

    name: str
    uuid: str
    state: str
    consoles: list[Console]
    sessions: list[str]
    """Ids of the sessions that are open."""


@dataclasses.dataclass(frozen=True)
class Session(_Documented):
    """One client attached to one console."""

    id: str
    guest: str
    uuid: str
    console: str
    mode: str
    user: str
    client: str
    """The client's address as the gateway sees it."""
    state: str
    opened_at: str
    """RFC 3339, UTC."""
    idle: float
    """Seconds since the last input."""
    bytes_in: int
    """Bytes from the client to the guest."""
    bytes_out: int
    """Bytes from the guest to the client."""
    skipped: int
    """Bytes that the client was too slow to get."""
    relay_pid: int
    gateway_pid: int
    token_id: str
    held: int = 0
    """Bytes of input that the guest does not take now."""
    memory: int = 0
    """Bytes of memory of the session's relay, which its watchers share: what is its own, and its
    share (PSS) of what it has in common with others. Measured every 10 s at most; 0: not yet."""
    cpu: float = 0.0
    """Seconds of CPU that the relay has used since its start."""


@dataclasses.dataclass(frozen=True)
class Life(_Documented):
    """The API lives; that says nothing of the rest."""

    status: str
    """``ok``."""
    version: str


@dataclasses.dataclass(frozen=True)
class Health(_Documented):
    """Whether consoles can be had."""

    status: str
    """``ok``, or ``unavailable`` where a part is."""
    supervisor: str
    """``ok`` or ``unavailable``."""
    libvirt: str
    """``ok`` or ``unavailable``; ``unknown`` without a supervisor."""
    sessions: int
    version: str
    """The supervisor's; empty without one."""


def token(config: Config, answer: Mapping[str, Any]) -> Token:
    """Make a Token of an ``issue`` answer. Raises as guest() does."""
    secret = str(answer.get("token"))
    base = page_base(config)
    return _view(
        {
            **answer,
            "expires_at": _time(answer.get("expires_at")),
            "websocket_url": f"ws{base.removeprefix('http')}/websockify?token={secret}",
            "page_url": f"{base}/serial.html#token={secret}",
        },
        Token,
    )


def guest(answer: Mapping[str, Any]) -> Guest:
    """Make a Guest of the supervisor's object.

    Raises:
        SupervisorUnavailable: the object is not as this version knows it.
    """
    return _view(answer, Guest)


def session(answer: Mapping[str, Any]) -> Session:
    """Make a Session of the supervisor's object. Raises as guest() does."""
    return _view({**answer, "opened_at": _time(answer.get("opened_at"))}, Session)


def health(answer: Mapping[str, Any]) -> Health:
    """Make a Health of a ``health`` answer. Raises as guest() does."""
    status = "ok" if answer.get("libvirt") == "ok" else "unavailable"
    return _view({**answer, "status": status, "supervisor": "ok"}, Health)


def page_base(config: Config) -> str:
    """Return the URL under which browsers reach the gateway, without a slash at its end.

    It is ``gateway.public_url``, else made from ``gateway.listen``, where an address that means
    every interface becomes this machine's name.
    """
    gateway = config.gateway
    if gateway.public_url:
        return gateway.public_url.rstrip("/")
    host, port = address(gateway.listen)
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http{'s' if gateway.tls_cert else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def to_json(views: object) -> str:
    """Return a view, or a list of them, as indented JSON that any terminal can show."""
    if isinstance(views, Sequence):
        return json.dumps([dataclasses.asdict(view) for view in views], indent=2)
    return json.dumps(dataclasses.asdict(views), indent=2)  # type: ignore[call-overload]


def _time(value: object) -> object:
    try:
        return rfc3339(value) if isinstance(value, int | float) else value
    except (ValueError, OverflowError, OSError):  # no year has it
        return None  # which no view takes


def _view(fields: Mapping[str, Any], view: type[View]) -> View:
    try:
        return msgspec.convert(fields, view)
    except msgspec.ValidationError as error:
        raise SupervisorUnavailable(
            f"the supervisor's answer is not understood ({error}); "
            "it is probably of another version: restart the services"
        ) from None
