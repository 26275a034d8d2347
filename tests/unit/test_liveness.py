"""Who is taken for vanished, and who is not, with the figures that the kernel gave in each case."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from serial_console.demo import host
from serial_console.errors import SetupError
from tests import rig
from websockify_tokens import liveness
from websockify_tokens.liveness import LOOKS, Liveness, Look

HEARTBEAT = 10.0
STEP = HEARTBEAT / LOOKS
RTT = 0.05

At = Callable[[float], Look]


def ended_at(look: At, *, seconds: float = 300.0, reading: bool = True) -> float | None:
    """Return when the session is ended, if it is; the client is pinged and looked at from 0 on."""
    watched = Liveness(HEARTBEAT, 0.0)
    for count in range(1, int(seconds / STEP) + 1):
        if watched.verdict(count * STEP, look(count * STEP), reading=reading) is not None:
            return count * STEP
    return None


def since_ping(now: float) -> float:
    """Seconds since the last ping; one that is sent just now is not yet out."""
    return now % HEARTBEAT or min(now, HEARTBEAT)


def idle(now: float) -> Look:
    """A live client, with nothing but pings and pongs."""
    sent = since_ping(now)
    return Look(sent, sent - RTT, sent - RTT, 0, 0)


def vanished(now: float) -> Look:
    """One that has vanished just after its first pong; the kernel repeats the next ping."""
    silence = max(0.0, now - 10 - RTT)
    sent = since_ping(now) if now <= 20 else min(2.0, now - 20)
    return Look(sent, silence, silence, 0, 0) if now > 10 else idle(now)


def flooded(now: float) -> Look:
    """One that vanished at 10 s while much output was on its way."""
    return Look(min(2.0, now), now, max(0.0, now - 10), 0, 200_000)


def probed(interval: float, until: float = 1e9) -> At:
    """A closed window from 0 on: probes every so often, answered up to a time."""

    def look(now: float) -> Look:
        last = now - now % interval
        answered = min(last, until - until % interval)
        return Look(now, now, now - answered, round((last - answered) / interval), 400_000)

    return look


def hung(now: float) -> Look:
    """A kernel that acknowledges, a program that has not answered since 3 s."""
    return Look(since_ping(now), max(0.0, now - 3), since_ping(now) - RTT, 0, 0)


@pytest.mark.parametrize("reading", [True, False])
def test_a_client_that_answers_stays(reading: bool) -> None:
    assert ended_at(idle, reading=reading) is None


@pytest.mark.parametrize(
    ("look", "silent_from"),
    [(vanished, 10.0), (flooded, 10.0), (hung, 3.0), (probed(10.0, until=60.0), 60.0)],
    ids=["idle", "under output", "hung", "behind a closed window"],
)
def test_one_that_does_not_is_ended_within_40_s_and_not_before_30(
    look: At, silent_from: float
) -> None:
    end = ended_at(look)
    assert end is not None
    assert 30 <= end - silent_from <= 40


def test_one_that_vanishes_while_its_input_is_held_is_ended() -> None:
    end = ended_at(vanished, reading=False)
    assert end is not None
    assert end <= 50


@pytest.mark.parametrize("interval", [10.0, 51.2, 119.0])
def test_a_closed_window_is_no_sign_however_rarely_the_kernel_probes_it(interval: float) -> None:
    assert ended_at(probed(interval)) is None


def test_one_lost_probe_is_no_sign() -> None:
    def look(now: float) -> Look:  # the answer before was at 0; the probe at 51 is lost
        return Look(now, now, now, int(now > 51), 400_000)

    assert ended_at(look, seconds=100) is None


def test_a_held_client_whose_pongs_are_not_read_stays() -> None:
    assert ended_at(hung, reading=False) is None


def test_a_slow_reader_that_has_not_come_to_our_ping_stays() -> None:
    assert ended_at(lambda now: Look(0.1, now, 0.05, 0, 100_000)) is None


def test_silence_counts_only_from_when_it_is_read_again() -> None:
    watched = Liveness(HEARTBEAT, 0.0)
    verdicts = [watched.verdict(t, hung(t), reading=t > 75) for t in range(5, 120, 5)]
    first = next(t for t, why in zip(range(5, 120, 5), verdicts, strict=True) if why)
    assert 95 <= first <= 105


def test_a_gateway_that_was_stopped_does_not_blame_the_client() -> None:
    watched = Liveness(HEARTBEAT, 0.0)
    assert watched.verdict(5.0, idle(5.0), reading=True) is None
    stopped = Look(295.0, 295.0, 294.0, 0, 0)
    assert watched.verdict(300.0, stopped, reading=True) is None
    assert watched.verdict(305.0, Look(5.0, 4.9, 4.9, 0, 0), reading=True) is None


def test_the_fields_are_where_the_kernels_header_has_them() -> None:
    fields = {
        "tcpi_probes": (3, 1),
        "tcpi_last_data_sent": (44, 4),
        "tcpi_last_data_recv": (52, 4),
        "tcpi_last_ack_recv": (56, 4),
        "tcpi_notsent_bytes": (144, 4),
    }
    info = bytearray(liveness.INFO_SIZE)
    for number, (offset, size) in enumerate(fields.values(), 1):
        info[offset : offset + size] = (number * (1 if size == 1 else 1000)).to_bytes(
            size, "little"
        )
    assert Look.parse(bytes(info)) == Look(2, 3, 4, 1, 5000)

    try:
        compiler = host.program("gcc", "gcc")
    except SetupError as error:
        rig.missing(str(error))
    source = "#include <stddef.h>\n#include <linux/tcp.h>\n" + "".join(
        f'_Static_assert(offsetof(struct tcp_info, {name}) == {offset}, "");\n'
        f'_Static_assert(sizeof(((struct tcp_info *)0)->{name}) == {size}, "");\n'
        for name, (offset, size) in fields.items()
    )
    done = subprocess.run(
        [compiler, "-fsyntax-only", "-x", "c", "-"], input=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
