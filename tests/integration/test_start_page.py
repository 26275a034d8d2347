"""The start page in Chromium: the key, the guests, who is at them, and what can be done there."""

import json
import os
import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from serial_console import keys
from tests import rig
from tests.accessibility import violations
from tests.chromium import CSP_REPORT, status
from tests.stack import http

OUTPUT = os.path.join(os.path.dirname(os.path.dirname(__file__)), "output", "start")

USER = "<b>bob</b>"
"""Users and guests may be named like this: it has to be shown as it is."""


@pytest.fixture(scope="module")
def guests(libvirtd):
    """Two guests; the second one has a console that cannot be opened as well."""
    factory = rig.GuestFactory(libvirtd)
    try:
        yield (
            factory("echo", name="web-1"),
            factory("echo", name="<i>db", serial=("pty", "null"), state="off"),
        )
    finally:
        factory.close()


@pytest.fixture(scope="module")
def key(shared):
    """An API key for these two alone: other tests have guests there as well."""
    done = shared.cli("key", "add", "start", "--guests", "[amw<]*")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def context(browser, shared):
    """A browser's window whose pages must not complain, nor talk to anybody else."""
    wrong = []
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_init_script(CSP_REPORT)

    def note(said):
        # A refused key is one of these too, which no page can keep out of the console.
        if said.type in ("error", "warning") and not said.text.startswith("Failed to load"):
            wrong.append(said.text)

    def note_host(request):
        ours = (f"127.0.0.1:{shared.api_port}", f"127.0.0.1:{shared.gateway_port}", "")
        if urlsplit(request.url).netloc not in ours:
            wrong.append(f"request to {request.url}")

    context.on("console", note)
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on("request", note_host)
    yield context
    context.close()
    for session in shared.sessions():
        shared.ask("close", id=session["id"])
    shared.wait_free()
    assert not wrong


@pytest.fixture
def start(context, shared):
    """The start page, without a key."""
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{shared.api_port}/")
    return page


@pytest.fixture
def page(start, guests, key):
    """The start page with the guests."""
    enter(start, key)
    expect(start.locator(".guest")).to_have_count(2)
    return start


def enter(page, key):
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")


def of(page, guest):
    """The row of a guest."""
    return page.locator(".guest").filter(has=page.locator("h2", has_text=guest.name))


