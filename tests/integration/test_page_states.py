"""What the page says of the session and its guest, and that it comes back by itself."""

import base64
import contextlib
import json
import re
import signal

import psutil
import pytest
from playwright.sync_api import expect

from tests.chromium import lines, select, shows, status
from tests.fake_gateway import FakeGateway


@pytest.fixture
def page(browser):
    page = browser.new_page()
    yield page
    page.close()


def link(stack, guest, **fields):
    """A link to the page with a token for a guest."""
    return stack.rest("POST", f"/v1/guests/{guest.uuid}/tokens", fields)[1]["page_url"]


def by_itself(page, stack, guest, parameters="", **fields):
    """Open the page with a host manager (a stand-in) that gives it a fresh token each time."""
    given = []

    def give(route):
        given.append(stack.token(guest.uuid, **fields))
        route.fulfill(status=201, body=json.dumps({"token": given[-1]}))

    page.route("**/manager/token", give)
    page.goto(
        f"http://127.0.0.1:{stack.gateway_port}/serial.html#token_url=/manager/token{parameters}"
    )
    expect(page.locator("#state")).to_have_text("Connected")
    return given


def test_a_guest_s_life_is_told(shared, make_guest, page):
    guest = make_guest("echo", state="off")
    state, reason = page.locator("#state"), page.locator("#reason")
    page.goto(link(shared, guest, user="alice"))
    expect(state).to_have_text("Waiting for the guest")
    expect(reason).to_contain_text("The guest is off")
    expect(page.locator("#title")).to_have_text(guest.name)
    expect(page.locator("#who")).to_have_text("serial0 · as alice · rw")
    guest.start()
    expect(state).to_have_text("Connected")
    expect(reason).to_have_text("The guest has started.")
    shows(page, "^ready")
    assert "[" not in "".join(lines(page)), "a notice in the output that the bar gives already"
    guest.suspend()
    expect(state).to_have_text("Guest paused")
    page.keyboard.type("held")
    expect(reason).to_have_text("The guest is paused: what you type is held.")
    guest.resume()
    expect(state).to_have_text("Connected")
    shows(page, "held")
    guest.destroy()
    expect(state).to_have_text("Waiting for the guest")
    guest.undefine()
    expect(status(page)).to_have_attribute("data-code", "4404")
    expect(page.locator("#action")).to_be_hidden()
    expect(page.locator("#advice")).to_contain_text(f"serial-console token {guest.name} --url")
    shared.wait_free()


def test_a_watcher_is_told_that_he_watches(shared, shared_guest, page):
    with shared.open(shared_guest.uuid) as typist:
        page.goto(link(shared, shared_guest, mode="ro", user="bob"))
        expect(page.locator("#state")).to_have_text("Connected, watching")
        expect(page.locator("#who")).to_contain_text("as bob · watching")
        said = f"{shared_guest.name}, serial0, as bob, watching"
        expect(page.locator("#announcer")).to_have_text(said)
        page.keyboard.type("ignored")
        typist.send(b"seen")
        shows(page, "seen *$")
        assert not [line for line in lines(page) if "ignored" in line]
    page.close()
    shared.wait_free()


def test_a_blank_console_is_explained_and_nothing_is_sent_without_a_click(
    shared, shared_guest, page
):
    page.goto(link(shared, shared_guest))
    expect(page.locator("#state")).to_have_text("Connected")
    panel = page.locator("#blank")
    expect(panel).to_be_visible(timeout=10000)
    expect(page.locator("#blank-guest")).to_have_text("runs")
    expect(page.locator("#blank-printed")).to_contain_text("not since")
    expect(page.locator("#blank-console")).to_contain_text("serial0")
    expect(page.locator("#blank-kernel")).to_have_text("console=ttyS0")
    expect(page.locator("#blank-getty")).to_contain_text("serial-getty@ttyS0")
    assert shared.session_of(shared_guest)["bytes_in"] == 0
    page.click("#blank-enter")
    expect(panel).to_be_hidden()
    assert shared.session_of(shared_guest)["bytes_in"] == 1
    page.close()
    shared.wait_free()


