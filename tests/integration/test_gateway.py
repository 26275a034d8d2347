"""The gateway faces a network: what it serves, what it refuses, what its log never holds."""

import gzip
import json
import pathlib

import pytest

from tests import stack as stacks
from tests.raw_http import UPGRADE, sent_raw, status_of


class TestPages:
    @pytest.mark.parametrize("path", ["/", "/serial.html", "/serial.html?x=1", "/vendor/xterm.js"])
    def test_the_pages_files_are_served_with_their_headers(self, shared, path):
        status, headers, body = stacks.http(shared.gateway_port, "GET", path)
        assert (status, len(body)) == (200, int(headers["content-length"]))
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        status, headers, nothing = stacks.http(shared.gateway_port, "HEAD", path)
        assert (status, int(headers["content-length"]), nothing) == (200, len(body), b"")

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_they_are_packed_for_those_who_take_that(self, shared, method):
        got = {}
        for coding in ("identity", "gzip"):
            asked = {"Accept-Encoding": coding}
            _, headers, body = stacks.http(
                shared.gateway_port, method, "/vendor/xterm.js", headers=asked
            )
            assert "Accept-Encoding" in headers["vary"]
            got[coding] = headers.get("content-encoding"), int(headers["content-length"]), body
        plain, packed = got["identity"], got["gzip"]
        assert (plain[0], packed[0]) == (None, "gzip")
        assert packed[1] < plain[1] / 2
        if method == "GET":
            assert gzip.decompress(packed[2]) == plain[2]
            assert (len(packed[2]), len(plain[2])) == (packed[1], plain[1])

    def test_who_has_them_already_is_not_sent_them_again(self, shared):
        def get(path, **headers):
            return stacks.http(shared.gateway_port, "GET", path, headers=headers)

        tag = get("/serial.js")[1]["etag"]
        status, headers, body = get("/serial.js", **{"If-None-Match": f'W/"x", {tag}'})
        assert (status, headers["etag"], body) == (304, tag, b"")
        assert headers["x-content-type-options"] == "nosniff"
        assert get("/console.js", **{"If-None-Match": tag})[0] == 200

    def test_others_embed_and_configure_it(self, make_stack):
        """One gateway for headers and settings: the details are in tests/unit/test_pages.py."""
        origin = "https://manager.example"
        stack = make_stack("gateway", gateway={"allowed_origins": [f"{origin}:443"]})

        def get(path, **headers):
            return stacks.http(stack.gateway_port, "GET", path, headers=headers)

        assert get("/console.js", Origin=origin)[1]["access-control-allow-origin"] == origin
        for headers in ({}, {"Origin": "https://evil.example"}):
            answered = get("/console.js", **headers)[1]
            assert "access-control-allow-origin" not in answered
            assert "Origin" in answered["vary"]
            assert answered["content-security-policy"].endswith(f"'self' {origin}")
            assert "x-frame-options" not in answered
        for name in ("defaults.json", "mandatory.json"):
            file = pathlib.Path(stack.directory) / name
            before = json.loads(get(f"/{name}")[2])
            file.write_text('{"font_size": 20}', encoding="utf-8")
            assert json.loads(get(f"/{name}")[2]) == before | {"font_size": 20}
            file.write_text('{"font_size": 20,\n}', encoding="utf-8")
            status, headers, body = get(f"/{name}")
            assert (status, headers["content-type"]) == (500, "text/plain; charset=utf-8")
            assert body.decode().startswith(f"The operator's {name} on this host")
            assert f"{file}: it is not JSON" in stack.services["gateway"].logged()
            file.unlink()

    @pytest.mark.parametrize(
        "path",
        [
            "//evil.example",
            "//evil.example/%2e%2e",
            "//evil.example/serial.html/..",
            "/../../etc/passwd",
            "/..%2f..%2fetc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/vendor",
            "/vendor/",
            "/vendor/../package.json",
            "/node_modules/",
            "/package.json",
            "/.npmrc",
            "/serial.html/",
            "/serial.html%00.js",
            "/websockify",
            "///evil.example/",
            "/\\\\evil.example",
            "/%5c%5cevil.example",
            "/..//evil.example",
            "/.//evil.example",
            "/%2f%2fevil.example",
            "/%09/evil.example",
            "/serial.html/../../evil.example",
            "/./serial.html",
            "/SERIAL.HTML",
            "/vendor/%2e%2e/package.json",
            "/vendor\\..\\package.json",
            "/serial.html;x",
            "/serial.html%3f",
            "/web/serial.html",
            "/mandatory.json/",
            "/.git/config",
            "/index.html",
            "/favicon.ico/..",
        ],
    )
    def test_nothing_else_is(self, shared, path):
        for method in ("GET", "HEAD"):
            status, headers, body = stacks.http(shared.gateway_port, method, path)
            assert status == 404
            assert "location" not in headers
            assert b"evil" not in body
            assert b"root:" not in body

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
    def test_no_other_method(self, shared, method):
        status, headers, _ = stacks.http(shared.gateway_port, method, "/serial.html")
        assert status in (405, 501)
        assert "content-security-policy" in headers


