#!/usr/bin/env python3
"""A dashboard in the shape of nova's: it asks for a remote console and opens its URL by itself.

usage: dashboard.py ADDRESS KEY_FILE PORT    ADDRESS: such as http://127.0.0.1:6084/v2.1

Only the address and the key tell it that there is no nova: the key goes where nova's token goes.
"""

from __future__ import annotations

import html
import json
import sys
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

ASKED = {"remote_console": {"protocol": "serial", "type": "serial"}}
FORM = """<!DOCTYPE html><html lang="en"><title>Servers</title>
<form method="post"><label>Server <input name="server"></label><button>Console</button></form>"""
PAGE = """<!DOCTYPE html><html lang="en"><title>Console</title>
<pre id="console" tabindex="0" data-url="URL"></pre>
<script>
const view = document.getElementById('console');
const socket = new WebSocket(view.dataset.url, ['binary', 'base64']);
const decoder = new TextDecoder();
const keys = { Enter: '\\r', Backspace: '\\x7f', Tab: '\\t', Escape: '\\x1b' };
socket.binaryType = 'arraybuffer';
socket.onmessage = ({ data }) => view.append(decoder.decode(data, { stream: true }));
socket.onclose = ({ reason }) => view.append(`\\n[${reason || 'closed'}]`);
view.onkeydown = (event) => {
  const typed = keys[event.key] ?? (event.key.length === 1 ? event.key : '');
  if (typed && !event.ctrlKey) {
    socket.send(new TextEncoder().encode(typed));
    event.preventDefault();
  }
};
view.focus();
</script></html>"""


class Dashboard(BaseHTTPRequestHandler):
    """Who signs people in, and tells which server is whose, is left out."""

    address, key = "", ""

    def do_GET(self) -> None:
        """Show the form."""
        self._show(200, FORM)

    def do_POST(self) -> None:
        """Ask for the console of a server, and show it."""
        form = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        server = parse_qs(form).get("server", [""])[0]
        status, answer = self._nova(server)
        if status == 200:
            url = html.escape(answer["remote_console"]["url"])
            self._show(status, PAGE.replace("URL", url))
        else:
            self._show(status, html.escape(next(iter(answer.values()))["message"]))

    def _nova(self, server: str) -> tuple[int, dict[str, dict[str, str]]]:
        nova = urlsplit(self.address)
        connection = HTTPConnection(nova.netloc, timeout=20)
        headers = {"X-Auth-Token": self.key, "Content-Type": "application/json"}
        headers["X-OpenStack-Nova-API-Version"] = "2.8"
        path = f"{nova.path}/servers/{quote(server, safe='')}/remote-consoles"
        try:
            connection.request("POST", path, json.dumps(ASKED), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def _show(self, status: int, page: str) -> None:
        content = page.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)


def main(address: str, key_file: str, port: str) -> None:
    """Serve on loopback: to be tried, not to be used."""
    Dashboard.address, Dashboard.key = address, Path(key_file).read_text("ascii").strip()
    with ThreadingHTTPServer(("127.0.0.1", int(port)), Dashboard) as server:
        sys.stdout.write(f"http://127.0.0.1:{port}/\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
