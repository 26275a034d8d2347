"""The page in its states, for those who see, hear or move otherwise."""

from playwright.sync_api import expect

from tests.accessibility import violations
from tests.chromium import shows, status


def test_every_state_of_the_page_meets_wcag_2_2_aa(browser, shared, shared_guest):
    page = browser.new_page()
    found = []

    def check(state):
        expect(status(page)).to_have_attribute("data-state", state)
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 720})
            found.extend(f"{state}, {width} px: {line}" for line in violations(page))

    page.goto(f"http://127.0.0.1:{shared.gateway_port}/serial.html")
    check("idle")
    link = shared.rest("POST", f"/v1/guests/{shared_guest.uuid}/tokens", {})[1]["page_url"]
    page.goto(link)
    expect(status(page)).to_have_attribute("data-state", "connected")
    page.keyboard.type("text in the terminal")
    shows(page, "text in the terminal")
    check("connected")
    page.goto(link)  # which works once
    check("ended")
    page.close()
    shared.wait_free()
    assert not found, "\n".join(found)
