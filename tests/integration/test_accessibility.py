"""The page in each of its states, for those who see, hear or move otherwise; and pictures of them.

The pictures are for people to look at: tests/output/page/.
"""

import base64
import os

import pytest
from playwright.sync_api import expect

from tests.accessibility import violations
from tests.chromium import shows, status
from tests.fake_gateway import FakeGateway

OUTPUT = os.path.join(os.path.dirname(os.path.dirname(__file__)), "output", "page")
PROMPT = (
    b"\x1b[1;32mroot@web-01\x1b[0m:\x1b[1;34m/\x1b[0m# ls\r\n"
    b"\x1b[1;34mbin  dev  etc\x1b[0m  \x1b[32mrun.sh\x1b[0m  \x1b[31mcore\x1b[0m\r\n"
    b"\x1b[1;32mroot@web-01\x1b[0m:\x1b[1;34m/\x1b[0m# "
)


STRANGE = base64.b64encode("ls \u202e\x1b[A\n".encode() + b"and so on " * 40)
LINK = b"\r\n\x1b]8;;http://example.test/one?two=three\x07click me\x1b]8;;\x07 "


def idle(page, gateway):
    expect(status(page)).to_have_attribute("data-state", "idle")
    yield
    page.goto(page.url.replace("#", "#token_url=/token&reconnect_delay=30000&font_size=13"))


def connecting(page, gateway):
    expect(status(page)).to_have_attribute("data-state", "connecting")
    yield
    gateway.attach()
    expect(page.locator("#state")).to_have_text("Connected")


def blank(page, gateway):
    page.clock.run_for(6000)
    expect(page.locator("#blank")).to_be_visible()
    yield


def connected(page, gateway):
    gateway.print(PROMPT)
    shows(page, "core")
    expect(page.locator("#blank")).to_be_hidden()
    yield


def keys(page, gateway):
    page.click("#keys-button")
    page.get_by_role("button", name="Ctrl", exact=True).click()
    yield
    page.get_by_role("button", name="Ctrl", exact=True).click()
    page.click("#keys-button")


def size(page, gateway):
    page.click("#size-button")
    yield
    page.click("#size-button")


def saving(page, gateway):
    page.click("#save-button")
    page.click("#save-record")
    yield
    page.click("#save-record")
    page.click("#save-button")


def settings(page, gateway):
    page.click("#settings-button")
    yield
    page.keyboard.press("Escape")


def pasting(page, gateway):
    page.click("#paste-button")
    page.locator("#paste-text").fill("one\ntwo\x1b[A\n")
    expect(page.locator("#paste-controls-note")).to_be_visible()
    yield
    page.keyboard.press("Escape")


def progress(page, gateway):
    page.click("#paste-button")
    page.locator("#paste-text").fill("x" * 1_000_000)
    page.click("#paste-send")
    expect(page.locator("#pasting-note")).to_contain_text("No echo")
    yield
    page.click("#pasting-cancel")


def link(page, gateway):
    gateway.print(LINK)
    shows(page, "click me")
    place = page.locator(".xterm-rows span", has_text="click me").bounding_box()
    page.mouse.move(place["x"] + 20, place["y"] + 5)
    page.mouse.click(place["x"] + 24, place["y"] + 5)
    expect(page.locator("#link")).to_be_visible()
    yield
    page.keyboard.press("Escape")


def asked(page, gateway):
    gateway.print(b"\x1b]52;c;" + STRANGE + b"\x07")
    page.click("#find-button")
    page.keyboard.type("root")
    expect(page.locator("#clipboard")).to_be_visible()
    yield
    page.click("#find-close")
    page.click("#clipboard-no")


def held(page, gateway):
    gateway.tell(op="held", bytes=12)
    expect(page.locator("#state")).to_have_text("Connected, input held")
    yield


def paused(page, gateway):
    gateway.tell(op="state", state="paused", text="The guest is paused.")
    expect(page.locator("#state")).to_have_text("Guest paused")
    yield
    gateway.tell(op="held", bytes=0)


def busy(page, gateway):
    text = "Another program on the host has the console; waiting for it."
    gateway.tell(op="state", state="busy", text=text)
    expect(page.locator("#state")).to_have_text("Console held on the host")
    yield


def without_libvirt(page, gateway):
    gateway.tell(op="state", state="reconnecting", text="libvirt is away; connecting again.")
    expect(page.locator("#state")).to_have_text("Waiting for libvirt")
    yield


def waiting(page, gateway):
    text = "The guest was switched off; waiting for its start."
    gateway.tell(op="state", state="waiting", text=text)
    gateway.tell(op="notice", text="No input: this session ends in 60 s. Any key keeps it.")
    expect(page.locator("#state")).to_have_text("Waiting for the guest")
    yield
    gateway.tell(op="state", state="connected", text="")


def skipped(page, gateway):
    gateway.tell(op="skipped", bytes=123456)
    gateway.print(PROMPT)
    shows(page, "123456 bytes of output skipped")
    yield


def reconnecting(page, gateway):
    gateway.close(1012, "The gateway restarts; connect again.")
    expect(status(page)).to_have_attribute("data-state", "reconnecting")
    yield


def watching(page, gateway):
    page.click("#action")
    expect(status(page)).to_have_attribute("data-state", "connecting")
    gateway.attach(mode="ro")
    expect(page.locator("#state")).to_have_text("Connected, watching")
    yield


def ended(page, gateway):
    gateway.close(4410, "bob has taken over this console.")
    expect(status(page)).to_have_attribute("data-state", "ended")
    yield


STATES = [
    idle,
    connecting,
    blank,
    connected,
    keys,
    size,
    saving,
    settings,
    pasting,
    progress,
    link,
    asked,
    held,
    paused,
    busy,
    without_libvirt,
    waiting,
    skipped,
    reconnecting,
    watching,
    ended,
]
"""Each goes on from the one before it, and has from its ``yield`` on cleared up for the next."""


CHECKED = {"dark": 360, "light": 1280}
"""By axe, which takes half a second; colours differ by theme, what lies where by width."""


@pytest.mark.parametrize("theme", ["dark", pytest.param("light", marks=pytest.mark.slow)])
def test_every_state_meets_wcag_2_2_aa(browser, shared, theme):
    os.makedirs(OUTPUT, exist_ok=True)
    found = []
    page = browser.new_page(color_scheme=theme, reduced_motion="reduce")
    page.route("**/token", lambda route: route.fulfill(json={"token": "t"}))
    page.clock.install()
    gateway = FakeGateway(page, attach=False)
    page.goto(f"http://127.0.0.1:{shared.gateway_port}/serial.html#")
    for state in STATES:
        for _ in state(page, gateway):
            for width in (360, 1280):
                page.set_viewport_size({"width": width, "height": 640})
                name = f"{state.__name__}-{theme}-{width}"
                page.screenshot(path=os.path.join(OUTPUT, f"{name}.png"))
                if width == CHECKED[theme]:
                    found += [f"{name}: {line}" for line in violations(page)]
                assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    page.close()
    assert not found, "\n".join(found)
