"""One client of the gateway: who may knock, its token, the bytes both ways, how it ends."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import ssl
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from websockify.websocketproxy import ProxyRequestHandler
from websockify.websockifyserver import WebSockifyServer

from . import pages
from .client import RefusedError, redeem
from .pump import Ended, Pump, close, end_of, restarting

NO_TOKEN = 4400
BAD_TOKEN = 4401

TOKEN_MAX = 512
"""Characters of a token that are worth asking about; ours have 43."""
SEND_BUFFER = 262144
"""Bytes that the kernel may keep for a client: left to itself it would take megabytes of output,
which a client that comes back from a stall must read before it sees what is new."""
TCP_RTO_MAX_MS = 44
"""The socket option of linux/tcp.h, since Linux 6.15."""
_SECRET = re.compile(r"(token[=.])[^&\s'\",;]+")


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
            signal.signal(signal.SIGTERM, restarting)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            self._session(client)
        except Ended as end:
            self.logger.info("%s: closed: %d %s", self.client_address[0], end.code, end.reason)
            close(client, end)
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
                raise end_of(back) from None
            Pump(browser, relay, back, self.server.heartbeat).run()


def _without_secrets(text: str) -> str:
    return _SECRET.sub(r"\1…", text)
