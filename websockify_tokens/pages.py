"""The page's files, read once, the operator's settings, and the headers of every answer."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import math
import os
import re
import stat
from dataclasses import dataclass

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}


PACKED_MIN = 512
"""Bytes from which on it is worth packing a file."""
SETTINGS_MAX = 65536
"""Bytes of a file of the operator's: each client has it read anew."""
UNREADABLE = "The operator's {name} on this host cannot be used; its gateway's log says why."


@dataclass(frozen=True)
class Page:
    """An answer: its content type, its body, the body as gzip if that is shorter, and what tells
    this version from others (an ETag), for a client that has it already."""

    kind: str
    body: bytes
    packed: bytes | None = None
    tag: str = ""


class SettingsError(Exception):
    """A file of the operator's cannot be used; says which and why, for the log.

    Attributes:
        page: what the client is answered.
    """

    def __init__(self, directory: str, name: str, why: str) -> None:
        super().__init__(f"cannot use {os.path.join(directory, name)}: {why}")
        text = UNREADABLE.format(name=name)
        self.page = Page("text/plain; charset=utf-8", f"{text}\n".encode())


class Pages:
    """All that is served, and the headers of every answer.

    The page's files are read once, before any client comes: all processes share them, and a page
    is of one version while an upgrade replaces the files.

    Args:
        web: the directory of the page's files: what is in it, and in its ``vendor``, and of a kind
            that a page is made of. Nothing else is reachable.
        settings: the directory of the operator's defaults.json and mandatory.json; "": none. They
            are read at each request, so that a change needs no restart.
    """

    def __init__(self, web: str, settings: str) -> None:
        self._settings = settings
        self.permit([], [])
        # For a load balancer: the gateway takes connections, and that is all it can tell.
        self._files = {"healthz": Page("text/plain; charset=utf-8", b"ok\n")}
        for directory in ("", "vendor/"):
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(os.path.join(web, directory)):
                    kind = _TYPES.get(os.path.splitext(name)[1])
                    if kind is not None:
                        self._files[directory + name] = _read(
                            os.path.join(web, directory, name), kind
                        )

    def permit(self, connect_origins: list[str], allowed_origins: list[str]) -> None:
        """Say who has to do with the page: none in the beginning.

        Args:
            connect_origins: other origins that the page may connect to.
            allowed_origins: other origins whose pages may embed it and import its modules.
        """
        self._allowed = allowed_origins
        self._headers = headers(connect_origins, allowed_origins)
        self._offers: dict[str, dict[str, object]] = {
            "defaults.json": {"connect_origins": connect_origins, "token_subprotocol": True},
            "mandatory.json": {},
        }

    def find(self, path: str) -> Page | None:
        """Return an answer, or None where there is no such page.

        Args:
            path: the request's path, exactly as it came: no decoding, no normalising, no redirect.

        Raises:
            SettingsError: it is a file of the operator's that cannot be used.
        """
        name = path.removeprefix("/") or "serial.html"
        if name not in self._offers:
            return self._files.get(name)
        return Page("application/json", json.dumps(self._with_operators(name)).encode())

    def headers(self, origin: str | None) -> list[tuple[str, str]]:
        """Return the headers of every answer to a request of this Origin."""
        if origin not in self._allowed:
            return self._headers
        shared = ("Cross-Origin-Resource-Policy", "cross-origin")
        others = [one for one in self._headers if one[0] != shared[0]]
        return [*others, shared, ("Access-Control-Allow-Origin", str(origin))]

    def _with_operators(self, name: str) -> dict[str, object]:
        """Return what the gateway offers by a file of this name, and the operator's settings."""
        if not self._settings:
            return self._offers[name]
        try:
            content = _content(os.path.join(self._settings, name)).decode()
            found = json.loads(content, parse_constant=_no_constant, parse_float=_finite)
        except FileNotFoundError:
            found = {}
        except OSError as error:
            raise SettingsError(self._settings, name, error.strerror or "not readable") from None
        except (ValueError, RecursionError) as error:
            raise SettingsError(self._settings, name, f"it is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise SettingsError(self._settings, name, 'it is no JSON object: write {"name": value}')
        for key in self._offers["defaults.json"]:
            if key in found:
                why = f'"{key}" is not for this file: the gateway says it, from its configuration'
                raise SettingsError(self._settings, name, why)
        return self._offers[name] | found


def accepts_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header names gzip, and not to refuse it."""
    for one in accepted.lower().split(","):
        coding, _, weight = one.partition(";")
        if coding.strip() == "gzip":
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight)
    return False


def _read(path: str, kind: str) -> Page:
    with open(path, "rb") as file:
        body = file.read()
    packed = gzip.compress(body, mtime=0) if len(body) >= PACKED_MIN else body
    tag = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Page(kind, body, packed if len(packed) < len(body) else None, tag)


def _content(path: str) -> bytes:
    """Return a file of the operator's; opening a pipe in its place waits for nobody."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is no regular file")
        content = file.read(SETTINGS_MAX + 1)
    if len(content) > SETTINGS_MAX:
        raise OSError(0, f"it has more than {SETTINGS_MAX} bytes")
    return content


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is none of its values")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large a number")
    return number


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


def headers(connect_origins: list[str], allowed_origins: list[str]) -> list[tuple[str, str]]:
    """Return the security headers of every answer; see Pages."""
    others = [*connect_origins, *(one.replace("http", "ws", 1) for one in connect_origins)]
    connect = " ".join(["'self'", *others])
    ancestors = " ".join(["'self'", *allowed_origins])
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"font-src 'self'; connect-src {connect}; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors {ancestors}"
    )
    # Older browsers know no list: for them there is this, or nothing.
    framing = [] if allowed_origins else [("X-Frame-Options", "SAMEORIGIN")]
    return [
        ("Content-Security-Policy", policy),
        ("Permissions-Policy", ", ".join(f"{name}=()" for name in _FEATURES)),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        *framing,
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
        *headers([], []),
        *more,
    ]
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields), "", body]
    return "\r\n".join(lines).encode()
