"""The whole path: a key, a token over REST, the page in Chromium, a guest's prompt."""

import os
import re

import pytest
from playwright.sync_api import expect

from tests import rig
from tests.chromium import complaints, shows, status

OUTPUT = os.path.join(os.path.dirname(os.path.dirname(__file__)), "output")


@pytest.fixture
def page(browser, shared):
    """A page that must not complain, and talk to our gateway only."""
    context = browser.new_context()
    wrong = complaints(context, shared.gateway_port)
    yield context.new_page()
    context.close()
    assert not wrong


def test_from_a_rest_token_to_a_prompt_and_back(shared, linux_guest, page):
    code, token = shared.rest(
        "POST", f"/v1/guests/{linux_guest.name}/tokens", {"user": "alice", "mode": "rw"}
    )
    assert code == 201
    assert token["guest"] == linux_guest.name
    page.goto(token["page_url"])
    expect(status(page)).to_have_attribute("data-state", "connected")
    assert token["token"] not in page.url, "the token stays in the address bar"

    page.keyboard.press("Enter")
    shows(page, r"login: *$")
    page.keyboard.type("root\n")
    shows(page, r"# *$")
    page.keyboard.type("echo $((6*7))\n")
    shows(page, r"^42 *$")
    os.makedirs(OUTPUT, exist_ok=True)
    page.screenshot(path=os.path.join(OUTPUT, "prompt.png"))
    (session,) = shared.rest("GET", "/v1/sessions")[1]["sessions"]
    assert (session["user"], session["mode"], session["state"]) == ("alice", "rw", "connected")
    assert re.fullmatch(r"127\.0\.0\.1:\d+", session["client"])
    page.keyboard.type("exit\n")
    shows(page, r"login: *$")

    page.close()  # the tab
    shared.wait_free()
    assert shared.rest("GET", "/v1/sessions") == (200, {"sessions": []})
    with shared.open(linux_guest.name) as again:
        again.send(b"\r")
        again.read_until(b"login: ")
    shared.wait_free()


def test_the_page_says_by_whom_the_console_is_used_and_can_try_again(shared, linux_guest, page):
    with shared.open(linux_guest.name, user="bob"):
        shared.wait_sessions("connected")
        token = shared.rest("POST", f"/v1/guests/{linux_guest.name}/tokens", {})[1]
        page.goto(token["page_url"])
        expect(status(page)).to_have_attribute("data-code", "4409")
        expect(page.locator("#reason")).to_contain_text("bob")
    shared.wait_free()
    page.click("#action")
    expect(status(page)).to_have_attribute("data-state", "connected")
    page.close()
    shared.wait_free()


def test_the_escape_key_ends_the_session_and_the_page_says_so(shared, linux_guest, page):
    page.goto(shared.rest("POST", f"/v1/guests/{linux_guest.uuid}/tokens", {})[1]["page_url"])
    expect(status(page)).to_have_attribute("data-state", "connected")
    page.keyboard.press("Control+q")
    expect(status(page)).to_have_attribute("data-state", "ended")
    expect(page.locator("#reason")).to_contain_text("escape key")
    shared.wait_free()


def test_the_page_says_that_a_link_works_once(shared, linux_guest, page):
    token = shared.rest("POST", f"/v1/guests/{linux_guest.uuid}/tokens", {})[1]
    with shared.connect(token["token"]):
        shared.wait_sessions("connected")
    shared.wait_free()
    page.goto(token["page_url"])
    expect(status(page)).to_have_attribute("data-code", "4401")
    expect(page.locator("#advice")).to_contain_text("works once")


def test_the_token_is_in_no_address_that_is_asked_for(shared, shared_guest, page):
    """Nor in a header such as Referer: it would be in the logs of every proxy on the way."""
    asked = []

    def note(request):
        sent = request.url.partition("#")[0]  # what comes after it a browser sends to nobody
        asked.append(f"{sent} {request.headers}")

    page.on("request", note)
    page.on("websocket", lambda socket: asked.append(socket.url))
    token = shared.rest("POST", f"/v1/guests/{shared_guest.uuid}/tokens", {})[1]
    page.goto(token["page_url"])
    expect(status(page)).to_have_attribute("data-state", "connected")
    assert any(one.endswith("/websockify") for one in asked)
    assert not [one for one in asked if token["token"] in one]
    page.close()
    shared.wait_free()


def test_the_page_answers_the_guest_now_and_nothing_that_it_asked_before(
    shared, shared_guest, page
):
    """Among them queries that are written in odd ways or made up by what stands around another."""
    asked = (
        b"\x1b[c\x1b[>c\x1b[6n\x1b[?1$p\x1b]11;?\x1b\\\x1bP$qm\x1b\\"
        b"\x1b[\x1b[6nc\x1b[6\nn\xc2\x9b6n\x1b]11;?\x1b[mold output\r\n"
    )
    with shared.open(shared_guest.uuid) as typist:
        typist.send(asked)
        assert typist.read_exactly(len(asked)) == asked
        tokens = f"/v1/guests/{shared_guest.uuid}/tokens"
        page.goto(shared.rest("POST", tokens, {"takeover": True})[1]["page_url"])
        assert typist.ended()[0] == 4410
    shows(page, r"old output *$")
    page.keyboard.type("k")
    shows(page, r"^k *$")
    (session,) = shared.wait_sessions("connected")
    assert session["bytes_in"] == 1
    page.keyboard.press("Escape")
    page.keyboard.type("[6n")
    answer = "\x1b[1;1R"
    assert rig.eventually(lambda: shared.sessions()[0]["bytes_in"] >= 5 + len(answer))
    page.close()
    shared.wait_free()
