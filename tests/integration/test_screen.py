"""The page's terminal alone (screen.js) in Chromium, under the gateway's policy."""

from __future__ import annotations

import base64
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests import devtools, rig, screens
from tests.screens import painted, write

# Chromium here draws WebGL in software, which the page would not use: a fake name for the renderer.
GRAPHICS_CARD = """
const { getParameter } = WebGL2RenderingContext.prototype;
WebGL2RenderingContext.prototype.getParameter = function (name) {
  const value = getParameter.call(this, name);
  return typeof value === 'string' ? value.replace(/swiftshader/gi, 'Graphics Card') : value;
};
"""
# WebGL is there when asked for, and fails when it is to be used: the second context on.
BROKEN_WEBGL = """
const { getContext } = HTMLCanvasElement.prototype;
let contexts = 0;
HTMLCanvasElement.prototype.getContext = function (kind, options) {
  return kind === 'webgl2' && ++contexts > 1 ? null : getContext.call(this, kind, options);
};
"""
PIXEL = """
async ([png, x, y]) => {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const context = new OffscreenCanvas(image.width, image.height).getContext('2d');
  context.drawImage(image, 0, 0);
  return [...context.getImageData(x, y, 1, 1).data].slice(0, 3);
}
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with screens.served() as url:
        yield url


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    """A page that must break no rule of the policy, and have no error."""
    wrong: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 600})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    wrong += page.evaluate("seen.violations")
    context.close()
    assert not wrong


def text(page: Page) -> str:
    return str(page.evaluate("show.text()"))


def typed(page: Page) -> bytes:
    return bytes(page.evaluate("seen.typed.splice(0)"))


def colour_at(page: Page, column: int, row: int) -> list[int]:
    """Return what is to be seen in the middle of a cell: red, green, blue."""
    box = page.locator(".xterm-screen").bounding_box()
    assert box is not None
    cols, rows = page.evaluate("[show.cols, show.rows]")
    x = box["x"] + (column + 0.5) * box["width"] / cols
    y = box["y"] + (row + 0.5) * box["height"] / rows
    png = base64.b64encode(page.screenshot()).decode()
    return list(page.evaluate(PIXEL, [png, round(x), round(y)]))


def shows_colours(page: Page) -> None:
    """The sixteen, the 256 and true colours, in front and behind."""
    write(
        page,
        b"\x1b[2J\x1b[H\x1b[38;2;255;128;0m\xe2\x96\x88\xe2\x96\x88\x1b[m "
        b"\x1b[48;5;21m  \x1b[m \x1b[31m\xe2\x96\x88\xe2\x96\x88\x1b[m\x1b[7m  \x1b[m",
    )
    painted(page)
    found = [colour_at(page, column, 0) for column in (0, 3, 6, 8, 20)]
    assert found == [[255, 128, 0], [0, 0, 255], [240, 82, 79], [216, 222, 230], [17, 20, 26]]


def test_colours_are_right_under_the_policy_however_they_are_drawn(page: Page, url: str) -> None:
    page.add_init_script(GRAPHICS_CARD)
    screens.open_screen(page, url)
    canvas = page.locator(".xterm-screen canvas").first
    expect(canvas).to_be_attached()
    shows_colours(page)
    page.evaluate("""() => {
      const canvases = [...document.querySelectorAll('.xterm-screen canvas')];
      const drawn = canvases.find((canvas) => canvas.getContext('webgl2'));
      drawn.getContext('webgl2').getExtension('WEBGL_lose_context').loseContext();
    }""")
    expect(canvas).not_to_be_attached(timeout=20_000)  # it waits 3 s for the context to come back
    expect(page.locator(".xterm-rows")).to_be_attached()
    shows_colours(page)


def test_where_webgl_fails_the_dom_draws(page: Page, url: str) -> None:
    page.add_init_script(GRAPHICS_CARD + BROKEN_WEBGL)
    with page.expect_console_message(lambda said: "without WebGL" in said.text):
        screens.open_screen(page, url)
    shows_colours(page)


def test_webgl_in_software_is_not_used(page: Page, url: str) -> None:
    screens.open_screen(page, url, renderer="auto")
    shows_colours(page)
    assert page.locator(".xterm-screen canvas").count() == 0


def test_characters_are_whole_however_they_are_cut(page: Page, url: str) -> None:
    screens.open_screen(page, url, renderer="dom")
    good = "aé中😀e\u0301👨‍👩‍👧z".encode()
    bad = b"\xff \xc0\x80 \xe2\x82 \xf0\x9f\x98x \xed\xa0\x80 \xf5 \x9b6n \xe4\xf6\xfc."
    for cut in range(1, len(good)):
        write_at_once(page, good[:cut], good[cut:] + b"\r\n")
    write(page, bad)
    lines = text(page).splitlines()
    assert lines == [good.decode()] * (len(good) - 1) + [bad.decode(errors="replace")]
    page.keyboard.insert_text("é中😀")
    assert typed(page) == "é中😀".encode()
    # What the oldest mouse reports say beyond column 95 is no UTF-8.
    write(page, b"\x1b[?1000h\x1b[H")
    box = page.locator(".xterm-screen").bounding_box()
    assert box is not None
    width = box["width"] / page.evaluate("show.cols")
    page.mouse.click(box["x"] + 110.5 * width, box["y"] + 5)
    assert typed(page).startswith(bytes([0x1B, ord("["), ord("M"), 32, 33 + 110, 33]))


def write_at_once(page: Page, *pieces: bytes) -> None:
    page.evaluate(
        "(pieces) => pieces.forEach((one) => show.write(bytes(one)))",
        [piece.decode("latin-1") for piece in pieces],
    )


def test_notes_stand_on_rows_of_their_own_and_change_nothing(page: Page, url: str) -> None:
    screens.open_screen(page, url, renderer="dom")
    page.evaluate("""() => {
      show.note('first');
      show.write(bytes('a\\x1b[3'));
      show.note('within a sequence \\x1b[31m');
      show.write(bytes('5mb\\xe4\\xb8'));
      show.note('within a character');
      show.write(bytes('\\xadc\\x1b(0lq'));
      show.note('within another character set');
      show.write(bytes('qk\\x1b(B\\x1b]0;title'));
      show.gap('5 bytes skipped');
      show.write(bytes('shown\\xe4'));
      show.gap('again');
      show.write(bytes('\\xb8end'));
    }""")
    assert text(page).splitlines() == [
        "[first]",
        "a",
        "[within a sequence  [31m]",
        "b",
        "[within a character]",
        "中c┌─",
        "[within another character set]",
        "─┐",
        "[5 bytes skipped]",
        "shown\N{REPLACEMENT CHARACTER}",
        "[again]",
        "\N{REPLACEMENT CHARACTER}end",
    ]
    assert "#c792ea" in page.evaluate("show.html()").splitlines()[-6]  # still magenta


def test_a_flood_leaves_the_page_to_the_person(page: Page, url: str) -> None:
    screens.open_screen(page, url, renderer="dom")
    page.evaluate("""() => {
      const line = '\\x1b[32m0123456789 abcdefghijklmnopqrstuvwxyz\\x1b[m\\r\\n';
      const data = bytes(line.repeat(20_000));
      window.flood = { taken: 0, size: 25 * data.length };
      for (let n = 0; n < 25; n++) {
        show.write(data, (parsed) => { flood.taken += parsed; });
      }
    }""")
    page.keyboard.press("x")
    assert typed(page) == b"x"
    taken, size, backlog = page.evaluate("[flood.taken, flood.size, show.backlog]")
    assert 0 < backlog == size - taken
    page.wait_for_function("() => flood.taken === flood.size && show.backlog === 0")
    assert page.evaluate("show.terminal.buffer.active.length - show.rows") == 10_000


def test_a_hidden_tab_keeps_up_and_holds_nothing(url: str) -> None:
    with devtools.tab(url) as tab:
        tab.evaluate(f"{screens.WATCH}; ({screens.OPEN})({{ renderer: 'dom' }})")
        tab.hide()
        assert rig.eventually(lambda: tab.evaluate("document.hidden") is True)
        started = time.monotonic()
        tab.evaluate("""new Promise((done) => {
          const piece = bytes('0123456789 abcdefghijklmnopqrstuvwxyz\\r\\n'.repeat(1700)); // 64 KiB
          let taken = 0, sent = 0;
          const send = () => { sent++; show.write(piece, (parsed) => {
            taken += parsed;
            if (taken === 128 * piece.length) done();
            else if (sent < 128 && taken === sent * piece.length) send();
          }); };
          send();
        })""")
        took = time.monotonic() - started
        print(f"8.5 MB in a hidden tab in {took:.2f} s")
        # By timers, of which a hidden tab has one a second, it would be 128 s.
        assert took < 20
        assert tab.evaluate("show.backlog") == 0
        assert tab.evaluate("show.terminal.buffer.active.length - show.rows") == 10_000


def test_find_marks_and_counts(page: Page, url: str) -> None:
    screens.open_screen(page, url, renderer="dom")
    page.evaluate("""() => {
      seen.found = [];
      show.addEventListener('found', ({ detail }) => seen.found.push([detail.index, detail.count]));
    }""")
    write(page, b"one Two\r\nthree two\r\ntwofold\r\n")

    def find(wanted: str, **options: bool) -> list[Any]:
        found = page.evaluate("([text, options]) => show.find(text, options)", [wanted, options])
        return [found, page.evaluate("show.selection"), *page.evaluate("seen.found.at(-1) ?? []")]

    assert find("two") == [True, "Two", 0, 3]
    assert find("two") == [True, "two", 1, 3]
    assert find("two", backwards=True) == [True, "Two", 0, 3]
    assert find("two", caseSensitive=True, wholeWord=True)[::3] == [True, 1]
    assert find("t.o$", regex=True)[::3] == [True, 2]
    assert find("(", regex=True)[0] is False
    assert find("nowhere")[:2] == [False, ""]
    assert find("two")[0] is True
    page.evaluate("show.clearFind()")
    assert page.evaluate("show.selection") == ""


def test_all_that_is_kept_can_be_saved(page: Page, url: str, tmp_path: pathlib.Path) -> None:
    screens.open_screen(page, url, renderer="dom", scrollback=100)
    page.evaluate("show.setSize(20, 5)")
    hostile = b"<script>document.title='ran'</script><img src=x onerror=alert(1)>&amp;'\""
    lines = b"".join(b"line %d\r\n" % number for number in range(200))
    write(
        page,
        lines + b"\x1b[1;31;48;2;1;2;3mred\x1b[m \x1b[7mback\x1b[m\r\n" + hostile + b"\r\n\r\n",
    )
    saved = text(page).splitlines()
    assert saved[:2] == ["line 102", "line 103"]
    assert saved[-2:] == ["red back", hostile.decode()]
    page.evaluate("show.selectAll()")
    assert "line 150\n" in page.evaluate("show.selection")
    file = tmp_path / "saved.html"
    file.write_text(page.evaluate("show.html()"), encoding="utf-8")
    with page.context.new_page() as other:
        asked: list[str] = []
        other.on("request", lambda request: asked.append(request.url))
        other.goto(file.as_uri())
        assert other.locator("pre").inner_text().rstrip().splitlines() == saved
        assert other.title() == "Serial console"
        style = "getComputedStyle(document.querySelector('span')).color"
        assert other.evaluate(style) == "rgb(255, 133, 131)"  # bold is bright
        assert asked == [file.as_uri()]


def test_links_open_after_a_question(page: Page, url: str) -> None:
    screens.open_screen(page, url, renderer="dom")
    page.context.route(re.compile("stranger"), lambda route: route.fulfill(body="here"))
    write(
        page,
        b"http://me:secret@stranger.invalid/a\r\nhttps://stranger.invalid/b\r\njavascript:alert(1)\r\n"
        b"\x1b]8;;http://stranger.invalid/c\x1b\\OSC 8\x1b]8;;\x1b\\\r\nhttp://"
        + b"x" * 3000
        + b"/\r\n",
    )
    painted(page)
    screen = page.locator(".xterm-screen")
    for row in range(5):
        screen.hover(position={"x": 600, "y": 550})
        screen.hover(position={"x": 20, "y": 17 * row + 8})
        screen.click(position={"x": 20, "y": 17 * row + 8})
    expected = [
        f"http{s}://stranger.invalid/{path}" for s, path in (("", "a"), ("s", "b"), ("", "c"))
    ]
    assert page.evaluate("seen.links") == expected
    assert len(page.context.pages) == 1
    page.evaluate("seen.allow = true")
    with page.context.expect_page() as opened:
        screen.hover(position={"x": 20, "y": 8})
        screen.click(position={"x": 20, "y": 8})
    assert opened.value.evaluate("opener") is None


def test_the_guest_writes_the_clipboard_after_a_question_and_reads_it_never(
    page: Page, url: str
) -> None:
    screens.open_screen(page, url, renderer="dom")
    page.evaluate("navigator.clipboard.writeText('the person\\'s own')")

    def copy(data: bytes) -> list[str]:
        write(page, b"\x1b]52;c;" + data + b"\x07")
        return list(page.evaluate("seen.copies.splice(0)"))

    def held() -> Any:
        with page.context.new_page() as other:
            other.goto(url.replace("/screen.html", screens.ELSEWHERE))
            return other.evaluate("navigator.clipboard.readText()")

    good = base64.b64encode("é copied".encode())
    assert [copy(bad) for bad in (b"?", b"!", b"", b"\xff", b"a", base64.b64encode(b"\xff"))] == [
        []
    ] * 6
    assert copy(base64.b64encode(b"x" * (1 << 20))) == ["x" * (1 << 20)]
    assert copy(base64.b64encode(b"x" * ((1 << 20) + 3))) == []
    assert copy(good + b"\x07\x1b]52;p;" + good) == ["é copied"], "one question at a time"
    assert typed(page) == b""
    assert held() == "the person's own"
    page.evaluate("seen.allow = true")
    assert copy(good) == ["é copied"]
    assert held() == "é copied"


def test_themes_have_contrast_and_follow_the_system(page: Page, url: str) -> None:
    page.emulate_media(color_scheme="light")
    screens.open_screen(page, url, renderer="dom", theme="system")
    painted(page)
    assert colour_at(page, 20, 3) == [255, 255, 255]
    page.emulate_media(color_scheme="dark")
    painted(page)
    assert colour_at(page, 20, 3) == [17, 20, 26]
    for name in ("light", "dark"):
        page.evaluate("(theme) => show.configure({ theme })", name)
        colours = page.evaluate("show.terminal.options.theme")
        same = {"light": {"white", "brightWhite"}, "dark": {"black"}}[name]
        ground = luminance(colours["background"])
        for key, colour in colours.items():
            if "background" not in key.lower() and key != "cursorAccent" and key not in same:
                light, dark = sorted([luminance(colour), ground], reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, key)


def luminance(colour: str) -> float:
    """Return WCAG's relative luminance of ``#rrggbb``."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_settings_size_and_bell(page: Page, url: str) -> None:
    page.add_init_script("""
      window.rung = { flashes: 0, tones: 0 };
      const { animate } = Element.prototype;
      Element.prototype.animate = function (...given) {
        rung.flashes++;
        return animate.apply(this, given);
      };
      window.AudioContext = class extends AudioContext {
        constructor() {
          super();
          rung.tones++;
        }
      };
    """)
    screens.open_screen(page, url, renderer="dom", bell="visual", screenReader=True)
    assert page.evaluate("show.terminal.options.screenReaderMode")
    page.evaluate("show.addEventListener('size', () => (seen.size = [show.cols, show.rows]))")
    page.evaluate("show.setSize(132, 43)")
    assert page.evaluate("seen.size") == [132, 43]
    page.set_viewport_size({"width": 360, "height": 600})
    page.evaluate("new Promise(requestAnimationFrame)")
    assert page.evaluate("[show.cols, show.rows]") == [132, 43]
    page.evaluate("show.fit()")
    cols = page.evaluate("show.cols")
    assert 30 < cols < 50
    page.evaluate("show.configure({ fontSize: 28 })")
    assert page.evaluate("show.cols") <= cols / 2 + 1
    write(page, b"\x07" * 50_000)
    assert page.evaluate("rung") == {"flashes": 1, "tones": 0}
    page.evaluate("show.configure({ bell: 'none' })")
    write(page, b"\x07")
    page.evaluate("show.configure({ bell: 'sound' })")
    page.wait_for_timeout(1000)  # which is between two bells
    write(page, b"\x07" * 1000)
    assert page.evaluate("rung") == {"flashes": 1, "tones": 1}
    page.evaluate("show.setLive(false)")
    page.keyboard.press("x")
    assert typed(page) == b""
