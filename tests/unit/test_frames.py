"""WebSocket frames: any cut of the stream gives the same payload, and nonsense is refused."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from websockify_tokens import frames


def masked(opcode: int, payload: bytes, *, final: bool = True, claim: int | None = None) -> bytes:
    """A client's frame; ``claim`` another length than the payload's."""
    length = len(payload) if claim is None else claim
    head = bytes([(0x80 if final else 0) | opcode])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 1 << 16:
        head += struct.pack("!BH", 0x80 | 126, length)
    else:
        head += struct.pack("!BQ", 0x80 | 127, length)
    mask = b"\x12\x9a\x5c\xe7"
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 50), max_size=50))
def test_any_cut_gives_the_same_payload(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(
        masked(frames.BINARY, one) + masked(frames.PING, one[:125]) for one in payloads
    )
    reader = frames.Reader()
    found = []
    for cut in [*cuts, len(stream)]:
        found += reader.feed(stream[:cut])
        stream = stream[cut:]
    found += reader.feed(stream)
    data = b"".join(payload for opcode, payload in found if opcode == frames.BINARY)
    assert data == b"".join(payloads)
    assert [p for op, p in found if op == frames.PING] == [one[:125] for one in payloads]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200000])
def test_every_length_both_ways(size: int) -> None:
    payload = os.urandom(size)
    found = frames.Reader().feed(masked(frames.BINARY, payload))
    assert b"".join(piece for _, piece in found) == payload
    sent = frames.frame(frames.BINARY, payload)
    assert sent.endswith(payload)
    assert len(sent) - size == (2 if size < 126 else 4 if size < 65536 else 10)


def test_fragments_and_text_are_bytes_too() -> None:
    stream = (
        masked(frames.TEXT, b"ab", final=False)
        + masked(frames.PING, b"")
        + masked(frames.CONTINUATION, b"cd")
    )
    found = frames.Reader().feed(stream)
    assert [p for op, p in found if op == frames.BINARY] == [b"ab", b"cd"]


def test_a_huge_claim_costs_nothing() -> None:
    reader = frames.Reader()
    found = reader.feed(masked(frames.BINARY, b"only this", claim=1 << 62))
    assert found == [(frames.BINARY, b"only this")]
    assert len(reader._buffer) == 0


@pytest.mark.parametrize(
    "stream",
    [
        b"\x82\x01a",  # not masked
        b"\xf2\x81\0\0\0\0a",  # reserved bits
        masked(0x3, b""),  # unknown opcode
        masked(frames.CONTINUATION, b""),  # nothing to continue
        masked(frames.BINARY, b"", final=False) + masked(frames.BINARY, b""),
        masked(frames.PING, b"x" * 126),
        masked(frames.CLOSE, b"", final=False),
    ],
)
def test_what_breaks_the_protocol_is_refused(stream: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.Reader().feed(stream)


@given(st.binary(max_size=200))
def test_any_bytes_give_frames_or_a_refusal(data: bytes) -> None:
    reader = frames.Reader()
    try:
        reader.feed(data)
    except frames.FrameError:
        return
    assert len(reader._buffer) <= frames.CONTROL_MAX + 14


@pytest.mark.parametrize("reason", ["ü" * 100, "In use by " + "somebody " * 20, "word " * 24])
def test_a_reason_fits_and_is_not_cut_within_a_word(reason: str) -> None:
    frame = frames.close_frame(4409, reason)
    assert frame[1] == len(frame) - 2
    text = frame[4:].decode()
    assert len(text.encode()) <= frames.REASON_MAX
    assert text == reason or reason.startswith(text.removesuffix("…"))
    if " " in reason and text != reason:
        assert reason[len(text) - 1] == " "
