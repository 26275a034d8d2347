"""Whoever has no token: slow, silent, or too many of them; nobody who has one notices."""

import contextlib
import select
import socket
import ssl
import threading
import time

import psutil
import pytest

from tests import certs, rig
from tests.stack import descendants, http
from websockify_tokens.newcomers import GRACE

CAP = 100
ATTACKERS = 300
ENOUGH = 8.0
"""Seconds of a test that nobody puts an end to."""
ENDING = 10
"""Processes that have been told to end, and on a busy machine still are."""
PATIENCE = 25.0
"""Seconds to get in on a busy machine: the forks of a flood are what takes them."""
LOCAL = "127.0.0.1"
ELSEWHERE = "127.0.0.2"


class SlowLoris(threading.Thread):
    """A fake browser, so many times over: each sends a header a byte at a time and never ends it.

    One that is thrown out comes back at once.
    """

    def __init__(self, port, source, count=ATTACKERS, pause=0.2):
        super().__init__()
        self._to = (LOCAL, port)
        self._source = source
        self._count = count
        self._pause = pause
        self._over = threading.Event()
        self.thrown_out = 0

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join()

    def run(self):
        socks = set()
        try:
            while not self._over.is_set():
                while len(socks) < self._count:
                    socks.add(self._connect())
                self._serve(socks)
        finally:
            for sock in socks:
                sock.close()

    def _connect(self):
        sock = socket.socket()
        sock.bind((self._source, 0))
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(self._to)
        return sock

    def _serve(self, socks):
        """Until the next byte is due, see who was thrown out."""
        due = time.monotonic() + self._pause
        poll = select.poll()
        by_number = {sock.fileno(): sock for sock in socks}
        for number in by_number:
            poll.register(number, select.POLLIN)
        while (left := due - time.monotonic()) > 0 and not self._over.is_set():
            ready = poll.poll(left * 1000)
            for number, _ in ready:
                poll.unregister(number)
                sock = by_number.pop(number)
                socks.discard(sock)
                sock.close()
                self.thrown_out += 1
                fresh = self._connect()
                socks.add(fresh)
                by_number[fresh.fileno()] = fresh
                poll.register(fresh, select.POLLIN)
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.send(b"G")


def children(stack):
    return len(descendants(stack.pid("gateway")))


@pytest.mark.parametrize("source", [ELSEWHERE, pytest.param(LOCAL, marks=pytest.mark.slow)])
def test_who_has_a_token_gets_in_past_hundreds_who_have_none(stack, make_guest, source):
    guests = [make_guest("echo") for _ in range(2)]
    gateway = psutil.Process(stack.pid("gateway"))
    fds = gateway.num_fds()
    with stack.open(guests[0].uuid) as before:
        (session,) = stack.wait_sessions("connected")
        memory = gateway.memory_info().rss
        with SlowLoris(stack.gateway_port, source) as attack:
            assert rig.eventually(lambda: attack.thrown_out > CAP, 60)
            began, cpu = time.monotonic(), sum(gateway.cpu_times()[:2])
            most, waits = 0, []
            for number in range(3):
                asked = time.monotonic()
                token = stack.token(guests[1].uuid)
                with stack.connect(token, open_timeout=PATIENCE) as terminal:
                    terminal.send(b"in%d" % number)
                    terminal.read_until(b"in%d" % number)
                    waits.append(time.monotonic() - asked)
                    before.send(b"on%d" % number)
                    before.read_until(b"on%d" % number)
                    most = max(most, children(stack))
                stack.wait_sessions("connected")
            seconds = time.monotonic() - began
            cpu = (sum(gateway.cpu_times()[:2]) - cpu) / seconds
            grown = gateway.memory_info().rss - memory
            print(
                f"{source}: {attack.thrown_out} thrown out, in after {max(waits):.2f} s at most, "
                f"{most} processes at most, CPU {cpu:.0%}, memory {grown:+} bytes"
            )
            assert most <= CAP + 2 + ENDING
            assert max(waits) < PATIENCE
            assert grown < 2 << 20
            assert stack.sessions()[0]["id"] == session["id"]
        # Those who came and went wait in the kernel's queue: a fork for each.
        at_rest = (1, fds)
        assert rig.eventually(lambda: (children(stack), gateway.num_fds()) == at_rest, PATIENCE)
    assert "max_unauthenticated" in stack.services["gateway"].logged()
    assert stack.services["gateway"].logged().count("max_unauthenticated") < 20


