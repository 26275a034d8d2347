"""The ways to a guest's console that are compared: ours, and the peers that are installed."""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar
from urllib.parse import urlencode

from tests import rig
from tests.stack import BIN, descendants, free_port, listens

from .lab import Console, Lab, path_of
from .programs import Client

START = 10.0
"""Seconds in which a peer's server must listen, and in which its processes of a session end."""


class Target(ABC):
    """A way to a console; ``consoles`` are its own, since some peers hold theirs all the time.

    Args:
        lab: where the guests are.
        consoles: synthetic ones; the first for what is measured, the others beside it.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    """Programs without which it is not measured."""

    def __init__(self, lab: Lab, consoles: Sequence[Console]) -> None:
        self.lab = lab
        self.consoles = consoles
        self._servers: list[subprocess.Popen[bytes]] = []
        self.start()

    @property
    def uart(self) -> Console:
        """The real UART that it is measured at."""
        return self.lab.uart

    @abstractmethod
    def address(self, console: Console) -> str:
        """Return a new session's target for the client program."""

    def start(self) -> None:  # noqa: B027 - not all have servers
        """Start its servers, if it has any."""

    def processes(self) -> dict[str, list[int]]:
        """Return the processes by role: ``gateway`` speaks WebSocket, ``relay`` the rest."""
        return {}

    def of(self, client: Client) -> dict[str, list[int]]:  # noqa: ARG002 - few need it
        """Return the processes by role, with those that run below the client program."""
        return self.processes()

    def pids(self) -> set[int]:
        """Return all its processes."""
        return {pid for pids in self.processes().values() for pid in pids}

    def settle(self, before: set[int]) -> None:
        """Wait until only those processes are left that there were before a session."""
        if not rig.eventually(lambda: self.pids() <= before, START):
            raise RuntimeError(f"{self.name}: processes of closed sessions go on")

    def close(self) -> None:
        """End its servers and what they started."""
        for server in self._servers:
            started = descendants(server.pid)
            server.terminate()
            server.wait(START)
            for process in started:
                if process.is_running():
                    process.kill()

    def _run(self, command: Sequence[str], port: int) -> subprocess.Popen[bytes]:
        """Start a server and wait until it listens."""
        with open(os.path.join(self.lab.logs, f"{self.name}.log"), "ab") as log:
            server = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.lab.logs
            )
        self._servers.append(server)
        if not rig.eventually(lambda: listens(port), START):
            raise RuntimeError(f"{self.name} does not listen")
        return server

    def _virsh(self, console: Console) -> list[str]:
        """Return the command that gives a console to a terminal."""
        uri = self.lab.libvirtd.uri
        where = [console.guest, "--devname", console.alias]
        return ["virsh", "--quiet", "--connect", uri, "console", "--force", *where]


def tree(pid: int) -> list[int]:
    """Return a process and all that it started."""
    return [pid, *(process.pid for process in descendants(pid))]


class Ours(Target):
    """``serial-console supervisor`` and ``gateway``."""

    name = "ours"
    via = "gateway"

    def address(self, console: Console) -> str:
        token = self.lab.stack.token(console.guest, console=console.alias)
        return self.lab.stack.url(token, self.via)

    def processes(self) -> dict[str, list[int]]:
        pid = self.lab.stack.pid
        return {"relay": tree(pid("supervisor")), "gateway": tree(pid(self.via))}


class Stock(Ours):
    """Our supervisor behind a stock websockify with our token plugin."""

    name = "stock websockify"
    via = "stock"


class Pty(Target):
    """The pty itself: nothing between, the physical limit."""

    name = "raw pty"

    def address(self, console: Console) -> str:
        return f"pty:{console.pty}"


class Virsh(Target):
    """``virsh console`` on a pty of the client's: no WebSocket."""

    name = "virsh"
    needs = ("virsh",)

    def address(self, console: Console) -> str:
        return f"cmd:exec {shlex.join(self._virsh(console))}"

    def of(self, client: Client) -> dict[str, list[int]]:
        return {"relay": [process.pid for process in descendants(client.pid)]}


