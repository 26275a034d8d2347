"""A page with a Screen (screen.js) and nothing else, under the gateway's own policy."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from playwright.sync_api import Page

from websockify_tokens import pages

from . import node

HTML = b"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Screen</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="vendor/xterm.css">
<link rel="stylesheet" href="serial.css">
<main id="terminal"></main>
"""

ELSEWHERE = "/elsewhere"
"""An empty page without the policy, for what ours may not do."""

PAGES = pages.Pages(node.WEB, "")

WATCH = """
window.seen = { violations: [], typed: [], links: [], copies: [], allow: false };
document.addEventListener('securitypolicyviolation', (event) =>
  seen.violations.push(`${event.violatedDirective} ${event.sourceFile}`));
"""

OPEN = """
async (options) => {
  const { Screen } = await import('/screen.js');
  window.bytes = (text) => Uint8Array.from(text, (char) => char.charCodeAt(0));
  window.show = new Screen(document.getElementById('terminal'), options, {
    input: (typed) => seen.typed.push(...typed),
    congested: () => false,
    askLink: async (url) => (seen.links.push(url.href), seen.allow),
    askClipboard: async (text) => (seen.copies.push(text), seen.allow),
    key: () => true,
  });
  show.setLive(true);
  show.focus();
}
"""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        found = _find(self.path)
        self.send_response(404 if found is None else 200)
        kind, body = found or ("text/plain", b"")
        if self.path != ELSEWHERE:
            for name, value in PAGES.headers(None):
                self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _find(path: str) -> tuple[str, bytes] | None:
    if path == "/screen.html":
        return "text/html; charset=utf-8", HTML
    if path == ELSEWHERE:
        return "text/html", b""
    if path == "/cells.mjs":
        with open(os.path.join(node.ROOT, "tests", "cells.mjs"), "rb") as file:
            return "text/javascript", file.read()
    page = PAGES.find(path)
    return None if page is None else (page.kind, page.body)


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The page's URL, until the end of the context."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/screen.html"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def open_screen(page: Page, url: str, **options: Any) -> None:
    """Have the page show a Screen, as ``show``; what it does beyond that is in ``seen``."""
    page.add_init_script(WATCH)
    page.goto(url)
    page.evaluate(OPEN, options)


def write(page: Page, data: bytes) -> None:
    """Have the screen show it, and wait until it is parsed."""
    page.evaluate(
        """(text) => new Promise((done) => {
          let left = text.length;
          show.write(bytes(text), (parsed) => {
            left -= parsed;
            if (left === 0) done();
          });
        })""",
        data.decode("latin-1"),
    )


def painted(page: Page) -> None:
    """Wait until all that was parsed is on the display; painting may be put off for 250 ms."""
    page.evaluate("new Promise((done) => setTimeout(() => requestAnimationFrame(done), 300))")
