#!/usr/bin/env python3
"""A host manager in the shape of Kimchi: a page of guests, and a button that opens a console.

usage: manager.py ADDRESS KEY_FILE PORT    ADDRESS: the API's, such as http://127.0.0.1:6084

It is a WSGI application of the standard library, so that any web server or framework of Python can
run it. Who signs people in stands before it and sets REMOTE_USER.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit
from wsgiref.simple_server import make_server

from serial_console.client import ApiError, Client, ClientError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

VMS = "/plugins/kimchi/vms"
LIST = """<!DOCTYPE html><html lang="en"><title>Guests</title><ul>{items}</ul></html>"""
ITEM = """<li>{name}: {state}
<form method="post" action="{action}">
<button name="how" value="here">Open here</button>
<button name="how" value="tab" formtarget="_blank">Open in a tab</button>
</form></li>"""
FRAME = """<!DOCTYPE html><html lang="en"><title>{name}</title>
<iframe src="{url}" title="Serial console" allow="clipboard-write" width="900" height="500">
</iframe></html>"""


class Manager:
    """The application: ``GET /plugins/kimchi/vms``, ``POST /plugins/kimchi/vms/NAME/serial``."""

    def __init__(self, consoles: Client) -> None:
        self._consoles = consoles

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        location = ""
        try:
            status, text, location = self._answer(environ)
        except ApiError as error:  # its code tells which: no_such_guest, limit_reached ...
            status, text = f"{error.status} {error.title}", escape(error.detail)
        except ClientError as error:
            status, text = "502 Bad Gateway", escape(str(error))
        headers = [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store")]
        start(status, [*headers, ("Location", location)] if location else headers)
        return [text.encode()]

    def _answer(self, environ: WSGIEnvironment) -> tuple[str, str, str]:
        """Return status, page, and where the browser is to go."""
        user = environ.get("REMOTE_USER", "")
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        if not user:
            return "401 Unauthorized", "Sign in first.", ""
        if environ["REQUEST_METHOD"] == "GET" and path == VMS:
            return "200 OK", self._list(), ""
        name = path.removeprefix(f"{VMS}/").removesuffix("/serial")
        if environ["REQUEST_METHOD"] != "POST" or path != f"{VMS}/{name}/serial":
            return "404 Not Found", f'Nothing is here; see <a href="{VMS}">the guests</a>.', ""
        # Another site's form would be sent with this user's cookie too.
        if urlsplit(environ.get("HTTP_ORIGIN", "")).netloc != environ["HTTP_HOST"]:
            return "403 Forbidden", "This was asked by another site.", ""
        # Whether this user may have this guest is the manager's to know, here.
        url = self._consoles.issue(name, user=user).page_url
        form = parse_qs(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0)).decode())
        if form.get("how") == ["tab"]:
            return "303 See Other", "", url
        return "200 OK", FRAME.format(name=escape(name), url=escape(url)), ""

    def _list(self) -> str:
        items = [
            ITEM.format(
                name=escape(guest.name),
                state=escape(guest.state),
                action=escape(f"{VMS}/{quote(guest.name, safe='')}/serial"),
            )
            for guest in self._consoles.guests()
        ]
        return LIST.format(items="".join(items))


def main(address: str, key_file: str, port: str) -> None:
    """Serve on loopback to whoever started it: to be tried, not to be used."""
    manager = Manager(Client(address, Path(key_file).read_text("ascii")))

    def signed_in(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        return manager({**environ, "REMOTE_USER": getpass.getuser()}, start)

    with make_server("127.0.0.1", int(port), signed_in) as server:
        sys.stdout.write(f"http://127.0.0.1:{port}{VMS}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