def test_all_who_have_tokens_come_at_once(make_stack, make_guest):
    """More of them than may be without a session, as after the gateway's restart."""
    stack = make_stack("supervisor", "gateway", gateway={"max_unauthenticated": 3})
    guest = make_guest("echo", state="off")
    tokens = [stack.token(guest.uuid, mode="ro", ttl=60) for _ in range(15)]
    with contextlib.ExitStack() as clients:
        failed = []

        def come(token):
            try:
                clients.enter_context(stack.connect(token)).read_until(b"waiting for its start")
            except Exception as error:  # noqa: BLE001 - shown below
                failed.append(error)

        threads = [threading.Thread(target=come, args=(token,)) for token in tokens]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        stack.wait_sessions(*["waiting"] * 15)
    stack.wait_free()


def test_who_waits_for_libvirt_with_a_token_makes_room_for_nobody(make_stack, make_guest, libvirtd):
    stack = make_stack("supervisor", "gateway", gateway={"max_unauthenticated": 3})
    tokens = [stack.token(make_guest("echo").uuid, ttl=60) for _ in range(3)]
    libvirtd.freeze()
    thawed = False
    try:
        with contextlib.ExitStack() as clients:
            waiting = [clients.enter_context(stack.connect(token)) for token in tokens]
            stack.wait_sessions(*["starting"] * 3)
            for _ in range(5):
                sock = clients.enter_context(socket.create_connection((LOCAL, stack.gateway_port)))
                sock.sendall(b"GET /")
            time.sleep(3 * GRACE)  # in which they would be ended
            assert children(stack) == 3
            libvirtd.thaw()
            thawed = True
            for terminal in waiting:
                terminal.send(b"x")
                terminal.read_until(b"x")
            assert rig.eventually(lambda: children(stack) == 3 + 3)
        stack.wait_free()
    finally:
        if not thawed:
            libvirtd.thaw()


def trickled(sock, first, byte, pause=0.1):
    """Send bytes one at a time; return after how many seconds the gateway has closed."""
    with sock:
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
            sock.sendall(first)
            while time.monotonic() - began < ENOUGH:
                if select.select([sock], [], [], pause)[0] and not sock.recv(65536):
                    break
                sock.sendall(byte)
        return time.monotonic() - began


ANSWERED = b"GET /theme.js HTTP/1.1\r\nHost: x\r\n\r\n"
TRICKLES = {
    "nothing": (b"", b""),
    "a request line": (b"", b"G"),
    "a header": (b"GET / HTTP/1.1\r\nX: ", b"x"),
    "headers": (b"GET / HTTP/1.1\r\n", b"X: y\r\n"),
    "a second request": (ANSWERED + b"GET /", b"x"),
}
HELLO = (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"x")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_request_has_its_time_as_a_whole(make_stack, tmp_path, tls):
    gateway = {"handshake_timeout": 2}
    if tls:
        gateway["tls_cert"], gateway["tls_key"] = certs.make(tmp_path)
        context = ssl.create_default_context(cafile=gateway["tls_cert"])
    stack = make_stack("gateway", gateway=gateway)
    took = {}

    def measure(what, first, byte, wrap=tls):
        sock = socket.create_connection((LOCAL, stack.gateway_port), timeout=10)
        if wrap:
            sock = context.wrap_socket(sock, server_hostname=LOCAL)
        took[what] = trickled(sock, first, byte)

    jobs = [(what, *bytes_) for what, bytes_ in TRICKLES.items()]
    if tls:
        jobs.append(("a TLS handshake", *HELLO, False))
    threads = [threading.Thread(target=measure, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(took)
    assert len(took) == len(jobs)
    for what, seconds in took.items():
        assert 1.7 < seconds < 4, (what, took)
    log = stack.services["gateway"].logged()
    assert log.count("sent no complete request in time") == len(jobs) - 1
    assert "Traceback" not in log


def test_an_answer_that_nobody_reads_is_not_waited_for_either(make_stack):
    """Pages asked for and not read: their connections are the first to make room for others."""
    stack = make_stack("gateway", gateway={"max_unauthenticated": 5})
    with contextlib.ExitStack() as silent:
        for _ in range(5):
            sock = silent.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect((LOCAL, stack.gateway_port))
            sock.sendall(b"GET /vendor/xterm.js HTTP/1.1\r\nHost: x\r\n\r\n" * 90)
        assert rig.eventually(lambda: children(stack) == 5)
        for _ in range(5):
            assert http(stack.gateway_port, "GET", "/serial.html")[0] == 200
        assert children(stack) <= 5
