"""A newcomer's host, and the console of its guest through the gateway at its default port."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cleanroot import CleanRoot
from tests.clients import Terminal
from tests.conftest import DAEMONS

GUEST = "web-1"
"""What the documents call a guest."""
UNITS = (
    "serial-console.target", "serial-console-supervisor.service", "serial-console-gateway.service",
    "serial-console-api.service", "serial-console-sessions.service",
    "serial-console-redeem.socket", "serial-console-admin.socket",
    "serial-console-gateway.socket", "serial-console-api.socket",
)  # fmt: skip


@contextlib.contextmanager
def clean(config: pytest.Config) -> Iterator[CleanRoot]:
    """A clean Debian 12 with libvirt, a guest and nothing of ours; for all tests of a module."""
    with CleanRoot() as root:
        daemons = config.stash.setdefault(DAEMONS, [])
        daemons.append(root)
        root.add_guest(GUEST)
        yield root
        daemons.remove(root)


def opened(root: CleanRoot, token: str) -> Terminal:
    """Connect with a token."""
    with root.network.entered():
        return Terminal(f"ws://127.0.0.1:6083/websockify?token={token}")


def connect(root: CleanRoot, **fields: Any) -> Terminal:
    """Connect with a new token; the fields are those of the operation ``issue``."""
    answer = root.ask("issue", guest=GUEST, **fields)
    assert answer["ok"], f"{answer} {root.journal()}"
    return opened(root, answer["token"])


def prompt(terminal: Terminal) -> None:
    """Press Enter, and wait for the prompt."""
    terminal.send(b"\r")
    terminal.read_until(b"login: ")


def leave(terminal: Terminal) -> None:
    """Press Ctrl-Q."""
    terminal.send(b"\x11")
    assert terminal.ended()[0] == 1000


def session(root: CleanRoot) -> dict[str, Any]:
    """Return the one session that there is."""
    (one,) = root.ask("sessions")["sessions"]
    found: dict[str, Any] = one
    return found


def states(root: CleanRoot, *units: str) -> list[str]:
    """Return what systemd says of each unit, as ``active``."""
    return [root.run("systemctl", "is-active", unit).stdout.strip() for unit in units]
