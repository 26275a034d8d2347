"""A console with a pty, as libvirt's stream to it."""

from __future__ import annotations

import contextlib
import fcntl
import struct
import termios
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import libvirt

from .eventloop import EventLoop
from .guest import reason

READ = 16384
"""Bytes of one recv. libvirt-python zeroes so many for each: with 131072, 0.1 MiB more of each
relay's own and 2 us a key; what libvirt reads on end (``eventloop.MESSAGES``) is seldom more."""
UNREAD = 5, 35.0
"""libvirtd stops reading a connection at five packets that its guest did not take, and gives it up
after 30 s of that (fact 2; measured: 30 s): packets, and seconds after which they tell nothing."""


class StreamLine:
    """A console with a pty: a stream of libvirt's, on a connection of that socket."""

    def __init__(self, connection: Any, fd: int, stream: Any) -> None:
        self._connection = connection
        self._socket = fd
        self._stream = stream
        self._sent: deque[float] = deque(maxlen=UNREAD[0])

    def begin(
        self, loop: EventLoop, on_output: Callable[[bytes], None], on_end: Callable[[str], None]
    ) -> None:
        """Give out what comes, from the loop. Raises libvirtError when it is over already."""
        self._on_output = on_output
        self._on_end = on_end
        self._stream.eventAddCallback(
            libvirt.VIR_STREAM_EVENT_READABLE
            | libvirt.VIR_STREAM_EVENT_ERROR
            | libvirt.VIR_STREAM_EVENT_HANGUP,
            loop.guarded(self._readable),
            None,
        )

    @property
    def alive(self) -> bool:
        """Whether its connection is."""
        return bool(self._connection.isAlive())

    @property
    def writable(self) -> bool:
        """Whether a packet can be sent without blocking: libvirtd has read the one before.

        virStream.send blocks, on a NONBLOCK stream too, once libvirtd holds five packets that the
        guest has not read, and then every call on the connection hangs (DESIGN.md, fact 2).
        """
        return drained(self._socket)

    @property
    def unsure(self) -> bool:
        """Whether libvirtd may no longer read the connection, for all that it was sent."""
        count, seconds = UNREAD
        return len(self._sent) == count and time.monotonic() - self._sent[0] < seconds

    def send(self, data: bytes) -> int:
        """Send one packet; returns the bytes taken."""
        try:
            count = self._stream.send(data)
        except libvirt.libvirtError as error:
            self._on_end(reason(error))
            return 0
        self._sent.append(time.monotonic())
        return max(0, int(count))

    def drain(self) -> None:
        """Give out what has come."""
        while self._recv():
            pass

    def close(self) -> None:
        """End the stream. libvirt 9.0 never lets go of the data of a stream's callback; they hold
        the Python object, and that the connection, unless it is told to free it."""
        stream, self._stream = self._stream, None
        for end in (stream.eventRemoveCallback, stream.abort):
            with contextlib.suppress(libvirt.libvirtError):
                end()
        stream.__del__()

    def _readable(self, _stream: Any, events: int, _opaque: object) -> None:
        if self._stream is None:
            return
        hangup = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP
        count = self._recv()
        if not count and events & hangup:
            self._on_end("hangup")
        while count == READ and self._stream is not None:
            count = self._recv()

    def _recv(self) -> int:
        """Take what libvirt has read of the stream, at most READ bytes. Returns how many."""
        try:
            data = self._stream.recv(READ)
        except libvirt.libvirtError as error:
            self._on_end(reason(error))
            return 0
        if data == -2:
            return 0
        if not data:
            self._on_end("end of stream")
            return 0
        self._on_output(data)
        return len(data)


def drained(fd: int) -> bool:
    """Tell whether libvirtd has read all that was sent on the connection of this socket."""
    if fd < 0:
        return True
    try:
        queued = fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:  # libvirt has closed it and is about to tell us
        return False
    return bool(struct.unpack("i", queued)[0] == 0)
