"""The page's settings: who sets them, what they do, and what becomes of nonsense."""

import json
import re

import pytest
from playwright.sync_api import expect

from tests.chromium import shows, status
from tests.fake_gateway import FakeGateway

CHANGED = {
    "font_size": "20",
    "theme": "light",
    "cursor_style": "bar",
    "cursor_blink": False,
    "bell": "none",
    "scrollback": "5",
    "screen_reader": True,
    "renderer": "dom",
}
BUILT_IN = {
    "font_size": "14",
    "theme": "system",
    "cursor_style": "block",
    "cursor_blink": True,
    "bell": "visual",
    "scrollback": "10000",
    "screen_reader": False,
    "renderer": "auto",
}
OPTIONS = {
    "fontSize": 20,
    "theme": "light",
    "cursorStyle": "bar",
    "cursorBlink": False,
    "bell": "none",
    "scrollback": 5,
    "screenReader": True,
    "renderer": "dom",
}
"""The same as the screen has them."""
WATCH_SCREEN = """
async () => {
  const { Screen } = await import('/screen.js');
  const { configure } = Screen.prototype;
  Screen.prototype.configure = function (options) {
    configure.call(this, options);
    window.configured = options;
  };
}
"""
GARBAGE = [
    "{",
    "[]",
    '{"v": 2, "font_size": 20}',
    '{"v": 1, "font_size": 1000000000, "theme": "<b>", "scrollback": -1, "bell": {}}',
    '{"v": 1, "__proto__": {"font_size": 20}, "token_url": "https://elsewhere.example"}',
]
NO_STORAGE = """
Object.defineProperty(window, 'localStorage', {
  get() { throw new DOMException('denied', 'SecurityError'); },
});
"""
"""Stands for a browser in which the person forbids pages to keep anything."""


@pytest.fixture
def page(browser):
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(20_000)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors


@pytest.fixture
def address(shared):
    return f"http://127.0.0.1:{shared.gateway_port}/serial.html"


def open_settings(page):
    expect(page.locator("#tools")).to_be_visible()
    page.click("#settings-button")
    expect(page.get_by_role("dialog", name="Settings")).to_be_visible()


def shown(page):
    """What the open dialog shows."""
    return page.evaluate(
        """(names) => Object.fromEntries(names.map((name) => {
          const field = document.getElementById(name);
          return [name, field.type === 'checkbox' ? field.checked : field.value];
        }))""",
        list(BUILT_IN),
    )


def stored(page):
    return json.loads(page.evaluate("localStorage.getItem('serial-console.settings')") or "null")


def store(page, text):
    """Have it stored as if it were ours, and load the page again."""
    page.evaluate("(text) => localStorage.setItem('serial-console.settings', text)", text)
    page.reload()


def change(page, name, value):
    field = page.locator(f"#{name}")
    if isinstance(value, bool):
        field.set_checked(value)
    elif field.evaluate("(one) => one.tagName") == "SELECT":
        field.select_option(value)
    else:
        field.fill(value)
        field.press("Tab")


def test_settings_work_at_once_survive_a_reload_and_can_be_reset(page, shared, shared_guest):
    def attach():
        tokens = f"/v1/guests/{shared_guest.uuid}/tokens"
        page.goto("about:blank")  # else the state of the page before could be taken for this one's
        page.goto(shared.rest("POST", tokens, {"takeover": True})[1]["page_url"])
        expect(status(page)).to_have_attribute("data-state", "connected")

    def check_look():
        expect(page.locator("html")).to_have_attribute("data-theme", "light")
        expect(page.locator(".xterm-viewport")).to_have_css(
            "background-color", "rgb(255, 255, 255)"
        )
        expect(page.locator(".xterm-rows")).to_have_css("font-size", "20px")
        expect(page.locator(".xterm-accessibility")).to_be_attached()

    page.on("dialog", lambda dialog: dialog.accept())  # to leave the page with a session open
    attach()
    page.evaluate(WATCH_SCREEN)
    page.focus("#settings-button")
    page.keyboard.press("Enter")
    assert shown(page) == BUILT_IN
    for name, value in CHANGED.items():
        change(page, name, value)
    assert page.evaluate("configured") == OPTIONS
    check_look()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#settings-button")).to_be_focused()

    attach()
    check_look()
    page.keyboard.type("typed")
    shows(page, "typed")
    expect(page.locator(".xterm-cursor-bar")).to_be_attached()
    open_settings(page)
    assert shown(page) == CHANGED
    page.get_by_role("button", name="Reset to defaults").click()
    assert shown(page) == BUILT_IN
    expect(page.locator("html")).not_to_have_attribute("data-theme", "light")
    expect(page.locator(".xterm-viewport")).to_have_css("background-color", "rgb(17, 20, 26)")
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.reload()
    open_settings(page)
    assert shown(page) == BUILT_IN
    shared.wait_free()