def test_the_page_comes_back_to_its_own_console_and_shows_nothing_twice(
    make_stack, echo_guest, page
):
    stack = make_stack("supervisor", "gateway")
    given = by_itself(page, stack, echo_guest, user="alice")
    page.keyboard.type("before")
    shows(page, "^before *$")
    (before,) = stack.wait_sessions("connected")
    # Its gateway hangs: nobody there has noticed that the browser is gone.
    frozen = psutil.Process(before["gateway_pid"])
    frozen.suspend()
    page.context.set_offline(True)
    page.evaluate("() => dispatchEvent(new Event('offline'))")
    frozen.send_signal(signal.SIGKILL)
    expect(status(page)).to_have_attribute("data-state", "reconnecting")
    expect(page.locator("#advice")).to_have_text("Waiting for the network.")
    page.context.set_offline(False)
    expect(page.locator("#state")).to_have_text("Connected")
    page.keyboard.type("after")
    shows(page, "after *$")
    assert len(given) == 2
    assert "".join(lines(page)).count("before") == 1
    page.close()
    stack.wait_free()


def test_a_gateway_s_restart_is_waited_for_with_a_button_not_to_wait(make_stack, echo_guest, page):
    stack = make_stack("supervisor", "gateway")
    by_itself(page, stack, echo_guest, "&reconnect_delay=30000")
    page.keyboard.type("kept")
    shows(page, "^kept *$")
    stack.end("gateway")
    expect(page.locator("#action")).to_have_text(re.compile(r"Reconnect now \(in \d+ s\)"))
    expect(page.locator("#reason")).to_contain_text("gateway")
    shows(page, "^kept *$")
    stack.start("gateway")
    page.click("#action")
    expect(page.locator("#state")).to_have_text("Connected")
    page.close()
    stack.wait_free()


def test_an_end_that_somebody_wanted_is_no_reason_to_come_back(shared, shared_guest, page):
    by_itself(page, shared, shared_guest)
    shared.ask("close", id=shared.session_of(shared_guest)["id"])
    expect(status(page)).to_have_attribute("data-code", "4411")
    expect(page.locator("#action")).to_have_text("Reconnect")
    page.click("#action")
    expect(page.locator("#state")).to_have_text("Connected")
    page.click("#disconnect-button")
    expect(status(page)).to_have_attribute("data-state", "ended")
    expect(page.locator("#reason")).to_have_text("You disconnected.")
    shared.wait_free()


def test_a_connection_that_is_dead_without_a_word_is_noticed(shared, shared_guest, page):
    page.clock.install()
    by_itself(page, shared, shared_guest, "&reconnect_delay=30000", user="alice")
    before = shared.session_of(shared_guest)
    frozen = psutil.Process(before["gateway_pid"])
    frozen.suspend()
    try:
        page.clock.run_for(26_000)
        expect(page.locator("#reason")).to_contain_text("does not answer any more")
        page.click("#action")
        expect(page.locator("#state")).to_have_text("Connected")
        assert shared.session_of(shared_guest)["id"] != before["id"]
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            frozen.resume()
    page.close()
    shared.wait_free()


def test_a_tab_with_a_session_is_not_closed_by_mistake(shared, shared_guest, page):
    page.goto(link(shared, shared_guest))
    expect(page.locator("#state")).to_have_text("Connected")
    page.keyboard.type("x")
    shows(page, "x *$")
    asked = []

    def leave(dialog):
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", leave)
    page.evaluate("location.reload()")
    expect(status(page)).to_have_attribute("data-state", "idle")
    assert asked == ["beforeunload"]
    shared.wait_free()


def test_a_new_link_in_a_tab_with_a_session_opens_only_after_a_question(shared, page):
    FakeGateway(page)
    address = f"http://127.0.0.1:{shared.gateway_port}/serial.html#guest="
    page.goto(f"{address}old&token=t")
    expect(page.locator("#state")).to_have_text("Connected")
    page.click("#terminal")  # browsers ask nobody who has done nothing in the page
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.goto(f"{address}new&token=secret")
    expect(page).to_have_url(f"{address}old")
    expect(page.locator("#state")).to_have_text("Connected")
    with page.expect_event("dialog") as asked, page.expect_navigation():
        page.once("dialog", lambda dialog: dialog.accept())
        page.evaluate("(url) => { setTimeout(() => { location.href = url; }); }", f"{address}new")
    expect(page.locator("#state")).to_have_text("Not connected")
    assert asked.value.type == "confirm"


