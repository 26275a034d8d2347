"""The relay's side of libvirt, where the real one cannot be made to do it when it matters."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own: libvirt's event loop is once per process, and stays.
LOST_WITHIN_A_CALL = """
import libvirt
from serial_console import guest
from serial_console.control import State

class FakeStream:
    def send(self, data):
        lose()
        raise libvirt.libvirtError("virStreamSend() failed")
    def recv(self, count):
        lose()
        return b""

class FakeConnection:
    pass

def lose():
    console._dropped(console._connection, 1, None)

guest.silence()
states = []
console = guest.GuestConsole(
    guest.event_loop(), "test:///default", "", None,
    on_output=None, on_state=lambda state, text: states.append(state), on_gone=None,
)
for call in (
    lambda: console.send(b"x"),
    lambda: console._recv(console._stream),
):
    console._connection, console._stream = FakeConnection(), FakeStream()
    console._state = State.CONNECTED
    assert not call()
    assert states.pop() is State.RECONNECTING, states
print("kept")
"""


def test_a_connection_that_is_lost_within_a_call_does_not_end_the_relay() -> None:
    """libvirt calls the close callback from within virStreamSend and the like."""
    done = subprocess.run(
        [sys.executable, "-c", LOST_WITHIN_A_CALL], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "kept\n", done.stderr
