"""The page's questions and names, where the guest, or who named something, is hostile."""

import base64

import pytest
from playwright.sync_api import expect

from tests.chromium import shows
from tests.fake_gateway import FakeGateway

TURNED = "\N{RIGHT-TO-LEFT OVERRIDE}"

HASTY = """
document.addEventListener('DOMContentLoaded', () => {
  const press = (shown, yes) => {
    const place = document.getElementById(shown);
    new MutationObserver((_changes, self) => {
      self.disconnect();
      document.querySelector(yes).click();
      window.pressed = yes;
    }).observe(place, { attributeFilter: ['hidden', 'open'] });
  };
  press('clipboard', '#clipboard-yes');
  press('link', '#link button[value=yes]');
});
navigator.clipboard.writeText = async (text) => { window.copied = text; };
"""
"""Presses the button that allows it as soon as a question is there: the second click of two."""


@pytest.fixture
def page(browser, shared):
    page = browser.new_page()
    page.add_init_script(HASTY)
    yield page
    page.close()


def opened(page, shared, **session):
    """Open the page with a fake gateway: what it prints has to come at the right moment."""
    gateway = FakeGateway(page, **session)
    page.goto(f"http://127.0.0.1:{shared.gateway_port}/serial.html#token=t")
    expect(page.locator("#state")).to_have_text("Connected")
    return gateway


def marked(text):
    """With the page's marks in the place of < and >."""
    return text.translate({ord("<"): "\u2039", ord(">"): "\u203a"})


def test_a_question_takes_no_yes_that_was_on_its_way(shared, page):
    """A guest that is told of mouse clicks may put a question where the next one falls."""
    page.context.route("http://example.test/**", lambda route: route.fulfill(body="there"))
    gateway = opened(page, shared)
    gateway.print(b"\x1b]52;c;Zmlyc3Q=\x07")
    page.wait_for_function("window.pressed === '#clipboard-yes'")
    expect(page.locator("#clipboard")).to_be_visible()
    assert page.evaluate("window.copied") is None
    page.click("#clipboard-yes")
    expect(page.locator("#clipboard")).to_be_hidden()
    assert page.evaluate("window.copied") == "first"

    gateway.print(b"http://example.test/x\r\n")
    shows(page, "example.test")
    place = page.locator(".xterm-rows span", has_text="example.test").bounding_box()
    page.mouse.move(place["x"] + 60, place["y"] + 100)
    page.mouse.move(place["x"] + 20, place["y"] + 5)
    page.mouse.click(place["x"] + 24, place["y"] + 5)
    page.wait_for_function("window.pressed === '#link button[value=yes]'")
    expect(page.locator("#link")).to_be_visible()
    assert len(page.context.pages) == 1
    with page.context.expect_page() as tab:
        page.click("#link button[value=yes]")
    tab.value.close()


def test_what_would_hide_in_the_clipboard_is_shown(shared, page):
    gateway = opened(page, shared)
    text = f"ls{TURNED}\x1b[A\nrm -r ~\n"
    gateway.print(b"\x1b]52;c;" + base64.b64encode(text.encode()) + b"\x07")
    shown = "ls<U+202E><Esc>[A\nrm -r ~"
    expect(page.locator("#clipboard-text")).to_have_text(marked(shown))


def test_a_name_cannot_turn_the_words_around_it(shared, page):
    opened(page, shared, guest=f"db{TURNED}bew", user=f"eve{TURNED}")
    expect(page.locator("#who")).to_have_text(marked("serial0 · as eve<U+202E> · rw"))
    expect(page.locator("#title")).to_have_text(marked("db<U+202E>bew"))
