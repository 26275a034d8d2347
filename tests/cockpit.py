"""A private Cockpit on loopback, whose user is who runs the tests, with no sign-in."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from . import rig
from .stack import READY, STOP, listens

UNPACKED = Path(__file__).parent.parent / "build" / "cockpit" / "usr"
"""Where tools/setup put it: its packages would start one on the machine's port 9090."""


@contextlib.contextmanager
def serving(home: Path, port: int) -> Iterator[str]:
    """Serve until the end of the context; gives the address below which packages are.

    Args:
        home: the user's home directory.
        port: on 127.0.0.1.
    """
    if not UNPACKED.exists():
        rig.missing("there is no Cockpit here; run 'make setup'")
    environment = {
        **os.environ,
        "XDG_DATA_HOME": str(home / ".local" / "share"),  # its bridge takes HOME from the account
        "XDG_CONFIG_DIRS": str(home),
        "XDG_DATA_DIRS": str(UNPACKED / "share"),
        "LD_LIBRARY_PATH": str(UNPACKED / "lib" / f"{os.uname().machine}-linux-gnu"),
        # Else its bridge starts both, and leaves them behind.
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent",
        "SSH_AUTH_SOCK": "/nonexistent",
    }
    with (home / "cockpit.log").open("wb") as log:
        process = subprocess.Popen(
            [
                UNPACKED / "lib" / "cockpit" / "cockpit-ws",
                *("--no-tls", "--address", "127.0.0.1", "--port", str(port)),
                f"--local-session={UNPACKED / 'bin' / 'cockpit-bridge'}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    try:
        assert rig.eventually(lambda: listens(port), READY), (home / "cockpit.log").read_text()
        yield f"http://127.0.0.1:{port}/cockpit/@localhost"
    finally:
        process.terminate()
        process.wait(STOP)
