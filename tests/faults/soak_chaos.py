"""The soak's faults: to the services, and to libvirtd and its guests."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from serial_console.demo.libvirtd import PrivateLibvirtd
from tests import rig
from tests.stack import Stack, alive

from .soak_clients import Client, Place
from .soak_journal import Journal
from .soak_truth import without_notices

RECOVERY = 30.0
"""Seconds after a fault within which the console of a guest must echo again, on a busy machine."""


class Chaos:
    """Two threads of random faults: one at the services, one below them.

    Args:
        stack, libvirtd, places, journal: the soak's.
        mark: what is in the environment of each process that the soak started.
        seed: of the random numbers.
        stop: set when they are to end; each fault is healed first.
    """

    def __init__(
        self,
        stack: Stack,
        libvirtd: PrivateLibvirtd,
        places: list[Place],
        journal: Journal,
        mark: str,
        seed: int,
        stop: threading.Event,
    ) -> None:
        self._stack = stack
        self._libvirtd = libvirtd
        self._places = places
        self._journal = journal
        self._mark = mark.encode()
        self._stop = stop
        services = random.Random(seed)
        below = random.Random(seed + 1)
        self.threads = [
            threading.Thread(
                target=self._run,
                name="chaos of services",
                args=(
                    services,
                    [self._kill_relay] * 4
                    + [self._kill_child] * 4
                    + [self._kill_supervisor, self._restart_gateway],
                ),
            ),
            threading.Thread(
                target=self._run,
                name="chaos below",
                args=(
                    below,
                    [
                        self._kill_libvirtd,
                        self._restart_libvirtd,
                        self._freeze_libvirtd,
                        self._stop_guest,
                        self._stop_guest,
                        self._pause_guest,
                        self._pause_guest,
                        self._reset_guest,
                        self._reset_guest,
                    ],
                ),
            ),
        ]

    def _run(self, rng: random.Random, faults: list[Callable[[random.Random], Place]]) -> None:
        while not self._stop.wait(rng.uniform(1.0, 6.0)):
            fault = rng.choice(faults)
            try:
                place = fault(rng)
            except Exception as error:
                self._journal.fail(f"{fault.__name__}: {type(error).__name__}: {error}")
                raise
            if rng.random() < 0.5:
                self._recovers(fault.__name__[1:].replace("_", " "), place)

    def _recovers(self, what: str, place: Place) -> None:
        """Measure how long it takes until a console can be had and shows something of the guest."""
        begin = time.monotonic()
        visit = self._journal.visit(place.uuid, "rw", True, "gateway")
        said = ""
        try:
            while time.monotonic() - begin < RECOVERY:
                try:
                    token = self._stack.token(place.uuid, takeover=True, replay=0, user="probe")
                    with Client(self._stack.url(token)) as client:
                        client.send(b"!")
                        while client.end is None and time.monotonic() - begin < RECOVERY:
                            client.read(0.1)
                            if without_notices(bytes(client.output)):
                                self._journal.took(f"after {what}", time.monotonic() - begin)
                                return
                        said = f"{client.end} {bytes(client.output[-200:])!r}"
                except Exception as error:  # noqa: BLE001 - whatever it is, it has to pass
                    said = repr(error)
            self._journal.fail(f"no console within {RECOVERY:.0f} s of {what}: {said}")
        finally:
            visit.end = time.monotonic()

    # ---- services

    def _session(self, rng: random.Random) -> dict[str, Any] | None:
        with contextlib.suppress(OSError, StopIteration, ValueError, AssertionError):
            return rng.choice(self._stack.sessions() or [None])
        return None

    def _kill(self, kind: str, pid: int, guest: str) -> None:
        """SIGKILL a process of our own stack, surely that one."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                ours = self._mark in file.read()
            if ours:
                with self._journal.fault(kind, guest):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    select.select([pidfd], [], [], 5.0)
        except (FileNotFoundError, ProcessLookupError):
            pass
        finally:
            os.close(pidfd)

    def _kill_relay(self, rng: random.Random) -> Place:
        return self._kill_of_session(rng, "relay killed", "relay_pid")

    def _kill_child(self, rng: random.Random) -> Place:
        return self._kill_of_session(rng, "gateway child killed", "gateway_pid")

    def _kill_of_session(self, rng: random.Random, kind: str, key: str) -> Place:
        session = self._session(rng)
        if session is None:
            return rng.choice(self._places)
        self._kill(kind, session[key], session["uuid"])
        return next(one for one in self._places if one.uuid == session["uuid"])

    def _kill_supervisor(self, rng: random.Random) -> Place:
        try:
            before = self._stack.sessions()
        except (OSError, StopIteration, ValueError, AssertionError):
            before = []
        with self._journal.fault("supervisor killed"):
            self._stack.end("supervisor", signal.SIGKILL)
            self._stop.wait(rng.uniform(0.0, 3.0))
            self._stack.start("supervisor")
        after = {one["id"] for one in self._stack.sessions()}
        log = self._stack.services["supervisor"].logged()
        for one in before:
            ended = not alive(one["relay_pid"]) or f"session {one['id']} closed" in log
            ended = ended or self._journal.has_ended(one["user"])  # and told a dying supervisor
            if one["state"] != "starting" and one["id"] not in after and not ended:
                self._journal.fail(f"not adopted: {one}")
        return rng.choice(self._places)

    def _restart_gateway(self, rng: random.Random) -> Place:
        with self._journal.fault("gateway restarted"):
            status = self._stack.end("gateway")
            if status != 0:
                self._journal.fail(f"the gateway ended with {status}")
            self._stack.start("gateway")
        return rng.choice(self._places)

    # ---- below

    def _kill_libvirtd(self, rng: random.Random) -> Place:
        with self._journal.fault("libvirtd killed"):
            self._libvirtd.kill()
            self._stop.wait(rng.uniform(0.0, 5.0))
            self._libvirtd.start()
        return rng.choice(self._places)

    def _restart_libvirtd(self, rng: random.Random) -> Place:
        with self._journal.fault("libvirtd restarted"):
            self._libvirtd.stop_daemon()
            self._libvirtd.start()
        return rng.choice(self._places)

    def _freeze_libvirtd(self, rng: random.Random) -> Place:
        with self._journal.fault("libvirtd frozen"):
            self._libvirtd.freeze()
            self._stop.wait(rng.uniform(0.5, 10.0))
            self._libvirtd.thaw()
        return rng.choice(self._places)

    def _stop_guest(self, rng: random.Random) -> Place:
        place = rng.choice(self._places)
        with self._journal.fault("guest stopped", place.uuid):
            place.guest.destroy()
            self._stop.wait(rng.uniform(0.0, 3.0))
            place.guest.start()
            self._wait_ready(place)
        return place

    def _pause_guest(self, rng: random.Random) -> Place:
        place = rng.choice(self._places)
        with self._journal.fault("guest paused", place.uuid):
            place.guest.suspend()
            self._stop.wait(rng.uniform(0.0, 5.0))
            place.guest.resume()
        return place

    def _reset_guest(self, rng: random.Random) -> Place:
        place = rng.choice(self._places)
        with self._journal.fault("guest reset", place.uuid):
            place.guest.reset()
            self._wait_ready(place)
        return place

    def _wait_ready(self, place: Place) -> None:
        # Its boot takes a second, and longer when the client that reads it is slow.
        begin = place.truth.size()
        rig.eventually(lambda: place.truth.since(max(0, begin - 200)).count(b"ready") > 0, 20.0)
