"""Private network namespaces: a gateway's, and clients' that can be cut off without a word.

They have no names: each lives as long as its file descriptor and the sockets in it, so that
nothing can be left behind, and the host's own network is never touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator

from serial_console.demo import host
from serial_console.errors import SetupError

from . import rig

GATEWAY = "192.0.2.1"
"""The gateway's address (TEST-NET-1) in its namespace."""
NOBODY = "02:00:00:00:00:99"
"""A hardware address that no interface has."""
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One network namespace. Closed by ``close``, or with the last process or socket in it."""

    def __init__(self) -> None:
        with open("/proc/thread-self/ns/net", "rb") as home:
            if _libc.unshare(CLONE_NEWNET) != 0:
                rig.missing(f"root, to make network namespaces ({os.strerror(ctypes.get_errno())})")
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            _enter(home.fileno())

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Have this thread make its sockets and processes in here."""
        with open("/proc/thread-self/ns/net", "rb") as home:
            _enter(self.fd)
            try:
                yield
            finally:
                _enter(home.fileno())

    def ip(self, command: str) -> None:
        """Run iproute2 in here."""
        try:
            program = host.program("ip", "iproute2")
        except SetupError as error:
            rig.missing(str(error))
        with self.entered():
            subprocess.run([program, *command.split()], check=True)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


class Network:
    """A gateway's namespace, and as many clients' as asked for, each with a cable of its own."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.gateway = Namespace()
        self._stack.callback(self.gateway.close)
        self._clients: dict[Namespace, int] = {}

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def client(self) -> Namespace:
        """Return a new namespace that reaches the gateway."""
        client = Namespace()
        self._stack.callback(client.close)
        number = self._clients[client] = len(self._clients) + 2
        peer = f"/proc/{os.getpid()}/fd/{client.fd}"
        self.gateway.ip(f"link add to{number} type veth peer name eth0 netns {peer}")
        self.gateway.ip(f"address add {GATEWAY} peer 192.0.2.{number} dev to{number}")
        self.gateway.ip(f"link set to{number} up")
        client.ip(f"address add 192.0.2.{number} peer {GATEWAY} dev eth0")
        client.ip("link set eth0 up")
        return client

    def cut(self, client: Namespace) -> None:
        """Drop all packets both ways from now on, silently: they are sent to nobody.

        No interface goes down and nothing is refused, since either would tell somebody.
        """
        number = self._clients[client]
        nobody = f"lladdr {NOBODY} nud permanent"
        self.gateway.ip(f"neighbour replace 192.0.2.{number} dev to{number} {nobody}")
        client.ip(f"neighbour replace {GATEWAY} dev eth0 {nobody}")


def _enter(namespace: int) -> None:
    # os.setns is there from Python 3.12 on.
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
