"""A door of the supervisor: one listening socket, its connections, one request at a time each."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from .channel import Channel, Peer
from .control import REQUEST_MAX, Decoder, answer, refusal
from .errors import BadRequest, ConsoleError, Forbidden, Unavailable, os_reason
from .listener import Listener
from .loop import Loop

log = logging.getLogger("supervisor")

_SO_PEERGROUPS = 59  # socket(7); Python has no name for it

CONNECTIONS = 4096
"""Connections to one door at once; past it the next waits in the kernel's queue."""
PIPELINE = 16
"""Requests that one connection may send ahead of the answers."""
RESPITE = 0.2
"""Seconds before the next accept when there is no room for a connection."""

_NO_ROOM = Unavailable("The console service has too many connections now; try again in a while.")


class Caller:
    """One connection to a door, and its request until it is answered."""

    def __init__(self, door: Door, channel: Channel, peer: Peer) -> None:
        self._door = door
        self.channel = channel
        self.peer = peer
        self.busy = False
        self.waiting: deque[bytes] = deque()
        self.on_gone: Callable[[], None] | None = None

    def answer(self, **fields: Any) -> None:
        """Answer the request."""
        self._finish(answer(**fields))

    def refuse(self, error: ConsoleError) -> None:
        """Answer the request with an error."""
        self._finish(refusal(error))

    def hand_over(self, **fields: Any) -> None:
        """Answer, then give the connection up: another process holds it by now."""
        self._finish(answer(**fields))
        self._door.drop(self)

    def _finish(self, line: bytes) -> None:
        self.busy = False
        self.on_gone = None
        if not self.channel.broken:
            self.channel.send(line)
        self._door.resume(self)


class Door:
    """Listens on a unix socket and hands well-formed requests to a handler.

    Args:
        loop: the supervisor's loop.
        path: the socket.
        union: the messages that may come.
        handler: called with a request and its caller; answers now or later, or raises
            ConsoleError, which is the answer then.
        inherited: the socket where systemd has opened it.
    """

    def __init__(
        self,
        loop: Loop,
        path: str,
        union: Any,
        handler: Callable[[Any, Caller], None],
        inherited: socket.socket | None = None,
    ) -> None:
        self._loop = loop
        self._decoder = Decoder(union)
        self._handler = handler
        self._callers: dict[int, Caller] = {}
        self._handling = False
        self._listener = Listener(path, inherited=inherited)
        self._spare: int | None = None
        self._short = False
        self._closed = False
        self._save_one()
        loop.watch(self._listener.sock.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening and drop every connection."""
        self._closed = True
        self._loop.forget(self._listener.sock.fileno())
        self._listener.close()
        for caller in list(self._callers.values()):
            self.drop(caller)
        self._spend_it()

    def drop(self, caller: Caller) -> None:
        """Close a connection."""
        fd = caller.channel.fileno()
        if self._callers.pop(fd, None) is not None:
            self._loop.forget(fd)
            caller.channel.close()
            gone, caller.on_gone = caller.on_gone, None
            if gone is not None:
                gone()

    def serve(self, caller: Caller) -> None:
        """Go on with a connection: handle what it asked, write what waits for it."""
        channel = caller.channel
        while caller.waiting and not caller.busy and channel.fileno() in self._callers:
            self._handle(caller.waiting.popleft(), caller)
        if channel.fileno() not in self._callers:
            return
        channel.flush()
        waits = channel.pending or (caller.busy and caller.on_gone is None)
        if channel.broken or (channel.eof and not waits):
            self.drop(caller)
        else:  # at EOF it has asked, closed its half, and reads on
            self._loop.watch(
                channel.fileno(),
                lambda: self._ready(caller),
                read=not channel.eof,
                write=channel.pending,
            )

    def resume(self, caller: Caller) -> None:
        """Go on with a connection whose request was just answered."""
        if not self._handling:  # else the loop that called the handler goes on by itself
            self.serve(caller)

    def _accept(self) -> None:
        if len(self._callers) >= CONNECTIONS:
            self._rest()
            return
        try:
            accepted = self._listener.accept()
        except OSError as error:
            self._turn_away(error)
            return
        if accepted is None:
            return
        self._short = False
        sock, peer = accepted
        caller = Caller(self, Channel(sock, REQUEST_MAX), peer)
        self._callers[sock.fileno()] = caller
        if _permitted(sock, peer, self._listener.gid):
            self.serve(caller)
            return
        log.warning("refused uid %d on %s", peer.uid, self._listener.path)
        caller.refuse(Forbidden(f"uid {peer.uid} may not use this socket; join the socket's group"))
        self.drop(caller)

    def _turn_away(self, error: OSError) -> None:
        """No descriptor is left: take the one in reserve to tell the next caller so."""
        if not self._short:  # once, however many come
            self._short = True
            log.error("no connection can be taken at %s: %s", self._listener.path, os_reason(error))
        self._spend_it()
        try:
            accepted = self._listener.accept()
        except OSError:
            self._rest()
        else:
            if accepted is not None:
                channel = Channel(accepted[0])
                channel.send(refusal(_NO_ROOM))
                channel.close()
        self._save_one()

    def _save_one(self) -> None:
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _spend_it(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _rest(self) -> None:
        self._loop.forget(self._listener.sock.fileno())
        self._loop.after(RESPITE, self._rested)

    def _rested(self) -> None:
        if not self._closed:
            self._loop.watch(self._listener.sock.fileno(), self._accept)

    def _ready(self, caller: Caller) -> None:
        try:
            caller.waiting.extend(caller.channel.receive())
            if len(caller.waiting) > PIPELINE:
                raise BadRequest(f"wait for answers: at most {PIPELINE} requests may be sent ahead")
        except ConsoleError as error:  # too long: where the next message begins is not known
            caller.waiting.clear()
            gone, caller.on_gone = caller.on_gone, None
            caller.refuse(error)
            self.drop(caller)
            if gone is not None:
                gone()
            return
        self.serve(caller)

    def _handle(self, line: bytes, caller: Caller) -> None:
        caller.busy = self._handling = True
        try:
            self._handler(self._decoder.decode(line), caller)
        except ConsoleError as error:
            caller.refuse(error)
        finally:
            self._handling = False


def _permitted(sock: socket.socket, peer: Peer, group: int) -> bool:
    """Whether a peer may talk to us: root, ourselves, or a process of the socket's group.

    The kernel tells its groups; asking the user database could block on a network.
    """
    if peer.uid in (0, os.geteuid()) or peer.gid == group:
        return True
    try:
        groups = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)  # Python takes no more
    except OSError:  # it is in more than 256 groups
        return False
    return group in struct.unpack(f"{len(groups) // 4}I", groups)
