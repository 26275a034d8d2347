"""Heads of requests: what passes means the same to http.server as to anybody else."""

from __future__ import annotations

import http.client
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from websockify_tokens import heads

GOOD = b"GET /websockify?token=x HTTP/1.1\r\nHost: host.example:6083\r\n"


def test_what_browsers_and_programs_send_passes() -> None:
    for more in (
        b"",
        b"Origin: http://host.example:6083\r\nCookie: a=b; c=\xc3\xbc\r\nX-Empty:\r\nX:\ttab\r\n",
        b"Content-Length: 0\r\n",
        b"X-Forwarded-For: a\r\nX-Forwarded-For: b\r\n",
    ):
        assert heads.flaw(GOOD + more + b"\r\n") is None
    assert heads.flaw(GOOD.replace(b"\r", b"") + b"\n") is None
    assert heads.flaw(b"HEAD / HTTP/1.0\r\n\r\n") is None
    assert heads.flaw(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n") is None


PIECES = st.sampled_from(
    [
        *(b"Host: x", b"Host: y", b"host: [::1]:1", b"Origin: http://x", b"Origin : http://x"),
        *(b" Origin: http://x", b"no header", b"X: y", b"X:\x00", b"X: \x85y", b"\x85X: y"),
        *(b"Content-Length: 0", b"Content-Length: 5", b"Transfer-Encoding: chunked", b": y"),
        *(b"From x", b"X: y\rOrigin: http://x", b"X: a\x0cb", b"X: \x1cz", b"\xef\xbb\xbfX: y"),
    ]
)


@settings(max_examples=1000)
@given(
    st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=8),
    st.sampled_from([b"\r\n", b"\n"]),
)
@example([b"Host: x", b"no header", b"Origin: http://evil.example"], b"\r\n")
def test_what_passes_is_read_by_the_parser_as_it_stands(lines: list[bytes], end: bytes) -> None:
    head = end.join([b"GET / HTTP/1.1", *lines, b"", b""])
    if heads.flaw(head) is not None:
        return
    body = io.BytesIO(head)
    body.readline()
    parsed = http.client.parse_headers(body)
    written = []
    for line in head.decode("latin-1").split("\n")[1:]:
        name, colon, value = line.removesuffix("\r").partition(":")
        if colon:
            written.append((name, value.strip(" \t")))
    assert [(name, value.strip(" \t")) for name, value in parsed.items()] == written
    assert not parsed.defects
    line, headers = heads.parsed(head)
    assert line == "GET / HTTP/1.1"
    for name, _ in written:
        values = [other for same, other in written if same.lower() == name.lower()]
        assert headers.get_all(name.upper(), []) == values
        assert headers.get(name) == values[0]
    assert len(parsed.get_all("Host", [])) == 1
    assert len(parsed.get_all("Origin", [])) <= 1
    assert parsed.get("Content-Length", "0") == "0"
    assert "Transfer-Encoding" not in parsed


@settings(max_examples=1000)
@given(st.binary(max_size=200))
def test_any_bytes_give_an_answer_that_repeats_none_of_them(data: bytes) -> None:
    for head in (data, GOOD + data, data + GOOD):
        why = heads.flaw(head)
        assert why is None or (why.endswith(".") and len(why) < 60)


@pytest.mark.parametrize("host", [b"x", b"X.y", b"127.0.0.1:1", b"[::1]:65535", b"a_b-c."])
def test_hosts(host: bytes) -> None:
    assert heads.flaw(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n") is None


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"a b",
        b"a@b",
        b"a/b",
        b"a#b",
        b"a\\b",
        b"a,b",
        b"a:b",
        b"a:1:2",
        b"::1",
        b"\xfc",
        b"[::::]",
        b"[192.0.2.1]:80",
    ],
)
def test_what_is_no_host(host: bytes) -> None:
    assert heads.flaw(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n") is not None