def looked(page):
    """Have the page ask at once, as when one comes back to it, not in three seconds."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def press(page, place, label):
    """Press a button that opens a tab; return the tab."""
    with page.context.expect_page() as opened:
        place.get_by_text(label, exact=True).click()
    return opened.value


def test_the_key_is_asked_for_once_and_kept_in_this_tab_alone(start, context, guests, key):
    asked = []
    context.on("request", lambda request: asked.append(f"{request.url} {request.post_data}"))
    for wrong, said in ("no key", "no API key"), (f"{key}x", "unknown or revoked"):
        enter(start, wrong)
        expect(start.locator("#result")).to_contain_text(said)
        expect(start.get_by_label("API key")).to_be_focused()
    enter(start, f" {key}\n")
    expect(start.locator(".guest h2")).to_have_text([guests[1].name, guests[0].name])
    start.reload()
    expect(start.locator(".guest")).to_have_count(2)
    assert not [one for one in asked if key in one]
    assert key not in start.content()
    assert start.evaluate("[location.hash, document.cookie, localStorage.length]") == ["", "", 0]

    start.get_by_text("Forget key").click()
    expect(start.get_by_label("API key")).to_be_focused()
    expect(start.locator(".guest")).to_have_count(0)
    assert start.evaluate("sessionStorage.length") == 0
    start.reload()
    expect(start.get_by_label("API key")).to_be_focused()


def test_where_storage_is_blocked_the_key_is_kept_until_a_reload(context, shared, guests, key):
    context.add_init_script(
        "Object.defineProperty(window, 'sessionStorage',"
        " { get() { throw new DOMException('blocked', 'SecurityError'); } })"
    )
    start = context.new_page()
    start.goto(f"http://127.0.0.1:{shared.api_port}/")
    enter(start, key)
    start.get_by_label("Your name").fill("bob")
    tab = press(start, of(start, guests[0]), "Open")
    expect(tab.locator("#who")).to_contain_text("as bob")
    start.get_by_text("Forget key").click()
    expect(start.get_by_label("API key")).to_be_focused()


def test_a_key_that_is_revoked_leads_back_to_the_form(start, shared, guests):
    path = os.path.join(shared.directory, "keys", "api-keys")
    enter(start, keys.add(path, "soon-revoked", ["[amw<]*"]))
    expect(start.locator(".guest")).to_have_count(2)
    keys.revoke(path, "soon-revoked")
    looked(start)
    expect(start.get_by_label("API key")).to_be_visible()
    expect(start.locator("#result")).to_contain_text("revoked")
    expect(start.locator(".guest")).to_have_count(0)


def test_what_is_shown_of_a_guest(page, guests, make_guest):
    web, db = (of(page, guest) for guest in guests)
    expect(web.locator(".state")).to_have_text("running")
    expect(db.locator(".state")).to_have_text("off")
    expect(db.locator(".console").nth(1)).to_contain_text("Type null, as it is, cannot be opened.")
    expect(db.get_by_role("button")).to_have_count(2)  # those of the first console
    expect(page.locator("#count")).to_have_text("2 guests")
    expect(page.locator("#age")).to_have_text("Updated just now")

    # What changes is brought up to date where it is.
    watch = web.get_by_text("Watch")
    watch.focus()
    guests[0].suspend()
    looked(page)
    try:
        expect(web.locator(".state")).to_have_text("paused")
        expect(watch).to_be_focused()
    finally:
        guests[0].resume()
    new = make_guest("echo", name="middle", state="off")
    looked(page)
    expect(page.locator(".guest h2")).to_have_text([guests[1].name, new.name, guests[0].name])
    expect(watch).to_be_focused()


def test_open_take_over_watch_and_close(page, guests, shared):
    web = of(page, guests[0])
    page.get_by_label("Your name").fill(USER)
    first = press(page, web, "Open")
    expect(status(first)).to_have_attribute("data-state", "connected")
    assert first.evaluate("window.opener") is None
    (session,) = shared.wait_sessions("connected")
    assert (session["user"], session["mode"]) == (USER, "rw")

    page.bring_to_front()
    looked(page)
    row = web.locator(".session")
    expect(row).to_contain_text(USER)
    expect(row).to_contain_text(
        re.compile(r"reads and writes · since .* · active · from 127\.0\.0\.1")
    )

    web.get_by_text("Take over…").click()
    question = page.get_by_role("dialog")
    expect(question).to_contain_text(USER)
    page.keyboard.press("Escape")
    expect(question).to_be_hidden()
    expect(web.get_by_text("Take over…")).to_be_focused()
    page.get_by_label("Your name").fill("carol")
    web.get_by_text("Take over…").click()
    second = press(page, question, "Take over")
    expect(status(second)).to_have_attribute("data-state", "connected")
    expect(status(first)).to_have_attribute("data-code", "4410")

    third = press(page, web, "Watch")
    expect(status(third)).to_have_attribute("data-state", "connected")
    shared.wait_sessions("connected", "connected")
    page.bring_to_front()
    looked(page)
    expect(row).to_have_count(2)
    expect(row.filter(has_text="watches")).to_have_count(1)

    held = row.filter(has_text="reads and writes")
    held.get_by_text("Close…").click()
    question.get_by_text("Cancel").click()
    held.get_by_text("Close…").click()
    question.get_by_text("Close session").click()
    expect(status(second)).to_have_attribute("data-code", "4411")
    expect(page.locator("#result")).to_contain_text("Closed the session of “")
    expect(row).to_have_count(1)
    expect(web.locator(".console")).to_be_focused()  # its button is gone
    expect(web.get_by_text("Open", exact=True)).to_be_visible()


def test_the_new_tab_knows_nothing_of_the_key(page, guests, shared):
    """A browser gives a new tab a copy of the session storage of the one that opens it."""
    tab = press(page, of(page, guests[0]), "Watch")
    expect(status(tab)).to_have_attribute("data-state", "connected")
    tab.goto(page.url)
    expect(tab.get_by_label("API key")).to_be_visible()
    page.reload()
    expect(page.locator(".guest")).to_have_count(2)


def test_a_browser_that_opens_no_tab_is_given_a_link(page, guests):
    page.evaluate("window.open = () => null")
    of(page, guests[0]).get_by_text("Open", exact=True).click()
    link = page.locator("#result").get_by_role("link")
    tab = press(page, page.locator("#result"), link.inner_text())
    expect(status(tab)).to_have_attribute("data-state", "connected")


def test_a_key_that_only_watches(start, shared, guests):
    path = os.path.join(shared.directory, "keys", "api-keys")
    enter(start, keys.add(path, "start-watcher", ["web-*"], "ro"))
    expect(start.locator(".guest")).to_have_count(1)
    with shared.open(guests[0].uuid):
        looked(start)
        expect(start.locator(".session")).to_have_count(1)
        web = of(start, guests[0])
        web.get_by_text("Take over…").click()
        start.get_by_role("dialog").get_by_text("Take over", exact=True).click()
        expect(start.locator("#result")).to_contain_text("read-only")
        expect(web.get_by_role("button")).to_have_text(["Watch"], timeout=2000)  # at once
        assert len(start.context.pages) == 1
        tab = press(start, web, "Watch")
        expect(status(tab)).to_have_attribute("data-state", "connected")


def test_behind_a_path_prefix(context, shared, guests, key):
    """A FAKE proxy: what stands after /console-api/ is asked of the API."""
    prefix = f"http://127.0.0.1:{shared.api_port}/console-api/"
    asked = []

    def forward(route):
        request = route.request
        path = "/" + request.url.removeprefix(prefix)
        asked.append(path)
        code, headers, body = http(
            shared.api_port, request.method, path, request.headers, request.post_data
        )
        route.fulfill(status=code, headers=headers, body=body)

    page = context.new_page()
    page.route(f"{prefix}**", forward)
    page.goto(prefix)
    enter(page, key)
    expect(page.locator(".guest")).to_have_count(2)
    tab = press(page, of(page, guests[0]), "Watch")
    expect(status(tab)).to_have_attribute("data-state", "connected")
    assert f"/v1/guests/{guests[0].uuid}/tokens" in asked


def test_what_is_wrong_is_said_until_it_is_over(page):
    """FAKE answers, for they cannot all be had at will, and a clock that goes on when told to."""
    page.clock.install(time=0)
    page.reload()
    expect(page.locator("#age")).to_have_text("Updated just now")
    page.clock.pause_at(60)
    wrong = [  # status, headers, body, what is said, seconds until it is tried again
        (503, {}, {"detail": "the keys cannot be read now"}, "The keys cannot be read now.", 3),
        (429, {"Retry-After": "7"}, {"detail": "wait, then try again"}, "Wait, then try", 7),
        (502, {}, None, "The API answered 502.", 3),
        (0, {}, None, "The API cannot be reached.", 3),
    ]
    for code, headers, body, said, seconds in wrong:
        expect(page.locator("#age")).to_have_text("Updated just now")
        asked = wrongly_answered(page, code, headers, body)
        page.clock.run_for(3100)
        expect(page.locator("#trouble")).to_contain_text(said)
        expect(page.locator(".guest")).to_have_count(2)
        page.clock.run_for(seconds * 1000 - 200)
        expect(page.locator("#age")).to_have_text(re.compile(r"Updated \d+ s ago"))
        assert len(asked) == 1
        page.unroute("**/v1/guests")
        page.clock.run_for(300)
        expect(page.locator("#trouble")).to_be_empty()


def wrongly_answered(page, code, headers, body):
    """Have the list answered like this, or not at all; return a list that grows by the requests."""
    asked = []

    def answer(route, request):
        asked.append(request)
        if code:
            route.fulfill(status=code, headers=headers, body=json.dumps(body))
        else:
            route.abort()

    page.route("**/v1/guests", answer)
    return asked


def test_a_thousand_guests(page, guests):
    """FAKE ones. Of the time that the page's own work takes, the machine's load is a part too."""
    many = [
        {"name": f"guest-{number}", "uuid": f"{number}", "state": "running", "sessions": []}
        | {"consoles": [{"alias": "serial0", "type": "pty", "supported": True}]}
        for number in range(1000)
    ]
    page.route("**/v1/guests", lambda route: route.fulfill(json={"guests": many}))
    page.evaluate(
        "window.longest = 0; new PerformanceObserver((list) => { for (const { duration } of "
        "list.getEntries()) longest = Math.max(longest, duration); }).observe({type: 'longtask'})"
    )
    looked(page)
    expect(page.locator("#count")).to_have_text("1000 guests")
    first = page.locator(".guest h2").first
    expect(first).to_have_text("guest-0")
    page.get_by_label("Filter by name").fill("guest-99")
    expect(page.locator("#count")).to_have_text("11 of 1000 guests")
    expect(page.locator(".guest")).to_have_count(11)
    page.get_by_label("Filter by name").fill("")
    expect(page.locator(".guest")).to_have_count(1000)
    longest = page.evaluate("longest")
    print(f"longest task: {longest:.0f} ms")
    assert longest < 1000


def test_how_it_looks(page, guests, shared, make_guest):
    """On a narrow screen nothing is cut off, axe finds nothing; the pictures are to look at."""
    make_guest("echo", name="a-guest-with-a-very-long-name-" + "x" * 100, state="off")
    with shared.open(guests[0].uuid, user="alice"), shared.open(guests[0].uuid, mode="ro"):
        looked(page)
        expect(page.locator(".session")).to_have_count(2)
        expect(page.locator(".guest")).to_have_count(3)
        for width, scheme in ((1280, "light"), (360, "dark")):
            page.set_viewport_size({"width": width, "height": 800})
            page.emulate_media(color_scheme=scheme)
            shoot(page, f"guests-{width}-{scheme}")
            page.get_by_text("Take over…").click()
            shoot(page, f"question-{width}-{scheme}")
            page.keyboard.press("Escape")
            form = page.context.new_page()
            form.set_viewport_size({"width": width, "height": 800})
            form.emulate_media(color_scheme=scheme)
            form.goto(page.url)
            enter(form, "no key")
            shoot(form, f"key-{width}-{scheme}")
            form.close()


def shoot(page, name):
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1], name
    os.makedirs(OUTPUT, exist_ok=True)
    page.screenshot(path=os.path.join(OUTPUT, f"{name}.png"), full_page=True)
    assert violations(page) == [], name