def test_a_recording_is_not_lost_by_mistake_after_the_session(shared, page):
    gateway = FakeGateway(page)
    page.goto(f"http://127.0.0.1:{shared.gateway_port}/serial.html#token=t")
    expect(page.locator("#state")).to_have_text("Connected")
    page.click("#save-button")
    page.click("#save-record")
    gateway.close(4411, "The operator has closed this session.")
    expect(status(page)).to_have_attribute("data-state", "ended")
    with page.expect_event("dialog") as asked:
        page.evaluate("setTimeout(() => location.reload())")
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()


def test_who_disconnects_comes_back_where_the_output_ended(shared, page):
    gateway = FakeGateway(page)
    page.route("**/manager/token", lambda route: route.fulfill(json={"token": "t"}))
    page.goto(f"http://127.0.0.1:{shared.gateway_port}/serial.html#token_url=/manager/token")
    expect(page.locator("#state")).to_have_text("Connected")
    gateway.print(b"12345")
    shows(page, "12345")
    page.click("#disconnect-button")
    page.click("#action")
    expect(page.locator("#state")).to_have_text("Connected")
    assert gateway.socket.url.endswith("?after=r1.s1.5")


def test_a_token_that_is_spent_leaves_nothing_to_connect_with(shared, page):
    FakeGateway(page)
    page.goto(f"http://127.0.0.1:{shared.gateway_port}/serial.html#token=t")
    page.click("#disconnect-button")
    expect(page.locator("#advice")).to_contain_text("A link works once")
    expect(page.locator("#action")).to_be_hidden()


def test_who_types_elsewhere_goes_on_there_when_the_page_comes_back(shared, page):
    gateway = FakeGateway(page)
    page.route("**/manager/token", lambda route: route.fulfill(json={"token": "t"}))
    page.goto(f"http://127.0.0.1:{shared.gateway_port}/serial.html#token_url=/manager/token")
    expect(page.locator("#state")).to_have_text("Connected")
    page.click("#find-button")
    gateway.close(1012, "The gateway restarts; connect again.")
    expect(status(page)).to_have_attribute("data-state", "reconnecting")
    expect(page.locator("#state")).to_have_text("Connected")
    page.keyboard.type("sought")
    expect(page.locator("#find-text")).to_have_value("sought")
    assert gateway.typed == b""


def test_lost_output_is_told_where_it_is_missing(shared, page):
    gateway = FakeGateway(page)  # a page that hangs for so long is hard to bring about
    page.goto(f"http://127.0.0.1:{shared.gateway_port}/serial.html#token=t")
    expect(page.locator("#state")).to_have_text("Connected")
    gateway.print(b"one\r\n")
    gateway.tell(op="skipped", bytes=12345)
    gateway.print(b"two\r\n")
    gateway.tell(op="notice", text="No input: this session ends in 60 s. Any key keeps it.")
    shows(page, r"^one *\n\[12345 bytes of output skipped\] *\ntwo")
    expect(page.locator("#reason")).to_contain_text("12,345 bytes of output were skipped.")
    expect(page.locator("#reason")).to_contain_text("this session ends in 60 s")
    page.keyboard.type("x")
    expect(page.locator("#reason")).not_to_contain_text("60 s")
    assert gateway.typed == b"x"


