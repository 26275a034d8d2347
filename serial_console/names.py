"""Names of guests and consoles as file names. A guest's name is hostile input."""

from __future__ import annotations

import os
import re

SUN_PATH_MAX = 107
"""Bytes that fit in ``sockaddr_un.sun_path`` before its NUL (Linux unix(7))."""

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
# C0, DEL, C1, line ends; then what turns text round or stands in it unseen.
_CONTROLS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029"
    r"\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\U000e0000-\U000e007f]"
)


def encode(name: str) -> str:
    """Percent-encode a name so that it is one safe path component.

    Everything but ``[A-Za-z0-9_.-]`` and every leading dot becomes ``%XX`` (of its UTF-8 bytes),
    so two different names never give the same component, and none is ``.`` or ``..``.
    """
    raw = name.encode("utf-8", "surrogateescape")
    text = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in raw)
    return "%2E" + text[1:] if text.startswith(".") else text


def console_socket(directory: str, guest: str, uuid: str, alias: str | None) -> str:
    """Return the path of the socket that a relay binds for one console.

    Args:
        directory: the directory of consoles (config ``paths.consoles``).
        guest: the guest's name.
        uuid: the guest's UUID, used where the name makes the path longer than SUN_PATH_MAX.
        alias: the console's alias, or None for the guest's first console.
    """
    suffix = "" if alias is None else "+" + encode(alias)
    path = os.path.join(directory, encode(guest) + suffix + ".sock")
    if len(os.fsencode(path)) > SUN_PATH_MAX:
        path = os.path.join(directory, uuid + suffix + ".sock")
    return path


def printable(text: str) -> str:
    """Return the text without characters that a terminal would obey, that make it look like
    another, or that UTF-8 cannot have."""
    clean = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)
    return clean.encode("utf-8", "replace").decode("utf-8")


def shown(text: str, limit: int = 64) -> str:
    """Make a name fit to be shown in a sentence: no control characters, not endless."""
    clean = printable(text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
