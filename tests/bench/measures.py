"""One function a figure; each returns samples. docs/performance.md says more."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable

from . import cost, page, peers
from .lab import Console, Lab
from .peers import Target
from .programs import Client, connected
from .rounds import Bench, Samples, Values, add, session

BARE = "bare stream"
NOBODY = "no client"

KEYS = 700
FLOOD_KEYS = 1000
UART_KEYS = 150
WARM = 0.3
"""Seconds of output that do not count for MB/s, and of output that do:"""
FLOOD = 1.0
UART_FLOOD = 2.0
SET_UPS = 20
"""Sessions opened one after another in a round."""
MEMORY_COUNTS = (1, 10, 50)
REST = 0.5
"""Seconds from the last session's first echo until memory is looked at."""
STALL = 60.0
STALLED = 1.5
"""Seconds after which a client that reads nothing has surely been found to be stalled."""
PACE = 3.0
GROWTH_COUNTS = (1, 10, 50, 200, 500)
GROWTH_FLOOD_COUNTS = (1, 50, 500)
GROWTH_FLOOD = 0.5
CONSOLES = 25
"""Synthetic consoles of one guest."""
IDLE = 3.0
ECHO = 20.0
"""Seconds in which a session must have echoed."""


def rtt(bench: Bench) -> Samples:
    """Echo round trip of a key."""

    def measure(target: Target) -> Values:
        with session(target) as client:
            return _keys(client, KEYS)

    return bench.interleaved(bench.of_each(measure, *peers.ALL))


def rttflood(bench: Bench) -> Samples:
    """The same while another guest floods another session."""

    def measure(target: Target) -> Values:
        with session(target) as client, session(target, target.consoles[1]) as other:
            other.do("flood")
            other.do("read", WARM)
            other.begin("read", ECHO)
            times = _keys(client, FLOOD_KEYS)
            other.begin("stop")
            read, _ = other.answer(), other.answer()
        return times | {"other_mb_per_s": read["bytes"] / read["seconds"] / 1e6}

    kinds = peers.Ours, peers.Stock, peers.Ttyd, peers.Virsh, peers.Conserver
    return bench.interleaved(bench.of_each(measure, *kinds))


def flood(bench: Bench) -> Samples:
    """Output of a guest that prints as fast as it can, and the CPU that it costs."""

    def measure(target: Target) -> Values:
        with session(target) as client:
            return _flooded(bench.lab, target, client, FLOOD)

    console = bench.target(peers.Pty).consoles[1]
    bare = {BARE: functools.partial(_bare, bench.lab, console)}
    return bench.interleaved(bench.of_each(measure, *peers.ALL) | bare)


def uart(bench: Bench) -> Samples:
    """Round trip, output and CPU at a real UART, where messages are small."""

    def measure(target: Target) -> Values:
        with session(target, target.uart) as client:
            return _keys(client, UART_KEYS) | _flooded(bench.lab, target, client, UART_FLOOD)

    return bench.interleaved(bench.of_each(measure, peers.Ours, peers.Stock, peers.Nova))


