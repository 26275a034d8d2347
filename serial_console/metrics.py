"""The supervisor's figures in the form that Prometheus reads.

``docs/monitoring.md`` lists the names: they are stable. No label has a value that a guest or a user
chooses: there are as many series on a host with one guest as with a thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any, get_args

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest

from . import __version__
from .control import SETUP_BUCKETS, Mode, State, Totals
from .errors import CODES, CloseCode, SupervisorUnavailable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus's text format, which every version of it reads."""
_MODES = get_args(Mode)
_STATES = (*(one.value for one in State), "detached")
_ENDS = tuple(str(int(one)) for one in CloseCode)


def totals(answer: Mapping[str, Any]) -> Totals:
    """Make Totals of a ``metrics`` answer.

    Raises:
        SupervisorUnavailable: it is not as this version knows it.
    """
    try:
        found = msgspec.convert(answer, Totals)
        if len(found.counts.setup) == len(SETUP_BUCKETS) + 1:
            return found
        why = "it counts times of set-up in another way"
    except msgspec.ValidationError as error:
        why = str(error)
    raise SupervisorUnavailable(
        f"the supervisor's figures are not understood ({why}); "
        "it is probably of another version: restart the services"
    )


def exposition(found: Totals | None) -> bytes:
    """Return the text for one scrape.

    Args:
        found: the supervisor's figures; None: it does not answer.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(found))
    return generate_latest(registry)


class _Collector:
    def __init__(self, found: Totals | None) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        found = self._found
        yield _gauge("up", "Whether the supervisor answers the API.", found is not None)
        build = GaugeMetricFamily(
            "serial_console_build_info",
            "1, with the version of a component.",
            labels=("component", "version"),
        )
        build.add_metric(("api", __version__), 1)
        if found is not None:
            build.add_metric(("supervisor", found.version), 1)
        yield build
        if found is not None:
            yield from _of_supervisor(found)


def _of_supervisor(found: Totals) -> Iterable[Metric]:
    counts = found.counts
    yield _gauge("start_time_seconds", "When the supervisor began, Unix time.", found.started_at)
    yield _gauge("libvirt_up", "Whether libvirt answers within 2 s.", found.libvirt)
    if found.guests is not None:
        yield _gauge("guests", "Guests in the last listing, 5 min old at most.", found.guests)
    yield _gauge("relays", "Relay processes.", found.relays)
    yield _gauge("relay_memory_bytes", "Memory of all relays (sum of PSS).", found.memory)
    yield _counter("relay_cpu_seconds", "CPU time of all relays there have been.", counts.cpu)
    sessions = GaugeMetricFamily(
        "serial_console_sessions", "Open sessions.", labels=("mode", "state")
    )
    for mode in _MODES:
        there = found.sessions.get(mode, {})
        for state in dict.fromkeys((*_STATES, *there)):
            sessions.add_metric((mode, state), there.get(state, 0))
    yield sessions
    yield _by("sessions_opened", "Sessions begun.", "mode", _MODES, counts.opened)
    yield _counter("sessions_resumed", "Clients that came back to their session.", counts.resumed)
    yield _by("sessions_ended", "Sessions ended, by close code.", "code", _ENDS, counts.ended)
    yield _by(
        "sessions_refused", "Clients refused with their token.", "code", CODES, counts.refused
    )
    yield HistogramMetricFamily(
        "serial_console_session_setup_seconds",
        "Time from a token's redemption to the client's connection to its console.",
        buckets=list(
            zip((*map(str, SETUP_BUCKETS), "+Inf"), accumulate(counts.setup), strict=True)
        ),
        sum_value=counts.setup_seconds,
    )
    yield _counter("tokens_issued", "Tokens issued.", counts.issued)
    yield _counter("tokens_redeemed", "Tokens used up for a session.", counts.redeemed)
    yield _by("tokens_refused", "Tokens asked for in vain.", "code", CODES, counts.not_issued)
    yield _counter("input_bytes", "Bytes from clients to guests.", counts.bytes_in)
    yield _counter("output_bytes", "Bytes from guests to clients.", counts.bytes_out)
    yield _counter("skipped_bytes", "Output that slow clients did not get.", counts.skipped)
    yield _gauge("held_input_bytes", "Input that guests do not take now.", found.held)
    yield _counter("libvirt_reconnects", "Lost connections made again.", counts.reconnects)


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"serial_console_{name}", what, value=value)


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(f"serial_console_{name}", what, value=value)


def _by(
    name: str, what: str, label: str, known: Iterable[str], counts: Mapping[str, int]
) -> Metric:
    """Return a counter with a series for each known value, which is there before it first counts:
    else Prometheus would take the first of them for no increase."""
    family = CounterMetricFamily(f"serial_console_{name}", what, labels=(label,))
    for value in sorted({*known, *counts}):
        family.add_metric((value,), counts.get(value, 0))
    return family
