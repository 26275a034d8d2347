"""The soak: random clients and random faults for minutes, against a model of what may happen.

    python -m tests.faults.soak --minutes 30 [--seed N]

Exit status 0: every stream, every end and every line of the logs had its cause, and nothing of
it was left at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid

import psutil

from serial_console.demo import host
from serial_console.demo.libvirtd import PrivateLibvirtd
from tests import rig
from tests.stack import Stack, anonymous, descendants

from . import soak_logs
from .soak_chaos import Chaos
from .soak_clients import Client, Place, Visitor
from .soak_journal import Journal
from .soak_truth import Truth

GUESTS = 8
VISITORS = 6
"""Clients at once; with the two that measure recovery they are eight."""
BACKLOG = 65536
"""Bytes that may wait for a client: the least that can be configured, for gaps."""
GROWTH = 2 << 20
"""Bytes that supervisor and gateway may grow by."""
LARGEST = 32 << 20
"""Bytes that a relay or a gateway child may have for its own: several times what they had."""
SAMPLE = 5.0
"""Seconds between two looks at them."""
GAPS = 600.0
"""Seconds from which on a soak must have seen a gap mark, or it has shown nothing about them."""
ECHO = 5.0
"""Seconds in which each guest must echo at the end."""


def main() -> int:
    """Run the soak. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 30) if options.seed is None else options.seed
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(1))  # heal and end everything
    folder = tempfile.mkdtemp(prefix="sc-soak-logs-")
    print(f"seed {seed}, logs in {folder}", flush=True)
    leaks = rig.Leaks(lambda _pid: False)
    os.environ[rig.TEST_MARK] = leaks.mark
    journal = Journal()
    with contextlib.ExitStack() as things:
        directory = things.enter_context(host.short_directory("sc-soak-"))
        run_dir = things.enter_context(host.short_directory("sc-run-"))
        libvirtd = things.enter_context(PrivateLibvirtd(f"{directory}/d"))
        soak = Soak(libvirtd, run_dir, folder, journal, seed, leaks.mark)
        try:
            soak.run(options.minutes * 60)
        finally:
            soak.close()
    for line in leaks.found():
        journal.fail(f"left behind: {line}")
    journal.write(os.path.join(folder, "journal"))
    report(journal, seed, folder)
    return 1 if journal.failures else 0


