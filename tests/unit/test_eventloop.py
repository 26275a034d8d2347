"""The relay's event loop, as libvirt uses it: descriptors, timers, threads."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from serial_console.eventloop import HANGUP, READABLE, EventLoop


class Libvirt:
    """Stands for libvirt: what it watches in a loop, and what came of it."""

    def __init__(self) -> None:
        self.freed: list[Any] = []
        self.loop = EventLoop(self.freed.append)
        self.calls: list[tuple[Any, ...]] = []
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)

    def watch(self, events: int = READABLE) -> int:
        return self.loop.add_handle(self.near.fileno(), events, self._on_event, "handle")

    def timeout(self, milliseconds: int) -> int:
        return self.loop.add_timeout(
            milliseconds, lambda number, opaque: self.calls.append((number, opaque)), "timer"
        )

    def _on_event(self, number: int, _fd: int, events: int, opaque: Any) -> None:
        data = self.near.recv(1) if events & READABLE else b""
        self.calls.append((number, events, opaque, data))

    def run(self, seconds: float = 0.0, rest: float | None = None) -> float:
        """Run one round of at most so many seconds; returns how long it took."""
        began = time.monotonic()
        self.loop.run_once(began + seconds, rest)
        return time.monotonic() - began


@pytest.fixture
def libvirt() -> Iterator[Libvirt]:
    made = Libvirt()
    yield made
    made.near.close()
    made.far.close()
    os.close(made.loop._wake)


def test_libvirt_reads_all_messages_that_are_there_in_one_round(libvirt: Libvirt) -> None:
    number = libvirt.watch()
    libvirt.far.send(b"abc")
    libvirt.run(10.0)
    assert libvirt.calls == [(number, READABLE, "handle", piece) for piece in (b"a", b"b", b"c")]


def test_a_source_that_never_pauses_leaves_time_for_others(libvirt: Libvirt) -> None:
    libvirt.watch()
    libvirt.far.send(b"x" * 1000)
    libvirt.run(10.0)
    assert 1 < len(libvirt.calls) < 100


def test_while_the_loop_rests_libvirt_is_left_alone_and_ours_are_served(libvirt: Libvirt) -> None:
    libvirt.watch()
    libvirt.timeout(0)
    libvirt.far.send(b"a")
    near, far = socket.socketpair()
    with near, far:
        ours: list[int] = []
        libvirt.loop.watch(near.fileno(), select.POLLIN, ours.append)
        far.send(b"b")
        libvirt.run(10.0, rest=time.monotonic() + 10.0)
        assert ours == [select.POLLIN]
        assert not libvirt.calls
        libvirt.loop.forget(near.fileno())
    assert 0.02 <= libvirt.run(10.0, rest=time.monotonic() + 0.02) < 5.0
    assert not libvirt.calls
    libvirt.run(10.0)
    assert len(libvirt.calls) == 2


def test_a_rest_without_end_ends_in_time_for_libvirtd_s_keepalive(
    libvirt: Libvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EventLoop, "REST", 0.02)
    libvirt.watch()
    libvirt.far.send(b"a")
    libvirt.run(10.0, rest=float("inf"))
    libvirt.run(10.0, rest=float("inf"))
    assert len(libvirt.calls) == 1


def test_what_another_thread_wants_ends_the_wait(libvirt: Libvirt) -> None:
    """A call in a thread may have read what is for us, and says so by a timer."""
    number = libvirt.timeout(-1)
    thread = threading.Timer(0.05, lambda: libvirt.loop.update_timeout(number, 0))
    thread.start()
    assert libvirt.run(10.0) < 5.0
    thread.join()
    libvirt.run()
    assert (number, "timer") in libvirt.calls


def test_a_timer_of_libvirt_s_fires_until_it_is_told_not_to(libvirt: Libvirt) -> None:
    number = libvirt.timeout(0)
    libvirt.run()
    libvirt.run()
    libvirt.loop.update_timeout(number, -1)
    libvirt.run()
    assert libvirt.calls == [(number, "timer")] * 2


def test_what_is_removed_is_freed_only_when_libvirt_holds_no_lock(libvirt: Libvirt) -> None:
    handle, timer = libvirt.watch(), libvirt.timeout(0)
    libvirt.far.send(b"a")
    libvirt.loop.remove_handle(handle)
    libvirt.loop.remove_timeout(timer)
    assert not libvirt.freed
    libvirt.run()
    assert libvirt.freed == ["handle", "timer"]
    assert not libvirt.calls


def test_a_hang_up_is_told_but_not_where_nothing_is_wanted(libvirt: Libvirt) -> None:
    """While a thread uses the connection libvirt wants no events: to be told would spin."""
    number = libvirt.watch(0)
    libvirt.far.close()
    assert libvirt.run(0.02) >= 0.02
    libvirt.loop.update_handle(number, READABLE)
    libvirt.run(10.0)
    assert libvirt.calls[0][1] & HANGUP


def test_an_exception_in_what_libvirt_calls_comes_out(libvirt: Libvirt) -> None:
    def fail() -> None:
        raise LookupError

    libvirt.loop.guarded(fail)()
    with pytest.raises(LookupError):
        libvirt.run()
