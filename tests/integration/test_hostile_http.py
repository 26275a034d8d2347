"""What is no HTTP, or too much of it, at the API's port."""

import contextlib
import os
import random
import socket
import time

import psutil
import pytest

from tests import rig
from tests.fuzz.mutate import mutated
from tests.stack import http

INPUTS = int(os.environ.get("FUZZ_EXAMPLES", "150"))
MEMORY = 16 << 20
"""Bytes that a flood may cost."""

POST = b"POST /v1/guests/x/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
HOSTILE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /healthz\r\n\r\n",
    "bare newlines": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "NUL in the path": b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes beyond ASCII in the path": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "folded header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "space before the colon": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
    "an absolute target": b"GET http://evil.example/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT evil.example:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "upgrade": b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\n\r\n",
    "a method of its own": b"X-Y-Z /v1/guests HTTP/1.1\r\nHost: x\r\n\r\n",
}  # fmt: skip
SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
SMUGGLING = {
    "two lengths": b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}",
    "two lengths in one": b"Content-Length: 2, 40\r\n\r\n{}",
    "a length with a sign": b"Content-Length: +2\r\n\r\n{}",
    "a negative length": b"Content-Length: -2\r\n\r\n{}",
    "a length of another alphabet": "Content-Length: ٢\r\n\r\n{}".encode(),
    "an endless length": b"Content-Length: " + b"9" * 400 + b"\r\n\r\n{}",
    "encoding twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding of another name": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "encoding behind a tab": b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "a chunk of no number": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk of negative length": b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    "a chunk of endless length": b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n",
    "a chunk that ends wrongly": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX",
}


def answers(port, data, *, patience=8.0):
    """Send bytes, and return all that comes until the other end closes, or nothing for so long."""
    got = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as sock:
        with contextlib.suppress(ConnectionError, TimeoutError):  # it may not want all
            sock.sendall(data)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while piece := sock.recv(65536):
                got += piece
    return bytes(got)


def statuses(said):
    return [int(part[:3]) for part in said.split(b"HTTP/1.1 ")[1:]]


@pytest.fixture
def api(shared):
    """The API of the stack; it must not have said anything of what surprised it."""
    service = shared.services["api"]
    before = len(service.logged())
    fds = service.fds()
    yield shared
    assert http(shared.api_port, "GET", "/healthz")[0] == 200
    assert rig.eventually(lambda: service.fds() <= fds + 1), "connections are left"
    said = service.logged()[before:]
    for word in ("Traceback", "unexpected", " error "):
        assert word not in said, said


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_proper_request_is_refused_or_served(api, what):
    for status in statuses(answers(api.api_port, HOSTILE[what] + SMUGGLED)):
        assert status in (200, 400, 401, 404, 405), status


@pytest.mark.parametrize("authorized", [True, False], ids=["with a key", "without"])
@pytest.mark.parametrize("what", SMUGGLING)
def test_no_request_hides_in_the_body_of_another(api, what, authorized):
    head = POST % (api.key.encode() if authorized else b"none")
    found = statuses(answers(api.api_port, head + SMUGGLING[what] + SMUGGLED))
    assert 200 not in found, found
    assert len(found) <= 1, found


def test_a_length_and_an_encoding_are_not_both_believed(api):
    """RFC 9112, 6.1: the encoding counts, or it is refused; the next request is not the body's."""
    head = POST % api.key.encode() + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    found = statuses(answers(api.api_port, head + b"0\r\n\r\n" + SMUGGLED))
    assert found in ([400], [404], [404, 200])


def test_floods_of_headers_lengths_and_chunks_are_bounded(api):
    process = psutil.Process(api.pid("api"))
    key = api.key.encode()
    floods = {
        "headers": POST % key + b"".join(b"X-%d: y\r\n" % number for number in range(400_000)),
        "one header": POST % key + b"X: " + b"y" * (4 << 20),
        "one line": b"GET /" + b"x" * (4 << 20),
        "chunks": POST % key + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 700_000,
        "one chunk": POST % key
        + b"Transfer-Encoding: chunked\r\n\r\nffffff\r\n" + b"x" * (4 << 20),
        "chunk extensions": POST % key
        + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * (4 << 20),
        "a body": POST % key + b"Content-Length: 4194304\r\n\r\n" + b"x" * (4 << 20),
        "pipelined": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 1000 + SMUGGLED,
    }  # fmt: skip
    answers(api.api_port, SMUGGLED)
    before = process.memory_info().rss
    for what, data in floods.items():
        found = set(statuses(answers(api.api_port, data, patience=2.0)))
        assert found <= {200, 400, 413}, (what, found)
        grown = process.memory_info().rss - before
        assert grown < MEMORY, f"{what}: {grown >> 20} MiB"


def test_mutated_requests_end_in_an_answer(api):
    seeds = [
        POST % api.key.encode() + b'Content-Length: 14\r\n\r\n{"user": "bob"}',
        POST % b"none" + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"DELETE /v1/tokens/x%2Fy?a=b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        + api.key.encode()
        + b"\r\n\r\n",
        b"GET /v1/guests/%ff HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + SMUGGLED,
    ]
    choose = random.Random(4)
    began = time.monotonic()
    for number in range(INPUTS):
        data = mutated(seeds[number % len(seeds)], choose)
        for status in statuses(answers(api.api_port, data + SMUGGLED, patience=0.3)):
            assert status < 500 or status == 503, (status, data)
    print(f"{INPUTS} requests in {time.monotonic() - began:.1f} s")
