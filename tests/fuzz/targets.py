"""What is fuzzed. Each target takes any bytes and returns; what it raises is a finding.

``make fuzz`` feeds them with atheris, ``make test`` with a fixed set of mutations.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock
from urllib.parse import unquote

from websockify.websockifyserver import WebSockifyServer

from serial_console import channel, config, control, keys, names, terminal
from serial_console.errors import BadRequest, ConfigError
from websockify_tokens import ConsoleTokens, client, frames

from .terminal_reference import answers

UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
UNIONS = (
    control.Redeeming,
    control.Administering,
    control.ToRelay,
    control.FromRelay,
    control.ToInventory,
    control.FromInventory,
    control.FromGateway,
    control.StateEvent | control.SkippedEvent | control.HeldEvent | control.End,
)
_DECODERS = [control.Decoder(union) for union in UNIONS]
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
ADDRESS = '[gateway]\nlisten = "{}"\ninsecure = true\n'


def messages(data: bytes) -> None:
    """A line on any of our sockets: decoded, or refused in one short line."""
    for decoder in _DECODERS:
        try:
            message = decoder.decode(data)
        except BadRequest as error:
            line = control.refusal(error)
            assert line.count(b"\n") == 1
            assert len(line) <= control.REQUEST_MAX, "the refusal is longer than a line may be"
        else:
            line = control.encode(message)
            assert line.endswith(b"\n")
            assert line.count(b"\n") == 1
            assert decoder.decode(line[:-1]) == message


def lines(data: bytes) -> None:
    """A stream, in pieces: the lines are those of the whole, up to one that is too long."""
    data = data[:2000]
    limit = 1 + data[0] % 64 if data else 1
    cut = 1 + data[1] % 16 if len(data) > 1 else 1
    stream = data[2:]
    reader = channel.Lines(limit)
    found: list[bytes] = []
    refused = False
    for start in range(0, len(stream), cut):
        reader.feed(stream[start : start + cut])
        try:
            while (line := reader.next()) is not None:
                found.append(line)
        except BadRequest:
            refused = True
            break
    whole = stream.split(b"\n")
    good = next((n for n, line in enumerate(whole) if len(line) >= limit), len(whole) - 1)
    assert found == whole[:good]
    assert refused == any(len(line) >= limit for line in whole)


def sockets_names(data: bytes) -> None:
    """A guest's name and an alias: a path of its own, inside the directory, that the kernel takes.

    A name of a guest is text that libvirt took, so UTF-8 without NUL or slash; here it is any.
    """
    first, _, second = data.partition(b"\n")
    name, alias = (part.decode("utf-8", "surrogateescape") for part in (first, second))
    for text in (name, alias):
        for shown in (names.printable(text), names.shown(text)):
            assert not any(unicodedata.category(one) in _INVISIBLE for one in shown), shown
            shown.encode()
        assert len(names.shown(text)) <= 64
    for given in (None, alias):
        path = names.console_socket("/run/console", name, UUID, given)
        assert len(os.fsencode(path)) <= names.SUN_PATH_MAX
        assert os.path.dirname(path) == "/run/console"
        assert os.path.normpath(path) == path
        stem = os.path.basename(path).removesuffix(".sock")
        guest, plus, rest = stem.partition("+")
        if not rest.startswith("+"):  # the mark of an alias that is too long
            assert unquote(rest, errors="surrogateescape") == (given or "")
        assert bool(plus) is (given is not None)
        assert guest == UUID or unquote(guest, errors="surrogateescape") == name


def configuration(data: bytes) -> None:
    """A configuration file: read, or refused in one line that names the file."""
    text = data[:4000].decode("utf-8", "replace")
    try:
        settings = config.parse(text, "x.toml")
    except ConfigError as error:
        said = str(error)
        assert said.startswith("x.toml"), said
        assert said == names.printable(said), said
        assert len(said) < 2000, said
        return
    escape = settings.session.escape
    byte = config.escape_byte(escape)
    assert byte == (bytes([ord(escape[-1].upper()) - 64]) if escape else b"")
    for listen in (settings.gateway.listen, settings.api.listen):
        host, port = config.address(listen)
        assert host
        assert 0 <= port <= 65535
    for path in (settings.paths.admin, settings.paths.api_socket, settings.api.keys):
        assert "\0" not in path


def key_file(data: bytes) -> None:
    """A file of API keys: its keys are known and nobody else's, or it is refused in one line."""
    fd = os.memfd_create("keys", os.MFD_CLOEXEC)
    try:
        os.fchmod(fd, 0o600)
        os.write(fd, data)
        path = f"/proc/self/fd/{fd}"
        try:
            assert keys.Ring(path).find("no such secret") is None
            for key in keys.load(path):
                key.covers("web-1")
        except ConfigError as error:
            said = str(error)
            assert path in said
            assert said == names.printable(said), said
            assert len(said) < 2000, said
    finally:
        os.close(fd)


