"""Our page in Debian's Chromium."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    expect,
    sync_playwright,
)

from . import rig

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Each new window would load its address bar's popups, which costs more than our page does. The
    # last such flag counts, so what Playwright disables and we need is here too.
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup,DestroyProfileOnBrowserClose,"
    "HttpsUpgrades,MediaRouter,OptimizationHints,PaintHolding",
]

expect.set_options(timeout=20_000)  # milliseconds; on a busy machine

CSP_REPORT = """
document.addEventListener('securitypolicyviolation', (event) =>
  console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
"""
"""A script that tells the browser's console of what the page's policy has blocked."""


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Chromium, until the end of the context."""
    path = shutil.which("chromium")
    if path is None:
        rig.missing("there is no chromium here; run 'make setup'")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def owns(pid: int) -> bool:
    """Tell whether it is one of Chromium's processes: it has some in reserve, ever new ones."""
    with contextlib.suppress(OSError):
        return "/chromium/" in os.readlink(f"/proc/{pid}/exe")
    return True  # it has just ended


def complaints(context: BrowserContext, port: int) -> list[str]:
    """Return a list that grows with what goes wrong in a browser's new pages.

    That is: errors, warnings, violations of the policy, and requests to others than this port of
    127.0.0.1.
    """
    wrong: list[str] = []
    context.add_init_script(CSP_REPORT)

    def check_host(url: str) -> None:
        if urlsplit(url).netloc not in (f"127.0.0.1:{port}", ""):
            wrong.append(f"request to {url}")

    def check_message(said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            wrong.append(said.text)

    def check_sockets(page: Page) -> None:
        page.on("websocket", lambda socket: check_host(socket.url))

    context.on("console", check_message)
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on("request", lambda request: check_host(request.url))
    context.on("page", check_sockets)
    return wrong


def shows(page: Page, pattern: str) -> None:
    """Wait until the terminal shows a line that matches."""
    page.wait_for_function(
        "(pattern) => new RegExp(pattern, 'm').test("
        "document.querySelector('.xterm-rows').innerText.replaceAll('\\u00a0', ' '))",
        arg=pattern,
        polling=100,  # not at every frame: it has the page laid out each time
        timeout=60000,  # on a busy machine: a replay of resets takes xterm.js a while
    )


def select(page: Page, word: str) -> None:
    """Select a word of the terminal by a double click."""
    page.get_by_text(word, exact=True).dblclick(force=True)
    expect(page.locator(".xterm-selection div").first).to_be_attached()


def lines(page: Page) -> list[str]:
    """What the terminal shows."""
    shown: str = page.evaluate("document.querySelector('.xterm-rows').innerText")
    return shown.replace("\u00a0", " ").splitlines()


def status(page: Page) -> Locator:
    """The page's bar."""
    return page.locator("#status")
