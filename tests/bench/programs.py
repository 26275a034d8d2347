"""The two C programs: the client of everything that is measured, and the synthetic guests.

In C because a client in Python would be the slowest part of most of what is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any, Self

from serial_console.demo import host

SOURCES = os.path.join(os.path.dirname(__file__), "load")
BUILD = os.path.abspath(f"{os.path.dirname(__file__)}/../../build/bench")
ANSWER = 120.0
"""Seconds that any command may take; an alarm against a bench that hangs."""


class Failed(Exception):
    """The client could not do it; the message is its own."""


def build() -> None:
    """Compile what is older than its sources.

    Raises:
        SetupError: there is no gcc.
    """
    gcc = host.program("gcc", "gcc")
    os.makedirs(BUILD, exist_ok=True)
    for name, sources in {"client": ["client.c", "session.c"], "source": ["source.c"]}.items():
        paths = [os.path.join(SOURCES, source) for source in sources]
        command = [gcc, "-O2", "-Wall", "-Wextra", "-Werror", "-o", os.path.join(BUILD, name)]
        subprocess.run([*command, *paths, "-lutil"], check=True)


class Client:
    """A client program: load/client.c describes its commands."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [os.path.join(BUILD, "client")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=ANSWER)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def do(self, command: str, argument: object = "") -> dict[str, Any]:
        """Have it do a command, and return its answer.

        Raises:
            Failed: it could not.
        """
        self.begin(command, argument)
        return self.answer()

    def begin(self, command: str, argument: object = "") -> None:
        """Have it begin with a command, whose answer is to be taken later."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command} {argument}".rstrip() + "\n")

    def answer(self) -> dict[str, Any]:
        """Return the answer to the oldest command that was begun.

        Raises:
            Failed: it could not do it.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"the client ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(line.strip())
        return answer


class Source:
    """Synthetic guests: ``ptys``, and a TCP ``port`` with one more for each connection."""

    def __init__(self, ptys: int) -> None:
        self._process = subprocess.Popen(
            [os.path.join(BUILD, "source"), str(ptys)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.ptys = [self._process.stdout.readline().strip() for _ in range(ptys)]

    def close(self) -> None:
        """End them."""
        self._process.communicate()


@contextlib.contextmanager
def connected(target: str, *, echo: float = 20.0) -> Iterator[Client]:
    """Give a client with a session that echoes; ``echo``: within so many seconds."""
    with Client() as client:
        client.do("connect", target)
        client.do("echo", echo)
        client.do("drain")
        yield client
