"""The goals of docs/performance.md, and whether what was measured reaches them."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import NamedTuple

from .rounds import Samples

Results = Mapping[str, Samples]
"""Samples by figure."""

OURS = "ours"


class Peer(NamedTuple):
    """What ours is compared with: a target's metric (by default the same) times a factor."""

    label: str
    target: str
    factor: float = 1.0
    metric: str = ""


class Goal(NamedTuple):
    """At most, or at least, so much of the first of these peers that was measured.

    Without peers the limit is of the figure itself, in its unit.
    """

    figure: str
    metric: str
    what: str
    unit: str
    limit: float
    peers: tuple[Peer, ...] = ()
    at_least: bool = False

    @property
    def text(self) -> str:
        """The goal in words."""
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.limit:g} {'times' if self.peers else self.unit}"


class Verdict(NamedTuple):
    """A goal and what was measured: medians. None: not measured here.

    ``ratio`` is the median of the rounds' ratios, so that what slowed a round down does not count.
    """

    goal: Goal
    ours: float | None
    peer: str = ""
    theirs: float | None = None
    ratio: float | None = None
    reached: bool | None = None


TTYD = Peer("ttyd", "ttyd")
# Where there is no ttyd; measured on the machine of docs/performance.md.
TTYD_RTT = (TTYD, Peer("ttyd, by virsh", "virsh", 1 / 0.71))
TTYD_MB = (TTYD, Peer("ttyd, by virsh", "virsh", 1 / 1.5))
# Kimchi's server is not available: by its ratio to ttyd where both were measured in one run,
# 891 against 344 µs and 0.33 against 19 MB/s.
KIMCHI_RTT = tuple(Peer("Kimchi, by ttyd", one.target, one.factor * 891 / 344) for one in TTYD_RTT)
KIMCHI_MB = tuple(Peer("Kimchi, by ttyd", one.target, one.factor * 0.33 / 19) for one in TTYD_MB)
BARE = (Peer("bare stream", "bare stream"),)
STOCK = (Peer("stock websockify", "stock websockify"),)
NOVA = (Peer("websockify, TCP", "websockify, TCP"),)
FLAT = 1.1
"""What "flat" from 1 to 500 sessions may mean."""
PACE = "guest's speed, its client stalled"


def _flat(metric: str, what: str, unit: str) -> Goal:
    """Return the goal that a metric is with 500 sessions what it is with one."""
    one = Peer("1 session", OURS, metric=f"{metric}_1")
    return Goal("many", f"{metric}_500", what, unit, FLAT, (one,))


GOALS = (
    Goal("rtt", "p50_us", "echo round trip, p50", "µs", 1.0, TTYD_RTT),
    Goal("rtt", "p50_us", "echo round trip, p50", "µs", 0.45, KIMCHI_RTT),
    Goal("rttflood", "p99_us", "echo while another session floods, p99", "µs", 0.7, (TTYD,)),
    Goal("flood", "mb_per_s", "output to WebSocket", "MB/s", 1.8, TTYD_MB, at_least=True),
    Goal("flood", "mb_per_s", "output to WebSocket", "MB/s", 0.8, BARE, at_least=True),
    Goal("flood", "mb_per_s", "output to WebSocket", "MB/s", 100, KIMCHI_MB, at_least=True),
    Goal("flood", "cpu_ms_per_mb", "CPU of relay and gateway, flood", "ms/MB", 0.55, (TTYD,)),
    Goal("uart", "cpu_ms_per_mb", "CPU of relay and gateway, real UART", "ms/MB", 0.3, STOCK),
    Goal("uart", "cpu_ms_per_mb", "CPU of relay and gateway, real UART", "ms/MB", 0.3, NOVA),
    Goal("setup", "p50_ms", "connect to first echo, p50", "ms", 0.35, (TTYD,)),
    Goal("memory", "mib_50", "memory a session, 50 sessions", "MiB", 1.3, (TTYD,)),
    Goal("memory", "relay_mib_50", "of it the relay", "MiB", 1.4),
    Goal("memory", "gateway_mib_50", "of it the gateway's child", "MiB", 1.9),
    Goal("stall", "growth_mib", "growth of relay and gateway, 60 s stalled", "MiB", 1.0),
    Goal("pace", "kb_per_s", PACE, "KB/s", 0.98, (Peer("no client", "no client"),), at_least=True),
    Goal(
        "pace",
        "kb_per_s",
        PACE,
        "KB/s",
        0.98,
        (Peer("raw pty's reader", "raw pty"),),
        at_least=True,
    ),
    Goal("pace", "felt_ms", "Ctrl-C felt after the stall", "ms", 50),
    Goal("many", "p99_ms", "500 sessions: echo of each, p99", "ms", 50),
    Goal("many", "idle_percent", "500 sessions: CPU at rest", "% of a core", 3),
    _flat("mib", "memory a session, 500 sessions", "MiB"),
    _flat("one_cpu_ms_per_mb", "CPU, 500 sessions of which one floods", "ms/MB"),
    _flat("all_cpu_ms_per_mb", "CPU, 500 sessions that all flood", "ms/MB"),
)


def judge(goal: Goal, results: Results) -> Verdict:
    """Compare what was measured with a goal."""
    samples = results.get(goal.figure, {})
    ours = samples.get(OURS, {}).get(goal.metric, [])
    if not ours:
        return Verdict(goal, None)
    if not goal.peers:
        return Verdict(goal, median(ours), reached=_reached(goal, median(ours)))
    for peer in goal.peers:
        theirs = [
            value * peer.factor
            for value in samples.get(peer.target, {}).get(peer.metric or goal.metric, [])
        ]
        if theirs:
            ratio = median(mine / other for mine, other in zip(ours, theirs, strict=True))
            reached = _reached(goal, ratio)
            return Verdict(goal, median(ours), peer.label, median(theirs), ratio, reached)
    return Verdict(goal, median(ours), goal.peers[0].label)


def verdicts(results: Results) -> list[Verdict]:
    """Return how all goals stand whose figure was measured."""
    return [judge(goal, results) for goal in GOALS if goal.figure in results]


def _reached(goal: Goal, value: float) -> bool:
    return value >= goal.limit if goal.at_least else value <= goal.limit
