"""The pump: order, bounds and accounting, whatever comes when."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serial_console import control, pump, terminal
from serial_console.control import State
from serial_console.errors import CloseCode
from serial_console.pump import Emit, Finish, Pump, Start

RING, BACKLOG = 1000, 65536


def make(idle: float = 0, longest: float = 0, ring: int = RING) -> Pump:
    made = Pump(ring, BACKLOG, idle, longest)
    made.set_state(State.CONNECTED, "", 0.0)
    return made


def attach(to: Pump, client: str = "a", now: float = 0.0, **options: Any) -> None:
    settings = {
        "mode": "rw",
        "notices": False,
        "escape": b"\x11",
        "replay": 0,
        "resumable": False,
    } | options
    to.attach(client, now=now, **settings)
    to.intents()


def read(of: Pump, client: str = "a", now: float = 0.0, count: int | None = None) -> bytes:
    """Take what waits for a client, all of it or so many bytes at most."""
    got = b""
    while of.has_output(client) and (count is None or len(got) < count):
        with of.to_client(client) as waiting:
            piece = bytes(waiting[: None if count is None else count - len(got)])
        of.took(client, len(piece), now)
        got += piece
    return got


def finishes(of: Pump) -> list[Finish]:
    return [one for one in of.intents() if isinstance(one, Finish)]


def events(of: Pump) -> list[control.Message]:
    return [one.event for one in of.intents() if isinstance(one, Emit)]


# ---- when the guest is read


def test_little_output_is_gathered_but_the_first_is_given_out_at_once() -> None:
    p = make()
    attach(p)
    p.output(b"[    0.1] boot", 10.0)
    assert p.rest(10.0) == 10.0 + pump.GATHER
    assert p.rest(11.0) == 10.0 + pump.GATHER  # which is past: what comes now is read at once


def test_the_echo_of_a_key_is_not_gathered() -> None:
    p = make()
    attach(p)
    p.output(b"[    0.1] boot", 10.0)
    p.input("a", b"x", 10.001)
    assert p.rest(10.001) is None
    p.output(b"x", 10.002)
    assert p.rest(10.002) is None


def test_fast_output_is_hardly_held_up() -> None:
    p = make()
    attach(p, notices=True, mode="ro")
    for i in range(100):
        p.output(b"x" * 16384, 10.0 + i / 1000)
    assert p.rest(10.099) == 10.099 + pump.BURST
    p.output(b"$ ", 20.0)
    assert p.rest(20.0) == 20.0 + pump.GATHER


def flooded(of: Pump) -> float:
    """Have a guest print 16 MB/s, of which a client has taken all. Returns when the last came."""
    for i in range(100):
        of.output(b"x" * 16384, 10.0 + i / 1000)
        of.took("a", 16384, 10.0 + i / 1000)
    return 10.099


def test_fast_output_is_given_out_in_pieces_but_soon() -> None:
    p = make()
    attach(p)
    now = flooded(p)
    size, seconds = pump.PIECE
    assert p.gathered_at("a", now) is None
    p.output(b"x" * 4096, now)
    assert p.gathered_at("a", now) == now + seconds
    assert p.gathered_at("a", now + seconds) is None
    p.output(b"x" * size, now)
    assert p.gathered_at("a", now) is None


def test_little_output_is_given_out_at_once() -> None:
    p = make()
    attach(p)
    p.output(b"[    0.1] boot", 10.0)
    assert p.gathered_at("a", 10.0) is None


@pytest.mark.parametrize("what", ["a key", "the end"])
def test_what_may_be_an_echo_or_is_the_last_is_given_out_at_once(what: str) -> None:
    p = make()
    attach(p)
    now = flooded(p)
    p.output(b"x", now)
    assert p.gathered_at("a", now) is not None
    if what == "a key":
        p.input("a", b"x", now)
    else:
        p.finish("a", CloseCode.ENDED, "", now)
    assert p.gathered_at("a", now) is None


def test_a_guest_that_is_to_wait_is_not_read() -> None:
    p = make()
    attach(p)
    p.output(b"x" * BACKLOG, 10.0)
    assert p.rest(10.0) == math.inf


# ---- to the client


def test_output_reaches_every_client_unchanged() -> None:
    p = make()
    attach(p, "a")
    attach(p, "w", mode="ro")
    p.output(bytes(range(256)), 0.0)
    assert read(p, "a") == read(p, "w") == bytes(range(256))


def test_a_slow_client_slows_the_guest_and_loses_nothing() -> None:
    p = make()
    attach(p)
    sent = b"".join(number.to_bytes(4, "big") for number in range(BACKLOG // 4))
    p.output(sent, 0.0)
    assert p.throttled
    got = b""
    for step in range(1, 100):
        now = step * 0.2
        p.tick(now)
        got += read(p, now=now, count=2048)
        if not p.throttled:
            break
    assert step * 2048 >= BACKLOG // 2
    assert got + read(p) == sent
    assert p.info("a", 0.0).skipped == 0


def test_a_stalled_client_no_longer_holds_the_guest_up_and_is_told_what_it_missed() -> None:
    p = make()
    attach(p, notices=True)
    data = b"".join(b"%07d\n" % i for i in range(BACKLOG // 4))
    p.output(data, 0.0)
    assert p.throttled
    assert p.deadline() == pump.STALL
    p.tick(pump.STALL)
    assert not p.throttled
    for _ in range(20):
        p.output(data, 1.0)
    skipped = p.info("a", 1.0).skipped
    assert skipped == 21 * len(data) - BACKLOG
    got = read(p, now=5.0)
    assert got.startswith(b"\r\n\x1b[2m[%d bytes of output skipped]" % skipped)
    assert got.endswith(data[-BACKLOG:])
    assert control.SkippedEvent(bytes=skipped) in events(p)
    p.output(b"now", 5.0)
    assert read(p) == b"now"


@pytest.mark.parametrize("shows_events", [False, True])
def test_without_notices_a_stalled_client_ends_rather_than_skip(shows_events: bool) -> None:
    p = make()
    attach(p, shows_events=shows_events)
    p.output(bytes(4 * BACKLOG), 0.0)
    p.tick(1.0)
    assert [one.code for one in finishes(p)] == [CloseCode.TOO_SLOW]


def test_a_watcher_never_holds_the_guest_up() -> None:
    p = make()
    attach(p, "w", mode="ro", notices=True)
    p.output(bytes(10 * BACKLOG), 0.0)
    assert not p.throttled
    assert p.info("w", 0.0).skipped == 9 * BACKLOG


# ---- replay


def test_replay_is_recent_output_from_the_start_of_a_line() -> None:
    p = make()
    p.output(b"x" * RING + b"half\r\nwhole line\r\nprompt$ ", 0.0)
    attach(p, replay=RING)
    assert read(p) == b"\x1b[!pwhole line\r\nprompt$ "


def test_replay_of_less_than_the_ring_is_whole() -> None:
    p = make()
    p.output(b"login: ", 0.0)
    attach(p, replay=RING)
    assert read(p) == b"\x1b[!plogin: "


def test_the_first_client_gets_not_a_byte_that_the_guest_did_not_send() -> None:
    p = make()
    attach(p, notices=True, replay=RING)
    p.output(b"\x00\xff", 0.0)
    assert read(p) == b"\x00\xff"


@pytest.mark.parametrize(
    "query",
    [b"\x1b[c", b"\x1b[>c", b"\x1b[6n", b"\x1b[?6n", b"\x1bZ", b"\x05", b"\x1b]11;?\x07",
     b"\x1b]52;c;?\x1b\\", b"\x1b[?1$p", b"\x1b[18t", b"\x1b[>0q", b"\x1bP$qm\x1b\\"],
)  # fmt: skip
def test_replay_asks_the_terminal_nothing(query: bytes) -> None:
    p = make()
    p.output(b"before" + query + b"\x1b[31mafter\x1b[2J", 0.0)
    attach(p, replay=RING)
    assert read(p) == b"\x1b[!pbefore\x1b[31mafter\x1b[2J"


# ---- to the guest


def type_all(into: Pump, now: float = 0.0) -> bytes:
    got = b""
    while packet := into.to_guest():
        assert len(packet) <= pump.PACKET
        into.sent(len(packet), now)
        got += packet
    return got


def test_input_is_bounded_and_comes_in_packets_in_order() -> None:
    p = make()
    attach(p)
    typed = b""
    while p.wants_input("a"):
        piece = (b"%d," % len(typed)) * 300
        p.input("a", piece, 0.0)
        typed += piece
    assert pump.INPUT_MAX <= len(typed) < pump.INPUT_MAX + 4096
    assert type_all(p) == typed
    assert p.wants_input("a")
    assert p.info("a", 0.0).bytes_in == len(typed)


def test_the_escape_key_ends_only_when_alone_in_a_read() -> None:
    p = make()
    attach(p)
    p.input("a", b"a\x11b", 0.0)
    assert type_all(p) == b"a\x11b"
    assert not finishes(p)
    p.input("a", b"\x11", 0.0)
    assert [one.code for one in finishes(p)] == [CloseCode.ENDED]
    assert type_all(p) == b""


def test_without_an_escape_key_every_byte_is_data() -> None:
    p = make()
    attach(p, escape=b"")
    p.input("a", b"\x11", 0.0)
    assert type_all(p) == b"\x11"


def test_a_watcher_types_nothing() -> None:
    p = make()
    attach(p, "w", mode="ro")
    p.input("w", b"rm -rf /\n", 0.0)
    assert type_all(p) == b""


def test_a_paused_guest_is_sent_nothing_and_the_person_is_told_that_input_is_held() -> None:
    p = make()
    attach(p, notices=True)
    p.set_state(State.PAUSED, "The guest is paused.", 0.0)
    p.intents()
    p.input("a", b"typed", 1.0)
    p.tick(1.0)
    assert control.HeldEvent(bytes=5) in events(p)
    assert b"what you type is held" in read(p)
    assert type_all(p) == b""
    p.set_state(State.CONNECTED, "", 2.0)
    assert type_all(p) == b"typed"
    assert control.HeldEvent(bytes=0) in events(p)


def test_input_that_a_running_guest_does_not_take_is_announced_after_a_second() -> None:
    p = make()
    attach(p)
    p.input("a", b"x", 1.0)
    assert p.deadline() == 1.0 + pump.HELD
    p.tick(1.5)
    assert not events(p)
    p.tick(2.0)
    assert events(p) == [control.HeldEvent(bytes=1)]


def test_what_is_typed_while_the_guest_is_off_never_reaches_its_next_boot() -> None:
    p = make()
    attach(p)
    p.input("a", b"early", 0.0)
    p.set_state(State.WAITING, "off", 0.0)
    p.input("a", b"late", 0.0)
    p.set_state(State.CONNECTED, "", 0.0)
    assert type_all(p) == b""


def test_held_input_of_a_client_that_left_is_not_typed_later() -> None:
    p = make()
    attach(p, "a")
    p.input("a", b"shutdown now\n", 0.0)
    p.detach("a")
    attach(p, "b")
    p.input("b", b"hi", 0.0)
    assert type_all(p) == b"hi"


# ---- time


def test_an_idle_client_is_warned_then_ended_and_any_key_keeps_it() -> None:
    p = make(idle=600)
    attach(p, notices=True)
    assert p.deadline() == 540
    p.tick(540)
    assert b"ends in 60 s" in read(p)
    assert p.deadline() == 600
    p.input("a", b"k", 599)
    p.tick(600)
    assert not finishes(p)
    p.tick(599 + 600)
    assert [one.code for one in finishes(p)] == [CloseCode.IDLE]


def test_a_watcher_is_never_idle() -> None:
    p = make(idle=1)
    attach(p, "w", mode="ro")
    p.tick(1e6)
    assert not finishes(p)


def test_the_longest_session_time_ends_any_client() -> None:
    p = make(longest=10)
    attach(p, "a")
    attach(p, "w", mode="ro", now=5.0)
    p.tick(10)
    assert [(one.client, one.code) for one in finishes(p)] == [("a", CloseCode.IDLE)]


def test_a_gap_mark_that_is_dropped_itself_is_not_forgotten() -> None:
    p = make()
    attach(p, notices=True)
    for _ in range(3):
        p.output(bytes(2 * BACKLOG), 0.0)
        p.tick(1.0)
        p.to_client("a").release()  # the mark is in the queue, and the socket takes nothing
    skipped = p.info("a", 1.0).skipped
    assert read(p, now=1.0).startswith(b"\r\n\x1b[2m[%d bytes of output skipped]" % skipped)


# ---- any interleaving

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("output"), st.integers(0, 3 * BACKLOG)),
        st.tuples(st.just("read"), st.integers(1, 2 * BACKLOG)),
        st.tuples(st.just("offer"), st.just(0)),
        st.tuples(st.just("taking"), st.integers(0, 5000)),
        st.tuples(st.just("lose"), st.integers(0, BACKLOG)),
        st.tuples(st.just("input"), st.integers(1, 30000)),
        st.tuples(st.just("type"), st.integers(1, pump.PACKET)),
        st.tuples(st.just("wait"), st.integers(0, 400)),
        st.tuples(st.just("pause"), st.booleans()),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(STEPS, st.booleans())
def test_any_interleaving_keeps_order_bounds_and_accounting(
    steps: list[tuple[str, int]], resumable: bool
) -> None:
    """Output is an exact copy but for gaps of the counted size, for a client that types and comes
    back as for one that watches; input is an exact copy."""
    p = make()
    attach(p, notices=True, resumable=resumable)
    attach(p, "w", mode="ro", notices=True)
    now = 0.0
    printed = since = 0
    got = {"a": b"", "w": b""}
    typed, taken = b"", b""
    for what, size in steps:
        if what == "output" and not p.throttled:
            p.output(_pattern(printed, size), now)
            printed += size
        elif what == "read":
            for client in got:
                got[client] += read(p, client, now=now, count=size)
        elif what == "offer":  # and the socket takes nothing
            p.to_client("a").release()
        elif what == "taking":
            p.taking("a", size / 1000, now)
        elif what == "lose" and resumable:  # the connection, and some of what it took
            lost = min(size, len(got["a"]) - since)
            got["a"] = got["a"][: len(got["a"]) - lost]
            p.leave("a")
            p.delivered("a", len(got["a"]) - since)
            p.come_back("a", now)
            since = len(got["a"])
        elif what == "input" and p.wants_input("a"):
            data = _pattern(len(typed), size)
            p.input("a", data, now)
            typed += data
        elif what == "type" and (packet := p.to_guest()):
            assert len(packet) <= pump.PACKET
            p.sent(min(size, len(packet)), now)
            taken += packet[:size]
        elif what == "wait":
            now += size / 1000
            p.tick(now)
        elif what == "pause":
            p.set_state(State.PAUSED if size else State.CONNECTED, "", now)
        held = len(typed) - len(taken)
        assert held < pump.INPUT_MAX + 30000
        assert (deadline := p.deadline()) is None or deadline >= 0
    p.set_state(State.CONNECTED, "", now)
    taken += type_all(p)
    assert taken == typed
    told = [one for one in p.intents() if isinstance(one, Emit)]
    for client in got:
        got[client] += read(p, client, now=now)
        told += [one for one in p.intents() if isinstance(one, Emit)]
        info = p.info(client, now)
        assert info.bytes_out == len(got[client])
        assert _checked(got[client], printed) == info.skipped
    if not resumable:
        skips = [one.event.bytes for one in told if isinstance(one.event, control.SkippedEvent)]
        assert sum(skips) <= p.info("a", now).skipped + p.info("w", now).skipped


def _pattern(start: int, size: int) -> bytes:
    """Letters only, so that notices can be told apart."""
    first = start % 26
    return (b"abcdefghijklmnopqrstuvwxyz" * (size // 26 + 2))[first : first + size]


NOTICE = re.compile(rb"(?:\r\n)?\x1b\[2m\[([^\]]*)\]\x1b\[22m\r\n")


def _checked(stream: bytes, printed: int) -> int:
    """Assert that a stream is the pattern up to ``printed`` but for gaps as its marks tell; return
    the bytes that it skipped."""
    position = skipped = at = 0
    for notice in NOTICE.finditer(stream):
        piece = stream[at : notice.start()]
        assert piece == _pattern(position, len(piece))
        position += len(piece)
        at = notice.end()
        if gap := re.fullmatch(rb"(\d+) bytes of output skipped", notice[1]):
            position += int(gap[1])
            skipped += int(gap[1])
    rest = stream[at:]
    assert rest == _pattern(position, len(rest))
    assert position + len(rest) == printed
    return skipped


# ---- a client that is shown events


def printed(position: int) -> int:
    """The byte that the guest prints there: it prints a count."""
    return 0x20 + position % 95


class Shown:
    """A guest, and a client that counts as docs/protocol.md says and checks every byte."""

    def __init__(self, ring: int, backlog: int) -> None:
        self.pump = Pump(ring, backlog, 0, 0)
        self.pump.set_state(State.CONNECTED, "", 0.0)
        self.backlog = backlog
        self.total = 0
        self.now = 0.0
        self.attach(None)

    def attach(self, after: int | None) -> None:
        start = self.pump.attach(
            "a", mode="rw", notices=True, escape=b"", replay=1 << 20, resumable=True,
            shows_events=True, after=after, now=self.now,
        )  # fmt: skip
        self.begin(start)

    @property
    def knows(self) -> int | None:
        """Its position, if it has one."""
        return None if self.replay else self.position

    def begin(self, start: Start) -> None:
        self.start = start
        self.position, self.replay = start.position, start.replay
        self.trail: list[int | None] = [self.knows]  # after each byte of this connection
        self.hear()

    def hear(self) -> None:
        for event in events(self.pump):
            if isinstance(event, control.SkippedEvent):
                assert event.at == len(self.trail) - 1
                self.count(event.bytes)

    def count(self, count: int) -> None:
        replay = min(self.replay, count)
        self.replay -= replay
        self.position += count - replay

    def print(self, count: int) -> None:
        self.pump.output(bytes(map(printed, range(self.total, self.total + count))), self.now)
        self.total += count

    def take(self, count: int) -> None:
        while count and self.pump.has_output("a"):
            with self.pump.to_client("a") as waiting:
                self.hear()
                piece = bytes(waiting[:count])
            self.pump.took("a", len(piece), self.now)
            count -= len(piece)
            for byte in piece:
                if self.replay == 0:
                    assert byte == printed(self.position)
                elif len(self.trail) > len(terminal.SOFT_RESET):
                    assert byte == printed(self.start.position - self.replay)
                self.count(1)
                self.trail.append(self.knows)

    def stall(self, _count: int) -> None:
        self.now += 10
        self.pump.tick(self.now)

    def break_off(self, lost: int) -> int:
        """Lose the connection, its last bytes not having arrived. Returns how many had."""
        arrived = len(self.trail) - 1 - min(lost, len(self.trail) - 1)
        self.pump.leave("a")
        self.pump.delivered("a", arrived)
        return arrived

    def resume(self, lost: int) -> None:
        arrived = self.break_off(lost)
        self.print(lost)
        start = self.pump.come_back("a", self.now, shows_events=True)
        kept = len(self.trail) - 1 - arrived <= self.backlog  # else some of it is a gap
        if start.continued and kept and self.trail[arrived] is not None:
            assert start.position == self.trail[arrived]
        self.begin(start)

    def come_back(self, lost: int) -> None:
        """With what it itself knows, though the gateway may know of less, or more."""
        knows = self.knows
        self.break_off(lost)
        self.print(lost)
        start = self.pump.come_back("a", self.now, shows_events=True, after=knows)
        assert start.continued or knows is None
        self.begin(start)

    def renew(self, count: int) -> None:
        knows = self.knows
        self.pump.detach("a")
        self.print(count)
        self.attach(knows)
        assert self.start.continued == (knows is not None)


STEPS = ("print", "take", "stall", "resume", "come_back", "renew")


@pytest.mark.parametrize(("ring", "backlog"), [(0, 200), (150, 200), (800, 200), (800, 2000)])
@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 400)), max_size=14))
def test_who_counts_as_documented_knows_where_each_byte_stands(
    ring: int, backlog: int, steps: list[tuple[str, int]]
) -> None:
    client = Shown(ring, backlog)
    for step, count in steps:
        getattr(client, step)(count)
    client.take(1 << 20)
    assert client.position == client.total
