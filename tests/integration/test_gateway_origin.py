"""Who may knock at the gateway, and whose address counts."""

import re

import pytest
from websockets.exceptions import InvalidStatus

from tests import stack as stacks
from tests.raw_http import sent_raw, status_of, upgrade


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
            "",
            "http://127.0.0.1:{port}/",
            "http://user@127.0.0.1:{port}",
            "http://127.0.0.1:{port} http://evil.example",
            "ws://127.0.0.1:{port}",
            "//127.0.0.1:{port}",
            "127.0.0.1:{port}",
        ],
    )
    def test_a_foreign_page_is_refused_and_the_token_is_kept(self, shared, shared_guest, origin):
        token = shared.token(shared_guest.uuid)
        with pytest.raises(InvalidStatus) as refused:
            shared.connect(token, origin=origin.format(port=shared.gateway_port))
        assert refused.value.response.status_code == 403
        assert_attaches(shared, token, origin=f"http://127.0.0.1:{shared.gateway_port}")

    @pytest.mark.parametrize(
        "headers",
        [
            "X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: http",
            "Forwarded: for=192.0.2.1;host=evil.example;proto=http",
            "X-Original-Host: evil.example\r\nX-Host: evil.example",
            "Referer: http://127.0.0.1:{port}/serial.html",
        ],
    )
    def test_no_other_header_widens_it(self, shared, shared_guest, headers):
        token = shared.token(shared_guest.uuid)
        headers = headers.format(port=shared.gateway_port)
        head = (
            upgrade(shared.gateway_port, token, origin="http://evil.example")
            + headers.encode()
            + b"\r\n\r\n"
        )
        assert status_of(sent_raw(shared.gateway_port, head)) == 403
        assert_attaches(shared, token)

    @pytest.mark.parametrize(
        ("hosts", "origin", "status"),
        [
            # As an own page's browser, or a program, may write it.
            (["Host.Example"], "http://host.example", 101),
            (["host.example:80"], "http://host.example", 101),
            (["[::1]:6083"], "http://[::1]:6083", 101),
            # The Host of a page that evil.example serves is its own: a browser's word for that.
            (["evil.example"], "http://host.example", 403),
            (["host.example:443"], "http://host.example", 403),
            (["host.example:443"], "https://host.example", 403),
            (["host.example", "evil.example"], "http://evil.example", 400),
            (["evil.example", "host.example"], "http://evil.example", 400),
            (["host.example, evil.example"], "http://evil.example", 400),
            (["host.example@evil.example"], "http://evil.example", 400),
            (["evil.example#host.example"], "http://evil.example", 400),
            (["evil.example/host.example"], "http://evil.example", 400),
            (["evil.example\\host.example"], "http://evil.example", 400),
            (["evil.example:80:6083"], "http://evil.example", 400),
            ([""], "http://", 400),
            ([], "http://", 400),
        ],
    )
    def test_what_a_host_header_can_do(self, shared, shared_guest, hosts, origin, status):
        token = shared.token(shared_guest.uuid)
        head = upgrade(shared.gateway_port, token, hosts=hosts, origin=origin) + b"\r\n"
        assert status_of(sent_raw(shared.gateway_port, head)) == status
        if status != 101:
            assert_attaches(shared, token)
        shared.wait_free()

    @pytest.mark.parametrize(
        ("found", "instead"),
        [
            ("GET /", "GET http://evil.example/"),  # its host counts, for RFC 9112, not Host
            ("GET /", "GET //evil.example/"),
            ("\r\nOrigin:", "\r\nno header\r\nOrigin:"),  # the parser would stop here
            ("\r\nOrigin:", "\r\nX: y\r\n Origin:"),  # or fold this
            ("\r\nOrigin:", "\r\nX: y\rOrigin:"),
            ("\r\nOrigin:", "\r\nOrigin :"),
            ("\r\nOrigin:", "\r\nOrigin\0:"),
            ("\r\nOrigin:", "\r\n: x\r\nOrigin:"),
            ("\r\nOrigin:", "\r\n\x0bOrigin:"),
            ("\r\nOrigin:", "\r\nOrigin: http://{host}\r\nOrigin:"),
        ],
    )
    def test_an_origin_cannot_be_hidden(self, shared, shared_guest, found, instead):
        token = shared.token(shared_guest.uuid)
        host = f"127.0.0.1:{shared.gateway_port}"
        head = upgrade(shared.gateway_port, token, origin="http://evil.example") + b"\r\n"
        head = head.replace(found.encode(), instead.format(host=host).encode())
        assert status_of(sent_raw(shared.gateway_port, head)) in (400, 403)
        assert_attaches(shared, token)

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
        for origin in (
            f"http://127.0.0.1:{stack.gateway_port}",
            "https://console.example/serial",
            "http://console.example",
            "https://manager.example:8443",
            "https://console.example.evil.example",
        ):
            with pytest.raises(InvalidStatus):
                stack.connect(token, origin=origin)
        assert_attaches(stack, token)
        url = stack.cli("token", echo_guest.name, "--url").stdout
        assert url.startswith("https://console.example/serial/serial.html#token=")


def _port(stack):
    with open(stack.config) as file:
        return int(re.search(r"\[gateway\]\nlisten = \"127.0.0.1:(\d+)", file.read())[1])


class TestProxies:
    """Whose address counts: for tokens that are bound to one, and for listings."""

    def test_a_trusted_proxy_is_believed(self, make_stack, echo_guest):
        proxies = ["127.0.0.1", "10.0.0.0/8"]
        stack = make_stack("supervisor", "gateway", gateway={"trusted_proxies": proxies})

        def client(*forwarded):
            headers = [("X-Forwarded-For", one) for one in forwarded]
            token = stack.token(echo_guest.uuid)
            with stack.connect(token, additional_headers=headers):
                (session,) = stack.wait_sessions("connected")
            stack.wait_free()
            return session["client"]

        assert client("203.0.113.7") == "203.0.113.7:0"
        assert client("203.0.113.7:4711") == "203.0.113.7:4711"
        assert client("192.0.2.66, 203.0.113.7, 10.1.2.3") == "203.0.113.7:0"
        assert client("192.0.2.66", "2001:db8::1", "10.1.2.3") == "[2001:db8::1]:0"
        assert client().startswith("127.0.0.1:")

        bound = stack.token(echo_guest.uuid, client_address="203.0.113.7")
        for told in ("203.0.113.8", "203.0.113.7, 203.0.113.8", "203.0.113.7, evil"):
            with stack.connect(bound, additional_headers={"X-Forwarded-For": told}) as terminal:
                assert terminal.ended()[0] == 4401
        with stack.connect(bound, additional_headers={"X-Forwarded-For": "203.0.113.7"}) as one:
            one.send(b"x")
            one.read_until(b"x")
        assert " 203.0.113.8: closed: 4401" in stack.services["gateway"].logged()

    def test_anybody_else_is_not(self, shared, shared_guest):
        bound = shared.token(shared_guest.uuid, client_address="203.0.113.7")
        for header in ("X-Forwarded-For", "X-Real-IP", "Client-IP"):
            with shared.connect(bound, additional_headers={header: "203.0.113.7"}) as terminal:
                assert terminal.ended()[0] == 4401
        told = {"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.7"}
        token = shared.token(shared_guest.uuid)
        with shared.connect(token, additional_headers=told):
            (session,) = shared.wait_sessions("connected")
        shared.wait_free()
        assert session["client"].startswith("127.0.0.1:")
