"""Names of guests and consoles as file names. A guest's name is hostile input."""

from __future__ import annotations

import hashlib
import os
import unicodedata

SUN_PATH_MAX = 107
"""Bytes that fit in ``sockaddr_un.sun_path`` before its NUL (Linux unix(7))."""

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
# Controls, what is invisible or turns the direction of the text, surrogates, line separators.
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


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
        uuid: the guest's UUID, used where the name makes the path longer than SUN_PATH_MAX; where
            the alias still does, as a user's own alias can, a hash stands for it after ``++``.
        alias: the console's alias, or None for the guest's first console.
    """
    suffix = "" if alias is None else "+" + encode(alias)
    path = os.path.join(directory, encode(guest) + suffix + ".sock")
    if len(os.fsencode(path)) > SUN_PATH_MAX:
        path = os.path.join(directory, uuid + suffix + ".sock")
    if alias is not None and len(os.fsencode(path)) > SUN_PATH_MAX:
        short = hashlib.sha256(suffix.encode()).hexdigest()[:16]
        path = os.path.join(directory, f"{uuid}++{short}.sock")
    return path


def printable(text: str) -> str:
    """Return the text without what a terminal obeys, nobody sees, or UTF-8 cannot have."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(one) in _UNSHOWN else one
        for one in text
    )


def shown(text: str, limit: int = 64) -> str:
    """Make a name fit to be shown in a sentence: nothing that is no text, not endless."""
    return shortened(printable(text), limit)


def shortened(text: str, limit: int) -> str:
    """Cut a text at so many characters."""
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