class Ttyd(Target):
    """ttyd with ``virsh console``."""

    name = "ttyd"
    needs = ("ttyd", "virsh")

    def start(self) -> None:
        self._port = free_port()
        # The console comes as arguments in the URL; all before them is the same for all.
        command = self._virsh(self.consoles[0])[:-3]
        options = ["--port", str(self._port), "--interface", "127.0.0.1", "--writable", "--url-arg"]
        self._server = self._run(["ttyd", *options, *command], self._port)

    def address(self, console: Console) -> str:
        arguments = [("arg", word) for word in (console.guest, "--devname", console.alias)]
        return f"ttyd://127.0.0.1:{self._port}/ws?{urlencode(arguments)}"

    def processes(self) -> dict[str, list[int]]:
        gateway, *relays = tree(self._server.pid)
        return {"relay": relays, "gateway": [gateway]}

    def settle(self, before: set[int]) -> None:
        # virsh notes the SIGHUP that ttyd sends and then waits for output, for hours if need be.
        for process in descendants(self._server.pid):
            if process.pid not in before:
                process.kill()
        super().settle(before)


class Conserver(Target):
    """conserver with ``virsh console``, which it holds all the time: no WebSocket."""

    name = "conserver"
    needs = ("conserver", "console", "virsh")

    def start(self) -> None:
        self._port = free_port()
        lines = [
            "config * { daemonmode off; }",
            "default full { rw *; }",
            "access * { trusted 127.0.0.1; }",
        ]
        for number, console in enumerate(self.consoles):
            command = shlex.join(self._virsh(console))
            what = f"master localhost; type exec; exec {command}; logfile /dev/null; rw *;"
            lines.append(f"console c{number} {{ {what} }}")
        config = os.path.join(self.lab.logs, "conserver.cf")
        with open(config, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        ports = ["-p", str(self._port), "-b", str(free_port())]
        self._server = self._run(
            [str(path_of("conserver")), "-C", config, "-M", "127.0.0.1", *ports, "-n"], self._port
        )

    def address(self, console: Console) -> str:
        name = f"c{self.consoles.index(console)}"
        return f"cmd:exec {path_of('console')} -M 127.0.0.1 -p {self._port} -f {name}"

    def processes(self) -> dict[str, list[int]]:
        return {"relay": tree(self._server.pid)}


class Nova(Target):
    """Stock websockify in front of TCP serial ports, nova's way: without a libvirt stream."""

    name = "websockify, TCP"

    def start(self) -> None:
        self._port = free_port()
        self._tokens = os.path.join(self.lab.logs, f"tokens-{self._port}")
        self._offered: list[Console] = []
        for console in self.consoles:
            self._offer(console)
        plugin = ["--token-plugin", "TokenFile", "--token-source", self._tokens]
        command = [os.path.join(BIN, "websockify"), *plugin, f"127.0.0.1:{self._port}"]
        self._server = self._run(command, self._port)

    def address(self, console: Console) -> str:
        number = self._offered.index(console)
        return f"ws://127.0.0.1:{self._port}/websockify?token=c{number}"

    def processes(self) -> dict[str, list[int]]:
        return {"gateway": tree(self._server.pid)}

    @functools.cached_property
    def uart(self) -> Console:  # type: ignore[override]  # a property that is kept
        self._offer(self.lab.tcp_uart)
        return self.lab.tcp_uart

    def _offer(self, console: Console) -> None:
        """Have a token for a console; websockify reads them anew for each connection."""
        with open(self._tokens, "a", encoding="utf-8") as file:
            file.write(f"c{len(self._offered)}: 127.0.0.1:{self._tcp(console)}\n")
        self._offered.append(console)

    def _tcp(self, console: Console) -> int:
        return console.port


class Socat(Nova):
    """socat from the pty to TCP, and stock websockify: without a libvirt stream."""

    name = "websockify, socat"
    needs = ("socat",)

    def _tcp(self, console: Console) -> int:
        port = free_port()
        listen = f"TCP-LISTEN:{port},fork,reuseaddr,bind=127.0.0.1,nodelay"
        self._run(["socat", listen, f"FILE:{console.pty},raw,echo=0"], port)
        return port

    def processes(self) -> dict[str, list[int]]:
        *relays, gateway = self._servers
        return {
            "relay": [pid for relay in relays for pid in tree(relay.pid)],
            "gateway": tree(gateway.pid),
        }


ALL: tuple[type[Target], ...] = (Ours, Stock, Ttyd, Virsh, Conserver, Nova, Socat, Pty)


def missing() -> dict[str, str]:
    """Return which targets cannot be measured here, with what they lack."""
    lacking = {kind.name: [one for one in kind.needs if not path_of(one)] for kind in ALL}
    return {name: ", ".join(programs) for name, programs in lacking.items() if programs}