def test_the_guest_writes_the_clipboard_only_when_it_may(shared, page):
    page.context.grant_permissions(["clipboard-write"])
    page.add_init_script(
        "navigator.clipboard.writeText = async (text) => { window.copied = text; }"
    )
    gateway = FakeGateway(page)
    page.goto(f"http://127.0.0.1:{shared.gateway_port}/serial.html#token=t")
    expect(page.locator("#state")).to_have_text("Connected")
    bar = page.locator("#clipboard")
    gateway.print(b"\x1b]52;c;Zmlyc3Q=\x07")
    expect(bar).to_contain_text("put 5 characters into your clipboard: first")
    assert page.evaluate("window.copied") is None
    page.click("#clipboard-yes")
    expect(bar).to_be_hidden()
    assert page.evaluate("window.copied") == "first"
    hidden = base64.b64encode("ls\u202e\x1b[A\n".encode() + b"x" * 999 + b" end").decode()
    gateway.print(f"\x1b]52;c;{hidden}\x07".encode())
    expect(page.locator("#clipboard-text")).to_have_text(
        re.compile(r"^ls.U\+202E..Esc.\[A\s+x+ end$")
    )
    page.click("#clipboard-no")
    gateway.print(b"\x1b]52;c;dGhpcmQ=\x07\x1b]52;c;?\x07.")
    shows(page, r"^\. *$")
    expect(bar).to_be_hidden()
    assert page.evaluate("window.copied") == "first"
    assert gateway.typed == b"", "the guest has read the clipboard"


def test_a_mac_s_option_is_meta_but_types_what_a_shell_needs(shared, page):
    page.add_init_script(
        "Object.defineProperty(Navigator.prototype, 'platform', { get: () => 'MacIntel' })"
    )
    gateway = FakeGateway(page)
    page.goto(f"http://127.0.0.1:{shared.gateway_port}/serial.html#token=t")
    expect(page.locator("#state")).to_have_text("Connected")
    taken = page.evaluate(
        """(keys) => keys.map(([key, keyCode]) => {
            const all = { key, keyCode, altKey: true, bubbles: true, cancelable: true };
            const event = new KeyboardEvent('keydown', all);
            document.activeElement.dispatchEvent(event);
            return event.defaultPrevented;
        })""",
        [["∫", 66], ["ƒ", 70], ["@", 76]],  # of an American layout, and of a German one
    )
    assert taken == [True, True, False]
    gateway.print(b"done")
    shows(page, "done")
    assert gateway.typed == b"\x1bb\x1bf"


def test_a_browser_that_copies_nothing_is_not_said_to_have_copied(shared, page):
    page.add_init_script(
        "delete Navigator.prototype.clipboard; document.execCommand = () => false;"
    )
    gateway = FakeGateway(page)
    page.goto(f"http://127.0.0.1:{shared.gateway_port}/serial.html#token=t")
    expect(page.locator("#state")).to_have_text("Connected")
    gateway.print(b"word")
    shows(page, "word")
    select(page, "word")
    page.keyboard.press("Control+Shift+C")
    expect(page.locator("#announcer")).to_contain_text("copy nothing")


def test_a_link_of_the_guest_opens_after_a_question(shared, page):
    gateway = FakeGateway(page)
    page.context.route("http://example.test/**", lambda route: route.fulfill(body="there"))
    page.goto(f"http://127.0.0.1:{shared.gateway_port}/serial.html#token=t")
    expect(page.locator("#state")).to_have_text("Connected")
    gateway.print(
        b"\x1b]8;;http://bank.example@example.test/\xe2\x80\xae\x07click me\x1b]8;;\x07\r\n"
    )
    shows(page, "click me")
    place = page.locator(".xterm-rows span", has_text="click me").bounding_box()

    def click():
        page.mouse.move(place["x"] + 60, place["y"] + 100)
        page.mouse.move(place["x"] + 20, place["y"] + 5)
        page.mouse.click(place["x"] + 24, place["y"] + 5)

    click()
    expect(page.locator("#link")).to_contain_text("http://example.test/%E2%80%AE")
    page.click("#link button[value=no]")
    assert len(page.context.pages) == 1
    click()
    with page.context.expect_page() as opened:
        page.click("#link button[value=yes]")
    assert opened.value.url == "http://example.test/%E2%80%AE"
    opened.value.close()


def test_who_disconnects_leaves_the_console_to_others(shared, shared_guest, page):
    """Though the token would bring a lost connection back for half a minute."""
    page.goto(link(shared, shared_guest, resume=30))
    expect(page.locator("#state")).to_have_text("Connected")
    page.click("#disconnect-button")
    expect(status(page)).to_have_attribute("data-state", "ended")
    shared.wait_free()
