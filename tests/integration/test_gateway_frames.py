"""What a client may send as WebSocket frames, and what it may not, at a real gateway."""

import contextlib
import random
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.raw_http import upgrade
from tests.stack import descendants
from tests.unit.test_frames import masked
from websockify_tokens import frames

MIB = 1 << 20
SEED = 4
SLOW = pytest.param(120, marks=pytest.mark.slow)


class Bare:
    """A client that sends what it is told and understands the gateway's frames."""

    def __init__(self, stack, token):
        self.sock = socket.create_connection(("127.0.0.1", stack.gateway_port), timeout=15)
        self.sock.sendall(upgrade(stack.gateway_port, token) + b"\r\n")
        self.file = self.sock.makefile("rb")
        assert self.file.readline().startswith(b"HTTP/1.1 101")
        while self.file.readline() != b"\r\n":
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.sock.close()

    def read(self):
        """Return the next frame's kind and payload, or None when the gateway has closed."""
        head = self.file.read(2)
        if len(head) < 2:
            return None
        length = head[1] & 0x7F
        if length > 125:
            length = int.from_bytes(self.file.read(2 if length == 126 else 8), "big")
        return head[0] & 0xF, self.file.read(length)

    def output(self, count):
        """Return so many bytes of the console."""
        found = b""
        while len(found) < count:
            kind, payload = self.read()
            if kind == frames.BINARY:
                found += payload
        return found

    def closed(self):
        """Return the code with which the gateway closes."""
        while (frame := self.read()) is not None:
            if frame[0] == frames.CLOSE:
                return int.from_bytes(frame[1][:2], "big")
        return None


def close(code=1000, reason=b""):
    return masked(frames.CLOSE, struct.pack("!H", code) + reason)


DATA, TEXT, MORE = frames.BINARY, frames.TEXT, frames.CONTINUATION
TAKEN = {
    "a byte": masked(DATA, b"echo"),
    "text": masked(TEXT, "echoø".encode()),
    "fragments": masked(DATA, b"ec", final=False) + masked(MORE, b"ho"),
    "a ping between fragments": masked(DATA, b"ec", final=False)
    + masked(frames.PING, b"p" * 125)
    + masked(MORE, b"ho"),
    "a character in two": masked(TEXT, b"echo\xc3", final=False) + masked(MORE, b"\xb8"),
    "nothing, often": masked(DATA, b"") * 20_000 + masked(DATA, b"echo"),
    "no fragment, often": masked(DATA, b"", final=False)
    + masked(MORE, b"", final=False) * 20_000
    + masked(MORE, b"echo"),
    "an unasked pong": masked(frames.PONG, b"\0" * 8) * 1000 + masked(DATA, b"echo"),
    "pings": masked(frames.PING, b"p" * 125) * 2000 + masked(DATA, b"echo"),
    "half of 2^31 bytes": masked(DATA, b"echo", claim=1 << 31),
    "half of 2^63 bytes": masked(DATA, b"echo", claim=(1 << 63) - 1),
    "a mask of zeros": b"\x82\x84" + bytes(4) + b"echo",
}
REFUSED = {
    "unmasked": (b"\x82\x04echo", 1002),
    "unmasked, empty": (b"\x82\x00", 1002),
    "unmasked close": (b"\x88\x00", 1002),
    "unmasked ping": (b"\x89\x00", 1002),
    **{
        f"reserved bit {bit}": (bytes([0x82 | bit, 0x80]) + bytes(4), 1002)
        for bit in (0x10, 0x20, 0x40)
    },
    **{f"opcode {code:#x}": (masked(code, b""), 1002) for code in (3, 4, 5, 6, 7)},
    **{f"control opcode {code:#x}": (masked(code, b""), 1002) for code in (11, 12, 13, 14, 15)},
    "nothing to continue": (masked(MORE, b"x"), 1002),
    "a message within one": (masked(DATA, b"", final=False) + masked(DATA, b""), 1002),
    "text within data": (masked(DATA, b"", final=False) + masked(TEXT, b""), 1002),
    "a fragmented ping": (masked(frames.PING, b"", final=False), 1002),
    "a fragmented close": (masked(frames.CLOSE, b"", final=False), 1002),
    "a long ping": (masked(frames.PING, b"x" * 126), 1002),
    "a long close": (close(1000, b"x" * 124), 1002),
    "a ping of 2^63 bytes": (masked(frames.PING, b"", claim=1 << 63), 1002),
    "2^63 bytes": (masked(DATA, b"", claim=1 << 63), 1002),
    "2^64 - 1 bytes": (masked(DATA, b"", claim=(1 << 64) - 1), 1002),
    "a length too long": (b"\x82\xfe\0\x04" + bytes(4) + b"echo", 1002),
    "half a close code": (masked(frames.CLOSE, b"\x03"), 1002),
    **{f"close {code}": (close(code), 1002) for code in (0, 999, 1005, 1006, 1015, 2999, 5000)},
    "a close reason not UTF-8": (close(1000, b"\xff"), 1007),
    "text not UTF-8": (masked(TEXT, b"\xff"), 1007),
    "text that ends within a character": (masked(TEXT, b"\xc3"), 1007),
    "text with a surrogate": (masked(TEXT, b"\xed\xa0\x80"), 1007),
    "not WebSocket": (b"GET / HTTP/1.1\r\n\r\n", 1002),
    "zeros": (bytes(1000), 1002),
    "a mistake and a flood after it": (b"\xff" * 100_000, 1002),
    "a close": (close(1000, b"bye"), 1000),
    "an empty close": (masked(frames.CLOSE, b""), 1000),
    "nothing after a close": (close() + b"\xff" * 1000, 1000),
}


