"""The gateway: websockify's proxy with our handler behind a socket that we bind ourselves."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import socket as sockets
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from websockify.websocketproxy import WebSocketProxy

from . import ConsoleTokens, pages
from .addresses import Network
from .handler import REDEEMED, REDEEMING, REFUSED, ConsoleRequestHandler, origin_of
from .newcomers import Newcomers
from .tls import Certificate

RECEIVE_BUFFER = 131072
"""Bytes that the kernel may keep of what a client sends (it doubles them for its own overhead).
Left to itself it takes all that tcp_rmem allows, 6 MiB by default, of a client that is not read."""
ENDS = {signal.SIGTERM, signal.SIGINT}
RESPITE = 0.2
"""Seconds before the next accept where the kernel has no descriptor for us, and for the request of
a client that is turned away."""
BUSY = pages.plain(
    "503 Service Unavailable",
    "The host cannot start another process now; try again in a while.",
    ("Retry-After", "5"),
)
NOT_TLS = pages.plain("400 Bad Request", "This port speaks TLS: write https:// or wss://.")
TLS_HANDSHAKE = b"\x16"
"""The first byte of a client that speaks TLS."""
SOCKET, CHANNEL = 3, 4
"""Descriptors of a connection's process: its client, and the pipe to the process that accepts."""
AGAIN = 1.0
"""Seconds from one TimeoutError to the next, for one that was raised where it was caught."""
COMPLAINT = 10.0
"""Seconds between two warnings that connections make room for others."""


@dataclass(frozen=True)
class Rules:
    """What may change while the gateway runs, for connections from then on.

    Attributes:
        public_url: the URL that browsers use, or "" for the request's own Host.
        allowed_origins: origins of pages that may connect, embed ours and import its modules,
            beside the gateway's own.
        connect_origins: other origins that the page may connect to.
        heartbeat: seconds between pings, 0 for none; a client that answers none of three is gone.
        handshake_timeout: seconds for a connection's TLS handshake and first request, together,
            and for each further request.
        max_unauthenticated: connections at most that have not redeemed a token.
        trusted_proxies: who is believed when they say, in X-Forwarded-For, whose request it is.
    """

    public_url: str = ""
    allowed_origins: list[str] = field(default_factory=list)
    connect_origins: list[str] = field(default_factory=list)
    heartbeat: float = 10.0
    handshake_timeout: float = 10.0
    max_unauthenticated: int = 100
    trusted_proxies: Sequence[Network] = ()


@dataclass(frozen=True)
class Settings:
    """What the gateway is told.

    Attributes:
        host, port: where to listen.
        source: the path of redeem.sock.
        web: the directory of the page's files.
        page_settings: the directory of the operator's defaults.json and mandatory.json; "": none.
        tls_cert, tls_key: PEM files, or "" for plain HTTP; with them plain HTTP is refused.
        rules: those at the start.
        listener: a socket that listens there already; else one is opened.
        tell: called with ``READY=1`` and ``STOPPING=1`` (sd_notify(3)).
        tick: called between two rounds of accepting; returns the seconds within which it must be
            called again, or None.
        reload: called on SIGHUP; returns the new rules, or None where they are as they were.
    """

    host: str
    port: int
    source: str
    web: str
    page_settings: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    rules: Rules = field(default_factory=Rules)
    listener: sockets.socket | None = None
    tell: Callable[[str], None] = lambda _state: None
    tick: Callable[[], float | None] = lambda: None
    reload: Callable[[], Rules | None] = lambda: None


