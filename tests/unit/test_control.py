"""The messages: whatever comes is answered, and nothing but ConsoleError is ever raised."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serial_console import channel, control
from serial_console.errors import (
    BadRequest,
    BadVersion,
    ConsoleError,
    Forbidden,
    InUse,
    NoSuchGuest,
    SupervisorUnavailable,
    UnknownOp,
)

from .. import fakes

ADMIN = control.Decoder(control.Administering)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.binary())
@example(b"\xff")
@example(b"[" * 4000)
@example(b"9" * 4000)
@example(b'{"v":1,"op":"issue","guest":"\\ud800"}')
@example(b'{"v":1,"op":"issue","guest":"\xff"}')
def test_any_bytes_are_decoded_or_refused(line: bytes) -> None:
    with contextlib.suppress(BadRequest):
        ADMIN.decode(line)


@given(JSON, st.sampled_from(["issue", "revoke", "guests", "close", "health", "nonsense"]))
def test_any_json_is_decoded_or_refused(value: object, op: str) -> None:
    for message in (value, {"v": 1, "op": op, "id": value}, {"v": value, "op": op}):
        with contextlib.suppress(BadRequest):
            ADMIN.decode(json.dumps(message).encode())


def test_what_is_refused_is_told_apart() -> None:
    with pytest.raises(BadVersion):
        ADMIN.decode(b'{"v":2,"op":"health","later":1}')
    with pytest.raises(BadVersion) as raised:
        ADMIN.decode(b'{"v":' + b"9" * 4000 + b',"op":"health"}')
    assert len(control.refusal(raised.value)) < 300
    with pytest.raises(UnknownOp, match="health"):
        ADMIN.decode(b'{"v":1,"op":"dance"}')
    with pytest.raises(BadRequest, match="colour"):
        ADMIN.decode(b'{"v":1,"op":"health","colour":"red"}')
    with pytest.raises(UnknownOp):
        control.Decoder(control.Redeeming).decode(b'{"v":1,"op":"close"}')


@given(st.lists(st.binary(max_size=40)), st.integers(1, 40))
def test_lines_are_cut_the_same_however_they_arrive(parts: list[bytes], limit: int) -> None:
    """The reference: split, up to the first line that is too long."""
    data = b"".join(parts)
    whole = channel.Lines(limit)
    whole.feed(data)
    pieces = channel.Lines(limit)
    found: list[bytes] = []
    refused = False
    for part in parts:
        pieces.feed(part)
        refused = refused or _take(pieces, found)
    *complete, rest = data.split(b"\n")
    too_long = [number for number, line in enumerate(complete) if len(line) >= limit]
    expected = complete[: too_long[0]] if too_long else complete
    assert found[: len(expected)] == expected
    assert refused is (bool(too_long) or len(rest) >= limit)
    at_once: list[bytes] = []
    assert _take(whole, at_once) is refused
    assert at_once == found


def _take(lines: channel.Lines, found: list[bytes]) -> bool:
    try:
        while (line := lines.next()) is not None:
            found.append(line)
    except BadRequest:
        return True
    return False


def test_a_message_survives_the_way_there_and_back() -> None:
    for message in (
        control.Issue(guest="gäst/\n", mode="ro", replay=0, escape=""),
        control.Close(id=None, by="x"),
        control.Health(),
    ):
        line = control.encode(message)
        assert line.count(b"\n") == 1
        assert ADMIN.decode(line) == message


# ---- call


def test_call_returns_the_answer_or_raises_what_was_told(run_dir: str) -> None:
    path = f"{run_dir}/admin.sock"
    with fakes.FakeSupervisor(run_dir) as supervisor:
        supervisor.guests = [fakes.guest(f"g{number}") for number in range(5)]
        assert channel.call(path, control.Health())["status"] == "ok"
        with pytest.raises(NoSuchGuest, match="nobody"):
            channel.call(path, control.GetGuest(guest="nobody"))
        supervisor.failure = InUse("bob has it")
        with pytest.raises(InUse, match="bob has it"):
            channel.call(path, control.Health())
        supervisor.failure = None
        names = [one["name"] for one in channel.call_all(path, control.ListGuests(), "guests")]
    assert names == ["g0", "g1", "g2", "g3", "g4"]


def test_an_error_of_a_later_version_is_still_an_error(run_dir: str) -> None:
    with fakes.FakeSupervisor(run_dir) as supervisor:
        supervisor.raw = b'{"v":1,"ok":false,"code":"brand_new","message":"what and why"}\n'
        with pytest.raises(ConsoleError, match="what and why"):
            channel.call(f"{run_dir}/admin.sock", control.Health())


@pytest.mark.parametrize("raw", [b"", b"no newline", b"x" * control.LISTING_MAX])
def test_a_supervisor_that_does_not_answer(run_dir: str, raw: bytes) -> None:
    with fakes.FakeSupervisor(run_dir) as supervisor:
        supervisor.raw = raw
        with pytest.raises(ConsoleError):
            channel.call(f"{run_dir}/admin.sock", control.Health())


def test_no_supervisor_and_a_hung_one(run_dir: str) -> None:
    path = f"{run_dir}/admin.sock"
    with pytest.raises(SupervisorUnavailable, match="is 'serial-console supervisor'"):
        channel.call(path, control.Health())
    with fakes.relay_socket(path), pytest.raises(SupervisorUnavailable):
        channel.call(path, control.Health(), timeout=0.1)


# ---- channels


@pytest.fixture
def pair() -> Iterator[tuple[channel.Channel, channel.Channel]]:
    ours, theirs = (channel.Channel(sock, fds=True) for sock in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_channel_passes_lines_and_descriptors(
    pair: tuple[channel.Channel, channel.Channel],
) -> None:
    ours, theirs = pair
    read, write = os.pipe()
    ours.send(b"one\n")
    ours.send(b"two\n", write)
    os.close(write)
    assert theirs.receive() == [b"one", b"two"]
    passed = theirs.take_fd()
    os.write(passed, b"x")
    os.close(passed)
    assert os.read(read, 2) == b"x"
    assert os.read(read, 2) == b""
    os.close(read)
    with pytest.raises(BadRequest):
        theirs.take_fd()


def test_descriptors_that_nobody_expects_are_closed() -> None:
    ours, theirs = map(channel.Channel, socket.socketpair())
    read, write = os.pipe()
    ours.send(b"take this\n", write)
    os.close(write)
    assert theirs.receive() == [b"take this"]
    assert os.read(read, 1) == b""
    os.close(read)
    ours.close()
    theirs.close()


def test_a_channel_that_nobody_reads_breaks_and_is_bounded(
    pair: tuple[channel.Channel, channel.Channel],
) -> None:
    ours, _ = pair
    sent = 0
    while not ours.ended:
        ours.send(b"x" * 8191 + b"\n")
        sent += 8192
        assert sent < 4 << 20
    assert sent >= channel.Channel.OUT_MAX


def test_a_channel_passes_more_than_a_socket_holds(
    pair: tuple[channel.Channel, channel.Channel],
) -> None:
    ours, theirs = pair
    lines = [b"%06d" % number * 1000 for number in range(40)]
    for line in lines:
        ours.send(line + b"\n")
    got: list[bytes] = []
    while len(got) < len(lines):
        got += theirs.receive()
        ours.flush()
    assert got == lines
    assert not ours.pending


def test_the_end_of_a_channel_is_seen(pair: tuple[channel.Channel, channel.Channel]) -> None:
    ours, theirs = pair
    ours.send(b"last\n")
    ours.close()
    assert theirs.receive() == [b"last"]
    assert theirs.ended or (theirs.receive() == [] and theirs.ended)


def test_the_kernel_tells_who_is_there() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = channel.peer_of(ours)
    assert (peer.pid, peer.uid) == (os.getpid(), os.geteuid())


def test_a_refusal_that_comes_before_the_question_is_heard(run_dir: str) -> None:
    path = f"{run_dir}/admin.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        with channel.connect(path, 5.0) as ours:
            theirs, _ = listening.accept()
            with theirs:
                theirs.sendall(control.refusal(Forbidden("not you")))
            with pytest.raises(Forbidden, match="not you"):
                channel.ask(ours, control.Health())
    os.unlink(path)
