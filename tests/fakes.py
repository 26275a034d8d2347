"""A FAKE supervisor, for unit tests of what talks to one: right answers, no guests behind them."""

from __future__ import annotations

import contextlib
import socket
import threading
import uuid
from collections.abc import Iterator
from typing import Any, Self

import msgspec

from serial_console import channel, control
from serial_console.config import Config, parse
from serial_console.errors import (
    BadToken,
    ConsoleError,
    NoSuchConsole,
    NoSuchGuest,
    NoSuchSession,
    NoSuchToken,
)
from serial_console.listener import Listener

EXPIRES_AT = 1_700_000_000.25
OPENED_AT = 1_600_000_000.0


def config_text(directory: str, keys: str) -> str:
    """Return a configuration with all sockets in a directory and ports that the kernel picks."""
    return f"""
[paths]
consoles = "{directory}/console"
control = "{directory}"
api = "{directory}/api"
[api]
listen = "127.0.0.1:0"
keys = "{keys}"
"""


def config(directory: str, keys: str = "/nonexistent/keys") -> Config:
    """Return config_text, read."""
    return parse(config_text(directory, keys), "test.toml")


def guest(name: str, uuid_: str | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "uuid": uuid_ or str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
        "state": "running",
        "consoles": [
            {"alias": "serial0", "type": "pty", "supported": True},
            {"alias": "serial1", "type": "tcp", "supported": False},
        ],
        "sessions": [],
    }


def session(id_: str, of: dict[str, Any], token_id: str = "t-0") -> dict[str, Any]:
    return {
        "id": id_,
        "guest": of["name"],
        "uuid": of["uuid"],
        "console": "serial0",
        "mode": "rw",
        "user": "alice",
        "client": "192.0.2.1",
        "state": "attached",
        "opened_at": OPENED_AT,
        "idle": 1.5,
        "bytes_in": 3,
        "bytes_out": 4,
        "skipped": 0,
        "relay_pid": 100,
        "gateway_pid": 101,
        "token_id": token_id,
        "held": 0,
        "memory": 2_097_152,
        "cpu": 0.25,
    }


