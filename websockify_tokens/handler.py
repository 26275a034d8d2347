"""One client of the gateway: who may knock, its token, the bytes both ways, how it ends."""

from __future__ import annotations

import contextlib
import io
import re
import signal
import socket
import ssl
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockify.websocketproxy import ProxyRequestHandler
from websockify.websockifyserver import WebSockifyServer

from . import addresses, events, heads, pages
from .client import Redemption, RefusedError
from .ending import Ended, close, end_of, restarting
from .pump import Pump

REDEEMING, REFUSED, REDEEMED = b"r", b"n", b"y"
"""What a connection's process tells the one that forked it."""

NO_TOKEN = 4400
BAD_TOKEN = 4401

TOKEN_MAX = 512
"""Characters of a token that are worth asking about; ours have 43."""
SEND_BUFFER = 262144
"""Bytes that the kernel may keep for a client: left to itself it would take megabytes of output,
which a client that comes back from a stall must read before it sees what is new."""
TCP_RTO_MAX_MS = 44
"""The socket option of linux/tcp.h, since Linux 6.15."""
ANSWER = 60.0
"""Seconds for a client to take a whole answer: the page's largest file at 10 KiB/s."""
REQUESTS = 100
"""Requests of one connection; the page is 49, which browsers ask for on six."""
VARY = "Accept-Encoding, Origin"
PROTOCOLS = (events.PROTOCOL, "binary")
"""Subprotocols; the first that a client offers is chosen."""
VERSIONS = ("13", "8", "7")
"""Of WebSocket, as websockify speaks them."""
_AFTER = re.compile(r"[0-9A-Za-z.-]{1,128}")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9._:\[\]-]+")


