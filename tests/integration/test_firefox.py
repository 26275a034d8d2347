"""The page in Firefox, whose style sheets, sockets and keys are another browser's."""

import os
from urllib.parse import urlsplit

from tests import firefox
from tests.integration.test_browser import OUTPUT

STATE = "document.querySelector('#status').dataset.state"
ROWS = "document.querySelector('.xterm-rows').innerText.replaceAll('\\u00a0', ' ')"


def test_a_session_in_firefox(shared, shared_guest):
    token = shared.rest("POST", f"/v1/guests/{shared_guest.uuid}/tokens", {})[1]
    with firefox.launched() as tab:
        tab.open(token["page_url"] + "&theme=dark")  # on which the colour below is left as it is
        tab.wait(STATE, "connected")
        tab.type(
            "typed in \ue00c[38;2;250;200;10mFirefox"
        )  # Escape; the guest sends all of it back
        tab.wait(f"/^typed in Firefox *$/m.test({ROWS})")
        spans = "[...document.querySelectorAll('.xterm-rows span')]"
        gold = f"{spans}.find((span) => span.innerText === 'Firefox')"
        assert tab.evaluate(f"getComputedStyle({gold}).color") == "rgb(250, 200, 10)"
        os.makedirs(OUTPUT, exist_ok=True)
        tab.screenshot(os.path.join(OUTPUT, "firefox.png"))
        assert shared.session_of(shared_guest)["state"] == "connected"
        tab.close()
        shared.wait_free()
    assert not tab.complaints
    hosts = {urlsplit(url).netloc for url in tab.requests} - {""}  # the icon is a data: URL
    assert hosts == {f"127.0.0.1:{shared.gateway_port}"}
