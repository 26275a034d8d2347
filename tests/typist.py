"""Somebody who types what the documents say: an ordinary user on a machine of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from serial_console.demo.libvirtd import PrivateLibvirtd

from . import rig
from .netns import Namespace
from .stack import BIN, STOP, Service

ROOT = Path(__file__).parent.parent


class Typist:
    """A user whose ``qemu:///session`` is this libvirtd, with all ports of the loopback free.

    Needs root: the user is another one, who may read our files.

    Args:
        libvirtd: whose files are this user's home.
        directory: for what the services log.
        variables: of the environment, beside those that a login sets.
    """

    def __init__(self, libvirtd: PrivateLibvirtd, directory: Path, **variables: str) -> None:
        home = libvirtd.directory
        self._directory = directory
        self._variables = {
            "HOME": f"{home}/data",
            "XDG_RUNTIME_DIR": f"{home}/run",
            "XDG_CONFIG_HOME": f"{home}/config",
            "XDG_DATA_HOME": f"{home}/data",
            "XDG_CACHE_HOME": f"{home}/cache",
            "PATH": f"{BIN}:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            **variables,
        }
        self._user = libvirtd.account.user
        self.network = Namespace()
        self.network.ip("link set lo up")

    def close(self) -> None:
        """Leave the machine; nothing may run there any more."""
        self.network.close()

    def command(self, text: str) -> list[str]:
        """Return what runs a text in this user's shell; it ends at the first failure."""
        said = [f"{name}={value}" for name, value in self._variables.items()]
        shell = ["env", *said, "bash", "-euc", text]
        return rig.as_another(shell) if self._user is not None else shell

    def types(self, text: str, seconds: float = 30.0) -> str:
        """Type it, wait, and return what it printed; it must work."""
        with self.network.entered():
            done = subprocess.run(
                self.command(text),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                cwd="/",
            )
        assert done.returncode == 0, f"{text}{done.stdout}{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def foreground(self, text: str) -> Iterator[Service]:
        """Type what stays in the foreground and prints ``ready``; at the end press Ctrl-C."""
        with self.network.entered():
            service = Service("typed", self.command(text), str(self._directory / "typed.log"))
        try:
            service.wait_ready()
            yield service
        finally:
            os.killpg(service.pid, signal.SIGINT)
            assert service.wait(STOP) in (0, 130, -signal.SIGINT)
