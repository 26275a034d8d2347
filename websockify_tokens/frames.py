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
_UTF8 = codecs.getincrementaldecoder("utf-8")


class FrameError(Exception):
    """The client broke the protocol; the reason is for the close frame.

    Attributes:
        code: the close code that says so (RFC 6455, 7.4.1).
    """

    def __init__(self, reason: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(reason)
        self.code = code


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

    Args:
        text_max: bytes of a text message, which then comes whole, as TEXT; 0: as any data.
    """

    def __init__(self, text_max: int = 0) -> None:
        self._text_max = text_max
        self._message = bytearray()  # of text
        self._buffer = bytearray()
        self._left = 0
        self._mask = b""
        self._in_message = False
        self._final = False
        self._text: codecs.IncrementalDecoder | None = None  # of a text message
        self._over = False

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take what was read. What comes after a close frame or a FrameError is nothing.

        Raises:
            FrameError: it breaks the protocol.
        """
        if self._over:
            return []
        try:
            return self._feed(data)
        except FrameError:
            self._over = True
            raise
        finally:
            if self._over:
                self._buffer.clear()

    def _feed(self, data: bytes) -> list[tuple[int, bytes]]:
        self._buffer += data
        found: list[tuple[int, bytes]] = []
        while self._left or (not self._over and self._head(found)):
            if not self._left:  # a control frame, or one without payload
                continue
            piece = bytes(self._buffer[: self._left])
            if not piece:
                break
            del self._buffer[: len(piece)]
            self._left -= len(piece)
            payload = _unmask(piece, self._mask)
            self._check_text(payload)
            self._data(payload, found)
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
            if length >> 63 or length < (1 << 16 if size == 14 else 126):
                raise FrameError("the length of a frame is not written as it must be")
        mask = bytes(buffer[size - 4 : size])
        if opcode in (CLOSE, PING, PONG):
            if length > CONTROL_MAX or not final:
                raise FrameError("a control frame is too long or fragmented")
            if len(buffer) < size + length:
                return False
            payload = _unmask(bytes(buffer[size : size + length]), mask)
            if opcode == CLOSE:
                _check_close(payload)
                self._over = True
            found.append((opcode, payload))
            del buffer[: size + length]
            return True
        if opcode not in (CONTINUATION, TEXT, BINARY):
            raise FrameError("an unknown kind of frame")
        if (opcode == CONTINUATION) != self._in_message:
            raise FrameError("fragments of messages are out of order")
        if opcode != CONTINUATION:
            self._text = _UTF8() if opcode == TEXT else None
        self._in_message, self._final = not final, bool(final)
        self._left, self._mask = length, mask
        del buffer[:size]
        if not length:
            self._check_text(b"")
            self._data(b"", found)
        return True

    def _data(self, payload: bytes, found: list[tuple[int, bytes]]) -> None:
        """Hand the next piece of a message on, or a text message once it is whole."""
        if self._text is None or not self._text_max:
            if payload:
                found.append((BINARY, payload))
            return
        self._message += payload
        if len(self._message) > self._text_max:
            raise FrameError(f"a text message has more than {self._text_max} bytes", TOO_BIG)
        if self._final and not self._left:
            found.append((TEXT, bytes(self._message)))
            self._message.clear()

    def _check_text(self, payload: bytes) -> None:
        """Check the next piece of a message, which is the last if nothing of its frame is left."""
        if self._text is not None:
            try:
                self._text.decode(payload, self._final and not self._left)
            except UnicodeDecodeError:
                raise FrameError("text that is not UTF-8", NOT_UTF8) from None


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
