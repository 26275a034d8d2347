"""What a configuration has: tables, keys, types, bounds and defaults.

What each key means stands in config.toml beside this file, which the packages install: there and
nowhere else. ``docs/configuration.md`` shows it.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

import msgspec

from .control import TTL_MAX

INT_MAX = (1 << 31) - 1
"""The largest number; times of more seconds than that break timers and floats."""

Count = Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=INT_MAX)]


class Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A table of the file."""


class Libvirt(Section, frozen=True):
    """``[libvirt]``: which libvirt."""

    uri: str = ""


class Paths(Section, frozen=True):
    """``[paths]``: directories of the sockets."""

    consoles: str = ""
    control: str = ""
    api: str = ""

    @property
    def redeem(self) -> str:
        """The socket where the gateway redeems tokens."""
        return os.path.join(self.control, "redeem.sock")

    @property
    def admin(self) -> str:
        """The socket where API and command line do the rest."""
        return os.path.join(self.control, "admin.sock")

    @property
    def relays(self) -> str:
        """The directory where a new supervisor finds the relays of the one before."""
        return os.path.join(self.control, "relays")

    @property
    def api_socket(self) -> str:
        """The unix socket of the REST interface."""
        return os.path.join(self.api, "api.sock")


class Gateway(Section, frozen=True):
    """``[gateway]``: where browsers connect. Times are in seconds; ``heartbeat`` 0 for none."""

    listen: str = "127.0.0.1:6083"
    public_url: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    insecure: bool = False
    allowed_origins: list[str] = []
    connect_origins: list[str] = []
    trusted_proxies: list[str] = []
    heartbeat: Count = 10
    handshake_timeout: Positive = 10
    max_unauthenticated: Positive = 100


class Api(Section, frozen=True):
    """``[api]``: where the host manager connects. ``rate``: requests a second of one caller."""

    listen: str = "127.0.0.1:6084"
    keys: str = ""
    peer_uids: list[Count] = []
    rate: Count = 20


class Tokens(Section, frozen=True):
    """``[tokens]``: ``ttl`` is a token's life in seconds."""

    ttl: Annotated[int, msgspec.Meta(ge=1, le=TTL_MAX)] = 30
    store: Literal["memory"] = "memory"


class Session(Section, frozen=True):
    """``[session]``: times in seconds (0 = never), ``replay`` and ``backlog`` in bytes."""

    escape: str = "ctrl-q"
    idle_timeout: Count = 600
    max_session: Count = 0
    on_guest_stop: Literal["wait", "close"] = "wait"
    notices: bool = True
    replay: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] = 65536
    backlog: Annotated[int, msgspec.Meta(ge=65536, le=1 << 26)] = 262144


class Limits(Section, frozen=True):
    """``[limits]``: sessions in all, sessions per user, watchers per console, tokens alive."""

    sessions: Positive = 1000
    per_user: Positive = 50
    # A relay tells of all its sessions in one line.
    watchers: Annotated[int, msgspec.Meta(ge=0, le=50)] = 20
    tokens: Positive = 10000


class Log(Section, frozen=True):
    """``[log]``: how much and how; ``audit``: the file of the audit log, ``""`` for none."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    audit: str = ""


class Config(Section, frozen=True):
    """The whole file; what it leaves out has its default."""

    libvirt: Libvirt = Libvirt()
    paths: Paths = Paths()
    gateway: Gateway = Gateway()
    api: Api = Api()
    tokens: Tokens = Tokens()
    session: Session = Session()
    limits: Limits = Limits()
    log: Log = Log()