class ConsoleRequestHandler(ProxyRequestHandler):  # type: ignore[misc]
    """websockify's handler, made fit to face a network.

    Its ``server`` is a ConsoleProxy.
    """

    path: str
    headers: Any = None  # of a request that is understood
    rfile: Any
    client_address: tuple[str, int]
    server_version = "serial-console"
    sys_version = ""

    # ---- requests

    def setup(self) -> None:
        """Prepare for the requests of one connection."""
        super().setup()
        self._peer: tuple[str, int] = self.client_address[:2]
        self._requests = 0

    def handle_one_request(self) -> None:
        """Read a request's head, within the time and the size that it may have, and answer it."""
        self._requests += 1
        if self._requests > 1:
            self.server.limit_time(self.server.handshake_timeout)
        try:
            head = self._read_head()
        except TimeoutError:
            if self._requests == 1:
                raise
            head = None
        self.close_connection = True
        if head is None:
            return
        self.server.limit_time(ANSWER)
        self.requestline, self.request_version, self.command = "", "HTTP/1.1", ""
        if len(head) > heads.HEAD_MAX or head.count(b"\n") > heads.FIELDS_MAX + 2:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request is too long.")
        elif flaw := heads.flaw(head):
            self._refuse(HTTPStatus.BAD_REQUEST, flaw)
        else:
            connection, self.rfile = self.rfile, io.BytesIO(head)
            super().handle_one_request()
            self.rfile = connection

    def _read_head(self) -> bytes | None:
        """Return what comes up to an empty line, or a little more than HEAD_MAX of it."""
        head = b""
        while len(head) <= heads.HEAD_MAX:
            line: bytes = self.rfile.readline(heads.HEAD_MAX + 1 - len(head))
            head += line
            if line in (b"\r\n", b"\n"):
                return head
            if not line:
                return None
        return head

    def parse_request(self) -> bool:
        """Parse a head that has no flaw, as http.server does; returns whether to answer it."""
        self.requestline, self.headers = heads.parsed(self.raw_requestline + self.rfile.read())
        self.command, path, self.request_version = self.requestline.split(" ")
        self.path = "/" + path.lstrip("/")  # of //host another server's page would be made
        recent = self.request_version == self.protocol_version
        connection = self.headers.get("Connection", "").lower()
        self.close_connection = connection == "close" or not (recent or connection == "keep-alive")
        if recent and self.headers.get("Expect", "").lower() == "100-continue":
            return self.handle_expect_100()
        forwarded = self.headers.get_all("X-Forwarded-For", [])
        self.client_address = addresses.client_of(
            self._peer, forwarded, self.server.trusted_proxies
        )
        self.close_connection |= self._requests >= REQUESTS
        return True

    def handle_expect_100(self) -> bool:
        """Refuse: no request here has a body."""
        self._refuse(HTTPStatus.EXPECTATION_FAILED, "A request here has no body.")
        return False

    # ---- pages

    def do_GET(self) -> None:
        """Serve one of the fixed files."""
        self._serve_page(body=True)

    def do_HEAD(self) -> None:
        """Serve one of the fixed files' headers."""
        self._serve_page(body=False)

    def _serve_page(self, *, body: bool) -> None:
        status = HTTPStatus.OK
        try:
            page = self.server.pages.find(self.path.partition("?")[0])
        except pages.SettingsError as error:
            self.logger.error("%s", error)
            status, page = HTTPStatus.INTERNAL_SERVER_ERROR, error.page
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND, explain="There is no such page here.")
            return
        known = self.headers.get("If-None-Match", "").split(",")
        if page.tag and page.tag in map(str.strip, known):
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self.send_header("ETag", page.tag)
            self.send_header("Vary", VARY)
            self.end_headers()
            return
        content = page.body
        self.send_response(status)
        self.send_header("Content-Type", page.kind)
        self.send_header("Vary", VARY)
        if page.tag:
            self.send_header("ETag", page.tag)
        if page.packed and pages.accepts_gzip(self.headers.get("Accept-Encoding", "")):
            content = page.packed
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def end_headers(self) -> None:
        """Send the headers, with those of every answer."""
        origin = self.headers.get("Origin") if self.headers is not None else None
        for name, value in self.server.pages.headers(origin):
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Log about this client."""
        self.logger.info("%s: %s", self.client_address[0], format % args)

    def log_error(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Log nothing: what is to be said ``send_error`` has said, without what the client sent."""

    def send_error(
        self,
        code: int,
        message: str | None = None,  # noqa: ARG002 - the base's
        explain: str | None = None,
    ) -> None:
        """Answer with an error. ``message`` is passed over: it may repeat what the client sent."""
        status = HTTPStatus(code)
        self.log_message("answered %d: %s", code, explain or status.phrase)
        super().send_error(code, None, explain and explain.removesuffix("."))  # it adds one

    def _refuse(self, code: HTTPStatus, explain: str) -> None:
        self.send_error(code, explain=explain)
        self.close_connection = True

    # ---- the upgrade

    class SocketClass(ProxyRequestHandler.SocketClass):  # type: ignore[misc]
        """websockify's WebSocket, for its handshake."""

        def select_subprotocol(self, protocols: list[str]) -> str:
            """Return the one that ``validate_connection`` has left."""
            return protocols[0]

    def handle_upgrade(self) -> None:
        """Answer a handshake."""
        if self.headers.get("Sec-WebSocket-Version") not in VERSIONS:
            self.send_response(HTTPStatus.UPGRADE_REQUIRED)
            self.send_header("Sec-WebSocket-Version", VERSIONS[0])
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "close")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if not self.headers.get("Sec-WebSocket-Key"):
            self._refuse(HTTPStatus.BAD_REQUEST, "The WebSocket handshake has no key.")
            return
        super().handle_upgrade()

    def validate_connection(self) -> None:
        """Check the Origin before anything else, then take the token out of the request."""
        origin = self.headers.get("Origin")
        if origin is not None and origin not in self._origins():
            self._refuse(HTTPStatus.FORBIDDEN, "This page may not open consoles here.")
            told = origin if _ORIGIN.fullmatch(origin) else "that is none"
            raise WebSockifyServer.EClose(f"refused the Origin {told[:128]}")
        self.path, _, query = self.path.partition("?")
        asked = parse_qs(query)
        self._token = asked.get("token", [""])[0]
        after = asked.get("after", [""])[0]
        self._after = after if _AFTER.fullmatch(after) else ""
        offered = ",".join(self.headers.get_all("Sec-WebSocket-Protocol", [])).split(",")
        protocols = [protocol.strip() for protocol in offered]
        for protocol in protocols:
            if protocol.startswith("token.") and not self._token:
                self._token = protocol.removeprefix("token.")
        del self.headers["Sec-WebSocket-Protocol"]
        self.protocol = next((one for one in PROTOCOLS if one in protocols), "")
        if self.protocol:
            self.headers["Sec-WebSocket-Protocol"] = self.protocol
        # From the answer to the handshake on, a client is told why it ends.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        if 0 < len(self._token) <= TOKEN_MAX:
            self._redeem()

    def _redeem(self) -> None:
        """Begin to redeem the token: the relay starts while the handshake is answered."""
        self.server.tell(REDEEMING)
        self._redemption = Redemption(
            self.server.token_plugin.source,
            self._token,
            addresses.shown(self.client_address),
            events=True,
            shows_events=self.protocol == events.PROTOCOL,
            after=self._after,
        )

    def _origins(self) -> list[str]:
        """Return the origins of pages that may connect; no header but Host adds to them."""
        own = self.server.public_origin
        if not own:
            scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
            own = origin_of(f"{scheme}://{self.headers.get('Host', '').strip()}")
        return [own, *self.server.allowed_origins]

    def handle_websocket(self) -> None:
        """Serve a client whose handshake is done; websockify's would log the path."""
        self.new_websocket_client()

    # ---- the session

    def new_websocket_client(self) -> None:
        """Redeem the token, connect the relay, pump, and close with a code that says why."""
        self.server.limit_time(0)
        self.log_message("connected")
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
            self.log_message("closed: %d %s", end.code, end.reason)
            close(client, end)
        except OSError as error:
            self.log_message("connection lost: %s", error.strerror)

    def _session(self, browser: socket.socket) -> None:
        if len(self._token) > TOKEN_MAX:
            raise Ended(BAD_TOKEN, "This token is not one of ours; ask for a new one.")
        if not self._token:
            raise Ended(NO_TOKEN, "A token is needed; open this page from your host manager.")
        try:
            path, back = self._redemption.answer()
        except RefusedError as refused:
            self.server.tell(REFUSED)
            raise Ended(refused.close, refused.reason) from None
        self.server.tell(REDEEMED)
        self._token = ""
        with contextlib.closing(back), socket.socket(socket.AF_UNIX) as relay:
            try:
                relay.connect(path)
            except OSError:
                raise end_of(back) from None
            shown = events.Events() if self.protocol == events.PROTOCOL else None
            Pump(browser, relay, back, self.server.heartbeat, shown).run()


def origin_of(url: str) -> str:
    """Return a URL's origin as a browser writes it: lower case, without a default port."""
    parts = urlsplit(url)
    port = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(port)}"
