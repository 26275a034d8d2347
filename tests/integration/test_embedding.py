"""The examples of docs/embedding.md, in a browser."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.chromium import CSP_REPORT, shows
from tests.host_manager import HostManager

ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(r"^```(\w+) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def manager(make_stack, echo_guest):
    """A host manager with the documented examples, its stack as ``.stack``."""
    one = HostManager(lambda: one.stack.issue(echo_guest.uuid, user="alice"))
    with one.serving():
        one.stack = make_stack("supervisor", "gateway", gateway={"allowed_origins": [one.origin]})
        text = (ROOT / "docs" / "embedding.md").read_text()
        text = text.replace("WSGATEWAY", f"ws://127.0.0.1:{one.stack.gateway_port}")
        text = text.replace("GATEWAY", f"http://127.0.0.1:{one.stack.gateway_port}")
        for kind, name, content in EXAMPLE.findall(text):
            one.files[f"{name}.html" if kind == "html" else name] = content.encode()
        yield one


@pytest.fixture
def page(browser):
    """A page that must not complain."""
    wrong = []
    page = browser.new_page()
    page.add_init_script(CSP_REPORT)
    page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    page.close()
    assert not wrong


def test_the_page_in_a_frame_tells_its_parent_and_obeys_it(manager, page):
    page.goto(f"{manager.origin}/frame.html")
    expect(page.locator("#state")).to_contain_text("connected")
    frame = page.frame_locator("#console")
    expect(frame.locator("#title")).to_have_text("My guest")
    frame.locator(".xterm-helper-textarea").press_sequentially("framed")
    expect(frame.locator(".xterm-rows")).to_contain_text("framed")
    page.click("#end")
    expect(page.locator("#state")).to_have_text("ended You disconnected.")
    manager.stack.wait_free()


def test_no_other_page_may_have_it_in_a_frame(manager, browser):
    stranger = HostManager(dict)
    with stranger.serving():
        stranger.files = manager.files
        page = browser.new_page()
        page.goto(f"{manager.origin}/frame.html".replace(manager.origin, stranger.origin))
        with page.expect_console_message(lambda said: "frame-ancestors" in said.text):
            page.evaluate(
                "(url) => { document.getElementById('console').src = url; }",
                f"http://127.0.0.1:{manager.stack.gateway_port}/serial.html",
            )
        expect(page.frame_locator("#console").locator("#bar")).to_have_count(0)
        page.close()


def test_the_module_in_a_page_with_a_strict_policy(manager, page):
    manager.csp = manager.files["module.csp"].decode().strip()
    page.goto(f"{manager.origin}/module.html")
    expect(page.locator("#state")).to_have_text("connected connected ")
    page.keyboard.type("embedded")
    shows(page, "^embedded")
    page.click("#enter")
    page.keyboard.type("next")
    shows(page, "^next")
    page.close()
    manager.stack.wait_free()


def test_the_module_outlives_a_manager_that_is_away_for_a_while(manager, browser):
    page = browser.new_page()
    page.route("**/token", lambda route: route.fulfill(status=503), times=1)
    page.goto(f"{manager.origin}/module.html")
    expect(page.locator("#state")).to_have_text("reconnecting  There is no token: 503.")
    expect(page.locator("#state")).to_have_text("connected connected ")
    page.close()
    manager.stack.wait_free()
