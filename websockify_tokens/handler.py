"""One client of the gateway: who may knock, its token, the bytes both ways, how it ends."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import ssl
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from websockify.websocketproxy import ProxyRequestHandler
from websockify.websockifyserver import WebSockifyServer

from . import frames, pages
from .client import RefusedError, WayBack, redeem
from .liveness import INFO_SIZE, LOOKS, Liveness, Look

NORMAL = 1000
GOING_AWAY = 1001
NO_TOKEN = 4400
BAD_TOKEN = 4401
RELAY_LOST = 4412
UNAVAILABLE = 4503
GATEWAY_RESTARTING = 1012

TOKEN_MAX = 512
"""Characters of a token that are worth asking about; ours have 43."""
CHUNK = 65536
"""Bytes of one read, and so what the gateway holds of a session in either direction."""
SEND_BUFFER = 262144
"""Bytes that the kernel may keep for a client: left to itself it would take megabytes of output,
which a client that comes back from a stall must read before it sees what is new."""
TCP_RTO_MAX_MS = 44
"""The socket option of linux/tcp.h, since Linux 6.15."""
CLOSE_REPLY = 2.0
"""Seconds to wait for the client's close frame (DESIGN.md)."""
END_EVENT = 1.0
"""Seconds to wait for the relay's ``end`` once its socket is closed."""
_SECRET = re.compile(r"(token[=.])[^&\s'\",;]+")


class Ended(Exception):
    """The session is over: close code and reason.

    Attributes:
        by_client: the client closed or is gone; it will not answer our close frame.
        vanished: it is not even worth waiting for room for that frame.
        unsent: what is to be sent before the close frame.
        reader: what reads the client's frames, maybe within one.
    """

    def __init__(
        self, code: int, reason: str, *, by_client: bool = False, vanished: bool = False
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.by_client = by_client or vanished
        self.vanished = vanished
        self.unsent = b""
        self.reader = frames.Reader()


class ConsoleRequestHandler(ProxyRequestHandler):  # type: ignore[misc]
    """websockify's handler, made fit to face a network.

    Its ``server`` is a ConsoleProxy.
    """

    path: str
    timeout = 10
    server_version = "serial-console"
    sys_version = ""

    # ---- pages

    def do_GET(self) -> None:
        """Serve one of the fixed files."""
        self._serve_page(body=True)

    def do_HEAD(self) -> None:
        """Serve one of the fixed files' headers."""
        self._serve_page(body=False)

    def _serve_page(self, *, body: bool) -> None:
        page = pages.find(self.path.partition("?")[0], self.server.web, self.server.connect_origins)
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND, explain="There is no such page here.")
            return
        kind, content = page
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def end_headers(self) -> None:
        """Send the headers, with those of every answer."""
        for name, value in pages.headers(self.server.connect_origins):
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Log without tokens, whatever part of a request a message repeats."""
        self.logger.info("%s: %s", self.client_address[0], _without_secrets(format % args))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with an error; what the client sent is not repeated."""
        if message:
            self.log_message("%d: %s", code, message)
        super().send_error(code, None, explain)

    # ---- the upgrade

    def validate_connection(self) -> None:
        """Check the Origin before anything else, then take the token out of the request."""
        origin = self.headers.get("Origin")
        if origin is not None and origin not in self._origins():
            self.send_error(HTTPStatus.FORBIDDEN, explain="This page may not open consoles here.")
            self.close_connection = True
            raise WebSockifyServer.EClose(f"refused the Origin {_without_secrets(origin)[:128]!r}")
        self.path, _, query = self.path.partition("?")
        self._token = parse_qs(query).get("token", [""])[0]
        offered = self.headers.get("Sec-WebSocket-Protocol", "").split(",")
        protocols = [protocol.strip() for protocol in offered]
        for protocol in protocols:
            if protocol.startswith("token.") and not self._token:
                self._token = protocol.removeprefix("token.")
        del self.headers["Sec-WebSocket-Protocol"]
        if "binary" in protocols:
            self.headers["Sec-WebSocket-Protocol"] = "binary"
        # From the answer to the handshake on, a client is told why it ends.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def _origins(self) -> list[str]:
        own = self.server.public_origin
        if not own:
            own = f"{'https' if self._tls() else 'http'}://{self.headers.get('Host', '')}"
        return [own, *self.server.allowed_origins]

    def _tls(self) -> bool:
        return isinstance(self.connection, ssl.SSLSocket)

    # ---- the session

    def new_websocket_client(self) -> None:
        """Redeem the token, connect the relay, pump, and close with a code that says why."""
        client = self.request.socket
        with contextlib.suppress(OSError):  # a unix socket has no such option
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if self.server.heartbeat:
            # A closed window is probed every heartbeat instead of ever more rarely, so that a
            # client which vanishes behind one is missed as soon as any other.
            with contextlib.suppress(OSError):  # an older kernel
                pause = int(self.server.heartbeat * 1000)
                client.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, pause)
        try:
            signal.signal(signal.SIGTERM, _restarting)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            self._session(client)
        except Ended as end:
            self.logger.info("%s: closed: %d %s", self.client_address[0], end.code, end.reason)
            _close(client, end)
        except OSError as error:
            self.logger.info("%s: connection lost: %s", self.client_address[0], error.strerror)

    def _session(self, browser: socket.socket) -> None:
        if len(self._token) > TOKEN_MAX:
            raise Ended(BAD_TOKEN, "This token is not one of ours; ask for a new one.")
        if not self._token:
            raise Ended(NO_TOKEN, "A token is needed; open this page from your host manager.")
        host, port = self.client_address[:2]
        client = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            path, back = redeem(self.server.token_plugin.source, self._token, client, events=True)
        except RefusedError as refused:
            raise Ended(refused.close, refused.reason) from None
        self._token = ""
        with contextlib.closing(back), socket.socket(socket.AF_UNIX) as relay:
            try:
                relay.connect(path)
            except OSError:
                raise _end_of(back) from None
            pump = _Pump(browser, relay, back, self.server.heartbeat)
            try:
                pump.run()
            except Ended as end:
                end.unsent, end.reader = pump.unsent, pump.reader
                raise


