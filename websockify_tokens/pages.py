"""The page's files: a list made once, and the headers that go with every answer."""

from __future__ import annotations

import contextlib
import functools
import json
import os

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}


@functools.cache
def files(web: str) -> frozenset[str]:
    """Return the names of all that is served of the page's directory: what is in it, and in its
    ``vendor``, and of a kind that a page is made of. Nothing else is reachable."""
    names = []
    for directory in ("", "vendor/"):
        with contextlib.suppress(OSError):
            names += [directory + name for name in os.listdir(os.path.join(web, directory))]
    return frozenset(name for name in names if os.path.splitext(name)[1] in _TYPES)


def find(path: str, web: str, connect_origins: list[str]) -> tuple[str, bytes] | None:
    """Return an answer's content type and body, or None where there is no such page.

    Args:
        path: the request's path, exactly as it came: no decoding, no normalising, no redirect.
        web: the directory of the page's files.
        connect_origins: other origins that the page may connect to.
    """
    name = path.removeprefix("/") or "serial.html"
    if name == "defaults.json":
        offer = {"connect_origins": connect_origins, "token_subprotocol": True}
        return "application/json", json.dumps(offer).encode()
    if name == "mandatory.json":
        return "application/json", b"{}"
    if name not in files(web):
        return None
    try:
        with open(os.path.join(web, name), "rb") as file:
            return _TYPES[os.path.splitext(name)[1]], file.read()
    except OSError:
        return None


_FEATURES = (
    "camera",
    "clipboard-read",
    "display-capture",
    "geolocation",
    "hid",
    "microphone",
    "midi",
    "payment",
    "serial",
    "usb",
)
"""Of a browser, which nothing here may use, whatever a guest or a fault of ours makes the page do.
Pasting needs none of them."""


def headers(connect_origins: list[str]) -> list[tuple[str, str]]:
    """Return the security headers of every answer."""
    others = [*connect_origins, *(one.replace("http", "ws", 1) for one in connect_origins)]
    connect = " ".join(["'self'", *others])
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"font-src 'self'; connect-src {connect}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'"
    )
    return [
        ("Content-Security-Policy", policy),
        ("Permissions-Policy", ", ".join(f"{name}=()" for name in _FEATURES)),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("X-Frame-Options", "SAMEORIGIN"),  # as frame-ancestors, for older browsers
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-cache"),
    ]


def plain(status: str, text: str, *more: tuple[str, str]) -> bytes:
    """Return a whole answer that ends its connection, for where nothing parses requests.

    Args:
        status: such as ``503 Service Unavailable``.
        text: a sentence fit to show.
        more: headers beside those of every answer.
    """
    body = f"{text}\n"
    fields = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        *headers([]),
        *more,
    ]
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields), "", body]
    return "\r\n".join(lines).encode()
