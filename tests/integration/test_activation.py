"""Our services started as systemd starts them: by its own activator, telling when they serve, and
pinging the watchdog from the loop that serves."""

import contextlib
import os
import select
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from serial_console.demo import host
from serial_console.errors import SetupError
from tests import rig
from tests.stack import Service, Stack, http

SO_ACCEPTCON = 0x10000
"""The flag of a listening socket in /proc/net/unix (linux/net.h)."""
WATCHDOG = 1.0
"""Seconds."""
# SIGUSR2 makes the main thread wait for a byte: a loop that hangs, wherever it is just then.
PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGUSR2, lambda *_: (os.write(2, b"hangs\\n"), os.read({pipe}, 1)))
from serial_console.cli import main
sys.exit(main(sys.argv[1:]))
"""


class Told(Stack):
    """Services whose notifications go to us, and whose loops can be made to hang."""

    def prepare(self):
        self.notified = {}
        self.pipes = {}
        return self

    def _launch(self, name):
        path = os.path.join(self.directory, f"{name}.notify")
        listening = self.notified[name] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listening.bind(path)
        listening.setblocking(False)
        reading, self.pipes[name] = os.pipe()
        for key, value in {
            "NOTIFY_SOCKET": path,
            "WATCHDOG_USEC": str(int(WATCHDOG * 1e6)),
        }.items():
            os.environ[key] = value
        try:
            command = [*self.activator(name), sys.executable, "-P", "-c"]
            program = PROGRAM.format(pipe=reading)
            log = os.path.join(self.directory, f"{name}.log")
            arguments = [program, "--config", self.config, name]
            self.services[name] = Service(name, [*command, *arguments], log, [reading])
        finally:
            del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
            os.close(reading)
        return self.services[name]

    def activator(self, _name):
        return []

    def close(self):
        super().close()
        for one in self.notified.values():
            one.close()
        for one in self.pipes.values():
            os.close(one)

    def told(self, name):
        """Return the next thing that it tells."""
        assert select.select([self.notified[name]], [], [], 20)[0], name
        return self.notified[name].recv(1000)

    def all_told(self, name):
        """Return what it has told by now."""
        said = []
        with contextlib.suppress(BlockingIOError):
            while True:
                said.append(self.notified[name].recv(1000))
        return said

    def pings(self, name, seconds):
        """Return how many pings come from now on."""
        self.all_told(name)
        deadline = time.monotonic() + seconds
        count = 0
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.notified[name]], [], [], left)[0]:
                count += b"WATCHDOG=1" in self.notified[name].recv(1000)
        return count


class Activated(Told):
    """The same, by socket units."""

    def activator(self, name):
        sockets = {
            "supervisor": [self.redeem_path, self.admin_path],
            "gateway": [f"127.0.0.1:{self.gateway_port}"],
            "api": [f"127.0.0.1:{self.api_port}", os.path.join(self.run_dir, "api", "api.sock")],
        }
        try:
            program = host.program("systemd-socket-activate", "systemd")
        except SetupError as error:
            rig.missing(str(error))
        passed = [f"--setenv={key}" for key in ("NOTIFY_SOCKET", "WATCHDOG_USEC", rig.TEST_MARK)]
        names = ":".join("x" for _ in sockets[name])
        listening = [f"--listen={one}" for one in sockets[name]]
        return [program, *passed, f"--fdname={names}", *listening]


@pytest.fixture
def make(libvirtd, run_dir, tmp_path):
    with contextlib.ExitStack() as stacks:

        def making(kind):
            one = kind(libvirtd.uri, run_dir, str(tmp_path)).prepare()
            stacks.callback(one.close)
            return one

        yield making


def test_a_service_tells_that_it_serves_and_pings_while_its_loop_runs(make):
    stack = make(Told).start("supervisor", "gateway", "api")
    names = tuple(stack.services)
    for name in names:
        assert stack.told(name) == b"READY=1"
    assert stack.ask("health")["ok"]
    with ThreadPoolExecutor() as threads:
        counts = list(threads.map(lambda name: stack.pings(name, 3 * WATCHDOG), names))
    assert all(3 <= count <= 8 for count in counts), counts
    for name in names:
        os.kill(stack.pid(name), signal.SIGUSR2)
    hung = stack.services.values()
    assert rig.eventually(lambda: all("hangs" in one.logged() for one in hung))
    with ThreadPoolExecutor() as threads:
        assert list(threads.map(lambda name: stack.pings(name, 1.5 * WATCHDOG), names)) == [0, 0, 0]
    for name in names:
        os.write(stack.pipes[name], b"x")
    # The supervisor takes a signal that it does not know for its end.
    assert stack.services["supervisor"].wait() == 0
    for name in ("gateway", "api"):
        assert stack.pings(name, WATCHDOG) > 0
        assert stack.end(name) == 0
    for name in names:
        assert b"STOPPING=1" in stack.all_told(name)


def listens(path):
    """Whether somebody listens on a unix socket; asking it would start who does."""
    with open("/proc/net/unix", encoding="utf-8") as file:
        sockets = [line.split() for line in file]
    return any(found[-1] == path and int(found[3], 16) & SO_ACCEPTCON for found in sockets[1:])


def listening_ports():
    """The TCP ports of this machine that somebody listens on."""
    return {
        found.laddr.port
        for found in psutil.net_connections("tcp")
        if found.status == psutil.CONN_LISTEN
    }


def test_sockets_of_systemd_s_own_activator_lead_to_a_console(make, echo_guest):
    stack = make(Activated)
    api_path = os.path.join(stack.run_dir, "api", "api.sock")
    for path in (stack.control, os.path.dirname(api_path)):
        os.mkdir(path)
    names = "supervisor", "gateway", "api"
    for name in names:
        stack._launch(name)
    bound = stack.redeem_path, stack.admin_path, api_path
    assert rig.eventually(lambda: all(map(listens, bound)))
    assert rig.eventually(lambda: {stack.gateway_port, stack.api_port} <= listening_ports())
    # Each is started by its first connection, which waits for it.
    with stack.open(echo_guest.uuid) as terminal:
        terminal.send(b"hello")
        assert terminal.read_exactly(5) == b"hello"
        assert http(stack.api_port, "GET", "/healthz")[0] == 200
        for name in names:
            stack.services[name].wait_ready()
            assert stack.told(name) == b"READY=1"
        os.kill(stack.pid("gateway"), signal.SIGHUP)  # systemctl reload, without a certificate
        assert http(stack.gateway_port, "GET", "/")[0] == 200
        terminal.send(b"again")
        assert terminal.read_exactly(5) == b"again"
        terminal.send(b"\x11")
        assert terminal.ended()[0] == 1000
    for name in names:
        assert stack.end(name) == 0
    for path in bound:
        os.unlink(path)  # systemd's to remove, and so still there