class _Pump:
    """Bytes both ways. Reads a side only when what it read before has been written."""

    def __init__(
        self, client: socket.socket, relay: socket.socket, back: WayBack, heartbeat: float
    ) -> None:
        self._client = client
        self._relay = relay
        self._back = back
        self._heartbeat = heartbeat
        self.reader = frames.Reader()
        self._to_client = bytearray()
        self._to_relay = bytearray()
        self._end: Ended | None = None
        self._liveness = Liveness(heartbeat, time.monotonic())
        self._looks = 0
        self._ping_waits = False
        client.setblocking(False)
        relay.setblocking(False)

    @property
    def unsent(self) -> bytes:
        """What the client has not been sent; it may begin within a frame."""
        return bytes(self._to_client)

    def run(self) -> None:
        """Pump until the end. Raises Ended, or OSError when the client's connection breaks."""
        wake = _woken_by_sigterm()
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        look_at = time.monotonic() + self._heartbeat / LOOKS
        wanted: dict[int, int] = {}
        client, relay, back = self._client.fileno(), self._relay.fileno(), self._back.fileno()
        while True:
            want = self._wanted()
            for fd, events in want.items():
                if wanted.get(fd) != events:
                    poll.register(fd, events)
            for fd in wanted.keys() - want.keys():
                poll.unregister(fd)
            wanted = want
            wait = None if not self._heartbeat else max(0.0, look_at - time.monotonic()) * 1000
            ready = dict(poll.poll(wait))
            if wake in ready:
                raise _restart()
            if back in ready:
                self._read_back()
            if ready.get(relay, 0) & ~select.POLLOUT:
                self._read_relay()
            if ready.get(client, 0) & select.POLLIN:
                self._read_client()
            elif ready.get(client, 0) & (select.POLLHUP | select.POLLERR | select.POLLRDHUP):
                raise Ended(GOING_AWAY, "The client is gone.", by_client=True)
            self._write_relay()
            if self._heartbeat and time.monotonic() >= look_at:
                look_at = time.monotonic() + self._heartbeat / LOOKS
                self._look()
            self._write_client()

    def _look(self) -> None:
        """See whether the client is still there; send a ping when it is time for one."""
        info = self._client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_SIZE)
        reading = not self._to_relay
        why = self._liveness.verdict(time.monotonic(), Look.parse(info), reading=reading)
        if why is not None:
            raise Ended(GOING_AWAY, why, vanished=True)
        self._looks += 1
        if self._looks % LOOKS == 0 and not self._ping_waits:
            self._to_client += frames.frame(frames.PING, b"")
            self._ping_waits = True

    def _wanted(self) -> dict[int, int]:
        """What to poll for: a side is read only when nothing waits to be written to the other."""
        client = select.POLLRDHUP
        client |= select.POLLIN if not self._to_relay else 0
        client |= select.POLLOUT if self._to_client else 0
        relay = select.POLLIN if not self._to_client else 0
        relay |= select.POLLOUT if self._to_relay else 0
        want = {self._client.fileno(): client}
        if relay:
            want[self._relay.fileno()] = relay
        if not self._back.ended:
            want[self._back.fileno()] = select.POLLIN
        return want

    def _read_relay(self) -> None:
        if self._to_client:
            return
        try:
            data = self._relay.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            raise self._end or _end_of(self._back)
        self._to_client += frames.frame(frames.BINARY, data)

    def _read_client(self) -> None:
        while not self._to_relay:
            try:
                data = self._client.recv(CHUNK)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not data:
                raise Ended(GOING_AWAY, "The client is gone.", by_client=True)
            try:
                pieces = self.reader.feed(data)
            except frames.FrameError as error:
                raise Ended(frames.PROTOCOL_ERROR, f"WebSocket protocol error: {error}.") from None
            for opcode, payload in pieces:
                if opcode == frames.BINARY:
                    self._to_relay += payload
                elif opcode == frames.PING and len(self._to_client) < CHUNK:
                    self._to_client += frames.frame(frames.PONG, payload)
                elif opcode == frames.CLOSE:
                    self._write_relay()
                    raise Ended(NORMAL, "The client closed.", by_client=True)
            if not isinstance(self._client, ssl.SSLSocket) or not self._client.pending():
                return

    def _write_relay(self) -> None:
        if self._to_relay:
            try:
                del self._to_relay[: self._relay.send(self._to_relay)]
            except BlockingIOError:
                return
            except OSError:  # it has ended: reading it, which comes next, says how
                self._to_relay.clear()

    def _write_client(self) -> None:
        if self._to_client:
            with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                del self._to_client[: self._client.send(self._to_client)]
                self._ping_waits = self._ping_waits and bool(self._to_client)

    def _read_back(self) -> None:
        self._end = _end_in(self._back.events()) or self._end


