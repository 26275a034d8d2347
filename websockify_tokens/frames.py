"""WebSocket frames (RFC 6455, section 5), server side, without I/O and with bounds.

websockify's own class collects a frame whole, whatever length it claims, and breaks when a ping
comes while output waits. This one hands payload on as it comes and never holds more than it is
given.
"""

from __future__ import annotations

import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
CONTROL_MAX = 125
"""Bytes of a control frame's payload (RFC 6455, 5.5)."""
REASON_MAX = 120
"""Bytes of a close reason (DESIGN.md; RFC 6455 leaves room for 123)."""
PROTOCOL_ERROR = 1002


class FrameError(Exception):
    """The client broke the protocol; the reason is for the close frame."""


def frame(opcode: int, payload: bytes) -> bytes:
    """Return one whole frame, unmasked as a server's are."""
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", 0x80 | opcode, length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 126, length)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, length)
    return head + payload


def close_frame(code: int, reason: str) -> bytes:
    """Return a close frame; a reason longer than REASON_MAX is cut between words."""
    text = reason.encode()
    if len(text) > REASON_MAX:
        text = text[: REASON_MAX - 3].decode(errors="ignore").encode()
        text = (text.rpartition(b" ")[0] or text) + "…".encode()
    return frame(CLOSE, struct.pack("!H", code) + text)


class Reader:
    """Takes a client's bytes, gives ``(opcode, payload)``.

    Data comes as BINARY, whatever kind of message carried it, in pieces as it arrived; a control
    frame comes whole.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._left = 0
        self._mask = b""
        self._in_message = False

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take what was read.

        Raises:
            FrameError: it breaks the protocol.
        """
        self._buffer += data
        found: list[tuple[int, bytes]] = []
        while self._left or self._head(found):
            if not self._left:  # a control frame, or one without payload
                continue
            piece = bytes(self._buffer[: self._left])
            if not piece:
                break
            del self._buffer[: len(piece)]
            self._left -= len(piece)
            found.append((BINARY, _unmask(piece, self._mask)))
            turn = len(piece) % 4
            self._mask = self._mask[turn:] + self._mask[:turn]
        return found

    def _head(self, found: list[tuple[int, bytes]]) -> bool:
        """Take a frame's head, and a control frame whole. Returns whether it is to be called on."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        final, opcode, length = buffer[0] & 0x80, buffer[0] & 0x0F, buffer[1] & 0x7F
        if buffer[0] & 0x70:
            raise FrameError("reserved bits are set")
        if not buffer[1] & 0x80:
            raise FrameError("a client's frame must be masked")
        size = 6 + {126: 2, 127: 8}.get(length, 0)
        if len(buffer) < size:
            return False
        if length >= 126:
            length = int.from_bytes(buffer[2 : size - 4], "big")
        mask = bytes(buffer[size - 4 : size])
        if opcode in (CLOSE, PING, PONG):
            if length > CONTROL_MAX or not final:
                raise FrameError("a control frame is too long or fragmented")
            if len(buffer) < size + length:
                return False
            found.append((opcode, _unmask(bytes(buffer[size : size + length]), mask)))
            del buffer[: size + length]
            return True
        if opcode not in (CONTINUATION, TEXT, BINARY):
            raise FrameError("an unknown kind of frame")
        if (opcode == CONTINUATION) != self._in_message:
            raise FrameError("fragments of messages are out of order")
        self._in_message = not final
        self._left, self._mask = length, mask
        del buffer[:size]
        return True


def _unmask(data: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask: as one big integer, which is fast for one byte and for 64 KiB."""
    size = len(data)
    if not size:
        return b""
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