class Soak:
    """Guests, services, clients and chaos.

    Args:
        libvirtd: a libvirtd of its own.
        run_dir: a short directory for sockets.
        folder: where logs go.
        journal, seed, mark: as their users say.
    """

    def __init__(
        self,
        libvirtd: PrivateLibvirtd,
        run_dir: str,
        folder: str,
        journal: Journal,
        seed: int,
        mark: str,
    ) -> None:
        self._libvirtd = libvirtd
        self._journal = journal
        self._seed = seed
        self._mark = mark
        self._folder = folder
        self._stack = Stack(libvirtd.uri, run_dir, folder, session={"backlog": BACKLOG})
        self._factory = rig.GuestFactory(libvirtd)
        self._places: list[Place] = []

    def run(self, seconds: float) -> None:
        """Set up, soak so long, heal, check."""
        self._log_by_qemu()
        self._places = [self._place(number) for number in range(GUESTS)]
        self._stack.start("supervisor", "gateway", "stock")
        for place in self._places:
            self._echoes(place)
        self._stack.wait_free()
        before, fds = self._sizes(), self._fds()
        stop, calm = threading.Event(), threading.Event()
        visitors = [
            Visitor(self._stack, self._places, self._journal, self._seed + 100 + number, calm)
            for number in range(VISITORS)
        ]
        chaos = Chaos(
            self._stack,
            self._libvirtd,
            self._places,
            self._journal,
            self._mark,
            self._seed,
            stop,
        )
        threads = [*chaos.threads, *(one.thread for one in visitors)]
        for thread in threads:
            thread.start()
        began, minute = time.monotonic(), 1
        try:
            while (left := seconds - (time.monotonic() - began)) > 0:
                time.sleep(min(SAMPLE, left))
                self._sample()
                if time.monotonic() - began >= minute * 60:
                    minute += 1
                    self._minute(time.monotonic() - began)
        finally:
            stop.set()
            for thread in chaos.threads:
                thread.join()
            calm.set()
            for thread in threads:
                thread.join()
        if seconds >= GAPS and not self._journal.counts["gaps"]:
            self._journal.fail("no client was given a gap mark")
        self._check_end(before, fds)

    def close(self) -> None:
        """End everything."""
        with (
            open(os.path.join(self._folder, "all.log"), "w", encoding="utf-8") as output,
            contextlib.redirect_stdout(output),
        ):
            self._stack.close()
        self._factory.close()

    def _log_by_qemu(self) -> None:
        """Have QEMU itself write the consoles' logs: virtlogd would rotate them."""
        self._libvirtd.stop_daemon()
        config = os.path.join(self._libvirtd.directory, "config", "libvirt")
        os.makedirs(config, exist_ok=True)
        with open(os.path.join(config, "qemu.conf"), "w", encoding="ascii") as file:
            file.write('stdio_handler = "file"\n')
        self._libvirtd.start()

    def _place(self, number: int) -> Place:
        log = os.path.join(self._libvirtd.directory, "data", f"soak-{number}.log")
        serial = f"<serial type='pty'><log file='{log}' append='on'/></serial>"
        guest = self._factory(name=f"soak-{number}", serial=(), extra=serial)
        return Place(guest, Truth(log), noisy=number % 2 == 0)

    def _echoes(self, place: Place) -> None:
        """See that a guest echoes through the gateway in time."""
        begin = time.monotonic()
        mark = uuid.uuid4().hex.encode()
        with Client(self._stack.url(self._stack.token(place.uuid, replay=0))) as client:
            client.send(mark)
            if client.read(ECHO, until=mark):
                self._journal.took("echo at rest", time.monotonic() - begin)
            else:
                seen = bytes(client.output[-300:])
                self._journal.fail(f"{place.guest.name} does not echo at the end: {seen!r}")

    def _sizes(self) -> dict[str, int]:
        """Return fds and memory of the services at rest."""
        sizes = {}
        self._stack.ask("health")
        for name in ("supervisor", "gateway"):
            service = self._stack.services[name]
            sizes[f"{name} fds"] = service.fds()
            sizes[f"{name} anonymous"] = anonymous(service.pid)
        return sizes

    def _fds(self) -> int:
        return sum(self._stack.services[name].fds() for name in ("supervisor", "gateway"))

    def _sample(self) -> None:
        """Note how large relays and gateway children are."""
        with contextlib.suppress(OSError, StopIteration, ValueError, AssertionError):
            for session in self._stack.sessions():
                for key in ("relay_pid", "gateway_pid"):
                    with contextlib.suppress(psutil.Error):
                        uss = psutil.Process(session[key]).memory_full_info().uss
                        self._journal.at_most(f"own memory, {key[:-4]}", uss)
                        if uss > LARGEST:
                            self._journal.fail(f"{uss} bytes are {key[:-4]}'s own: {session}")

    def _minute(self, seconds: float) -> None:
        counts = self._journal.counts
        parts = [f"{counts['bytes checked'] >> 10} KiB checked", f"{counts['gaps']} gaps"]
        parts.append(f"{len(self._journal.visits)} visits, {len(self._journal.faults)} faults")
        parts.append(f"{len(self._journal.failures)} failures")
        load = os.getloadavg()[0]
        print(f"{seconds / 60:.1f} min: {', '.join(parts)}, load {load:.1f}", flush=True)

    def _check_end(self, before: dict[str, int], fds: int) -> None:
        journal = self._journal
        try:
            self._stack.wait_free(30.0)
        except AssertionError as error:
            journal.fail(f"not free at the end: {error}")
        for place in self._places:
            if place.noisy:
                place.guest.reset()  # there may be a minute's noise to come
            if not place.truth.still(2.0, 60.0):
                journal.fail(f"{place.guest.name} prints without end")
            self._echoes(place)
        try:
            self._stack.wait_free(10.0)
        except AssertionError as error:
            journal.fail(f"not free after the last echo: {error}")
        self._stack.ask("health")
        rig.eventually(lambda: self._fds() <= fds)  # relays take a moment to be gone
        after = self._sizes()
        for name, size in after.items():
            growth = size - before[name]
            journal.counts[f"growth of {name}"] = growth
            if growth > (0 if name.endswith("fds") else GROWTH):
                journal.fail(f"{name} grew from {before[name]} to {size}")
        for service, least in (("gateway", 0), ("supervisor", 1)):
            left = descendants(self._stack.pid(service))
            if len(left) != least:  # the supervisor's inventory
                journal.fail(f"children of the {service} at the end: {left}")
        soak_logs.check(self._stack, journal)


def report(journal: Journal, seed: int, folder: str) -> None:
    """Print the figures."""
    for what, number in sorted(journal.counts.items()):
        print(f"{what}: {number}")
    for what, seconds in sorted(journal.slowest.items()):
        print(f"{what}: at most {seconds:.2f} s")
    for failure in journal.failures[:20]:
        print(f"FAIL: {failure[:3000]}")
    verdict = "FAIL" if journal.failures else "PASS"
    print(f"{verdict}: {len(journal.failures)} failures, seed {seed}, logs in {folder}")


if __name__ == "__main__":
    sys.exit(main())