class _FakeSupervisor:
    """A FAKE supervisor on redeem.sock, which answers every request with the given bytes."""

    def __init__(self) -> None:
        # An abstract address: there is no file to leave behind.
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind("")
        self.path = self.listening.getsockname().decode()
        self.listening.listen()
        self.answer = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listening.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(1)
                    connection.recv(65536)
                    connection.sendall(self.answer)

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()


_supervisor: list[_FakeSupervisor] = []


def plugin(data: bytes) -> None:
    """An answer on redeem.sock: a path that can be connected, or a refusal fit to show."""
    if not _supervisor:
        _supervisor.append(_FakeSupervisor())
    supervisor = _supervisor[0]
    supervisor.answer = data
    token = data[:200].decode("utf-8", "surrogateescape")
    with mock.patch.object(client, "TIMEOUT", 0.5):
        try:
            path, back = client.redeem(supervisor.path, token, "192.0.2.1:1", events=True)
        except client.RefusedError as refused:
            _fits(refused.close, refused.reason)
        else:
            _is_path(path)
            with contextlib.closing(back):
                _read_back(back)
        with contextlib.suppress(WebSockifyServer.EClose):
            kind, path = ConsoleTokens(supervisor.path).lookup(token)
            assert kind == "unix_socket"
            _is_path(path)


def _fits(code: int, reason: str) -> None:
    assert 1000 <= code <= 4999
    assert len(frames.close_frame(code, reason)) <= 127
    assert reason
    assert reason.isprintable()


def _is_path(path: object) -> None:
    assert isinstance(path, str)
    assert path
    assert b"\0" not in os.fsencode(path)


def close_plugin() -> None:
    """End the fake supervisor, if there is one."""
    while _supervisor:
        _supervisor.pop().close()


def way_back(data: bytes) -> None:
    """Events from a relay: objects that have what their kind has, and bounded memory."""
    ours, theirs = socket.socketpair()
    with theirs:
        back = client.WayBack(ours, data[:64])
        with contextlib.closing(back):
            theirs.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                theirs.send(data[64:])
            theirs.shutdown(socket.SHUT_WR)
            _read_back(back)


def _read_back(back: client.WayBack) -> None:
    while not back.ended:
        for event in back.events():
            assert event["v"] == 1
            if event.get("op") == "end":
                _fits(event["code"], event["reason"])
            json.dumps(event).encode()


def replay(data: bytes) -> None:
    """Old output: what is left of it asks a terminal nothing, and is left as it is."""
    data = data[:2000]
    left = terminal.without_queries(data)
    assert not answers(left), answers(left)
    assert terminal.without_queries(left) == left
    if not re.search(rb"[\x05\x1b\xc2]", data):
        assert left == data


def websocket(data: bytes) -> None:
    """A client's frames: the same however they are cut, and never more kept than was sent."""
    cut = 1 + data[0] % 16 if data else 1
    stream = data[1:4000]
    assert _framed([stream]) == _framed(
        [stream[start : start + cut] for start in range(0, len(stream), cut)]
    )


def _framed(pieces: list[bytes]) -> Any:
    """Return the payload and the control frames of a stream, and whether it broke the protocol."""
    reader = frames.Reader()
    payload, others = bytearray(), []
    for piece in pieces:
        try:
            found = reader.feed(piece)
        except frames.FrameError as error:
            return str(error)
        for opcode, data in found:
            if opcode == frames.BINARY:
                payload += data
            else:
                others.append((opcode, data))
    return bytes(payload), others


class Target(NamedTuple):
    """A target and inputs that it takes."""

    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


_SESSION: dict[str, Any] = {
    "id": "0a", "guest": "web", "uuid": UUID, "console": "serial0", "mode": "rw", "user": "u",
    "client": "192.0.2.1:1", "opened_at": 1.5, "gateway_pid": 7, "gateway_uid": 7, "token_id": "t",
    "resume": {"seconds": 1, "digest": "00", "client_address": None},
}  # fmt: skip
_FIGURES = {
    "session": "0a", "state": "connected", "idle": 0.5, "bytes_in": 1, "bytes_out": 2, "skipped": 0,
}  # fmt: skip
_GUEST = {
    "name": "web",
    "uuid": UUID,
    "state": "running",
    "consoles": [{"alias": "serial0", "type": "pty", "supported": True}],
}


def _message(op: str, **fields: Any) -> bytes:
    return json.dumps({"v": 1, "op": op, **fields}).encode()


