"""What was done to whom, and when: the causes that the soak's model looks for."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

LIBVIRTD = frozenset({"libvirtd killed", "libvirtd restarted", "libvirtd frozen"})
GUEST = frozenset({"guest stopped", "guest reset", "guest paused"})
SUPERVISOR = frozenset({"supervisor killed"})
GATEWAY = frozenset({"gateway restarted"})
RELAY = frozenset({"relay killed"})
CHILD = frozenset({"gateway child killed"})
AWAY = LIBVIRTD | {"guest stopped"}
"""What takes a console away for a while: the guest prints, and nobody is there to read it."""
LOSES_INPUT = LIBVIRTD | {"guest stopped", "guest reset"}
"""What loses input that was typed but not yet read by the guest."""


@dataclass
class Fault:
    """One fault: its kind, the guest's UUID or "" for all, and its times (time.monotonic)."""

    kind: str
    guest: str
    begin: float
    end: float = float("inf")


@dataclass
class Visit:
    """One client, from asking for a token until it has ended.

    ``held``: more was typed than the guest may have taken. ``stalled``: when last it did not read.
    """

    number: int
    guest: str
    mode: str
    takeover: bool
    via: str
    begin: float
    end: float = float("inf")
    held: bool = False
    stalled: float = float("-inf")
    did: list[str] = field(default_factory=list)
    typed: dict[int, float] = field(default_factory=dict, repr=False)

    @property
    def typist(self) -> str:
        """The mark in the lines that it types, of five characters."""
        return f"{self.number:05d}"

    def note(self, what: str) -> None:
        """Note what it does."""
        self.did.append(f"{time.monotonic() - self.begin:.2f} {what}")


class Journal:
    """All faults and visits of a soak; used by all its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.faults: list[Fault] = []
        self.visits: list[Visit] = []
        self.counts: Counter[str] = Counter()
        self.slowest: dict[str, float] = {}
        self.failures: list[str] = []

    def count(self, what: str, number: int = 1) -> None:
        """Count something for the report."""
        with self._lock:
            self.counts[what] += number

    def at_most(self, what: str, number: int) -> None:
        """Note a size, of which the report shows the largest."""
        with self._lock:
            self.counts[what] = max(number, self.counts[what])

    def fail(self, what: str) -> None:
        """Note that the soak has failed, and why."""
        with self._lock:
            self.failures.append(what)
        print(f"FAIL: {what}", flush=True)

    def took(self, what: str, seconds: float) -> None:
        """Note a time, of which the report shows the longest."""
        with self._lock:
            self.slowest[what] = max(seconds, self.slowest.get(what, 0.0))

    @contextlib.contextmanager
    def fault(self, kind: str, guest: str = "") -> Iterator[Fault]:
        """Note a fault for as long as the block runs."""
        fault = Fault(kind, guest, time.monotonic())
        with self._lock:
            self.faults.append(fault)
            self.counts[kind] += 1
        try:
            yield fault
        finally:
            fault.end = time.monotonic()

    def visit(self, guest: str, mode: str, takeover: bool, via: str) -> Visit:
        """Note a new visit."""
        with self._lock:
            one = Visit(len(self.visits), guest, mode, takeover, via, time.monotonic())
            self.visits.append(one)
            return one

    def was(self, kinds: frozenset[str], guest: str, begin: float, end: float) -> bool:
        """Tell whether a fault of these kinds, at this guest or all, was within these times."""
        with self._lock:
            return any(
                one.kind in kinds
                and one.guest in ("", guest)
                and one.begin <= end
                and one.end >= begin
                for one in self.faults
            )

    def has_ended(self, user: str) -> bool:
        """Tell whether the visit of a user, as sessions name it, is over."""
        number = user.removeprefix("u")
        with self._lock:
            return number.isdigit() and self.visits[int(number)].end < float("inf")

    def others(self, visit: Visit, begin: float, end: float) -> list[Visit]:
        """Return the other visits with mode rw of the same guest within these times."""
        with self._lock:
            return [
                one
                for one in self.visits
                if one is not visit
                and one.guest == visit.guest
                and one.mode == "rw"
                and one.begin <= end
                and one.end >= begin
            ]

    def write(self, path: str) -> None:
        """Write down all that was done, in order, with the times that the logs have."""
        offset = time.time() - time.monotonic()
        with self._lock, open(path, "w", encoding="utf-8") as file:
            for one in sorted([*self.faults, *self.visits], key=lambda each: each.begin):
                times = [f"{each + offset:.2f}" for each in (one.begin, one.end)]
                stamp = time.strftime("%H:%M:%S", time.gmtime(one.begin + offset))
                file.write(f"{stamp} {times[0]} to {times[1]} {one}\n")
