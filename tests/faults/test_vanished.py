"""Clients that vanish without a word, and clients that only look like it."""

import contextlib
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from serial_console.demo import host
from serial_console.errors import SetupError
from tests import rig
from tests.clients import Terminal
from tests.netns import GATEWAY, Network
from tests.silent import Silent
from tests.unit.test_frames import masked
from websockify_tokens import frames

PORT = 6083
WITHIN = 40.0
"""Seconds in which a vanished client's session is over by default."""
SURVIVE = 75.0
"""Seconds for which a client that only looks vanished is watched."""
BEHIND = 30.0
"""Seconds that a window is closed before its client vanishes: left to itself, the kernel would by
then send the next probe only after another 21 to 51 s."""
HELD = 350_000
"""Bytes of input that relay and gateway do not take, but the kernels between do, and a pong too."""
FLOOD, TAKEN = 10 << 20, 2 << 20
"""Bytes of a flood, and what all of these together may take of it."""


@pytest.fixture
def network():
    with Network() as one:
        yield one


class Clients:
    """A supervisor, a gateway in a namespace of its own, and clients in theirs."""

    def __init__(self, make_stack, network, **gateway):
        self.stack = make_stack("supervisor", gateway={"listen": f"{GATEWAY}:{PORT}"} | gateway)
        with network.gateway.entered():
            self.stack.start("gateway")
        self._scheme = "wss" if "tls_cert" in gateway else "ws"
        self._leave = contextlib.ExitStack()
        self._sessions = {}
        self._began = 0.0
        self.ended = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._leave.close()

    def enter(self, name, namespace, guest, *, reads=True, **fields):
        """Connect a client from a namespace, and wait until its session is there."""
        issued = self.stack.issue(guest.uuid, **fields)
        url = f"{self._scheme}://{GATEWAY}:{PORT}/websockify?token={issued['token']}"
        with namespace.entered():
            client = Terminal(url) if reads else Silent(GATEWAY, PORT, issued["token"])
        self._leave.callback(client.vanish)
        self._sessions[name] = issued["id"]
        assert rig.eventually(lambda: name in self.open())
        return client

    def open(self):
        """Return the sessions that are open, by their clients' names."""
        listed = {one["token_id"]: one for one in self.stack.sessions()}
        return {name: listed[token] for name, token in self._sessions.items() if token in listed}

    def watch(self, seconds, until=None):
        """Note which sessions end until only some are left, or for so long from the first call."""
        self._began = self._began or time.monotonic()
        while (now := time.monotonic() - self._began) < seconds:
            left = self.open()
            self.ended |= dict.fromkeys(self._sessions.keys() - left - self.ended.keys(), now)
            if left.keys() == until:
                return
            time.sleep(0.1)  # time passing is what is watched here


def test_vanished_clients_are_found_and_live_ones_are_not(
    make_stack, network, make_guest, record_property
):
    home, lost, lost_later = (network.client() for _ in range(3))
    quiet, printing, *paused = (make_guest("echo") for _ in range(5))
    with Clients(make_stack, network, insecure=True) as clients:
        clients.enter("idle", lost, quiet)
        clients.enter("watching", home, quiet, mode="ro")
        clients.enter("program hangs", home, quiet, reads=False, mode="ro")
        closed = clients.enter("closed window", home, printing)
        clients.enter("closed window, vanishes", lost_later, printing, reads=False, mode="ro")
        reader = clients.enter("reading", lost, printing, mode="ro")
        held = clients.enter("held", home, paused[0])
        held_and_lost = clients.enter("held, vanishes", lost, paused[1])
        brimful = clients.enter("held, no pong gets through", home, paused[2], reads=False)
        for guest in paused:
            guest.suspend()
        for client in (held, held_and_lost):
            client.read_until(b"what you type is held.]")
            client.send(b"first" + b"x" * HELD)
        assert brimful.flood(masked(frames.BINARY, b"x" * 1024), FLOOD) < TAKEN

        closed.send(b"\6")
        reader.read_exactly(1 << 18)
        network.cut(lost)
        clients.watch(0)
        for name in ("closed window", "closed window, vanishes"):
            assert rig.eventually(lambda: clients.open()[name]["skipped"] > 0, 20)  # noqa: B023
        closed.send(b"x")  # that is enough: they have much to take, and the guest prints no more
        for name in ("held", "held, vanishes"):
            assert 0 < clients.open()[name]["bytes_in"] < HELD

        clients.watch(BEHIND)
        network.cut(lost_later)
        stay = {"watching", "closed window", "held", "held, no pong gets through"}
        clients.watch(BEHIND + WITHIN, until=stay)
        print(clients.ended)
        assert clients.open().keys() == stay
        for name, seconds in clients.ended.items():
            after = seconds - BEHIND if name == "closed window, vanishes" else seconds
            record_property(f"{name}: over after (s)", round(after, 1))
            assert 0 < after < WITHIN, name
        log = clients.stack.services["gateway"].logged()
        assert log.count("vanished: it acknowledged nothing for 30 s.") == 4
        assert log.count("answered no ping for 30 s.") == 1
        log = clients.stack.services["supervisor"].logged()
        assert log.count("vanished: it acknowledged nothing for 30 s.") == 4
        again = clients.enter("again", home, quiet)
        again.send(b"free")
        again.read_until(b"free", seconds=5)

        clients.watch(SURVIVE)
        assert clients.open().keys() == stay | {"again"}
        closed.read_until(b"bytes of output skipped]")
        closed.read_until(b"\4")
        paused[0].resume()
        held.read_until(b"runs again.]\x1b[22m\r\n")
        assert held.read_exactly(1000) == b"first" + b"x" * 995


@pytest.mark.slow
def test_it_is_the_same_behind_tls(make_stack, network, make_guest, tmp_path, monkeypatch):
    cert, key = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", cert)
    home, lost = network.client(), network.client()
    one, other = make_guest("echo"), make_guest("echo")
    with Clients(make_stack, network, tls_cert=cert, tls_key=key, heartbeat=1) as clients:
        clients.enter("idle", lost, one)
        stays = clients.enter("closed window", home, other)
        reader = clients.enter("reading", home, other, mode="ro")
        reader_lost = clients.enter("reading, vanishes", lost, other, mode="ro")
        stays.send(b"\6")
        reader_lost.read_exactly(1 << 18)
        network.cut(lost)
        with ThreadPoolExecutor(1) as executor:
            read = executor.submit(reader.read_until, b"\4", 60)
            clients.watch(8)
            stays.send(b"x")
            read.result()
        print(clients.ended)
        assert clients.ended.keys() == {"idle", "reading, vanishes"}
        assert all(seconds < 5 for seconds in clients.ended.values())
        said = clients.stack.services["supervisor"].logged()
        assert said.count("closed: 1000 The client has vanished: ") == 2
        stays.read_until(b"\4")


def certificate(directory):
    """Make a certificate for the gateway's address; return its path and the key's."""
    paths = str(directory / "cert.pem"), str(directory / "key.pem")
    try:
        program = host.program("openssl", "openssl")
    except SetupError as error:
        rig.missing(str(error))
    command = f"{program} req -x509 -newkey rsa:2048 -nodes -subj /CN=test -days 1"
    command += f" -addext subjectAltName=IP:{GATEWAY} -out {paths[0]} -keyout {paths[1]}"
    subprocess.run(command.split(), check=True, capture_output=True)
    return paths
