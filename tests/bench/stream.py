"""A bare libvirt stream, read in Python as well as it can be: what a relay in Python could reach.

usage: python -m tests.bench.stream URI GUEST ALIAS SECONDS

Has the guest print without end and prints how many bytes came, in how many seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time

import libvirt

CHUNK = 65536


def main() -> None:
    """Measure and print."""
    uri, guest, alias, seconds = sys.argv[1:]
    libvirt.virEventRegisterDefaultImpl()
    connection = libvirt.open(uri)
    stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
    connection.lookupByUUIDString(guest).openConsole(alias, stream, 0)
    came = 0

    def readable(stream: libvirt.virStream, _events: int, _opaque: object) -> None:
        nonlocal came
        while (data := stream.recv(CHUNK)) != -2:
            came += len(data)

    stream.eventAddCallback(libvirt.VIR_STREAM_EVENT_READABLE, readable, None)
    # The loop must not wait for output alone, which may stop.
    libvirt.virEventAddTimeout(50, lambda *_: None, None)
    stream.send(b"\x06")
    while not came:
        libvirt.virEventRunDefaultImpl()
    came, cpu, began = 0, time.process_time(), time.monotonic()
    while time.monotonic() - began < float(seconds):
        libvirt.virEventRunDefaultImpl()
    took, spent = time.monotonic() - began, time.process_time() - cpu
    print(json.dumps({"bytes": came, "seconds": took, "cpu": spent}), flush=True)
    stream.send(b"x")
    quiet = time.monotonic() + 0.2
    while time.monotonic() < quiet:
        libvirt.virEventRunDefaultImpl()
    os._exit(0)  # closing in order is not what is measured


if __name__ == "__main__":
    main()
