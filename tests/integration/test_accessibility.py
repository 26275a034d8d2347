"""The page in each of its states, for those who see, hear or move otherwise; and pictures of them.

The pictures are for people to look at: tests/output/page/.
"""

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


def idle(page, gateway):
    expect(status(page)).to_have_attribute("data-state", "idle")


def connecting(page, gateway):
    expect(status(page)).to_have_attribute("data-state", "connecting")


def connected(page, gateway):
    expect(page.locator("#state")).to_have_text("Connected")
    gateway.print(PROMPT)
    shows(page, "core")


def blank(page, gateway):
    expect(page.locator("#state")).to_have_text("Connected")
    page.clock.run_for(6000)
    expect(page.locator("#blank")).to_be_visible()


def keys(page, gateway):
    connected(page, gateway)
    page.click("#keys-button")
    page.get_by_role("button", name="Ctrl", exact=True).click()


def settings(page, gateway):
    connected(page, gateway)
    page.click("#settings-button")


def paused(page, gateway):
    connected(page, gateway)
    gateway.tell(op="state", state="paused", text="The guest is paused.")
    gateway.tell(op="held", bytes=12)
    expect(page.locator("#state")).to_have_text("Guest paused")


def waiting(page, gateway):
    connected(page, gateway)
    text = "The guest was switched off; waiting for its start."
    gateway.tell(op="state", state="waiting", text=text)
    gateway.tell(op="notice", text="No input: this session ends in 60 s. Any key keeps it.")
    expect(page.locator("#state")).to_have_text("Waiting for the guest")


def skipped(page, gateway):
    connected(page, gateway)
    gateway.tell(op="skipped", bytes=123456)
    gateway.print(PROMPT)
    shows(page, "123456 bytes of output skipped")


def reconnecting(page, gateway):
    connected(page, gateway)
    gateway.close(1012, "The gateway restarts; connect again.")
    expect(status(page)).to_have_attribute("data-state", "reconnecting")


def ended(page, gateway):
    connected(page, gateway)
    gateway.close(4410, "bob has taken over this console.")
    expect(status(page)).to_have_attribute("data-state", "ended")


def asked(page, gateway):
    connected(page, gateway)
    gateway.print(b"\x1b]52;c;Zm9yIHRoZSBjbGlwYm9hcmQ=\x07")
    page.click("#find-button")
    page.keyboard.type("root")
    expect(page.locator("#clipboard")).to_be_visible()


def saving(page, gateway):
    connected(page, gateway)
    page.click("#save-button")


def pasting(page, gateway):
    connected(page, gateway)
    page.click("#paste-button")
    page.locator("#paste-text").fill("one\ntwo\x1b[A\n")
    expect(page.locator("#paste-controls-note")).to_be_visible()


STATES = {
    idle: "#",
    connecting: "#token=t",
    connected: "#token=t",
    blank: "#token=t",
    keys: "#token=t",
    settings: "#token=t&font_size=13",
    paused: "#token=t",
    waiting: "#token=t",
    skipped: "#token=t",
    reconnecting: "#token_url=/token&reconnect_delay=30000",
    ended: "#token=t",
    asked: "#token=t",
    saving: "#token=t",
    pasting: "#token=t",
}


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_every_state_meets_wcag_2_2_aa(browser, shared, theme):
    os.makedirs(OUTPUT, exist_ok=True)
    found = []
    context = browser.new_context(color_scheme=theme, reduced_motion="reduce")
    context.route("**/token", lambda route: route.fulfill(json={"token": "t"}))
    for state, fragment in STATES.items():
        page = context.new_page()
        page.clock.install()
        gateway = FakeGateway(page, attach=state is not connecting)
        page.goto(f"http://127.0.0.1:{shared.gateway_port}/serial.html{fragment}")
        state(page, gateway)
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 640})
            name = f"{state.__name__}-{theme}-{width}"
            page.screenshot(path=os.path.join(OUTPUT, f"{name}.png"))
            found += [f"{name}: {line}" for line in violations(page)]
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        page.close()
    context.close()
    assert not found, "\n".join(found)