class ConsoleProxy(WebSocketProxy):  # type: ignore[misc]
    """websockify's server: forks a child for each connection.

    Raises:
        OSError: the address cannot be bound.
        CertificateError: the certificate or its key cannot be used.
    """

    _certificate: Certificate | None = None

    @staticmethod
    def get_logger() -> logging.Logger:
        """Return where all of the gateway is logged, instead of under ``websocket.type``."""
        return logging.getLogger("gateway")

    def __init__(self, settings: Settings) -> None:
        self.web = ""
        if settings.tls_cert:
            log = self.get_logger()
            self._certificate = Certificate(settings.tls_cert, settings.tls_key, log)
        self._listening = settings.listener or listen(settings.host, settings.port)
        # Its connections get these.
        self._listening.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
        self._listening.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, RECEIVE_BUFFER)
        self._tell, self._tick, self._reload = settings.tell, settings.tick, settings.reload
        super().__init__(
            ConsoleRequestHandler,
            listen_host=settings.host,
            listen_port=settings.port,
            token_plugin=ConsoleTokens(settings.source),
            cert=settings.tls_cert or "none",  # of "" it says that there is one
        )
        self.only_upgrade = False
        self.pages = pages.Pages(settings.web, settings.page_settings)
        self._newcomers = Newcomers(settings.rules.max_unauthenticated)
        self._keep(settings.rules)
        self._channels: dict[int, int] = {}  # pid of each newcomer by our end of its pipe
        self._complained = -COMPLAINT

    def _keep(self, rules: Rules) -> None:
        """Have these rules; the processes of the connections that are there keep theirs."""
        self.heartbeat = rules.heartbeat
        self.allowed_origins = [origin_of(one) for one in rules.allowed_origins]
        self.pages.permit(rules.connect_origins, self.allowed_origins)
        self.public_origin = origin_of(rules.public_url) if rules.public_url else ""
        self.trusted_proxies = rules.trusted_proxies
        self.handshake_timeout = rules.handshake_timeout
        self._newcomers.most = rules.max_unauthenticated

    def socket(self, *_args: Any, **_kwargs: Any) -> sockets.socket:
        """Return the listening socket: websockify's own would exit with 0 on a port in use."""
        return self._listening

    def started(self) -> None:
        """Say that we serve."""
        with contextlib.suppress(OSError):  # on a full disk, say
            os.write(1, b"ready\n")
        self._tell("READY=1")

    def start_server(self) -> None:
        """Accept connections and fork a child for each, until SIGTERM or SIGINT.

        In place of websockify's, which takes all of a CPU while no descriptor is left for the next
        connection, and loses four descriptors whenever the kernel refuses to fork.
        """
        wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in {signal.SIGCHLD, signal.SIGHUP} | ENDS:
            signal.signal(number, lambda _signal, _frame: None)
        listening = self._listening.fileno()
        self._listening.setblocking(False)
        self._poll = select.poll()
        self._poll.register(wake, select.POLLIN)
        children: set[int] = set()
        gc.collect()
        gc.freeze()  # else a child's first collection of garbage would copy these pages for itself
        self.started()
        while True:
            wait = self._newcomers.wait(time.monotonic())
            self._poll.register(listening, select.POLLIN if wait == 0 else 0)
            due = min((seconds for seconds in (wait, self._tick()) if seconds), default=None)
            ready = dict(self._poll.poll(None if due is None else due * 1000 + 1))
            if wake in ready:
                signals = set(os.read(wake, 256))
                if ENDS & signals:
                    break
                if signal.SIGHUP in signals:
                    self._read_again()
                _reap(children)
            for channel in self._channels.keys() & ready.keys():
                self._hear(channel)
            if listening in ready:
                self._accept(children)
        self._tell("STOPPING=1")
        self._listening.close()
        for pid in children:
            os.kill(pid, signal.SIGTERM)
        while children:
            children.discard(os.wait()[0])

    def _read_again(self) -> None:
        if self._certificate is not None:
            self._certificate.context()
        rules = self._reload()
        if rules is not None:
            self._keep(rules)

    def _hear(self, channel: int) -> None:
        """Take what a newcomer's process says."""
        pid = self._channels[channel]
        said = os.read(channel, 16)[-1:]
        if said in (REDEEMING, REFUSED):
            self._newcomers.redeeming(pid, said == REDEEMING)
        elif said in (REDEEMED, b""):  # or it has ended
            self._forget(channel)

    def _forget(self, channel: int) -> None:
        self._newcomers.forget(self._channels.pop(channel))
        self._poll.unregister(channel)
        os.close(channel)

    def _make_room(self, children: set[int]) -> None:
        """End the newcomer whose place the next one takes, if it needs one."""
        displaced = self._newcomers.displaced()
        if displaced is None:
            return
        pid, source = displaced
        if pid in children:  # else it has just been reaped, and the number may be another's
            os.kill(pid, signal.SIGKILL)
        self._forget(next(one for one, owner in self._channels.items() if owner == pid))
        now = time.monotonic()
        if now - self._complained >= COMPLAINT:
            self._complained = now
            self.warn(
                "too many connections without a session (max_unauthenticated), most of them from "
                "%s: ending its oldest for each new one",
                source,
            )

    def _accept(self, children: set[int]) -> None:
        try:
            client, address = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self.warn("cannot accept a connection: %s", error.strerror)
            time.sleep(RESPITE)  # who waits is served when there is room again
            return
        self._make_room(children)
        if self._certificate is not None:
            self._context = self._certificate.context()
        # Until the child has its own handlers: with ours it would wake us instead of ending.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
        with client, contextlib.ExitStack() as ours:
            try:
                channel, told = os.pipe2(os.O_CLOEXEC)
                ours.callback(os.close, told)
                ours.callback(os.close, channel)
                pid = os.fork()
            except OSError as error:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
                self.warn("cannot start a process for a connection: %s", error.strerror)
                if self._certificate is None:
                    _turn_away(client, BUSY)
                return
            if pid:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
                ours.pop_all()
                os.close(told)
                children.add(pid)
                self._channels[channel] = pid
                self._poll.register(channel, select.POLLIN)
                self._newcomers.add(pid, address[0], time.monotonic())
                return
            try:
                self._serve(client, address, told)
            except Exception:
                self.logger.exception("a connection failed")
            finally:
                os._exit(0)

    def _serve(self, client: sockets.socket, address: Any, told: int) -> None:
        """Serve one connection, in its own process."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGALRM, _too_late)
        self.limit_time(self.handshake_timeout)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
        # Neither is one of these numbers: the listening socket and our own pipe were opened before.
        os.dup2(client.detach(), SOCKET)
        os.dup2(told, CHANNEL)
        self._listening.detach()
        os.closerange(CHANNEL + 1, os.sysconf("SC_OPEN_MAX"))
        client = sockets.socket(fileno=SOCKET)
        client.setblocking(True)
        try:
            self.do_handshake(client, address)
        except self.EClose as error:
            if str(error):
                self.msg("%s: %s", address[0], error)
        except TimeoutError:
            self.msg("%s: sent no complete request in time", address[0])
        except OSError as error:
            self.msg("%s: connection lost: %s", address[0], error.strerror)

    def do_handshake(self, sock: sockets.socket, address: Any) -> None:
        """Do a client's TLS handshake, if there is to be one, and serve its requests."""
        first = sock.recv(1, sockets.MSG_PEEK)
        client = sock
        if first and (first == TLS_HANDSHAKE) != (self._certificate is not None):
            if self._certificate is None:
                raise self.EClose("it speaks TLS, and there is no gateway.tls_cert")
            _turn_away(sock, NOT_TLS)
            raise self.EClose("it does not speak TLS")
        if first and self._certificate is not None:
            try:
                client = self._context.wrap_socket(sock, server_side=True)
            except ssl.SSLError as error:
                why = (error.reason or "broken off").replace("_", " ").lower()
                raise self.EClose(f"no TLS handshake: {why}") from None
        if first:
            self.RequestHandlerClass(client, address, self)

    @staticmethod
    def limit_time(seconds: float) -> None:
        """Have TimeoutError raised in a connection's process after so long; 0: no more."""
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)

    @staticmethod
    def tell(what: bytes) -> None:
        """Tell the process that accepts how this connection stands."""
        with contextlib.suppress(OSError):  # it has ended, or heard the last
            os.write(CHANNEL, what)


def _too_late(_signal: int, _frame: object) -> None:
    raise TimeoutError


def _reap(children: set[int]) -> None:
    while children:
        pid, _ = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        children.discard(pid)


def _turn_away(client: sockets.socket, answer: bytes) -> None:
    """Answer after reading what it asked: unread, it would reset our answer."""
    client.settimeout(RESPITE)
    with contextlib.suppress(OSError):
        client.recv(65536)
        client.sendall(answer)


def serve(settings: Settings) -> None:
    """Run the gateway until SIGTERM or SIGINT; sessions are closed with 1012.

    Raises:
        OSError: the address cannot be bound.
        CertificateError: the certificate or its key cannot be used.
    """
    ConsoleProxy(settings).start_server()


def listen(host: str, port: int) -> sockets.socket:
    """Return a listening TCP socket. Raises OSError when the address cannot be bound."""
    info = sockets.getaddrinfo(host, port, type=sockets.SOCK_STREAM, flags=sockets.AI_PASSIVE)[0]
    sock = sockets.socket(info[0], info[1])
    try:
        sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        sock.bind(info[4])
        sock.listen(sockets.SOMAXCONN)  # a flood fills it last
    except OSError:
        sock.close()
        raise
    return sock
