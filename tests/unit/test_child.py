"""What the supervisor hears of a child that ends."""

from __future__ import annotations

import gc
import os
import select
import socket

from serial_console.child import Child, fork
from serial_console.loop import Loop


def says_why_and_ends(channel: socket.socket) -> int:
    channel.sendall(b"why\n")
    return 3


def heard_of_what_ended_before_it_was_told_something() -> list[bytes | str]:
    loop = Loop()
    heard: list[bytes | str] = []

    def on_end(how: str) -> None:
        heard.append(how)
        loop.stop()

    pid, channel = fork(says_why_and_ends, "test")
    child = Child(loop, pid, channel, heard.append, on_end)
    watch = os.pidfd_open(pid)
    try:
        assert select.select([watch], [], [], 10)[0]
    finally:
        os.close(watch)
    child.send(b"told\n")
    loop.run()
    return heard


def test_why_it_ended_is_heard_although_it_cannot_be_told_anything_any_more() -> None:
    assert heard_of_what_ended_before_it_was_told_something() == [
        b"why",
        "has ended with status 3",
    ]
    gc.collect()  # the loop's own descriptor