REDEEM_SEEDS = (_message("redeem", token="x" * 43, client="192.0.2.1:1", events=False),)
ADMIN_SEEDS = (
    _message("issue", guest="web", user="u", mode="ro", console="serial0", ttl=3, takeover=False,
             notices=None, replay=1, escape="ctrl-q", client_address="192.0.2.1", resume=0),
    _message("issue", guest=UUID),
    _message("revoke", id="00"),
    _message("guests", after=""),
    _message("guest", guest="web"),
    _message("sessions", after=""),
    _message("session", id="0a"),
    _message("close", id="0a", by="u"),
    _message("health"),
)  # fmt: skip
_OTHER_SEEDS = (
    _message("admit", session=_SESSION, events=True, takeover=False, notices=True, replay=1,
             escape="\x11"),
    _message("end", code=1000, reason="over", session=None),
    _message("query"),
    _message("ready"),
    _message("failed", code="in_use", message="x", id=1),
    _message("admitted", session="0a"),
    _message("opened", session="0a", again=False),
    _message("closed", code=1000, reason="over", client=_FIGURES),
    _message("report", clients=[_FIGURES]),
    _message("adopt", guest="web", uuid=UUID, console="serial0", path="/x", sessions=[_SESSION]),
    _message("lookup", id=1, guest="web"),
    _message("scan", id=1),
    _message("probe", id=1),
    _message("found", id=1, guest=_GUEST, last=True),
)  # fmt: skip
_EVENT_SEEDS = (
    _message("state", state="connected", text="connected"),
    _message("skipped", bytes=1),
    _message("held", bytes=1),
    _message("end", code=4410, reason="bob has taken over"),
)
BACK_SEEDS = (_message("taking", pause=0.5), _message("delivered", bytes=1))
_ANSWER = json.dumps({"v": 1, "ok": True, "path": "/run/console/web.sock", "session": "0a"})
_REFUSAL = json.dumps({"v": 1, "ok": False, "code": "in_use", "message": "no", "close": 4409})
_CONFIG = """# all of it
[libvirt]
uri = "qemu:///system"
[paths]
consoles = "/c"
control = "/d"
api = "/a"
[gateway]
listen = "127.0.0.1:6083"
public_url = "https://host.example/console"
allowed_origins = ["https://x.example"]
heartbeat = 10
[api]
listen = "[::1]:6084"
peer_uids = [1, 2]
[tokens]
ttl = 30
store = "memory"
[session]
escape = "ctrl-q"
idle_timeout = 600
notices = true
replay = 65536
[limits]
sessions = 1000
[log]
level = "info"
"""
_KEY = json.dumps(
    {"name": "k", "guests": ["web-*"], "mode": "rw", "sha256": "9f" * 32, "created": "2025"}
)

TARGETS = {
    "messages": Target(
        messages, (*REDEEM_SEEDS, *ADMIN_SEEDS, *_OTHER_SEEDS, *_EVENT_SEEDS, *BACK_SEEDS)
    ),
    "lines": Target(lines, (b"\x08\x03one\ntwo\nthree is long\n", b"\xff\x01" + b"x" * 70)),
    "names": Target(
        sockets_names,
        (b"web\nserial1", b"..\n..", "grün/\u202e\n".encode(), b"x" * 120, b"a\n" + b"y" * 120),
    ),
    "config": Target(
        configuration,
        (_CONFIG.encode(), ADDRESS.format("0.0.0.0:80").encode(), b'[paths]\n"a.b" = 1\n'),
    ),
    "keys": Target(key_file, (_KEY.encode() + b"\n",)),
    "plugin": Target(
        plugin,
        (
            _ANSWER.encode() + b"\n" + b"\n".join(_EVENT_SEEDS) + b"\n",
            _REFUSAL.encode() + b"\n",
            _EVENT_SEEDS[3] + b"\n",
        ),
    ),
    "way_back": Target(way_back, (b"\n".join(_EVENT_SEEDS) + b"\n",)),
    "replay": Target(
        replay,
        (
            b"a\x1b[6n\x1b[31mb\x1b]11;?\x07\x1bP$qm\x1b\\\x05\x1bZ\xc2\x9bc",
            b"\x1b[?1$p\x1b[18t\x1b[>0q\x1b]52;c;?\x1b\\\x1b]0;what?\x07\x1b(B",
        ),
    ),
    "websocket": Target(
        websocket,
        (
            b"\x05\x82\x85abcdhello\x89\x80abcd",
            b"\x02\x01\x81abcdx\x80\x81abcdy\x88\x82abcd\x03\xe8",
            b"\x07\x82\xfe\x00\x80abcd" + b"z" * 128,
        ),
    ),
}