def _end_in(events: list[dict[str, Any]]) -> Ended | None:
    for event in events:
        if event.get("op") == "end":
            return Ended(int(event["code"]), str(event["reason"]))
    return None


def _end_of(back: WayBack) -> Ended:
    """The relay has closed its socket: it said why on the way back, unless it died."""
    deadline = time.monotonic() + END_EVENT
    while not back.ended and time.monotonic() < deadline:
        select.select([back], [], [], max(0.0, deadline - time.monotonic()))
        end = _end_in(back.events())
        if end is not None:
            return end
    return Ended(RELAY_LOST, "The relay of this console was lost; connect again.")


def _close(client: socket.socket, end: Ended) -> None:
    """Send what was half sent and the close frame, and wait a moment for the client's own."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # there is an end in sight, and a better reason
    deadline = time.monotonic() + CLOSE_REPLY
    client.settimeout(0 if end.vanished else CLOSE_REPLY)
    with contextlib.suppress(OSError, frames.FrameError):
        client.sendall(end.unsent + frames.close_frame(end.code, end.reason))
        while not end.by_client and (left := deadline - time.monotonic()) > 0:
            client.settimeout(left)
            data = client.recv(CHUNK)
            if not data or any(op == frames.CLOSE for op, _ in end.reader.feed(data)):
                break
        client.shutdown(socket.SHUT_RDWR)


def _restart() -> Ended:
    return Ended(GATEWAY_RESTARTING, "The gateway restarts; connect again.")


def _restarting(_signal: int, _frame: object) -> None:
    """Handle SIGTERM while the token is redeemed: nothing else ends that wait."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _restart()


def _woken_by_sigterm() -> int:
    """Let SIGTERM be seen by the poll loop. Returns the fd to watch."""
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda _signal, _frame: None)
    return read


def _without_secrets(text: str) -> str:
    return _SECRET.sub(r"\1…", text)
