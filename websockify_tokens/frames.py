"""WebSocket frames (RFC 6455, section 5), server side, without I/O and with bounds.

websockify's own class collects a frame whole, whatever length it claims, and breaks when a ping
comes while output waits. This one hands payload on as it comes and never holds more than it is
given.
"""

from __future__ import annotations

import codecs
import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
CONTROL_MAX = 125
"""Bytes of a control frame's payload (RFC 6455, 5.5)."""
REASON_MAX = 120
"""Bytes of a close reason (DESIGN.md; RFC 6455 leaves room for 123)."""
PROTOCOL_ERROR, NOT_UTF8, TOO_BIG = 1002, 1007, 1009
_HEAD, _HEAD_16, _HEAD_64 = struct.Struct("!BB"), struct.Struct("!BBH"), struct.Struct("!BBQ")
_UTF8 = codecs.getincrementaldecoder("utf-8")


class FrameError(Exception):
    """The client broke the protocol; the reason is for the close frame.

    Attributes:
        code: the close code that says so (RFC 6455, 7.4.1).
    """

    def __init__(self, reason: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(reason)
        self.code = code


def head(opcode: int, length: int) -> bytes:
    """Return what goes before a frame's payload, unmasked as a server's is."""
    if length < 126:
        return _HEAD.pack(0x80 | opcode, length)
    if length < 1 << 16:
        return _HEAD_16.pack(0x80 | opcode, 126, length)
    return _HEAD_64.pack(0x80 | opcode, 127, length)


def frame(opcode: int, payload: bytes) -> bytes:
    """Return one whole frame."""
    return head(opcode, len(payload)) + payload


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

    Args:
        text_max: bytes of a text message, which then comes whole, as TEXT; 0: as any data.
    """

    def __init__(self, text_max: int = 0) -> None:
        self._text_max = text_max
        self._message = bytearray()  # of text
        self._buffer = b""  # the first part of a head, or of a control frame
        self._left = 0
        self._mask = b""
        self._in_message = False
        self._final = False
        self._text: codecs.IncrementalDecoder | None = None  # checks a text message
        self._over = False

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take what was read. What comes after a close frame or a FrameError is nothing.

        Raises:
            FrameError: it breaks the protocol.
        """
        found: list[tuple[int, bytes]] = []
        if self._buffer:
            data = self._buffer + data
        at = 0
        try:
            while at < len(data) and not self._over:
                end = self._piece(data, at, found) if self._left else self._head(data, at, found)
                if end == at:  # the rest of it is still to come
                    break
                at = end
        except FrameError:
            self._over = True
            raise
        finally:
            self._buffer = b"" if self._over else data[at:]
        return found

    def _piece(self, data: bytes, at: int, found: list[tuple[int, bytes]]) -> int:
        """Take what there is of a frame's payload. Returns where it ends."""
        piece = data[at : at + self._left]
        self._left -= len(piece)
        payload = _unmask(piece, self._mask)
        if self._left:
            turn = len(piece) % 4
            self._mask = self._mask[turn:] + self._mask[:turn]
        if self._text is None:
            found.append((BINARY, payload))
        else:
            self._of_text(self._text, payload, found)
        return at + len(piece)

    def _head(self, data: bytes, at: int, found: list[tuple[int, bytes]]) -> int:
        """Take a frame's head, and a control frame whole. Returns where it ends: where it began,
        if there is too little of it."""
        if len(data) - at < 2:
            return at
        final, opcode, length = data[at] & 0x80, data[at] & 0x0F, data[at + 1] & 0x7F
        if data[at] & 0x70:
            raise FrameError("reserved bits are set")
        if not data[at + 1] & 0x80:
            raise FrameError("a client's frame must be masked")
        start = at + (6 if length < 126 else 8 if length == 126 else 14)
        if len(data) < start:
            return at
        if length >= 126:
            length = int.from_bytes(data[at + 2 : start - 4], "big")
            if length >> 63 or length < (1 << 16 if start - at == 14 else 126):
                raise FrameError("the length of a frame is not written as it must be")
        mask = data[start - 4 : start]
        if opcode in (CLOSE, PING, PONG):
            if length > CONTROL_MAX or not final:
                raise FrameError("a control frame is too long or fragmented")
            if len(data) < start + length:
                return at
            payload = _unmask(data[start : start + length], mask)
            if opcode == CLOSE:
                _check_close(payload)
                self._over = True
            found.append((opcode, payload))
            return start + length
        if opcode not in (CONTINUATION, TEXT, BINARY):
            raise FrameError("an unknown kind of frame")
        if (opcode == CONTINUATION) != self._in_message:
            raise FrameError("fragments of messages are out of order")
        if opcode != CONTINUATION:
            self._text = _UTF8() if opcode == TEXT else None
        self._in_message, self._final = not final, bool(final)
        self._left, self._mask = length, mask
        if not length and self._text is not None:
            self._of_text(self._text, b"", found)
        return start

    def _of_text(
        self, text: codecs.IncrementalDecoder, payload: bytes, found: list[tuple[int, bytes]]
    ) -> None:
        """Check the next piece of a text message; hand it on, or the message once it is whole."""
        last = self._final and not self._left
        try:
            text.decode(payload, last)
        except UnicodeDecodeError:
            raise FrameError("text that is not UTF-8", NOT_UTF8) from None
        if not self._text_max:
            if payload:
                found.append((BINARY, payload))
            return
        self._message += payload
        if len(self._message) > self._text_max:
            raise FrameError(f"a text message has more than {self._text_max} bytes", TOO_BIG)
        if last:
            found.append((TEXT, bytes(self._message)))
            self._message.clear()


def _check_close(payload: bytes) -> None:
    if not payload:
        return
    code = int.from_bytes(payload[:2], "big")
    # 1004 to 1006 and 1015 are never sent; up to 1014 is registered, from 3000 for whoever.
    known = 1000 <= code <= 1014 and code not in (1004, 1005, 1006)
    if len(payload) == 1 or not (known or 3000 <= code <= 4999):
        raise FrameError("a close frame without a proper code")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise FrameError("a close reason that is not UTF-8", NOT_UTF8) from None


def _unmask(data: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask: as one big integer, which is fast for one byte and for 64 KiB."""
    size = len(data)
    if not size:
        return b""
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
