"""Wrong inputs made of right ones: by structure where they are JSON lines, else by bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

NASTY: Sequence[Any] = (
    None, True, False, 0, -1, 1 << 31, 1 << 63, -(1 << 64), 10**300, 1e308, -0.0, 0.5, float("inf"),
    float("nan"), "", "\0", "\x1b[2J", "\n", "\ud800", "\u202e", "\ufeff", "ü" * 200, "x" * 5000,
    "../../etc", "%2e%2e", [], {}, [[]] * 50, {"v": 1, "op": "end"}, "rw", "ro", "redeem", "end",
)  # fmt: skip
DEEP = 1200
"""Levels of nesting; Python itself gives up at 1000."""


def mutated(seed: bytes, choose: random.Random) -> bytes:
    """Return a variant of an input."""
    data = seed
    if choose.random() < 0.6:
        data = b"\n".join(_line(line, choose) for line in data.split(b"\n"))
    for _ in range(choose.choice((0, 0, 1, 1, 2, 4))):
        data = choose.choice(_BYTES)(data, choose)
    return data


def _line(line: bytes, choose: random.Random) -> bytes:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return line
    for _ in range(choose.randint(1, 3)):
        value = _value(value, choose)
    if choose.random() < 0.05:
        return b'{"v": 1, "op": "redeem", "token": ' + b"[" * DEEP + b"]" * DEEP + b"}"
    return json.dumps(value, ensure_ascii=choose.random() < 0.7).encode(errors="surrogatepass")


def _value(value: Any, choose: random.Random) -> Any:
    if isinstance(value, dict) and value and choose.random() < 0.9:
        changed = dict(value)
        key = choose.choice(list(changed))
        kind = choose.random()
        if kind < 0.1:
            del changed[key]
        elif kind < 0.2:
            changed[str(choose.choice(NASTY))[:50]] = choose.choice(NASTY)
        else:
            changed[key] = _value(changed[key], choose)
        return changed
    if isinstance(value, list) and value and choose.random() < 0.7:
        place = choose.randrange(len(value))
        return [*value[:place], _value(value[place], choose), *value[place + 1 :]]
    return choose.choice(NASTY)


def _cut(data: bytes, choose: random.Random) -> bytes:
    return data[: choose.randint(0, len(data))]


def _flip(data: bytes, choose: random.Random) -> bytes:
    if not data:
        return b"\n"
    place = choose.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << choose.randrange(8))]) + data[place + 1 :]


def _insert(data: bytes, choose: random.Random) -> bytes:
    place = choose.randint(0, len(data))
    piece = choose.choice(
        (b"\0", b"\n", b"\r\n", b"\xff", b"\xe2\x80\xae", b"[" * DEEP, b'"', b"9")
    )
    return data[:place] + piece * choose.choice((1, 1, 2, 100)) + data[place:]


def _repeat(data: bytes, choose: random.Random) -> bytes:
    start = choose.randint(0, len(data))
    piece = data[start : start + choose.randint(1, 64)]
    return data[:start] + piece * choose.choice((2, 3, 200)) + data[start + len(piece) :]


_BYTES: Sequence[Callable[[bytes, random.Random], bytes]] = (_cut, _flip, _insert, _repeat)
