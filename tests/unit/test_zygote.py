"""The zygote: what it forks, how that ended, and that it is replaced."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator

import psutil
import pytest

from serial_console.channel import Channel
from serial_console.zygote import Zygote

STATUS = 7


def entry(what: bytes, channel: socket.socket) -> int:
    """Say what it is, end when told to."""
    channel.send(what)
    channel.recv(1)
    return STATUS


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    made = Zygote(entry)
    yield made
    made.close()


def said(channel: Channel) -> bytes:
    channel.sock.settimeout(10)
    return channel.sock.recv(100)


def end(pid: int, channel: Channel) -> None:
    """Have a child end, and wait until it has."""
    watched = os.pidfd_open(pid)
    channel.close()
    assert select.select([watched], [], [], 10)[0]
    os.close(watched)


def test_forks_and_tells_how_it_ended(zygote: Zygote) -> None:
    first, first_channel = zygote.fork(b"one")
    second, second_channel = zygote.fork(b"two")
    assert (said(first_channel), said(second_channel)) == (b"one", b"two")
    assert psutil.Process(first).ppid() == psutil.Process(second).ppid() != os.getpid()
    os.kill(second, signal.SIGKILL)
    end(second, second_channel)
    end(first, first_channel)
    assert os.waitstatus_to_exitcode(zygote.wait(first) or 0) == STATUS
    assert os.waitstatus_to_exitcode(zygote.wait(second) or 0) == -signal.SIGKILL
    assert not psutil.pid_exists(first)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_is_gone_or_hangs_is_replaced(
    zygote: Zygote, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    monkeypatch.setattr("serial_console.zygote.ANSWER", 0.2)
    child, channel = zygote.fork(b"one")
    os.kill(psutil.Process(child).ppid(), how)
    second, second_channel = zygote.fork(b"two")
    assert (said(channel), said(second_channel)) == (b"one", b"two")
    end(child, channel)
    assert zygote.wait(child) is None
    end(second, second_channel)
    assert os.waitstatus_to_exitcode(zygote.wait(second) or 0) == STATUS


def test_its_children_outlive_it(zygote: Zygote) -> None:
    child, channel = zygote.fork(b"one")
    zygote.close()
    assert said(channel) == b"one"
    assert zygote.wait(child) is None
    end(child, channel)