GET = b"GET /serial.html HTTP/1.1\r\nHost: x\r\n"
MALFORMED = {
    "no HTTP": (b"\0\1\2\r\n\r\n", 400),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400),
    "no version": (b"GET /serial.html\r\n\r\n", 400),
    "HTTP 2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "bad version": (b"GET / HTTP/1.x\r\n\r\n", 400),
    "a space too many": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "not ASCII": ("GET /ü HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 400),
    "odd white space": (b"GET /serial.html\x85HTTP/1.1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "lower case": (b"get /serial.html HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    "unknown method": (b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "CONNECT": (b"CONNECT evil.example:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a body": (GET + b"Content-Length: 5\r\n\r\nGET /", 400),
    "two lengths": (GET + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\nGET /", 400),
    "chunks": (GET + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks, hidden": (GET + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "expects to go on": (GET + b"Expect: 100-continue\r\n\r\n", 417),
    "long line": (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    "long header": (GET + b"X: " + b"x" * 40_000 + b"\r\n\r\n", 431),
    "long in all": (GET + (b"X: " + b"x" * 500 + b"\r\n") * 80 + b"\r\n", 431),
    "many headers": (GET + b"X: y\r\n" * 150 + b"\r\n", 431),
    "without an end": (GET + b"X: " + b"x" * 1_000_000, 431),
    "other WebSocket": (
        GET + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\n"
        b"Sec-WebSocket-Version: 99\r\n\r\n",
        426,
    ),
    "no key": (GET + b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n", 400),
    "empty key": (
        b"GET /websockify?token=x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \r\n\r\n",
        400,
    ),
    "odd key": (
        GET + b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \xff\r\n\r\n",
        400,
    ),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_request_is_refused_with_all_headers(shared, what):
    data, status = MALFORMED[what]
    answer = sent_raw(shared.gateway_port, data)
    assert status_of(answer) == status
    assert answer.count(b"HTTP/1.1 ") == 1, "more was read of it than one request"
    assert b"evil" not in answer
    log = shared.services["gateway"].logged()
    assert "Traceback" not in log
    assert "exception" not in log


def test_requests_may_follow_each_other(shared):
    page = b"GET /theme.js HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = sent_raw(shared.gateway_port, page * 3)
    assert answer.count(b"HTTP/1.1 200 ") == 3
    answer = sent_raw(shared.gateway_port, page * 200)
    assert answer.count(b"HTTP/1.1 200 ") == 100, "one connection lives for ever"


REQUESTS = {
    "unknown token": "GET /websockify?token={t} HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "second parameter": "GET /websockify?path=x&token={t}&y=1 HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "encoded name": "GET /websockify?%74oken={t} HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "encoded equals sign": "GET /websockify?token%3D{t} HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "other case": "GET /websockify?Token={t} HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "encoded twice": "GET /websockify?%2574oken={t} HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "upper case": "GET /websockify?TOKEN={t} HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "Referer": "GET /websockify HTTP/1.1\r\n"
    + UPGRADE
    + "Referer: http://{host}/serial.html#token={t}\r\n\r\n",
    "absolute": "GET http://{host}/websockify?token={t} HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "path of an upgrade": "GET /{t} HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "subprotocol alone": "GET / HTTP/1.1\r\n"
    + UPGRADE
    + "Sec-WebSocket-Protocol: binary\r\nSec-WebSocket-Protocol: token.{t}\r\n\r\n",
    "host": "GET / HTTP/1.1\r\n" + UPGRADE.replace("{host}", "{t}") + "\r\n",
    "forwarded": "GET / HTTP/1.1\r\n" + UPGRADE + "X-Forwarded-For: {t}\r\n\r\n",
    "key": "GET / HTTP/1.1\r\n" + UPGRADE.replace("dGhl", "\xff{t}") + "\r\n",
    "version as WebSocket": "GET / HTTP/1.1\r\n" + UPGRADE.replace("13", "{t}") + "\r\n",
    "two tokens": "GET /websockify?token=&token={t} HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "subprotocol": "GET /websockify HTTP/1.1\r\n"
    + UPGRADE
    + "Sec-WebSocket-Protocol: binary, token.{t}\r\n\r\n",
    "foreign origin": "GET /websockify?token={t} HTTP/1.1\r\n"
    + UPGRADE
    + "Origin: http://evil.example/?token={t}\r\n\r\n",
    "no upgrade": "GET /websockify?token={t} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "in the path": "GET /serial.html/token={t} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "path alone": "GET /{t} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "fragment": "GET /serial.html#token={t} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "bad version": "GET /websockify?token={t} HTTP/9.9\r\n\r\n",
    "no version": "GET /websockify?token={t} x y\r\n\r\n",
    "bad method": "token={t} /websockify HTTP/1.1\r\n\r\n",
    "odd method": "FOO /websockify?token={t} HTTP/1.1\r\n\r\n",
    "no request": "token={t}\r\n\r\n",
    "bad header": "GET / HTTP/1.1\r\ntoken={t}\r\n\r\n",
    "bad version of WebSocket": "GET /websockify?token={t} HTTP/1.1\r\n"
    + UPGRADE.replace("13", "12")
    + "\r\n",
    "line too long": "GET /websockify?token={t}" + "x" * 70_000 + " HTTP/1.1\r\n\r\n",
    "header too long": "GET / HTTP/1.1\r\nX: token={t}" + "x" * 70_000 + "\r\n\r\n",
    "too many headers": "GET / HTTP/1.1\r\n" + "X: token={t}\r\n" * 200 + "\r\n",
}


def test_no_secret_is_ever_logged(make_stack, echo_guest):
    stack = make_stack("supervisor", "gateway", "api")
    secrets = {stack.key: "API key"}
    status, issued = stack.rest("POST", f"/v1/guests/{echo_guest.name}/tokens", {})
    assert status == 201
    secrets[issued["token"]] = "used token"
    with stack.connect(issued["token"]) as terminal:
        terminal.send(b"typed-secret\r")
        terminal.read_until(b"typed-secret\r")
    stack.wait_free()
    with stack.connect(issued["token"]) as terminal:
        assert terminal.ended()[0] == 4401
    secrets["typed-secret"] = "what was typed"

    host = f"127.0.0.1:{stack.gateway_port}"
    for number, (what, text) in enumerate(REQUESTS.items()):
        token = f"SECRET{number:02}" + "s" * 35
        secrets[token] = what
        answer = sent_raw(stack.gateway_port, text.format(t=token, host=host).encode())
        assert token.encode() not in answer, what
    real = stack.token(echo_guest.uuid)
    secrets[real] = "real token, encoded name"
    sent_raw(stack.gateway_port, REQUESTS["encoded name"].format(t=real, host=host).encode())

    for number, line in enumerate(
        [
            "GET /v1/tokens/{t} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "GET /v1/guests?key={t} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "GET /v1/guests HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {t}\r\n"
            "Connection: close\r\n\r\n",
            "GET /v1/guests HTTP/1.1\r\nHost: x\r\nAuthorization {t}\r\n\r\n",
            "{t}\r\n\r\n",
        ]
    ):
        token = f"SECRETA{number}" + "s" * 35
        secrets[token] = f"api {line!r}"
        sent_raw(stack.api_port, line.format(t=token).encode())
    for op in ("redeem", "SECRETB1"):
        answer = stacks.request(stack.redeem_path, {"v": 1, "op": op, "token": "SECRETB1"})
        assert not answer["ok"]
    secrets["SECRETB1"] = "redeem.sock"

    for name in ("gateway", "api", "supervisor"):
        assert stack.end(name) == 0
    logs = stack.logs()
    leaked = {what for secret, what in secrets.items() if secret in logs or secret[:30] in logs}
    assert not leaked
    assert "Traceback" not in logs
