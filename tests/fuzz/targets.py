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
from xml.etree import ElementTree

from websockify.websockifyserver import WebSockifyServer

from serial_console import channel, config, consoles, control, keys, names, terminal, views
from serial_console.errors import BadRequest, ConfigError, ConsoleError, NoSuchConsole
from websockify_tokens import ConsoleTokens, client, frames

from . import seeds
from .terminal_reference import answers

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
        path = names.console_socket("/run/console", name, seeds.UUID, given)
        assert len(os.fsencode(path)) <= names.SUN_PATH_MAX
        assert os.path.dirname(path) == "/run/console"
        assert os.path.normpath(path) == path
        stem = os.path.basename(path).removesuffix(".sock")
        guest, plus, rest = stem.partition("+")
        if not rest.startswith("+"):  # the mark of an alias that is too long
            assert unquote(rest, errors="surrogateescape") == (given or "")
        assert bool(plus) is (given is not None)
        assert guest == seeds.UUID or unquote(guest, errors="surrogateescape") == name


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
    """A FAKE supervisor, which answers every request with the given bytes."""

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
    supervisor = _fake_supervisor(data)
    token = data[:200].decode("utf-8", "surrogateescape")
    with mock.patch.object(client, "TIMEOUT", 0.5):
        try:
            asked = client.Redemption(supervisor.path, token, "192.0.2.1:1", events=True)
            path, back = asked.answer()
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


def _fake_supervisor(answer: bytes) -> _FakeSupervisor:
    if not _supervisor:
        _supervisor.append(_FakeSupervisor())
    _supervisor[0].answer = answer
    return _supervisor[0]


def close() -> None:
    """End the fake supervisor, if there is one."""
    while _supervisor:
        _supervisor.pop().close()


def admin_answers(data: bytes) -> None:
    """An answer on admin.sock, as API and command line understand it: a view, or an error."""
    path = _fake_supervisor(data).path
    settings = config.Config()
    with contextlib.suppress(ConsoleError):
        answer = channel.call(path, control.Health(), timeout=0.5)
        for view in (views.guest, views.session, views.health):
            with contextlib.suppress(ConsoleError):
                views.to_json(view(answer)).encode()
        with contextlib.suppress(ConsoleError):
            views.to_json(views.token(settings, answer)).encode()
        with contextlib.suppress(ConsoleError):
            if answer.get("next") == "":
                channel.call_all(path, control.ListGuests(), "guests")


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
    cut = sum(data) % (len(data) + 1)
    rest = terminal.rest_without_queries(data[:cut], data[cut:])
    assert answers(data[:cut] + rest) == answers(data[:cut])


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


def guest_xml(data: bytes) -> None:
    """A guest's XML: each console that is said to be open has one address on this host."""
    xml = data.decode("utf-8", "replace")
    try:
        found = consoles.consoles(xml)
    except ElementTree.ParseError:
        return
    guest = control.GuestInfo("web", seeds.UUID, "running", found)
    assert len({one.alias for one in found}) == len(found)
    for number, one in enumerate(found):
        where = consoles.address(xml, one.alias)
        assert one.supported is (one.type == "pty" or where is not None)
        if number == 0:
            assert consoles.address(xml, None) == where
        if where is not None and where.path:
            assert where.path.startswith("/")
        elif where is not None:
            socket.inet_pton(socket.AF_INET6 if ":" in where.host else socket.AF_INET, where.host)
            assert 0 < where.port < 65536
        said = ""
        try:
            consoles.pick(guest, one.alias)
        except NoSuchConsole as error:
            said = str(error)
        assert bool(said) is not one.supported
        assert said == names.printable(said)


class Target(NamedTuple):
    """A target and inputs that it takes."""

    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


TARGETS = {
    "messages": Target(
        messages,
        (
            *seeds.REDEEM_SEEDS,
            *seeds.ADMIN_SEEDS,
            *seeds.OTHER_SEEDS,
            *seeds.EVENT_SEEDS,
            *seeds.BACK_SEEDS,
        ),
    ),
    "lines": Target(lines, (b"\x08\x03one\ntwo\nthree is long\n", b"\xff\x01" + b"x" * 70)),
    "names": Target(
        sockets_names,
        (b"web\nserial1", b"..\n..", "grün/\u202e\n".encode(), b"x" * 120, b"a\n" + b"y" * 120),
    ),
    "config": Target(
        configuration,
        (
            seeds.CONFIG.encode(),
            b'[gateway]\nlisten = "0.0.0.0:80"\ninsecure = true\n',
            b'[paths]\n"a.b" = 1\n',
        ),
    ),
    "guest_xml": Target(guest_xml, seeds.GUEST_XML),
    "keys": Target(key_file, (seeds.KEY.encode() + b"\n",)),
    "plugin": Target(
        plugin,
        (
            seeds.ANSWER.encode() + b"\n" + b"\n".join(seeds.EVENT_SEEDS) + b"\n",
            seeds.REFUSAL.encode() + b"\n",
            seeds.EVENT_SEEDS[3] + b"\n",
        ),
    ),
    "admin_answers": Target(
        admin_answers, (seeds.GUEST_ANSWER, seeds.SESSION_ANSWER, seeds.ISSUED, seeds.LISTING)
    ),
    "way_back": Target(way_back, (b"\n".join(seeds.EVENT_SEEDS) + b"\n",)),
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
