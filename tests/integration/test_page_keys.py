"""The page's keys and its terminal's size, at a Linux guest that shows what came."""

# ruff: noqa: RUF001

import re

import pytest
from playwright.sync_api import expect

from tests.chromium import select, shows, status

KEYS = {
    "Esc": b"\x1b",
    "Tab": b"\t",
    "Ctrl-C": b"\x03",
    "Ctrl-D": b"\x04",
    "Ctrl-Z": b"\x1a",
    "Ctrl-\\": b"\x1c",
    "Ctrl-]": b"\x1d",
    "Ctrl-W": b"\x17",
    "Ctrl-T": b"\x14",
    "Ctrl-N": b"\x0e",
    "XON": b"\x11\x11",
    "Ctrl-Alt-Del": b"\x1b[3;7~",
    "Left": b"\x1b[D",
    "Down": b"\x1b[B",
    "Up": b"\x1b[A",
    "Right": b"\x1b[C",
    "Home": b"\x1b[H",
    "End": b"\x1b[F",
    "PgUp": b"\x1b[5~",
    "PgDn": b"\x1b[6~",
    "Ins": b"\x1b[2~",
    "Del": b"\x1b[3~",
    "F1": b"\x1bOP",
    "F2": b"\x1bOQ",
    "F3": b"\x1bOR",
    "F4": b"\x1bOS",
    "F5": b"\x1b[15~",
    "F6": b"\x1b[17~",
    "F7": b"\x1b[18~",
    "F8": b"\x1b[19~",
    "F9": b"\x1b[20~",
    "F10": b"\x1b[21~",
    "F11": b"\x1b[23~",
    "F12": b"\x1b[24~",
}
HELD = [
    (["Ctrl"], "a", b"\x01"),
    (["Ctrl"], "Escape", b"\x1b"),
    (["Alt"], "x", b"\x1bx"),
    (["Ctrl", "Alt"], "d", b"\x1b\x04"),
    (["Ctrl"], "ArrowLeft", b"\x1b[1;5D"),
    (["Alt"], "Home", b"\x1b[1;3H"),
    (["Ctrl"], "F5", b"\x1b[15;5~"),
    (["Alt"], "F4", b"\x1b[1;3S"),
]
"""What is held, what is typed then, what is sent."""


SAFARI_KEYBOARD = """
() => {
  Object.defineProperty(visualViewport, 'height', { configurable: true, value: innerHeight - 250 });
  visualViewport.dispatchEvent(new Event('resize'));
}
"""
"""Stands for one that comes up over the page: no machine of ours has one."""
CLIPBOARD = {
    "ours": "",
    "none": "delete Navigator.prototype.clipboard;",  # as without TLS
}
"""What the page runs first, by the word to copy: each its own, since one clipboard serves all."""


