"""Guest bytes are hostile: a real guest prints tests/hostile_output.py to the page in Chromium."""

from __future__ import annotations

import gzip
import itertools
import re
import time

import pytest
from playwright.sync_api import Error, expect

from tests import rig
from tests.chromium import shows, status
from tests.hostile_output import BAD_ADDRESSES, CORPUS, MARKER, RESET, STRANGER, link

FREEZE = 2.0
"""Seconds for which the page may be busy without a look at anything else."""
PTY = 16_384
"""Bytes that its pty surely holds. QEMU drops what a virtio console prints beyond that before
libvirtd has read it: a larger item may have holes, and its end is printed a moment later."""
GROUP = 8
"""Small items printed together. Where something is wrong, each is printed again alone."""
PATIENCE = 30.0
"""Seconds that a group may take to be printed, shown and typed after."""
HEAP = 64 << 20
"""Bytes of JavaScript's memory that may be left when all is printed; the scrollback has 20."""
CANARY = "the person's own clipboard"
NO_CHILDREN = (
    "script, style, link, meta, base, iframe, object, embed, img, svg, video, form, input, a"
)

WATCH = """
const seen = { violations: [], calls: [], freeze: 0 };
window.seen = seen;
document.addEventListener('securitypolicyviolation', (event) =>
  seen.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
const note = (object, name) => {
  const original = object[name];
  object[name] = function (...given) {
    seen.calls.push(name);
    return original.apply(this, given);
  };
};
for (const name of ['read', 'readText', 'write', 'writeText']) note(Clipboard.prototype, name);
for (const name of ['open', 'close', 'print', 'focus', 'blur', 'moveTo', 'moveBy', 'resizeTo',
  'resizeBy', 'postMessage', 'fetch', 'Notification', 'Audio', 'Worker']) note(window, name);
for (const name of ['execCommand', 'write']) note(Document.prototype, name);
note(Navigator.prototype, 'sendBeacon');
note(Navigator.prototype, 'vibrate');
note(Navigator.prototype, 'registerProtocolHandler');
const buffered = Object.getOwnPropertyDescriptor(WebSocket.prototype, 'bufferedAmount');
Object.defineProperty(WebSocket.prototype, 'bufferedAmount', {
  get() { return seen.fakeWaiting ?? buffered.get.call(this); },
});
let last = performance.now();
setInterval(() => {
  const now = performance.now();
  seen.freeze = Math.max(seen.freeze, now - last);
  last = now;
}, 10);
"""

# All that a guest has no business with, as one value to compare.
LOOK = f"""() => {{
  const page = document.documentElement.cloneNode(true);
  page.querySelector('#terminal').replaceChildren();
  return {{
    'outside of the terminal': page.outerHTML,
    'in the terminal': document.querySelectorAll('#terminal :is({NO_CHILDREN})').length,
    'handlers': [...document.querySelectorAll('#terminal *')].flatMap((element) =>
      element.getAttributeNames().filter((name) => name.startsWith('on'))),
    'globals': Object.keys(window).join(),
    'marker': window.{MARKER} ?? null,
    'title': document.title,
    'address': location.href,
    'history': history.length,
    'storage': [localStorage.length, sessionStorage.length, document.cookie],
    'clipboard and windows': seen.calls,
    'violations': seen.violations,
    'frames': window.length,
  }};
}}"""


@pytest.fixture(scope="module")
def guest(libvirtd):
    """A Linux guest whose hvc0 is the console under test; its serial port is for orders."""
    files = {}
    for number, item in enumerate(CORPUS):
        start = item.bytes()
        if len(start) > PTY:
            start = start.removesuffix(item.tail)
            files[f"corpus/{number}.end"] = item.tail
        files[f"corpus/{number}.gz"] = gzip.compress(start, 1)
    files["corpus/reset"] = RESET
    files["corpus/all"] = b"".join(one.bytes() + RESET for one in CORPUS if len(one.bytes()) < 3000)
    factory = rig.GuestFactory(libvirtd)
    try:
        yield factory("linux", virtio="pty", files=files)
    finally:
        factory.close()


