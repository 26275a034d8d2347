"""A queue of bytes that costs little more than its bytes, however they come and go."""

from __future__ import annotations

from collections import deque

CHUNK = 4096
"""Bytes up to which what is appended is gathered into one chunk.

A bytearray as queue is copied whole time and again: it took 1.3 MiB of heap for 256 KiB.
"""


class ByteQueue:
    """Bytes in, bytes out, at both ends and near the front."""

    def __init__(self) -> None:
        self._chunks: deque[bytes | bytearray] = deque()
        self._start = 0  # in the first chunk
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes | memoryview) -> None:
        """Put bytes at the end."""
        if not data:
            return
        last = self._chunks[-1] if self._chunks else b""
        if isinstance(last, bytearray) and len(last) + len(data) <= CHUNK:
            last += data
        elif len(data) < CHUNK:
            self._chunks.append(bytearray(data))
        else:
            self._chunks.append(bytes(data))
        self._size += len(data)

    def head(self) -> memoryview:
        """Return some bytes of the front; release it before any change."""
        return memoryview(self._chunks[0])[self._start :] if self._chunks else memoryview(b"")

    def drop(self, count: int) -> None:
        """Remove so many bytes from the front; there must be as many."""
        self._size -= count
        self._start += count
        while self._chunks and self._start >= len(self._chunks[0]):
            self._start -= len(self._chunks.popleft())

    def take(self, count: int) -> bytes:
        """Remove so many bytes from the front and return them."""
        pieces = []
        while count:
            with self.head() as head:
                pieces.append(bytes(head[:count]))
            self.drop(len(pieces[-1]))
            count -= len(pieces[-1])
        return b"".join(pieces)

    def push(self, data: bytes) -> None:
        """Put bytes at the front."""
        if data:
            if self._start:
                self._chunks[0] = bytes(self._chunks[0][self._start :])
                self._start = 0
            self._chunks.appendleft(data)
            self._size += len(data)

    def last(self, count: int) -> bytes:
        """Return the last bytes, at most so many."""
        whole = b"".join(self._chunks)[self._start :]
        return whole[max(0, len(whole) - count) :]
