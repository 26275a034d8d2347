"""The relay's side of libvirt, where the real one cannot be made to do it when it matters."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own: libvirt's event loop is once per process, and stays.
LOST_WITHIN_A_CALL = """
import functools
import libvirt
from serial_console import guest
from serial_console.control import State
from serial_console.guestconsole import GuestConsole
from serial_console.streamline import StreamLine

class FakeStream:
    def send(self, data):
        lose()
        raise libvirt.libvirtError("virStreamSend() failed")
    def recv(self, count):
        lose()
        return b""
    def eventAddCallback(self, *_):
        pass

class FakeConnection:
    pass

def lose():
    console._dropped(console._connection, 1, None)

guest.silence()
loop = guest.event_loop()
states = []
console = GuestConsole(
    loop, "test:///default", "", None,
    on_output=None, on_state=lambda state, text: states.append(state), on_gone=None,
)
for call in (lambda line: line.send(b"x"), lambda line: line._recv()):
    connection = FakeConnection()
    console._connection, console._state = connection, State.CONNECTED
    line = StreamLine(connection, -1, FakeStream())
    line.begin(loop, None, functools.partial(console._ended, line))
    console._line = line
    assert not call(line)
    assert states == [State.RECONNECTING], states
    states.clear()
print("kept")
"""


def test_a_connection_that_is_lost_within_a_call_does_not_end_the_relay() -> None:
    """libvirt calls the close callback from within virStreamSend and the like."""
    done = subprocess.run(
        [sys.executable, "-c", LOST_WITHIN_A_CALL], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "kept\n", done.stderr