def test_what_the_operator_fixes_wins_over_the_link_and_that_over_the_browser(page, address):
    """All of it over the operator's defaults, and those over what is built in."""
    defaults = {"bell": "none", "cursor_style": "underline", "font_size": 10, "theme": "light"}
    browser = {"v": 1, "cursor_style": "bar", "font_size": 20, "scrollback": 20, "theme": "light"}
    page.route("**/defaults.json", lambda route: route.fulfill(json=defaults))
    page.route("**/mandatory.json", lambda route: route.fulfill(json={"theme": "dark"}))
    page.goto(f"{address}#font_size=30&theme=light")
    store(page, json.dumps(browser))
    open_settings(page)
    expected = BUILT_IN | {
        "bell": "none",
        "cursor_style": "bar",
        "scrollback": "20",
        "font_size": "30",
        "theme": "dark",
    }
    assert shown(page) == expected
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.get_by_label("Theme")).to_be_disabled()
    expect(page.get_by_label("Theme")).to_have_accessible_description("Set by the operator.")
    expect(page.get_by_label("Font size")).to_have_accessible_description(re.compile("link"))

    change(page, "bell", "sound")
    assert stored(page) == browser | {"bell": "sound"}, "the link's font size is not to be kept"
    change(page, "font_size", "25")
    assert stored(page) == browser | {"bell": "sound", "font_size": 25}
    page.get_by_role("button", name="Reset to defaults").click()
    assert stored(page) is None
    expected |= {"cursor_style": "underline", "scrollback": "10000"}
    assert shown(page) == expected


def test_nonsense_in_the_store_and_in_the_link_is_ignored(page, address):
    warnings = []
    page.on("console", lambda said: said.type == "warning" and warnings.append(said.text))
    page.goto(address)
    for text in GARBAGE:
        store(page, text)
        open_settings(page)
        assert shown(page) == BUILT_IN, text
    assert [said for said in warnings if "font_size in this browser" in said]
    warnings.clear()
    page.goto(f"{address}?#font_size=0&theme=red&scrollback=1e9&cursor_style=;&renderer=%00")
    open_settings(page)
    assert shown(page) == BUILT_IN
    assert len(warnings) == 5
    change(page, "font_size", "500")
    assert page.locator("#font_size").evaluate("(field) => !field.validity.valid")
    assert stored(page).get("font_size") is None
    expect(page.locator("#settings-form")).to_be_visible()


def test_a_browser_that_keeps_nothing_has_settings_until_the_page_is_closed(page, address):
    page.add_init_script(NO_STORAGE)
    page.goto(address)
    open_settings(page)
    change(page, "theme", "light")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    expect(page.get_by_text("This browser keeps nothing")).to_be_visible()
    page.get_by_role("button", name="Reset to defaults").click()
    assert shown(page) == BUILT_IN


def test_who_wants_less_motion_gets_no_blinking_and_no_flash(browser, shared):
    page = browser.new_page(reduced_motion="reduce")
    page.add_init_script(
        "Element.prototype.animate = (frames) => { window.rung = frames.opacity; };"
    )
    gateway = FakeGateway(page)
    page.goto(f"http://127.0.0.1:{shared.gateway_port}/serial.html#token=t")
    expect(status(page)).to_have_attribute("data-state", "connected")
    gateway.print(b"\x07x")
    shows(page, "^x")
    assert len(set(page.evaluate("rung"))) == 1, "it flashes"
    expect(page.locator(".xterm-cursor-blink")).to_have_count(0)
    page.click("#settings-button")
    expect(page.locator("#cursor_blink")).not_to_be_checked()
    page.close()
