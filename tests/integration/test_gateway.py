"""The gateway faces a network: Origins, what it serves, and what its log never holds."""

import contextlib
import re
import socket

import pytest
from websockets.exceptions import InvalidStatus

from tests import stack as stacks


def assert_attaches(stack, token, **options):
    with stack.connect(token, **options) as terminal:
        terminal.send(b"x")
        terminal.read_until(b"x")
    stack.wait_free()


class TestOrigin:
    @pytest.mark.parametrize(
        "origin",
        [
            "http://evil.example",
            "null",
            "https://127.0.0.1:{port}",
            "http://127.0.0.1",
            "http://127.0.0.1:{port}.evil.example",
            "http://localhost:{port}",
        ],
    )
    def test_a_foreign_page_is_refused_and_the_token_is_kept(self, shared, shared_guest, origin):
        token = shared.token(shared_guest.uuid)
        with pytest.raises(InvalidStatus) as refused:
            shared.connect(token, origin=origin.format(port=shared.gateway_port))
        assert refused.value.response.status_code == 403
        assert_attaches(shared, token, origin=f"http://127.0.0.1:{shared.gateway_port}")

    def test_allowed_origins_and_public_url(self, make_stack, echo_guest):
        stack = make_stack(
            "supervisor",
            "gateway",
            gateway={
                "listen": f"127.0.0.1:{stacks.free_port()}",
                "public_url": "https://console.example/serial",
                "allowed_origins": ["https://manager.example"],
            },
        )
        stack.gateway_port = _port(stack)
        for origin in ("https://console.example", "https://manager.example"):
            assert_attaches(stack, stack.token(echo_guest.uuid), origin=origin)
        token = stack.token(echo_guest.uuid)
        with pytest.raises(InvalidStatus):
            stack.connect(token, origin=f"http://127.0.0.1:{stack.gateway_port}")
        url = stack.cli("token", echo_guest.name, "--url").stdout
        assert url.startswith("https://console.example/serial/serial.html#token=")


def _port(stack):
    with open(stack.config) as file:
        return int(re.search(r"\[gateway\]\nlisten = \"127.0.0.1:(\d+)", file.read())[1])


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


def send_raw(port, data):
    """Send bytes that need not be HTTP and read until the gateway closes."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as sock,
        contextlib.suppress(ConnectionResetError, BrokenPipeError),
    ):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass


UPGRADE = (
    "Host: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
REQUESTS = {
    "unknown token": "GET /websockify?token={t} HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "second parameter": "GET /websockify?path=x&token={t}&y=1 HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "encoded name": "GET /websockify?%74oken={t} HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "encoded equals sign": "GET /websockify?token%3D{t} HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "other case": "GET /websockify?Token={t} HTTP/1.1\r\n" + UPGRADE + "\r\n",
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
        send_raw(stack.gateway_port, text.format(t=token, host=host).encode())
    real = stack.token(echo_guest.uuid)
    secrets[real] = "real token, encoded name"
    send_raw(stack.gateway_port, REQUESTS["encoded name"].format(t=real, host=host).encode())

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
        send_raw(stack.api_port, line.format(t=token).encode())
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
