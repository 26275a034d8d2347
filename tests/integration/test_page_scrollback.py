"""What was printed can be found, selected, and saved: as text, with its colours, as a recording."""

import json
import re

import pytest
from playwright.sync_api import expect

from tests import rig
from tests.chromium import shows, status

NAME = '.."<Gäst>" & /ü'.replace("/", "_")
"""Of a guest; no file may be called so."""
SAVED = r"_G_st_+-serial0-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d"

PLAY = """
async ({ width, height, events }) => {
  const { Terminal } = await import('./vendor/xterm.js');
  const terminal = new Terminal({ cols: width, rows: height, allowProposedApi: true });
  for (const [, code, data] of events) {
    if (code === 'r') {
      terminal.resize(...data.split('x').map(Number));
    } else {
      await new Promise((written) => terminal.write(data, written));
    }
  }
  const buffer = terminal.buffer.active;
  let text = '';
  for (let y = 0; y < buffer.length; y++) {
    const line = buffer.getLine(y);
    text += (line.isWrapped ? '' : '\\n') + line.translateToString(true);
  }
  return text.trim();
}
"""


@pytest.fixture(scope="module")
def chromium():
    from tests.chromium import launched

    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def guest(libvirtd):
    factory = rig.GuestFactory(libvirtd)
    try:
        yield factory("echo", name=NAME)
    finally:
        factory.close()


@pytest.fixture
def page(chromium, shared):
    page = chromium.new_page(color_scheme="dark")
    yield page
    page.close()
    shared.wait_free()


@pytest.fixture
def typist(shared, guest, page):
    """A client whose bytes the guest echoes, while the page watches."""
    with shared.open(guest.uuid) as typist:
        token = shared.token(guest.uuid, mode="ro", replay=0)
        page.goto(f"http://127.0.0.1:{shared.gateway_port}/serial.html#token={token}")
        expect(status(page)).to_have_attribute("data-state", "connected")
        yield typist
        page.close()
        typist.vanish()  # it has not read what came, and would wait for the close behind that


def save(page, button):
    """Click; return the file's name and its content."""
    if not page.locator("#save").is_visible():
        page.click("#save-button")
    with page.expect_download() as download:
        page.click(button)
    with open(download.value.path(), encoding="utf-8") as file:
        return download.value.suggested_filename, file.read()


def clipboard(chromium):
    """Return what would be pasted elsewhere: our page may not read it."""
    elsewhere = chromium.new_page()
    elsewhere.set_content("<textarea></textarea>")
    text = elsewhere.locator("textarea")
    text.press("Control+V")
    expect(text).not_to_have_value("")
    pasted = text.input_value()
    elsewhere.close()
    return pasted


def test_text_is_found_upwards_and_counted(page, typist):
    text = page.locator("#find-text")
    count = page.locator("#find-count")
    typist.send(b"Needle\r\n" + b"hay needle\r\n" * 60 + b"needles\r\nend")
    shows(page, "^end")
    page.keyboard.press("Control+Shift+F")
    expect(text).to_be_focused()
    page.keyboard.type("needle")
    expect(count).to_have_text("62 of 62")
    page.keyboard.press("Enter")
    expect(count).to_have_text("61 of 62")
    page.keyboard.press("Shift+Enter")
    expect(count).to_have_text("62 of 62")
    page.click("#find-next")
    expect(count).to_have_text("1 of 62")
    shows(page, "^Needle")  # which had scrolled away
    page.click("#find-word")
    expect(count).to_have_text("61 of 61")
    page.click("#find-case")
    expect(count).to_have_text("60 of 60")
    typist.send(b"\r\na needle more")
    expect(count).to_contain_text("of 61")
    page.click("#find-word")
    page.click("#find-case")
    page.click("#find-regex")
    text.fill("^needle|END$")
    expect(count).to_have_text("3 of 3")
    text.fill("needle(")
    expect(count).to_have_text("No valid expression")
    expect(text).to_have_attribute("aria-invalid", "true")
    text.fill("straw")
    expect(count).to_have_text("Not found")
    expect(text).to_have_attribute("aria-invalid", "false")
    page.keyboard.press("Escape")
    expect(page.locator("#find")).to_be_hidden()
    expect(page.locator(".xterm-helper-textarea")).to_be_focused()


def test_what_was_printed_is_saved_as_text(page, typist, chromium):
    lines = [f"line {n} ü✓" for n in range(500)]
    typist.send("\r\n".join(lines).encode())
    shows(page, "^line 499")
    name, text = save(page, "#save-text")
    assert re.fullmatch(SAVED + r"\.txt", name)
    assert text.splitlines() == lines
    page.click("#save-all")
    page.keyboard.press("Control+Shift+C")
    expect(page.locator("#announcer")).to_contain_text(
        "copied"
    )  # a page that lost the focus could not
    assert clipboard(chromium).splitlines() == lines