def setup(bench: Bench) -> Samples:
    """From connecting to the first echo; tokens are issued before that."""

    def measure(target: Target) -> Values:
        times = []
        for _ in range(SET_UPS):
            before = target.pids()
            with Client() as client:
                client.do("connect", target.address(target.consoles[0]))
                times.append(float(client.do("echo", ECHO)["first_echo_ms"]))
            target.settle(before)
        times.sort()
        return {"p50_ms": times[len(times) // 2], "p99_ms": times[-1]}

    kinds = peers.Ours, peers.Stock, peers.Ttyd, peers.Virsh
    return bench.interleaved(bench.of_each(measure, *kinds))


def memory(bench: Bench) -> Samples:
    """What sessions add to the memory, by how many there are."""
    consoles = bench.lab.synthetic(MEMORY_COUNTS[-1])

    def measure(target: Target) -> Values:
        before, base = target.pids(), cost.memory(target.processes())
        values: Values = {}
        with Client() as client:
            for number, console in enumerate(consoles, 1):
                _open(client, target, console)
                if number in MEMORY_COUNTS:
                    values |= _added_memory(target, base, number)
        target.settle(before)
        return values

    return bench.interleaved(bench.of_each(measure, peers.Ours, peers.Ttyd))


def stall(bench: Bench) -> Samples:
    """What grows while clients read nothing of a flood; as many at a time as there are rounds."""
    ours = bench.target(peers.Ours)
    samples: Samples = {}
    with contextlib.ExitStack() as opened:
        sessions = []
        for console in bench.lab.synthetic(bench.rounds):
            before = ours.pids()
            client = opened.enter_context(session(ours, console))
            sessions.append((client, ours.pids() - before))
        groups = {str(place): pids for place, (_, pids) in enumerate(sessions)}
        groups["libvirtd"] = {bench.lab.libvirtd.pid}
        at_rest = cost.memory(groups)
        for client, _ in sessions:
            client.do("flood")
        time.sleep(STALL)
        growth = {name: value - at_rest[name] for name, value in cost.memory(groups).items()}
        add(samples, "libvirtd", {"growth_mib": growth.pop("libvirtd")})
        for value in growth.values():
            add(samples, ours.name, {"growth_mib": value})
        for client, _ in sessions:
            add(samples, ours.name, {"felt_ms": client.do("stop")["felt_ms"]})
    return samples


def pace(bench: Bench) -> Samples:
    """What a real guest prints by its own count while nobody, a reader, a stalled client is there.

    And how soon the guest is stopped by one that was stalled.
    """
    ours = bench.target(peers.Ours)
    pty = f"pty:{bench.lab.uart.pty}"

    def alone() -> Values:
        with connected(pty) as client:
            client.do("flood")
            began = client.do("again")["seconds"]
        time.sleep(PACE)
        with Client() as client:
            client.do("connect", pty)
            return _counted(client, began)

    def read() -> Values:
        with connected(pty) as client:
            client.do("flood")
            began = client.do("again")["seconds"]
            client.do("read", PACE)
            return _counted(client, began)

    def stalled() -> Values:
        with session(ours, bench.lab.uart) as client:
            client.do("flood")
            time.sleep(STALLED)
            began = client.do("again")["seconds"]
            time.sleep(PACE)
            return _counted(client, began)

    return bench.interleaved({NOBODY: alone, peers.Pty.name: read, ours.name: stalled})


def many(bench: Bench) -> Samples:
    """500 sessions: how soon each answers, what they cost at rest, how cost grows with them.

    They are opened once; what is measured at each count, is in each round.
    """
    consoles: list[Console] = []
    while len(consoles) < GROWTH_COUNTS[-1]:
        consoles += bench.lab.synthetic(CONSOLES)
    ours = bench.target(peers.Ours)
    samples: Samples = {}
    before, base = ours.pids(), cost.memory(ours.processes())
    with Client() as client:
        for number, console in enumerate(consoles, 1):
            _open(client, ours, console)
            if number not in GROWTH_COUNTS:
                continue
            add(samples, ours.name, _added_memory(ours, base, number))
            for _ in range(bench.rounds if number in GROWTH_FLOOD_COUNTS else 0):
                for what, floods in ("one", 1), ("all", number):
                    flooded = _flooded(bench.lab, ours, client, GROWTH_FLOOD, floods)
                    told = "cpu_ms_per_mb", "libvirtd_ms_per_mb", "mb_per_s"
                    values = {f"{what}_{name}_{number}": flooded[name] for name in told}
                    add(samples, ours.name, values)
        for _ in range(bench.rounds):
            add(samples, ours.name, _all_answer(client, ours, len(consoles)))
    ours.settle(before)
    return samples


def in_page(bench: Bench) -> Samples:
    """The page in Chromium: key to glyph, output into the terminal."""
    return page.measure(bench.rounds)


FIGURES: dict[str, Callable[[Bench], Samples]] = {
    "rtt": rtt,
    "rttflood": rttflood,
    "flood": flood,
    "uart": uart,
    "setup": setup,
    "memory": memory,
    "stall": stall,
    "pace": pace,
    "many": many,
    "page": in_page,
}


# ---- what several of them do


def _open(client: Client, target: Target, console: Console) -> None:
    """Have a client open one more session."""
    client.do("connect", target.address(console))
    client.do("echo", ECHO)


def _keys(client: Client, count: int) -> Values:
    times = client.do("keys", count)
    return {name: float(times[name]) for name in ("p50_us", "p99_us")}


def _flooded(lab: Lab, target: Target, client: Client, seconds: float, floods: int = 1) -> Values:
    """Have so many of a client's guests flood it; return MB/s, and CPU ms per MB by role.

    CPU is looked at before and after: with 1000 processes that takes so long that a client which
    does not read meanwhile is stalled.
    """
    groups = target.of(client) | {"libvirtd": [lab.libvirtd.pid]}
    before = cost.cpu_of(groups)
    client.do("flood", floods)
    warm, read = client.do("read", WARM), client.do("read", seconds)
    stop = client.do("stop")
    spent = cost.cpu_since(before, groups)
    megabytes = (warm["bytes"] + read["bytes"] + stop["bytes"]) / 1e6
    per_mb = {role: used * 1e3 / megabytes for role, used in spent.items()}
    values = {f"{role}_ms_per_mb": value for role, value in per_mb.items()}
    values["cpu_ms_per_mb"] = sum(per_mb.values()) - per_mb["libvirtd"]
    values["mb_per_s"] = read["bytes"] / read["seconds"] / 1e6
    return values


def _bare(lab: Lab, console: Console) -> Values:
    where = [lab.libvirtd.uri, console.guest, console.alias, str(FLOOD)]
    command = [sys.executable, "-m", "tests.bench.stream", *where]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    read = json.loads(done.stdout)
    megabytes = read["bytes"] / 1e6
    return {
        "mb_per_s": megabytes / read["seconds"],
        "cpu_ms_per_mb": read["cpu"] * 1e3 / megabytes,
    }


def _added_memory(target: Target, base: Values, sessions: int) -> Values:
    """Return the MiB that each session has added, by role and in all."""
    time.sleep(REST)
    now = cost.memory(target.processes())
    added = {f"{role}_mib_{sessions}": (now[role] - base[role]) / sessions for role in now}
    return added | {f"mib_{sessions}": sum(added.values())}


def _counted(client: Client, began: float) -> Values:
    """Stop the guest; return its KB/s since then by its own count, and when the client felt it."""
    end = client.do("stop")
    if not end["counted"]:
        raise RuntimeError("the guest has not counted")
    return {
        "kb_per_s": end["counted"] / 1e3 / (end["seconds"] - began),
        "felt_ms": float(end["felt_ms"]),
    }


def _all_answer(client: Client, target: Target, count: int) -> Values:
    """Type a key in each session, one after another and in all at once; then rest."""
    each, burst = client.do("keys", count), client.do("burst")
    if each["lost"] or burst["lost"]:
        raise RuntimeError(f"keys that did not come back: {each['lost']}, {burst['lost']}")
    groups = target.processes()
    began, before = time.monotonic(), cost.cpu_of(groups)
    time.sleep(IDLE)
    idle = sum(cost.cpu_since(before, groups).values()) / (time.monotonic() - began)
    return {
        "p50_ms": each["p50_us"] / 1e3,
        "p99_ms": each["p99_us"] / 1e3,
        "burst_p99_ms": burst["p99_us"] / 1e3,
        "idle_percent": idle * 100,
    }
