"""What the head of a request may look like (RFC 9112), and what it says; no I/O.

It refuses what others read otherwise: http.server takes a line that is no header for the end of
the headers, folds lines, and takes the first of several Host or Origin headers. So a proxy in front
makes the same of a request as we do.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter

HEAD_MAX = 32768
"""Bytes of a whole head, as nginx has it; browsers send 1 KiB, and a host manager's cookies."""
FIELDS_MAX = 100
"""Fields of a head, as http.server has it."""
_REQUEST = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ /[!-~]* HTTP/1\.[01]")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t -~\x80-\xff]*")
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_ONCE = frozenset(
    [
        b"host",
        b"origin",
        b"upgrade",
        b"content-length",
        b"sec-websocket-key",
        b"sec-websocket-version",
    ]
)


def flaw(head: bytes) -> str | None:
    """Return what is wrong with a head, in words that repeat nothing of it; None: nothing."""
    request, *fields = [line.removesuffix(b"\r") for line in head.split(b"\n")]
    while fields and not fields[-1]:
        fields.pop()
    if not _REQUEST.fullmatch(request):
        return "The request line is malformed."
    names: Counter[bytes] = Counter()
    body = False
    for field in fields:
        found = _FIELD.fullmatch(field)
        if found is None:
            return "A header is malformed."
        name = found[1].lower()
        names[name] += 1
        value = field.partition(b":")[2].strip(b"\t ")
        if name == b"host" and not _is_host(value):
            return "The Host header is malformed."
        body |= name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
    if any(names[name] > 1 for name in _ONCE):
        return "A header that may come once came twice."
    if not names[b"host"] and request.endswith(b"1.1"):
        return "The Host header is missing."
    if body and request.startswith((b"GET ", b"HEAD ")):
        # What would be read as the next request of the connection may be somebody else's.
        return "A request here has no body."
    return None


class Headers:
    """The fields of a head, by name in any case; what http.server and websockify use of a Message.

    The parser of email.message, of which that is, left each session's process with 0.5 MiB of
    memory that it did not share any more.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}

    def add(self, name: str, value: str) -> None:
        """Add a field."""
        self._values.setdefault(name.lower(), []).append(value)

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of that name."""
        values = self._values.get(name.lower())
        return values[0] if values else default

    def get_all(self, name: str, default: list[str]) -> list[str]:
        """Return every value of that name."""
        return self._values.get(name.lower(), default)

    def __setitem__(self, name: str, value: str) -> None:
        self._values[name.lower()] = [value]

    def __delitem__(self, name: str) -> None:
        self._values.pop(name.lower(), None)


def parsed(head: bytes) -> tuple[str, Headers]:
    """Return the request line and the fields of a head that has no flaw."""
    line, *fields = head.decode("latin-1").split("\n")
    headers = Headers()
    for field in fields:
        name, colon, value = field.removesuffix("\r").partition(":")
        if colon:
            headers.add(name, value.strip("\t "))
    return line.removesuffix("\r"), headers


def _is_host(value: bytes) -> bool:
    found = _HOST.fullmatch(value)
    if found is None or found[1] is None:
        return found is not None
    try:  # newer Pythons' urlsplit raises ValueError where it is none
        ipaddress.IPv6Address(found[1].decode())
    except ValueError:
        return False
    return True
