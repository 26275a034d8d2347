"""Behind nginx, Apache and HAProxy, with TLS and below a path of a site, as docs/ has it."""

import ssl
import tomllib
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests import documents, proxies, rig
from tests.chromium import complaints, shows, status
from tests.clients import Terminal
from tests.stack import free_port

SECONDS = 2
"""The proxies' time-outs, instead of 60."""


class Site:
    """Our services behind a proxy, with the configuration that docs/proxies.md has."""

    def __init__(self, make_stack, **gateway):
        self.port = free_port()
        documented = tomllib.loads(documents.block("docs/proxies.md", "proxy"))["gateway"]
        url = documented["public_url"].replace("host.example", f"127.0.0.1:{self.port}")
        self.origin = url.removesuffix("/console")
        gateway = {**documented, "public_url": url, **gateway}
        self.stack = make_stack("supervisor", "gateway", "api", gateway=gateway)
        self.ports = {6083: self.stack.gateway_port, 6084: self.stack.api_port}

    def connect(self, guest, **options):
        trust_all = ssl.create_default_context()
        trust_all.check_hostname, trust_all.verify_mode = False, ssl.CERT_NONE
        url = self.stack.issue(guest.uuid)["token"]
        return Terminal(
            f"{self.origin.replace('https', 'wss')}/console/websockify?token={url}",
            origin=self.origin,
            ssl=trust_all,
            **options,
        )


@pytest.fixture(
    params=[
        "nginx",
        pytest.param("apache", marks=pytest.mark.slow),
        pytest.param("haproxy", marks=pytest.mark.slow),
    ]
)
def proxy(request):
    return request.param


def test_from_the_start_page_to_a_session_below_a_prefix(
    proxy, make_stack, echo_guest, browser, tmp_path
):
    site = Site(make_stack)
    with proxies.serving(proxy, tmp_path, site.port, site.ports) as log:
        context = browser.new_context(ignore_https_errors=True)
        wrong = complaints(context, site.port)
        start = context.new_page()
        start.goto(f"{site.origin}/console-api/")
        start.get_by_label("API key").fill(site.stack.key)
        start.keyboard.press("Enter")
        with start.expect_response("**/tokens") as answer, context.expect_page() as opened:
            start.locator(f"button.open[aria-label*='{echo_guest.name}']").click()
        token = answer.value.json()["token"]

        page = opened.value
        expect(status(page)).to_have_attribute("data-state", "connected")
        page.keyboard.type(f"through {proxy}")
        shows(page, f"^through {proxy} *$")
        assert urlsplit(page.url).path == "/console/serial.html"

        page.keyboard.press("Control+q")
        expect(page.locator("#reason")).to_contain_text("escape key")
        site.stack.wait_free()
        context.close()
        assert not wrong
        assert rig.eventually(lambda: "/websockify" in log.read_text())
        assert token not in log.read_text()
        if proxy == "haproxy":  # which tells a browser that it may
            assert 'websockify HTTP/2.0"' in log.read_text()


def test_the_client_is_who_connects_to_the_proxy_and_nobody_times_out(
    proxy, make_stack, echo_guest, tmp_path
):
    site = Site(make_stack, heartbeat=1)
    with (
        proxies.serving(proxy, tmp_path, site.port, site.ports, SECONDS),
        site.connect(
            echo_guest,
            source_address=("127.0.0.7", 0),
            additional_headers={"X-Forwarded-For": "192.0.2.1"},  # a lie
        ) as terminal,
    ):
        terminal.send(b"x")
        terminal.read_until(b"x")
        assert site.stack.session_of(echo_guest)["client"].rpartition(":")[0] == "127.0.0.7"
        # Nobody types for longer than the proxy waits.
        assert rig.eventually(lambda: site.stack.session_of(echo_guest)["idle"] > 2 * SECONDS)
        terminal.send(b"y")
        terminal.read_until(b"y")
        site.stack.cli("close", "--all")
        code, reason = terminal.ended()
        assert (code, "operator" in reason) == (4411, True)


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])  # Apache waits for ever
def test_without_pings_the_proxy_would_end_it(proxy, make_stack, echo_guest, tmp_path):
    site = Site(make_stack, heartbeat=0)
    with (
        proxies.serving(proxy, tmp_path, site.port, site.ports, SECONDS),
        site.connect(echo_guest) as terminal,
    ):
        terminal.send(b"x")
        terminal.read_until(b"x")
        assert terminal.ended()[0] == 1006
        site.stack.wait_free()
