"""The subprotocol serial-console.v1: events as text frames in their place; no I/O.

To the client go the relay's events as they come, each a JSON object; ``skipped`` stands where the
gap is. From the client come ``window`` and ``taken``, with which it holds its output back.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from .frames import BINARY, TEXT

PROTOCOL = "serial-console.v1"
TEXT_MAX = 4096
"""Bytes of a client's text message."""
BYTES_MAX = 2**53
"""Of a number that JavaScript has exactly."""
POLICY_VIOLATION = 1008


class MessageError(Exception):
    """A client's text message is not understood; says why, for the close frame."""


class Events:
    """Puts one client's events among its output."""

    def __init__(self) -> None:
        self._received = 0  # bytes of output
        self._gaps: deque[tuple[int, bytes]] = deque()
        self._newest: dict[str, bytes] = {}  # of each kind that needs no place

    @property
    def waiting(self) -> bool:
        """Whether there are events to be sent, with no output to wait for."""
        gap = self._gaps and self._gaps[0][0] <= self._received
        return bool(self._newest or gap)

    def add(self, told: list[dict[str, Any]]) -> None:
        """Take events from the relay. Of a kind that waits already only the newest counts."""
        for event in told:
            op = event["op"]
            text = json.dumps(event).encode()
            if op == "skipped":
                self._gaps.append((event["at"], text))
            elif op != "end":  # which is the close frame
                self._newest[op] = text

    def parts(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return what is to be sent now: the events, then output, with the gaps in it.

        Args:
            data: output, maybe none. What the relay wrote before it has been added.

        Returns:
            ``(opcode, payload)`` each.
        """
        parts = [(TEXT, text) for text in self._newest.values()]
        self._newest.clear()
        end = self._received + len(data)
        while self._gaps and self._gaps[0][0] <= end:
            at, text = self._gaps.popleft()
            piece, data = data[: at - self._received], data[max(0, at - self._received) :]
            self._received += len(piece)
            parts += [(BINARY, piece), (TEXT, text)] if piece else [(TEXT, text)]
        self._received = end
        return [*parts, (BINARY, data)] if data else parts


def understood(payload: bytes) -> tuple[str, int]:
    """Return the ``op`` of a client's text message and its one field.

    Raises:
        MessageError: it is none of ours.
    """
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError):
        raise MessageError("A text message was not JSON.") from None
    op = message.get("op") if isinstance(message, dict) else None
    if op not in ("window", "taken"):
        raise MessageError('A text message had no known "op": there are "window" and "taken".')
    count = message.get("bytes")
    if type(count) is not int or not 0 <= count < BYTES_MAX:
        raise MessageError(f'A "{op}" message had no proper "bytes".')
    return op, count