@pytest.fixture
def witness(shared, make_guest):
    """Another session at the same gateway, which none of it must touch."""
    with shared.open(make_guest("echo").uuid) as terminal:
        terminal.send(b"before")
        terminal.read_until(b"before")
        yield terminal
        terminal.send(b"after")
        terminal.read_until(b"after", seconds=5)
    shared.wait_free()
    log = shared.services["gateway"].logged()
    assert "Traceback" not in log
    assert "failed" not in log


def test_what_the_rfc_allows_is_taken(shared, shared_guest, witness):
    for what, data in TAKEN.items():
        # Without the output of the one before, whose relay may not have ended yet.
        with Bare(shared, shared.token(shared_guest.uuid, replay=0)) as client:
            client.sock.sendall(data)
            assert client.output(4)[:4] == b"echo", what
        shared.wait_sessions("connected")


def test_what_it_forbids_ends_with_its_code(shared, shared_guest, witness):
    for what, (data, code) in REFUSED.items():
        with Bare(shared, shared.token(shared_guest.uuid)) as client:
            client.sock.sendall(data)
            assert client.closed() == code, what
        shared.wait_sessions("connected")


def made_up(rnd):
    """Return frames of which most are what a client may send, and some are not."""
    stream = b""
    for _ in range(rnd.randrange(1, 20)):
        payload = rnd.randbytes(rnd.choice([0, 1, 5, 125, 126, 3000]))
        kind = rnd.choice([DATA, DATA, TEXT, MORE, MORE, frames.PING, frames.PONG])
        kind = rnd.choice([frames.CLOSE, 3, 11]) if rnd.random() < 0.03 else kind
        claim = rnd.choice([1 << 31, 1 << 62, 7]) if rnd.random() < 0.03 else None
        stream += masked(kind, payload, final=rnd.random() < 0.7, claim=claim)
    if rnd.random() < 0.5:  # a bit of it turned over, or a piece left out
        at = rnd.randrange(len(stream))
        flipped = bytes([stream[at] ^ 1 << rnd.randrange(8)])
        stream = stream[:at] + rnd.choice([flipped, b""]) + stream[at + 1 :]
    return stream


def memory(pids):
    """Return how much the largest of these processes has, in bytes."""
    found = [0]
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid).memory_full_info().uss)
    return max(found)


@pytest.mark.parametrize("seconds", [4, SLOW])
def test_frames_made_up_crash_nothing(shared, shared_guest, witness, seconds):
    """Each stream to a session of its own, ended by what it sent or by us."""
    gateway = shared.pid("gateway")
    until = time.monotonic() + seconds
    codes, sent, tried, most = {}, [], 0, 0

    def one(seed):
        with Bare(shared, shared.token(shared_guest.uuid, mode="ro", ttl=60)) as client:
            stream = made_up(random.Random(seed))
            sent.append(len(stream))
            client.sock.sendall(stream)
            client.sock.shutdown(socket.SHUT_WR)
            code = client.closed()
            codes[code] = codes.get(code, 0) + 1

    with ThreadPoolExecutor(4) as pool:
        while time.monotonic() < until:
            jobs = pool.map(one, range(SEED * 10**6 + tried, SEED * 10**6 + tried + 40))
            most = max(most, memory(child.pid for child in descendants(gateway)))
            list(jobs)
            tried += 40
    print(f"{tried} streams, {sum(sent)} bytes: {codes}; {most / MIB:.1f} MiB at most")
    assert set(codes) <= {1000, 1001, 1002, 1007}
    assert codes[1002] > tried / 4
    assert most < 16 * MIB