@pytest.fixture(scope="module")
def orders(shared, guest):
    """A shell on the guest's serial port, which has hvc0 open and for itself."""
    with shared.open(guest.name, console="serial0") as shell:
        shell.send(b"\r")
        shell.read_until(b"login: ")
        shell.send(b"root\r")
        shell.read_until(b"# ")
        for line in (
            "stty -echo; PS1=",
            "sed -i /hvc0/d /etc/inittab; kill -HUP 1",
            "for one in /proc/[1-9]*; do grep -q hvc0 $one/cmdline && kill ${one#/proc/}; done",
            "exec 9<>/dev/hvc0; stty raw -echo icrnl <&9",
            "item() { zcat /corpus/$1.gz;"
            " [ -e /corpus/$1.end ] && usleep 200000 && cat /corpus/$1.end; cat /corpus/reset; }",
            "round() { name=$1; shift; for n; do item $n; done >&9; typed $name; }",
            "typed() { printf 'shown %s\\r\\n' $1 >&9; IFS= read -r line <&9;"
            " printf 'took %s\\r\\n' $1 >&9; echo read $1 ${#line}.; }",
            "echo ours: $((6 * 7))",
        ):
            shell.send(line.encode() + b"\r")
        shell.read_until(b"ours: 42\r\n")
        yield shell
    shared.wait_free()


class Watched:
    """A page, and all that it does beyond showing a terminal."""

    def __init__(self, browser, stack):
        self.context = browser.new_context()
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page = self.context.new_page()
        self.page.add_init_script(WATCH)
        self.sent = bytearray()
        self.wrong = []
        self._host = f"127.0.0.1:{stack.gateway_port}"
        self._loaded = False
        on = self.page.on
        on("dialog", self._dialog)
        on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        on("console", lambda said: self.wrong.append(f"{said.type}: {said.text}"))
        on("crash", lambda _: self.wrong.append("the page crashed"))
        on("download", lambda one: self.wrong.append(f"download of {one.url}"))
        on("popup", lambda one: self.wrong.append(f"popup {one.url}"))
        on("framenavigated", lambda one: self._after(f"navigation to {one.url}"))
        on("request", lambda one: self._after(f"request to {one.url}"))
        on("worker", lambda one: self.wrong.append(f"worker {one.url}"))
        on("websocket", self._websocket)

    def open(self, url):
        self.page.goto(url)
        expect(status(self.page)).to_have_attribute("data-state", "connected")
        self._loaded = True

    def take(self):
        """Return what the page has typed into the guest since the last call."""
        sent = bytes(self.sent)
        self.sent.clear()
        return sent

    def clipboard(self, stack):
        """Return what the clipboard holds, which our page itself may not read."""
        with self.context.new_page() as other:
            other.goto(f"http://127.0.0.1:{stack.api_port}/healthz")
            return other.evaluate("navigator.clipboard.readText()")

    def _after(self, what):
        if self._loaded:
            self.wrong.append(what)

    def _dialog(self, dialog):
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _websocket(self, socket):
        self._after(f"WebSocket to {socket.url}")
        socket.on("framesent", self._frame)

    def _frame(self, data):
        if isinstance(data, bytes):  # text is for the gateway
            self.sent.extend(data)


@pytest.fixture
def watched(browser, shared):
    watched = Watched(browser, shared)
    yield watched
    watched.context.close()


def has_read(orders, number):
    """Return how many bytes the guest has read before the Enter."""
    orders.read_until(f"read {number} ".encode())
    return int(orders.read_until(b".")[:-1])


def wait_open(orders, press_enter):
    """Wait until QEMU knows that its pty is open: it looks once a second, and drops output before.
    Input that has reached the guest shows it."""
    orders.send(b"typed open\r")
    press_enter()
    assert has_read(orders, "open") == 0