def test_html_has_the_colours_and_nothing_that_runs(page, typist, chromium):
    hostile = "<script>document.title = 'run'</script><img src=x onerror=\"document.title='run'\">"
    typist.send(
        b"\x1b[1;31mred \x1b[0;44mon blue\x1b[0m \x1b[38;2;1;2;3;7mrgb\x1b[0m\r\n"
        + hostile.encode()
        + b"\r\n\x1b]8;;javascript:alert(1)\x1b\\link\x1b]8;;\x1b\\ end"
    )
    shows(page, "end *$")
    name, html = save(page, "#save-html")
    assert re.fullmatch(SAVED + r"\.html", name)
    asked = []
    opened = chromium.new_page()
    opened.on("request", lambda request: asked.append(request.url))
    opened.route("**/*", lambda route: route.fulfill(body=html, content_type="text/html"))
    opened.goto("http://saved.test/")
    assert asked == ["http://saved.test/"]
    assert opened.title() == "Serial console"
    assert opened.locator("pre").inner_text().split("\n")[1] == hostile
    assert opened.locator("script, img, a").count() == 0

    def colours(text):
        return opened.get_by_text(text, exact=True).evaluate(
            "(span) => [getComputedStyle(span).color, getComputedStyle(span).backgroundColor]"
        )

    assert colours("red ")[0] == "rgb(255, 133, 131)"  # bold is bright, as on the screen
    assert colours("on blue")[1] == "rgb(106, 165, 240)"
    assert colours("rgb")[1] == "rgb(1, 2, 3)"
    opened.close()


def test_a_recording_plays_to_the_same_screen(page, typist):
    typist.send(b"\x1b[32mfrom before\x1b[0m \xc3\xbc\r\n")
    shows(page, "from before")
    page.click("#save-button")
    page.click("#save-record")
    expect(page.locator("#save-record")).to_have_text(re.compile(r"Stop recording \(0:0\d\)"))
    expect(page.locator("#save-button")).to_have_text("Recording")
    typist.send(b"\xef\xbb\xbfone \x1b[31mred\x1b[0m \xc3")
    shows(page, "one red")
    typist.send(b"\xbc \xff\r\ntwo\r\n")
    shows(page, "^two")
    page.set_viewport_size({"width": 800, "height": 500})
    typist.send(b"\x1b[2;1Hover\x1b[4;1H" + b"x" * 120 + b" end")
    shows(page, "x end")
    name, recording = save(page, "#save-record")
    assert re.fullmatch(SAVED + r"\.cast", name)
    header, *events = map(json.loads, recording.splitlines())
    assert header["version"] == 2
    assert header["title"] == NAME
    times = [time for time, _, _ in events]
    assert times == sorted(times)
    assert times[0] >= 0
    assert {code for _, code, _ in events} == {"o", "r"}
    assert "from before" in events[0][2]
    output = "".join(data for _, code, data in events[1:] if code == "o")
    assert output.startswith("\ufeffone \x1b[31m")
    assert "ü \ufffd\r\n" in "".join(data for _, code, data in events if code == "o")
    _, shown = save(page, "#save-text")
    size = {"width": header["width"], "height": header["height"]}
    assert page.evaluate(PLAY, {**size, "events": events}).strip() == shown.strip()
    expect(page.locator("#save-button")).to_have_text("Save")


def test_a_recording_goes_on_over_a_reconnect(make_stack, echo_guest, page):
    stack = make_stack("supervisor", "gateway")

    def give(route):
        route.fulfill(status=201, body=json.dumps({"token": stack.token(echo_guest.uuid)}))

    page.route("**/manager/token", give)
    page.goto(f"http://127.0.0.1:{stack.gateway_port}/serial.html#token_url=/manager/token")
    expect(page.locator("#state")).to_have_text("Connected")
    page.click("#save-button")
    page.click("#save-record")
    page.locator(".xterm-helper-textarea").focus()
    page.keyboard.type("before")
    shows(page, "before")
    stack.end("gateway")
    expect(status(page)).to_have_attribute("data-state", "reconnecting")
    stack.start("gateway")
    expect(page.locator("#state")).to_have_text("Connected")
    page.keyboard.type("after")
    shows(page, "after")
    _, recording = save(page, "#save-record")
    _, *events = map(json.loads, recording.splitlines())
    assert "".join(data for _, code, data in events if code == "o") == "beforeafter"
    page.close()
    stack.wait_free()


def test_a_recording_that_grows_too_long_is_saved_and_ends(page, typist):
    """Output of 100 MB is made up: the terminal would take half a minute to show it."""
    page.evaluate("""async () => {
      const { SerialConsole } = await import('./console.js');
      const { record } = SerialConsole.prototype;
      SerialConsole.prototype.record = function () {
        window.pour = () => {
          const bytes = new Uint8Array(1_000_000).fill(97);
          for (let n = 0; n < 101; n++) {
            this.dispatchEvent(new CustomEvent('output', { detail: { bytes } }));
          }
        };
        return record.call(this);
      };
    }""")
    page.click("#save-button")
    page.click("#save-record")
    with page.expect_download() as download:
        page.evaluate("() => pour()")
    assert 100_000_000 < download.value.path().stat().st_size < 101_100_000
    expect(page.locator("#announcer")).to_contain_text("too long")
    shows(page, r"\[The recording became too long: it has ended and was saved\.\]")
    expect(page.locator("#save-record")).to_have_text("Record from now on")
