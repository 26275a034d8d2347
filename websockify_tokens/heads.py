"""What the head of a request may look like (RFC 9112); no I/O.

http.server takes a line that is no header for the end of the headers, folds lines, and takes the
first of several Host or Origin headers: what it makes of a request may differ from what a proxy in
front made of it.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter

HEAD_MAX = 32768
"""Bytes of a whole head, as nginx has it; browsers send 1 KiB, and a host manager's cookies."""
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


def _is_host(value: bytes) -> bool:
    found = _HOST.fullmatch(value)
    if found is None or found[1] is None:
        return found is not None
    try:  # newer Pythons' urlsplit raises ValueError where it is none
        ipaddress.IPv6Address(found[1].decode())
    except ValueError:
        return False
    return True
