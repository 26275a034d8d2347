"""Behind nginx, below a path of its site, as docs/nginx.conf has it."""

import pathlib
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests import nginx, rig
from tests.chromium import complaints, shows, status
from tests.stack import free_port

DOCUMENTED = pathlib.Path(__file__).parents[2] / "docs" / "nginx.conf"


@pytest.fixture
def site(make_stack, tmp_path):
    """Our services behind nginx: the stack, and the port of the site."""
    port = free_port()
    stack = make_stack(
        "supervisor",
        "gateway",
        "api",
        gateway={
            "public_url": f"http://127.0.0.1:{port}/console",
            "trusted_proxies": [nginx.ADDRESS],
        },
    )
    locations = DOCUMENTED.read_text()
    for default, ours in ((6083, stack.gateway_port), (6084, stack.api_port)):
        locations = locations.replace(f"127.0.0.1:{default}/", f"127.0.0.1:{ours}/")
    with nginx.serving(tmp_path, port, locations):
        yield stack, port


def test_from_the_start_page_to_a_session_below_a_prefix(site, echo_guest, browser, tmp_path):
    stack, port = site
    context = browser.new_context()
    wrong = complaints(context, port)
    start = context.new_page()
    start.goto(f"http://127.0.0.1:{port}/console-api/")
    start.get_by_label("API key").fill(stack.key)
    start.keyboard.press("Enter")
    with start.expect_response("**/tokens") as answer, context.expect_page() as opened:
        start.locator(f"button.open[aria-label*='{echo_guest.name}']").click()
    token = answer.value.json()["token"]

    page = opened.value
    expect(status(page)).to_have_attribute("data-state", "connected")
    page.keyboard.type("through nginx")
    shows(page, "^through nginx *$")
    assert urlsplit(page.url).path == "/console/serial.html"
    assert stack.session_of(echo_guest)["client"] == "127.0.0.1:0"

    page.keyboard.press("Control+q")
    expect(page.locator("#reason")).to_contain_text("escape key")
    stack.wait_free()
    context.close()
    assert not wrong
    log = tmp_path / "access.log"
    session = '"GET /console/websockify HTTP/1.1" 101'
    assert rig.eventually(lambda: session in log.read_text())
    assert token not in log.read_text()
