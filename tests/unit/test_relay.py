"""A new relay where one of the same console is still ending."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from functools import partial
from pathlib import Path

from serial_console import control, relay
from serial_console.channel import Channel
from serial_console.child import fork
from serial_console.config import parse

from .. import fakes

_decoder = control.Decoder(control.FromRelay)


def listens(path: str, channel: socket.socket) -> int:
    """Be a relay that was ended, and does not get to it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        channel.sendall(b"listens\n")
        signal.pause()
    return 0


def next_line(channel: Channel, seconds: float) -> bytes | None:
    """The next thing that a child says, or None."""
    while not channel.ended and select.select([channel], [], [], seconds)[0]:
        for line in channel.receive():
            return line
    return None


def waits_for(pid: int, other: int) -> bool:
    """Whether a process holds a pidfd of another."""
    folder = f"/proc/{pid}/fdinfo"
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if f"Pid:\t{other}\n" in Path(folder, name).read_text():
                return True
    return False


def test_a_new_relay_binds_when_the_one_before_has_left_its_socket(run_dir: str) -> None:
    path = os.path.join(run_dir, "web.sock")
    config = parse(fakes.config_text(run_dir, "") + '[libvirt]\nuri = "test:///nothing"\n', "test")
    os.makedirs(config.paths.relays)
    before, its_channel = fork(partial(listens, path), "test")
    try:
        assert next_line(its_channel, 10) == b"listens"
        nobody = "00000000-0000-0000-0000-000000000000"
        spec = relay.Spec("new", "web", nobody, "serial0", None, path, (before,))
        pid, channel = fork(partial(relay.main, spec, config), "test")
        try:
            while not waits_for(pid, before):
                assert next_line(channel, 0.01) is None
        finally:
            os.kill(before, signal.SIGKILL)
            line = next_line(channel, 10)
            os.waitpid(pid, 0)
            channel.close()
    finally:
        os.waitpid(before, 0)
        its_channel.close()
    assert line is not None
    failed = _decoder.decode(line)
    assert isinstance(failed, control.Failed)
    assert failed.code == "libvirt_unavailable"  # past its socket, on to libvirt
