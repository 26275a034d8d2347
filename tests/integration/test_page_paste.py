"""What is pasted into the page arrives in the guest, whole and after a look at it."""

# ruff: noqa: RUF001

import hashlib
import re
import time

import pytest
from playwright.sync_api import expect

from tests import rig
from tests.chromium import shows, status

KIB_64 = 65536


def lines_of(size):
    """A text of so many bytes, no line of which is like another."""
    text = "".join(
        f"{n:05d} {n * 2654435761 % 2**64:x} {'~' * (n % 40)}\n" for n in range(size // 16)
    )
    return text[: size - 1] + "\n"


class Pasting:
    """A page with a terminal, what is pasted into it, and what the page says of it."""

    def __init__(self, page):
        self.page = page
        self.dialog = page.locator("#paste")
        self.preview = page.locator("#paste-text")
        self.panel = page.locator("#pasting")
        self.text = page.locator("#pasting-text")
        self.bar = page.locator("#pasting-bar")

    def paste(self, text):
        """Paste as a person does, out of the browser's clipboard."""
        self.page.evaluate("(text) => navigator.clipboard.writeText(text)", text)
        self.page.keyboard.press("Control+Shift+V")

    def send(self):
        """Agree to what the dialog shows."""
        self.page.click("#paste-send")

    @property
    def sent(self):
        """Bytes that are sent."""
        return int(self.bar.evaluate("(bar) => bar.value"))

    def pauses(self, seconds=1.5):
        """Wait until nothing has been sent for so long, after something was."""
        last, since = 0, time.monotonic()
        while last == 0 or time.monotonic() - since < seconds:
            if (now := self.sent) != last:
                last, since = now, time.monotonic()
            self.page.wait_for_timeout(50)

    def over(self, seconds=60):
        """Wait for its end."""
        expect(self.panel).to_be_hidden(timeout=seconds * 1000)

    def open(self, stack, guest, **fields):
        """Connect to a guest's console."""
        token = stack.rest("POST", f"/v1/guests/{guest.uuid}/tokens", fields)[1]
        self.page.goto(token["page_url"])
        expect(status(self.page)).to_have_attribute("data-state", "connected")
        self.page.locator(".xterm-helper-textarea").focus()


@pytest.fixture
def pasting(browser, shared):
    page = browser.new_page()
    yield Pasting(page)
    page.close()
    shared.wait_free()


@pytest.fixture
def shell(pasting, shared, linux_guest):
    """A root shell in the Linux guest, at an empty screen."""
    pasting.open(shared, linux_guest)
    page = pasting.page
    page.keyboard.press("Enter")
    shows(page, "(login:|#) *$")
    page.keyboard.type("root\n")
    shows(page, "# *$")
    page.keyboard.type("clear\n")
    shows(page, r"^\S+# *$")
    yield pasting
    page.keyboard.type("kill $!; exit\n")
    shows(page, "login: *$")


def arrived(page):
    """End the guest's input; return size and MD5 of what its ``cat > /tmp/got`` has read."""
    page.keyboard.press("Control+d")
    shows(page, "# *$")
    page.keyboard.type("clear; stty sane; wc -c < /tmp/got; md5sum < /tmp/got\n")
    shows(page, "^[0-9a-f]{32}")
    found = re.search(r"(\d+)\s+([0-9a-f]{32})", page.locator(".xterm-rows").inner_text())
    assert found is not None
    return int(found[1]), found[2]


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()


def test_64_kib_arrive_whole_at_a_busy_guest_which_reads_late(shell, linux_guest):
    """It keeps 4 KiB until then; what is under way beyond that must be little."""
    page, text = shell.page, lines_of(KIB_64)
    # It reads when its power button is pressed: nothing else gets past what it has not read.
    page.keyboard.type("echo '#!/bin/sh\n> /tmp/read' > /etc/acpi/PWRF/00000080\n")
    late = "until [ -e /tmp/read ]; do usleep 100000; done; clear; cat > /tmp/got"
    page.keyboard.type(f"while :; do :; done & clear; {late}\n")
    shell.paste(text)
    expect(page.locator("#paste-size")).to_contain_text(f"{KIB_64:,} bytes")
    shell.send()
    shell.pauses()
    assert 1000 < shell.sent < 16384, "sent without regard to the guest"
    expect(shell.text).to_contain_text(f"of {KIB_64:,} bytes")
    linux_guest.shutdown()
    shell.over(100)
    assert arrived(page) == (KIB_64, md5(text))


def test_where_no_echo_comes_it_is_sent_slowly_and_the_page_says_so(shell):
    page, text = shell.page, lines_of(6000)
    page.keyboard.type("stty -echo; clear; echo now; cat > /tmp/got\n")
    shows(page, "^now")
    shell.paste(text)
    shell.send()
    expect(page.locator("#pasting-note")).to_contain_text("No echo comes")
    shell.over()
    assert arrived(page) == (len(text), md5(text))


def test_a_paste_can_be_cancelled_while_the_terminal_stays_live(shell):
    page, text = shell.page, lines_of(KIB_64)
    page.keyboard.type("clear; echo now; cat > /tmp/got\n")
    shows(page, "^now")
    shell.paste(text)
    shell.send()
    assert rig.eventually(lambda: shell.sent > 2000)
    shell.paste("another")
    expect(page.locator("#pasting-note")).to_contain_text("one paste at a time")
    page.click("#pasting-cancel")
    shell.over()
    page.keyboard.type("\ntyped\n")
    shows(page, "^typed")
    size, _ = arrived(page)
    assert size < KIB_64
    page.keyboard.type(f"clear; head -c {size - 7} /tmp/got | md5sum\n")
    shows(page, f"^{md5(text[: size - 7])}")


@pytest.fixture
def watched(pasting, shared, shared_guest):
    """The page at the echo guest, and a watcher who reads what the guest was sent."""
    pasting.open(shared, shared_guest)
    with shared.open(shared_guest.uuid, mode="ro", replay=0) as watcher:
        yield pasting, watcher
        pasting.page.close()
        watcher.vanish()  # it has not read all that came, and would wait for the close behind that


ONE_KIB = "k" * 1024


def test_little_goes_at_once_and_the_rest_after_a_look(watched):
    pasting, guest = watched
    for little in ("echo little", ONE_KIB, "naïve ✓"):
        pasting.paste(little)
        guest.read_until(little.encode())
    for much in ("one\ntwo", "enter\n", ONE_KIB + "k", "esc \x1b[31m", "rtl \u202e"):
        pasting.paste(much)
        expect(pasting.dialog).to_be_visible()
        pasting.page.keyboard.press("Escape")
        expect(pasting.dialog).to_be_hidden()
    pasting.page.keyboard.type("typed")
    assert guest.read_until(b"typed") == b"typed", "what was not agreed to was sent"


def test_the_look_shows_what_cannot_be_seen_and_what_harms_is_left_out(watched):
    pasting, guest = watched
    page = pasting.page
    harmful = "ls\t-l\r\nrm\x1b[2K\x03\x11 <b>\x7f\x9b\u202e\n"
    pasting.paste(harmful)
    expect(pasting.preview).to_have_value(
        "ls\t-l\nrm‹Esc›[2K‹Ctrl-C›‹Ctrl-Q› <b>‹Delete›‹U+009B›‹U+202E›\n"
    )
    expect(page.locator("#paste-size")).to_have_text("2 lines, 26 bytes")
    names = page.locator("#paste-controls-names")
    expect(names).to_have_text("Esc, Ctrl-C, Ctrl-Q, Delete, U+009B")
    pasting.send()
    assert guest.read_exactly(19) == "ls\t-l\rrm[2K <b>\u202e\r".encode()
    pasting.over()
    pasting.paste("x" * 256 + "\x11")  # the escape key, which a last byte by itself would be
    page.check("#paste-controls")
    pasting.send()
    assert guest.read_exactly(257) == b"x" * 256 + b"\x11"
    pasting.over()
    pasting.paste("\x11")  # which is the escape key
    page.check("#paste-controls")
    pasting.send()
    pasting.over()
    page.keyboard.type("still here")
    assert guest.read_until(b"here") == b"still here"


def test_a_bracketed_paste_ends_where_the_text_ends(watched):
    """Not where a mark in it says: what follows would be typed."""
    pasting, guest = watched
    page = pasting.page
    page.keyboard.press("Escape")
    page.keyboard.type("[?2004h")
    guest.read_until(b"[?2004h")
    pasting.paste("a\x1b[20\x1b[201~1~b\nc\n")
    expect(page.locator("#paste-enter")).to_be_hidden()
    page.check("#paste-controls")
    pasting.send()
    assert guest.read_exactly(17) == b"\x1b[200~ab\rc\r\x1b[201~"
    pasting.over()
    pasting.paste(lines_of(KIB_64))
    pasting.send()
    guest.read_exactly(6 + 2000)
    page.click("#pasting-cancel")
    page.keyboard.type("typed")
    assert b"\x1b[201~typed" in guest.read_until(b"typed")
    page.keyboard.press("Escape")
    page.keyboard.type("[?2004l")
    guest.read_until(b"[?2004l")


def test_a_paste_waits_for_a_paused_guest_and_goes_to_no_other_boot(pasting, shared, make_guest):
    guest = make_guest("echo")
    pasting.open(shared, guest)
    pasting.paste(lines_of(4 * KIB_64))
    pasting.send()
    assert rig.eventually(lambda: pasting.sent > 2000)
    guest.suspend()
    note = pasting.page.locator("#pasting-note")
    expect(note).to_have_text("The guest takes nothing now.")
    before = pasting.sent
    guest.resume()
    expect(note).to_be_empty()
    assert rig.eventually(lambda: pasting.sent > before + 2000)
    guest.destroy()
    expect(pasting.text).to_contain_text("Paste stopped: the guest does not run")
    sent = shared.session_of(guest)["bytes_in"]
    guest.start(paused=True)  # else what it says first may come before the relay does
    expect(pasting.page.locator("#state")).to_have_text("Guest paused")
    guest.resume()
    shows(pasting.page, "ready")
    assert shared.session_of(guest)["bytes_in"] == sent
    pasting.page.close()
    shared.wait_free()


def test_a_paste_stops_with_its_session_and_says_how_much_was_sent(watched, shared, shared_guest):
    pasting, _ = watched
    pasting.paste(lines_of(KIB_64))
    pasting.send()
    assert rig.eventually(lambda: pasting.sent > 2000)
    (session,) = (one for one in shared.sessions() if one["mode"] == "rw")
    assert shared.ask("close", id=session["id"])["ok"]
    said = re.compile(r"^Paste stopped: .* not connected\. [\d,]+ of 65,536 bytes were sent\.$")
    expect(pasting.text).to_have_text(said)
    pasting.page.click("#pasting-cancel")
    expect(pasting.panel).to_be_hidden()
    pasting.open(shared, shared_guest, mode="ro")
    pasting.paste("nothing")
    expect(pasting.text).to_contain_text("only watches")