def totals() -> control.Totals:
    """Return figures of a supervisor, each of another value."""
    return control.Totals(
        version="0",
        started_at=OPENED_AT,
        libvirt=True,
        guests=3,
        relays=2,
        memory=4_194_304,
        held=17,
        sessions={"rw": {"connected": 1, "waiting": 2}, "ro": {"connected": 5}},
        counts=control.Counts(
            issued=20,
            redeemed=19,
            not_issued={"no_such_guest": 6},
            refused={"in_use": 7},
            opened={"rw": 8, "ro": 9},
            resumed=4,
            ended={"1000": 10, "4412": 11},
            setup=[1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            setup_seconds=12.5,
            bytes_in=21,
            bytes_out=22,
            skipped=23,
            cpu=24.5,
            reconnects=25,
        ),
    )


class FakeSupervisor:
    """Answers on admin.sock and redeem.sock of a directory, from its public attributes.

    Attributes:
        guests, sessions: what there is.
        requests: every request that came.
        failure: raised instead of the next answers, if set.
        raw: sent instead of the next answers, if set; ``raw_redeem`` on redeem.sock alone.
        totals: what it has counted.
        relay: the path that a redeemed token gives.
        redeemed: the connections of redeemed tokens; whoever takes one closes it.
    """

    def __init__(self, directory: str) -> None:
        self.guests: list[dict[str, Any]] = []
        self.sessions: list[dict[str, Any]] = []
        self.requests: list[control.Message] = []
        self.failure: ConsoleError | None = None
        self.raw: bytes | None = None
        self.raw_redeem: bytes | None = None
        self.totals = totals()
        self.relay = ""
        self.tokens: dict[str, str] = {}
        self.redeemed: list[socket.socket] = []
        self._listeners: list[tuple[Listener, control.Decoder]] = [
            (Listener(f"{directory}/admin.sock"), control.Decoder(control.Administering)),
            (Listener(f"{directory}/redeem.sock"), control.Decoder(control.Redeeming)),
        ]
        self._threads = [
            threading.Thread(target=self._serve, args=pair, daemon=True) for pair in self._listeners
        ]

    def __enter__(self) -> Self:
        for listener, _ in self._listeners:
            listener.sock.setblocking(True)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        for listener, _ in self._listeners:
            listener.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for listener, _ in self._listeners:
            listener.close()
        for sock in self.redeemed:
            sock.close()

    def last(self, kind: type[control.Message]) -> Any:
        return next(one for one in reversed(self.requests) if isinstance(one, kind))

    def asked(self, kind: type[control.Message]) -> int:
        return sum(isinstance(one, kind) for one in self.requests)

    def _serve(self, listener: Listener, decoder: control.Decoder) -> None:
        while True:
            try:
                sock, _ = listener.sock.accept()
            except OSError:
                return
            keep = False
            with contextlib.suppress(OSError):
                keep = self._one(sock, decoder)
            if not keep:
                sock.close()

    def _one(self, sock: socket.socket, decoder: control.Decoder) -> bool:
        lines = channel.Lines(control.REQUEST_MAX)
        try:
            while (line := lines.next()) is None:
                data = sock.recv(4096)
                if not data:
                    return False
                lines.feed(data)
            request = decoder.decode(line)
            self.requests.append(request)
            redeeming = isinstance(request, control.Redeem)
            raw = self.raw_redeem if redeeming and self.raw_redeem is not None else self.raw
            if raw is not None:
                sock.sendall(raw)
                return False
            if self.failure is not None:
                raise self.failure
            if redeeming:
                self.redeemed.append(sock)  # before the answer, which makes the client go on
            sock.sendall(control.answer(**self._answer(request)))
            return redeeming
        except ConsoleError as error:
            sock.sendall(control.refusal(error))
            return False

    def _answer(self, request: control.Message) -> dict[str, Any]:
        match request:
            case control.Issue():
                return self._issue(request)
            case control.Revoke():
                if request.id not in self.tokens.values():
                    raise NoSuchToken(f"no token {request.id}")
                self.tokens = {key: id_ for key, id_ in self.tokens.items() if id_ != request.id}
                return {}
            case control.RevokeKey():
                return {"tokens": 0, "sessions": len(self.sessions) if request.close else 0}
            case control.AuditHead():
                return {"seq": 0, "hash": "0" * 64}
            case control.ListGuests():
                return _page(self.guests, "guests", "name", request.after)
            case control.GetGuest():
                return {"guest": self._guest(request.guest)}
            case control.ListSessions():
                return _page(self.sessions, "sessions", "id", request.after)
            case control.Metrics():
                return dict(msgspec.to_builtins(self.totals))
            case control.GetSession():
                return {"session": self._session(request.id)}
            case control.Close():
                ending = self.sessions if request.id is None else [self._session(request.id)]
                self.sessions = [one for one in self.sessions if one not in ending]
                return {"closed": len(ending)}
            case control.Redeem():
                if self.tokens.pop(request.token, None) is None:
                    raise BadToken("This token is unknown, used, revoked or expired.")
                return {"path": self.relay}
        return {"status": "ok", "libvirt": "ok", "sessions": len(self.sessions), "version": "0"}

    def _issue(self, request: control.Issue) -> dict[str, Any]:
        of = self._guest(request.guest)
        if request.console not in (None, "serial0"):
            raise NoSuchConsole(f"no console {request.console}")
        id_ = f"t-{len(self.requests)}"
        token = f"secret-{id_}"
        self.tokens[token] = id_
        return {
            "id": id_,
            "token": token,
            "guest": of["name"],
            "uuid": of["uuid"],
            "console": "serial0",
            "mode": request.mode,
            "user": request.user,
            "expires_at": EXPIRES_AT,
        }

    def _guest(self, name: str) -> dict[str, Any]:
        for key in ("uuid", "name"):
            for one in self.guests:
                if one[key] == name:
                    return one
        raise NoSuchGuest(f"supervisor: no guest {name}")

    def _session(self, id_: str) -> dict[str, Any]:
        for one in self.sessions:
            if one["id"] == id_:
                return one
        raise NoSuchSession(f"supervisor: no session {id_}")


def _page(items: list[dict[str, Any]], name: str, key: str, after: str) -> dict[str, Any]:
    """Return two at a time, so that every listing of more has several pages."""
    left = sorted((one for one in items if one[key] > after), key=lambda one: str(one[key]))
    return {name: left[:2], "next": left[1][key] if len(left) > 2 else ""}


@contextlib.contextmanager
def relay_socket(path: str) -> Iterator[socket.socket]:
    """Listen where a relay would."""
    listener = Listener(path)
    try:
        listener.sock.settimeout(10)
        yield listener.sock
    finally:
        listener.close()