class Shell:
    """A page with a root shell in the Linux guest, which no test ends."""

    def __init__(self, stack, guest, browser, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.stack, self.guest = stack, guest

    def attach(self, parameters="", **token):
        """Open the console, at a prompt and nothing else."""
        tokens = f"/v1/guests/{self.guest.uuid}/tokens"
        link = self.stack.rest("POST", tokens, token)[1]["page_url"]
        self.page.goto(link + parameters)
        expect(status(self.page)).to_have_attribute("data-state", "connected")
        return self.page

    def type(self, command):
        """Type a command line at the prompt of an empty screen."""
        self.page.keyboard.type(f"clear; {command}\n")

    def got(self, count, before=""):
        """Have the guest show the next bytes; ``take`` reads them."""
        self.type(
            f"{before}stty raw -echo; echo go$((6*7)); head -c {count} >/tmp/got; stty sane; "
            'hexdump -v -e \'32/1 "%02x" "\\n"\' /tmp/got; echo end$((6*7))'
        )
        shows(self.page, "go42")

    def take(self):
        """Return what came since."""
        shows(self.page, "^end42")
        text = self.page.locator(".xterm-rows").inner_text().partition("go42")[2]
        return bytes.fromhex("".join(text.partition("end42")[0].split()))

    def close(self):
        self.context.close()
        self.stack.wait_free()


@pytest.fixture(scope="module")
def logged_in(shared, linux_guest):
    with shared.open(linux_guest.uuid) as login:
        login.send(b"\r")
        login.read_until(b"login: ")
        login.send(b"root\r")
        login.read_until(b"# ")
    shared.wait_free()
    return linux_guest


@pytest.fixture
def make_shell(browser, shared, logged_in):
    made = []

    def make(**options):
        made.append(Shell(shared, logged_in, browser, **options))
        return made[-1]

    yield make
    for shell in made:
        shell.close()


@pytest.fixture
def shell(make_shell):
    return make_shell()


def key(page, name):
    """A key of the panel."""
    return page.locator("#keys").get_by_role("button", name=name, exact=True)


def focus(page):
    """What has the focus: an id, or "terminal"."""
    return page.evaluate(
        "document.activeElement.closest('#terminal') ? 'terminal' : document.activeElement.id"
    )


def test_each_key_sends_what_it_says(shell):
    page = shell.attach()
    typed = {"Control+w": b"\x17", "Control+t": b"\x14", "Control+n": b"\x0e", "Tab": b"\t"}
    sent = b"".join([*KEYS.values(), *(sent for _, _, sent in HELD), *typed.values()])
    shell.got(len(sent))
    page.click("#keys-button")
    for name in KEYS:
        key(page, name).click()
        assert focus(page) == "terminal", name
    for modifiers, pressed, _ in HELD:
        for name in modifiers:
            key(page, name).click()
            expect(key(page, name)).to_have_attribute("aria-pressed", "true")
        page.keyboard.press(pressed)
        expect(page.locator("#keys [aria-pressed=true]")).to_have_count(0)
    for chord in typed:
        page.keyboard.press(chord)
    assert shell.take() == sent


def test_application_cursor_keys_are_sent_while_the_guest_wants_them(shell):
    page = shell.attach()
    wanted = {
        "Up": b"\x1bOA",
        "Left": b"\x1bOD",
        "Home": b"\x1bOH",
        "End": b"\x1bOF",
        "F5": b"\x1b[15~",
    }
    sent = b"".join(wanted.values())
    shell.got(len(sent), before="printf '\\33[?1h'; ")
    page.click("#keys-button")
    for name in wanted:
        key(page, name).click()
    assert shell.take() == sent
    shell.type("printf '\\33[?1l'; echo off$((6*7))")
    shows(page, "^off42")


def test_everything_is_reached_with_the_keyboard_alone(shell):
    page = shell.attach()
    shell.got(3)
    page.keyboard.press("Control+F6")
    assert focus(page) == "keys-button"
    page.keyboard.press("Control+F6")
    assert focus(page) == "terminal"
    page.keyboard.press("Control+F6")
    page.keyboard.press("Enter")
    for _ in range(2):
        page.keyboard.press("Tab")
    expect(key(page, "Alt")).to_be_focused()
    page.keyboard.press("Space")
    assert focus(page) == "terminal"
    page.keyboard.press("Tab")
    page.keyboard.press("x")
    page.keyboard.press("Control+F6")
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    assert focus(page) == "keys-button"
    assert shell.take() == b"\x1b\tx"
    expect(page.locator("#terminal textarea")).to_have_accessible_description(
        re.compile("Control F6")
    )


@pytest.mark.parametrize("word", CLIPBOARD)
def test_ctrl_shift_c_copies_the_selection(shell, word):
    shell.page.add_init_script(CLIPBOARD[word])
    page = shell.attach()
    shell.type(f"echo ''{word}; stty raw -echo; head -c 1 | hexdump; stty sane")
    shows(page, f"^{word}")
    select(page, word)
    page.keyboard.press("Control+Shift+C")
    expect(page.locator("#announcer")).to_contain_text("copied")
    other = shell.context.new_page()
    other.set_content("<textarea></textarea>")
    other.locator("textarea").focus()
    other.keyboard.press("Control+V")
    expect(other.locator("textarea")).to_have_value(word)
    page.keyboard.type("+")
    shows(page, "0000000 002b")


def test_a_phone_has_a_row_of_keys_that_leaves_its_keyboard_as_it_is(make_shell):
    shell = make_shell(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page = shell.attach()
    shell.got(4)
    row = page.locator("#keys").bounding_box()
    assert (row["x"], row["width"], row["y"] + row["height"]) == (0, 360, 640)
    key(page, "Ctrl").tap()
    assert focus(page) == "terminal"
    page.keyboard.insert_text("c")  # as an on-screen keyboard types
    page.evaluate("document.activeElement.blur()")
    key(page, "Up").tap()
    assert focus(page) == "", "the on-screen keyboard would come up"
    assert shell.take() == b"\x03\x1b[A"
    page.tap("#keys-button")
    expect(page.get_by_text("Ctrl-Q alone ends the session")).to_be_visible()
    expect(key(page, "F12")).to_be_in_viewport()
    page.evaluate(SAFARI_KEYBOARD)
    row = page.locator("#keys").bounding_box()
    assert row["y"] + row["height"] == 390, "under the keyboard"
    page.evaluate("document.getElementById('keys').hidePopover()")
    row = page.locator("#keys").bounding_box()
    assert row["y"] + row["height"] == 390, "under the keyboard"


def test_a_watcher_can_send_nothing_and_is_told_so(shell):
    page = shell.attach(mode="ro")
    page.click("#keys-button")
    for name in KEYS:
        expect(key(page, name)).to_be_disabled()
    expect(page.get_by_text("You are watching")).to_be_visible()
    page.click("#size-button")
    expect(page.get_by_role("button", name="Fit guest")).to_be_disabled()


def test_the_guest_gets_the_size_that_was_chosen_and_only_when_asked(shell):
    page = shell.attach()
    shell.type("stty rows 10 cols 20; echo ready$((6*7))")
    shows(page, "^ready42")
    page.click("#size-button")
    page.get_by_label("80×24").check()
    expect(page.locator("#size-button")).to_have_accessible_name("Size: 80×24")
    expect(page.locator("#announcer")).to_have_text("80 columns, 24 rows.")
    page.get_by_label("132×43").check()
    expect(page.get_by_text("scroll to see all")).to_be_visible()
    frame = page.locator("#terminal")
    assert frame.evaluate("(one) => one.scrollHeight > one.clientHeight")
    page.get_by_label("80×24").check()
    expect(page.get_by_text("scroll to see all")).to_be_hidden()
    page.get_by_label("132×43").check()
    page.keyboard.press("Escape")
    page.locator("#terminal textarea").focus()
    shell.type("stty size")
    shows(page, "^10 20")
    page.click("#size-button")
    expect(page.locator("#size-command")).to_have_text("stty rows 43 cols 132")
    page.get_by_role("button", name="Fit guest").click()
    shell.type("stty size")
    shows(page, "^43 132")
    shell.type("printf '\\33[43Hbelow'")
    shows(page, "^below.*# ")
    frame.evaluate("(one) => one.scrollTo(0, 0)")
    page.keyboard.type(" ")
    page.wait_for_function("() => document.getElementById('terminal').scrollTop > 0")
    page.click("#size-button")
    page.get_by_label("Fit to window").check()
    expect(page.locator("#size-button")).not_to_have_text("132×43")
    expect(frame).to_have_js_property("scrollTop", 0)


def test_full_screen_asks_for_the_keys_that_browsers_keep(shell):
    shell.page.add_init_script(
        "Keyboard.prototype.lock = async (codes) => { window.locked = codes; };"
    )
    page = shell.attach()
    page.evaluate("() => { document.documentElement.requestFullscreen = () => Promise.reject(); }")
    page.click("#size-button")
    page.get_by_role("button", name="Full screen").click()
    expect(page.locator("#announcer")).to_contain_text("no full screen")
    page.evaluate("delete document.documentElement.requestFullscreen")
    page.click("#size-button")
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_function("() => document.fullscreenElement && window.locked")
    assert page.evaluate("locked") == ["Escape", "KeyN", "KeyT", "KeyW"]
    assert focus(page) == "terminal"
