"""WebSocket frames: any cut of the stream gives the same payload, and nonsense is refused."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given, settings
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


def fed(reader: frames.Reader, data: bytes, cut: int) -> tuple[bytes, int | None]:
    """Feed it in pieces; return the payload, and the code of the refusal, or None."""
    payload = b""
    try:
        for at in range(0, len(data), cut):
            payload += b"".join(one for _, one in reader.feed(data[at : at + cut]))
    except frames.FrameError as error:
        return payload, error.code
    return payload, None


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
        masked(frames.BINARY, b"", claim=1 << 63),
        masked(frames.BINARY, b"", claim=(1 << 64) - 1),
        b"\x82\xfe\0\x05" + bytes(4) + b"short",  # a length longer than it needs
        b"\x82\xff" + struct.pack("!Q", 65535) + bytes(4),
        masked(frames.CLOSE, b"\x03"),  # half a code
        *(
            masked(frames.CLOSE, struct.pack("!H", code))
            for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535)
        ),
    ],
)
def test_what_breaks_the_protocol_is_refused(stream: bytes) -> None:
    with pytest.raises(frames.FrameError) as refused:
        frames.Reader().feed(stream)
    assert refused.value.code == 1002


@pytest.mark.parametrize(
    "stream",
    [
        masked(frames.TEXT, b"\xff"),
        masked(frames.TEXT, b"\xc3"),  # ends within a character
        masked(frames.TEXT, b"\xc3", final=False) + masked(frames.CONTINUATION, b"("),
        masked(frames.TEXT, b"\xc3", final=False) + masked(frames.CONTINUATION, b""),
        masked(frames.TEXT, b"\xed\xa0\x80"),  # a surrogate
        masked(frames.TEXT, b"\xc0\xaf"),  # overlong
        masked(frames.TEXT, b"\xf4\x90\x80\x80"),  # beyond Unicode
        masked(frames.CLOSE, b"\x03\xe8\xff"),
    ],
)
@pytest.mark.parametrize("cut", [1, 1000])
def test_text_that_is_not_utf8_is_refused(stream: bytes, cut: int) -> None:
    assert fed(frames.Reader(), stream, cut)[1] == 1007


def test_after_a_mistake_nothing_is_kept() -> None:
    reader = frames.Reader()
    with pytest.raises(frames.FrameError):
        reader.feed(b"\xff" * 100)
    assert reader.feed(masked(frames.BINARY, b"x") * 1000) == []
    assert len(reader._buffer) == 0


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1011, 1014, 3000, 4999])
def test_a_proper_close_is_taken(code: int) -> None:
    payload = struct.pack("!H", code) + "grüße".encode()
    assert frames.Reader().feed(masked(frames.CLOSE, payload)) == [(frames.CLOSE, payload)]


class Model:
    """RFC 6455 for data frames, written the other way round: messages first."""

    def __init__(self) -> None:
        self.message: list[bytes] | None = None
        self.text = False

    def take(self, opcode: int, payload: bytes, *, final: bool) -> int | None:
        """Return the close code that the frame deserves, or None."""
        if (opcode == frames.CONTINUATION) == (self.message is None):
            return 1002
        if self.message is None:
            self.message, self.text = [], opcode == frames.TEXT
        self.message.append(payload)
        whole = b"".join(self.message)
        if final:
            self.message = None
        if self.text:
            try:
                whole.decode()
            except UnicodeDecodeError as error:
                if final or error.reason != "unexpected end of data":
                    return 1007
        return None


@settings(max_examples=1000)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([frames.TEXT, frames.BINARY, frames.CONTINUATION]),
            st.booleans(),
            st.one_of(
                st.text(max_size=20).map(str.encode),
                st.binary(max_size=8),
                st.sampled_from([b"\xe2", b"\x82", b"\xac", b"\xe2\x82", b""]),
            ),
        ),
        max_size=12,
    ),
    st.integers(1, 40),
)
def test_messages_of_fragments_are_judged_as_the_rfc_does(
    sent: list[tuple[int, bool, bytes]], cut: int
) -> None:
    model, reader = Model(), frames.Reader()
    for opcode, final, payload in sent:
        wanted = model.take(opcode, payload, final=final)
        wire = masked(opcode, payload, final=final)
        got, code = fed(reader, wire, cut)
        assert code == wanted
        if code is not None:
            return
        assert got == payload


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


def test_what_comes_after_a_close_is_nothing() -> None:
    reader = frames.Reader()
    assert reader.feed(masked(frames.CLOSE, b"") + b"\xff" * 100) == [(frames.CLOSE, b"")]
    assert reader.feed(masked(frames.BINARY, b"x")) == []
    assert len(reader._buffer) == 0


@given(st.lists(st.text(max_size=60), max_size=6), st.lists(st.integers(1, 9), max_size=90))
def test_text_messages_come_whole_among_the_data(texts: list[str], cuts: list[int]) -> None:
    stream, expected = b"", []
    for text in texts:
        payload = text.encode()
        half = len(payload) // 2
        stream += masked(frames.TEXT, payload[:half], final=False)
        stream += masked(frames.CONTINUATION, payload[half:]) + masked(frames.BINARY, b"x")
        expected += [(frames.TEXT, payload), (frames.BINARY, b"x")]
    reader = frames.Reader(text_max=240)
    found = []
    for cut in [*cuts, len(stream)]:
        found += reader.feed(stream[:cut])
        stream = stream[cut:]
    assert found == expected


def test_a_text_message_that_is_too_long_is_refused_before_it_is_whole() -> None:
    reader = frames.Reader(text_max=10)
    assert reader.feed(masked(frames.TEXT, b"x" * 10)) == [(frames.TEXT, b"x" * 10)]
    with pytest.raises(frames.FrameError) as refused:
        reader.feed(masked(frames.TEXT, b"x" * 11, claim=1 << 40))
    assert refused.value.code == frames.TOO_BIG