def page_url(stack, guest, **fields):
    fields = {"console": "console1", **fields}
    status, answer = stack.rest("POST", f"/v1/guests/{guest.uuid}/tokens", fields)
    assert status == 201, answer
    return answer["page_url"]


def in_groups(share):
    """Small items together, which is quicker; of the others, which take long, one in so many."""
    group = []
    long = itertools.count()
    for number, item in enumerate(CORPUS):
        if item.times:
            if next(long) % share == 0:
                yield [number]
        else:
            group.append(number)
        if len(group) == GROUP:
            yield group
            group = []
    yield group


@pytest.mark.parametrize("share", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_a_guest_can_print_what_it_likes(shared, guest, orders, watched, share):
    page = watched.page
    watched.open(page_url(shared, guest))
    wait_open(orders, lambda: page.keyboard.press("Enter"))
    watched.take()
    page.evaluate("(text) => navigator.clipboard.writeText(text)", CANARY)
    page.evaluate("seen.calls.length = 0")
    # Of somebody who has said No once; test_page_states.py has the question.
    page.evaluate("document.getElementById('clipboard-no').click()")
    before = page.evaluate(LOOK)
    rounds = itertools.count()
    slowest = [(0.0, "")]

    def wrong_with(numbers):
        """Have these items printed, and Enter pressed; return what is not as it should be."""
        name = next(rounds)
        items = [CORPUS[number] for number in numbers]
        names = ", ".join(item.name for item in items)
        page.evaluate("seen.freeze = 0")
        started = time.monotonic()
        orders.send(f"round {name} {' '.join(map(str, numbers))}\r".encode())
        try:
            shows(page, rf"^shown {name} *$")
            page.keyboard.press("Enter")
            shows(page, rf"^took {name} *$")
        except Error as error:
            pytest.fail(f"{names}: the terminal is not usable: {error}")
        took = time.monotonic() - started
        sent = watched.take()
        answers = b"".join(b"(%b)" % item.answers for item in items)
        frozen, now = page.evaluate(f"() => [seen.freeze / 1000, ({LOOK})()]")
        slowest.append((frozen, names))
        wrong = {
            f"answered {sent[:300]!r}": not re.fullmatch(answers + b"\r", sent),
            "the guest read something else": has_read(orders, name) != len(sent) - 1,
            f"the page was frozen for {frozen:.1f} s": frozen > FREEZE,
            f"took {took:.1f} s": took > PATIENCE,
            f"{watched.wrong}": list(watched.wrong),
        }
        wrong |= {f"{key}: {now[key]!r}": now[key] != was for key, was in before.items()}
        watched.wrong.clear()
        return [f"{names}: {what[-400:]}" for what, failed in wrong.items() if failed]

    failures = []
    for numbers in in_groups(share):
        if wrong := wrong_with(numbers):
            failures += [each for one in numbers for each in wrong_with([one])] or wrong
    assert not failures, "\n".join(failures)
    assert watched.clipboard(shared) == CANARY
    devtools = page.context.new_cdp_session(page)
    devtools.send("HeapProfiler.collectGarbage")
    used = devtools.send("Runtime.getHeapUsage")["usedSize"]
    print(f"{len(CORPUS)} items, {sum(len(one.bytes()) for one in CORPUS)} bytes, heap {used}")
    print(f"longest freezes: {sorted(slowest)[-3:]}")
    assert used < HEAP
    logs = shared.logs()
    assert "Traceback" not in logs
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", logs)


def test_nothing_of_it_is_answered_when_it_is_shown_again(shared, guest, orders, watched):
    with shared.open(guest.name, console="console1") as former:
        wait_open(orders, lambda: former.send(b"\r"))
        # QEMU drops what a virtio console prints faster than its pty is read, on a busy host maybe
        # the last reset: that goes once more, when there is room.
        orders.send(b"(cat /corpus/all; usleep 300000; cat /corpus/reset) >&9; typed again\r")
        former.read_until(b"shown again\r\n")
        watched.open(page_url(shared, guest, takeover=True))
        assert former.ended()[0] == 4410
    shows(watched.page, r"^shown again *$")
    watched.page.keyboard.press("Enter")
    shows(watched.page, r"^took again *$")
    assert watched.take() == b"\r"
    assert has_read(orders, "again") == 0
    assert not watched.wrong


def test_a_click_on_a_link_asks_first_and_opens_http_alone(shared, guest, orders, watched):
    page, context = watched.page, watched.context
    visits = []

    def answer(route):
        visits.append(route.request)
        script = "<script>document.title = String(opener)</script>"
        route.fulfill(content_type="text/html", body=script)

    context.route(re.compile("stranger"), answer)
    watched.open(page_url(shared, guest))
    wait_open(orders, lambda: page.keyboard.press("Enter"))
    watched.take()
    screen = page.locator("#terminal .xterm-screen")

    question = page.locator("#link")

    def click(address, name):
        """Have the guest print a link, and click on it."""
        orders.send(
            b"cat /corpus/reset >&9; printf '%s' >&9; typed %d\r"
            % (octal(link(address, b"click") + b"\r\n"), name)
        )
        shows(page, rf"^shown {name} *$")
        screen.hover(position={"x": 300, "y": 200})
        screen.hover(position={"x": 20, "y": 8})
        screen.click(position={"x": 20, "y": 8})

    def go_on(name):
        page.keyboard.press("Enter")
        shows(page, rf"^took {name} *$")
        assert has_read(orders, name) == 0

    for name, address in enumerate(BAD_ADDRESSES):
        click(address, name)
        go_on(name)  # which a question would keep from the guest
        assert watched.wrong == [], address
    for name, address in enumerate([STRANGER, b"http://bank.example@stranger.invalid/"], 100):
        click(address, name)
        expect(question.locator("h2")).to_have_text("Open stranger.invalid in a new tab?")
        expect(question.locator("code")).to_have_text("http://stranger.invalid/")
        question.locator("[value=no]").click()
        go_on(name)
        assert visits == []
        assert watched.wrong == []
    click(STRANGER, 200)
    with context.expect_page() as opened:
        question.locator("[value=yes]").click()
    opened.value.wait_for_load_state()
    assert opened.value.title() == "null"  # the stranger's page has no way back to ours
    assert [(one.url, one.headers.get("referer")) for one in visits] == [(STRANGER.decode(), None)]
    opened.value.close()
    go_on(200)


def octal(data):
    """Return the bytes as printf's format."""
    return b"".join(b"\\%03o" % byte for byte in data)


def test_answers_are_dropped_where_they_would_pile_up(shared, guest, orders, watched):
    """A guest that asks without end and reads nothing: its answers wait in the browser. To get
    there takes over 4 MB of answers, which is the kernel's share; so what waits is a fake."""
    page = watched.page
    watched.open(page_url(shared, guest))
    wait_open(orders, lambda: page.keyboard.press("Enter"))
    while watched.take() != b"\r":  # the browser may tell of it later than the guest
        page.wait_for_timeout(10)
    (number,) = (n for n, one in enumerate(CORPUS) if one.name == "query: DA1")
    for waiting, answers in ((70_000, b""), (0, b"\x1b[?1;2c" * 2)):
        page.evaluate(f"seen.fakeWaiting = {waiting}")
        orders.send(b"round %d %d\r" % (waiting, number))
        shows(page, rf"^shown {waiting} *$")
        page.keyboard.press("Enter")  # what a person types goes its way
        shows(page, rf"^took {waiting} *$")
        assert watched.take() == answers + b"\r"
        assert has_read(orders, waiting) == len(answers)
