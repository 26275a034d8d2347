"""The gateway: websockify's proxy with our handler behind a socket that we bind ourselves."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket as sockets
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from websockify.websocketproxy import WebSocketProxy

from . import ConsoleTokens
from .handler import ConsoleRequestHandler

HANDSHAKE = 10.0
"""Seconds for each step of TLS and HTTP before a client is connected."""
RECEIVE_BUFFER = 131072
"""Bytes that the kernel may keep of what a client sends (it doubles them for its own overhead).
Left to itself it takes all that tcp_rmem allows, 6 MiB by default, of a client that is not read."""
ENDS = {signal.SIGTERM, signal.SIGINT}
RESPITE = 0.2
"""Seconds before the next accept where the kernel has no descriptor for us, and for the request of
a client that is turned away."""
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Retry-After: 5\r\n\r\nThe host cannot start another process now; try again in a while.\n"
)


@dataclass(frozen=True)
class Settings:
    """What the gateway is told.

    Attributes:
        host, port: where to listen.
        source: the path of redeem.sock.
        web: the directory of the page's files.
        public_url: the URL that browsers use, or "" for the request's own Host.
        tls_cert, tls_key: PEM files, or "" for plain HTTP; with them plain HTTP is refused.
        allowed_origins: origins of pages that may connect, beside the gateway's own.
        connect_origins: other origins that the page may connect to.
        heartbeat: seconds between pings, 0 for none; a client that answers none of three is gone.
    """

    host: str
    port: int
    source: str
    web: str
    public_url: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    allowed_origins: list[str] = field(default_factory=list)
    connect_origins: list[str] = field(default_factory=list)
    heartbeat: float = 10.0


class ConsoleProxy(WebSocketProxy):  # type: ignore[misc]
    """websockify's server: forks a child for each connection.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, settings: Settings) -> None:
        self.web = ""
        self._listening = listen(settings.host, settings.port)
        super().__init__(
            ConsoleRequestHandler,
            listen_host=settings.host,
            listen_port=settings.port,
            token_plugin=ConsoleTokens(settings.source),
            cert=settings.tls_cert,
            key=settings.tls_key,
            ssl_only=bool(settings.tls_cert),
            heartbeat=settings.heartbeat,
        )
        # websockify would change into its web directory and serve what is there.
        self.web = settings.web
        self.only_upgrade = False
        self.cert = settings.tls_cert  # websockify makes "" its working directory
        self.allowed_origins = [origin_of(one) for one in settings.allowed_origins]
        self.connect_origins = settings.connect_origins
        self.public_origin = origin_of(settings.public_url) if settings.public_url else ""

    def socket(self, *_args: Any, **_kwargs: Any) -> sockets.socket:
        """Return the listening socket: websockify's own would exit with 0 on a port in use."""
        return self._listening

    def started(self) -> None:
        """Say that we serve."""
        with contextlib.suppress(OSError):  # on a full disk, say
            os.write(1, b"ready\n")

    def start_server(self) -> None:
        """Accept connections and fork a child for each, until SIGTERM or SIGINT.

        In place of websockify's, which takes all of a CPU while no descriptor is left for the next
        connection, and loses four descriptors whenever the kernel refuses to fork.
        """
        wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (*ENDS, signal.SIGCHLD):
            signal.signal(number, lambda _signal, _frame: None)
        self._listening.setblocking(False)
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(self._listening, select.POLLIN)
        children: set[int] = set()
        self.started()
        while True:
            ready = dict(poll.poll())
            if wake in ready:
                if ENDS & set(os.read(wake, 256)):
                    break
                _reap(children)
            if self._listening.fileno() in ready:
                self._accept(children)
        self._listening.close()
        for pid in children:
            os.kill(pid, signal.SIGTERM)
        while children:
            children.discard(os.wait()[0])

    def _accept(self, children: set[int]) -> None:
        try:
            client, address = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self.warn("cannot accept a connection: %s", error.strerror)
            time.sleep(RESPITE)  # who waits is served when there is room again
            return
        # Until the child has its own handlers: with ours it would wake us instead of ending.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
        with client:
            try:
                pid = os.fork()
            except OSError as error:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
                self.warn("cannot start a process for a connection: %s", error.strerror)
                if not self.cert:
                    _turn_away(client)
                return
            if pid:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
                children.add(pid)
                return
            try:
                self._serve(client, address)
            except Exception:
                self.logger.exception("a connection failed")
            finally:
                os._exit(0)

    def _serve(self, client: sockets.socket, address: Any) -> None:
        """Serve one connection, in its own process."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
        # websockify waits with select, which takes no descriptor over 1023.
        high = client.detach()
        self._listening.detach()
        os.dup2(high, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        client = sockets.socket(fileno=3)
        client.settimeout(HANDSHAKE)
        self.top_new_client(client, address)


def _reap(children: set[int]) -> None:
    while children:
        pid, _ = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        children.discard(pid)


def _turn_away(client: sockets.socket) -> None:
    """Say that there is no room, after reading what it asked: unread, it would reset our answer."""
    client.settimeout(RESPITE)
    with contextlib.suppress(OSError):
        client.recv(65536)
        client.sendall(BUSY)


def serve(settings: Settings) -> None:
    """Run the gateway until SIGTERM or SIGINT; sessions are closed with 1012.

    Raises:
        OSError: the address cannot be bound.
    """
    ConsoleProxy(settings).start_server()


def origin_of(url: str) -> str:
    """Return a URL's origin as a browser writes it: lower case, without a default port."""
    parts = urlsplit(url)
    port = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(port)}"


def listen(host: str, port: int) -> sockets.socket:
    """Return a listening TCP socket. Raises OSError when the address cannot be bound."""
    info = sockets.getaddrinfo(host, port, type=sockets.SOCK_STREAM, flags=sockets.AI_PASSIVE)[0]
    sock = sockets.socket(info[0], info[1])
    try:
        sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
        sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind(info[4])
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock
