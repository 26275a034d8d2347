"""Serving REST: a TCP port and api.sock in one process, its readiness and its clean end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from . import access, api, keys, problems, sd
from . import log as logs
from .channel import peer_of
from .config import Config, Paths, address
from .errors import SetupError, os_reason
from .listener import Listener, make_directory
from .reload import Current
from .reporter import Reporter

STOP_TIMEOUT = 3
"""Seconds that requests have to finish when the server ends."""

HEAD_TIMEOUT = 10.0
"""Seconds within which a request's head must have come; its body has access.BODY_TIMEOUT."""
CONNECTIONS = 512
"""Connections at most: half of the descriptors that a process has where nobody gave it more."""
BACKLOG = 64
"""Connections that asyncio accepts before it looks at any of them; its 2048 could leave no
descriptor, and each of the 2048 would then have a traceback in the log."""

log = logging.getLogger("api")


def serve(current: Current) -> int:
    """Serve until SIGTERM or SIGINT; print ``ready`` once both listeners serve.

    Returns:
        The exit status, 0.

    Raises:
        SetupError: a listener cannot be opened.
        ConfigError: the API keys are broken.
    """
    config = current.config
    if not keys.load(config.api.keys):
        log.warning("there is no API key yet; make one with 'serial-console key add NAME'")
    ring = keys.Ring(config.api.keys)
    reporter = Reporter(config.paths.admin)
    gate = access.Gate(api.build(current), ring, _uids(config), config.api.rate, reporter.tell)

    def reload() -> None:
        if current.hang_up():
            gate.change(_uids(current.config), current.config.api.rate)

    inherited = sd.Inherited()
    given = inherited.tcp(config.api.listen), inherited.unix(config.paths.api_socket)
    inherited.finish()
    # The port first: that another API has it keeps us from touching that one's socket.
    with (
        given[0] or _tcp(config.api.listen) as port,
        _local(config.paths, given[1]) as local,
    ):
        # http is h11's: it lets us reach the transport, and with it who is at the other end.
        server = _Server(
            uvicorn.Config(
                gate,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=STOP_TIMEOUT,
            )
        )
        server.reload = reload
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        host, number = port.getsockname()[:2]
        where = host, number, config.paths.api_socket
        log.info("listening on %s port %d (a browser gets the start page) and %s", *where)
        reporter.start()
        asyncio.run(server.serve_until_told([port, local]))
    reporter.close()
    log.info("ended")
    if threading.active_count() > 1:
        # A thread still waits for the supervisor's answer to a request that is gone. Python would
        # wait for it, for as long as the call's time-out.
        sys.stdout.flush()
        logging.shutdown()
        os._exit(0)
    return 0


class _Protocol(H11Protocol):
    """HTTP that knows the user at a unix socket's other end, and waits for no head without end.

    Past CONNECTIONS a new one ends the oldest, of those that have no request to answer if there are
    any: who opens many and says nothing keeps nobody out.
    """

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._time_the_head()
        sock = transport.get_extra_info("socket")
        if sock.family == socket.AF_UNIX:
            with contextlib.suppress(OSError):
                self.app_state = {**self.app_state, "peer": peer_of(sock)}
        self._since = self.loop.time()
        if len(self.connections) > CONNECTIONS:
            self._make_room()

    def _make_room(self) -> None:
        every = [one for one in self.connections if isinstance(one, _Protocol)]
        others = [one for one in every if one is not self and not one.transport.is_closing()]
        if len(others) >= CONNECTIONS:
            idle = [one for one in others if one.cycle is None or one.cycle.response_complete]
            min(idle or others, key=lambda one: one._since).transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_the_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._time_the_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._patience is not None:
            self._patience.cancel()

    def _time_the_head(self) -> None:
        """Have the connection closed unless the next request's head has come in time."""
        waits = self.conn.their_state is h11.IDLE
        if waits and self._patience is None:
            self._patience = self.loop.call_later(HEAD_TIMEOUT, self.transport.close)
        elif not waits and self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as all that is wrong, where there is still an answer to give."""
        if self.cycle is not None:  # whose body it was: nobody is there for its answer any more
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = problems.problem(400, "bad_request", f"{msg} Send HTTP/1.1.")
            headers = [
                *answer.raw_headers,
                (b"cache-control", b"no-store"),
                (b"connection", b"close"),
            ]
            for event in (
                h11.Response(status_code=400, headers=headers),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _uids(config: Config) -> set[int]:
    """Return who needs no key on api.sock."""
    return {0, os.geteuid(), *config.api.peer_uids}


class _Server(uvicorn.Server):
    """Uvicorn that says ``ready`` and ends with status 0 on a signal."""

    reload: Callable[[], None]

    async def serve_until_told(self, sockets: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        await self.serve(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Uvicorn's own would raise the signal again at the end, and so lose the exit status.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        logs.ready()
        sd.notify("READY=1")
        self._pings = asyncio.create_task(_ping())  # until the loop ends

    def _told(self) -> None:
        sd.notify("STOPPING=1")
        self.should_exit = True


async def _ping() -> None:
    watchdog = sd.Watchdog()
    while (seconds := watchdog.ping()) is not None:
        await asyncio.sleep(seconds)


@contextlib.contextmanager
def _tcp(listen: str) -> Iterator[socket.socket]:
    host, port = address(listen)
    try:
        family, kind, _, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind)
    except OSError as error:
        raise SetupError(
            f'cannot listen on api.listen "{listen}": {os_reason(error)}; correct the address'
        ) from error
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(where)
            sock.listen()
        except OSError as error:
            hint = "set api.listen to another address"
            if error.errno == errno.EADDRINUSE:
                hint = "another program has that port (another API?): end it, or set api.listen"
            raise SetupError(
                f'cannot listen on api.listen "{listen}": {os_reason(error)}; {hint}'
            ) from error
        yield sock


@contextlib.contextmanager
def _local(paths: Paths, inherited: socket.socket | None) -> Iterator[socket.socket]:
    if inherited is None:
        make_directory(paths.api, 0o755)
    with contextlib.closing(Listener(paths.api_socket, inherited=inherited)) as listener:
        yield listener.sock
