"""Which connection makes room for the next one."""

from __future__ import annotations

import os
import select
import subprocess

from websockify_tokens.newcomers import GRACE, Newcomers, source_of
from websockify_tokens.server import ConsoleProxy, Rules, Settings

CROWD, PERSON = "192.0.2.66", "203.0.113.7"


def crowded(*hosts: str) -> Newcomers:
    """As many as there may be, with pids from 0 and a second between them."""
    newcomers = Newcomers(len(hosts))
    for pid, host in enumerate(hosts):
        newcomers.add(pid, host, float(pid))
    return newcomers


def test_the_oldest_of_those_who_have_most_makes_room() -> None:
    newcomers = crowded(PERSON, CROWD, CROWD, PERSON, CROWD)
    assert newcomers.displaced() == (1, CROWD)
    newcomers.forget(1)
    assert newcomers.displaced() is None
    newcomers.add(5, PERSON, 5.0)
    assert newcomers.displaced() == (0, PERSON)


def test_who_redeems_makes_room_for_nobody() -> None:
    newcomers = crowded(CROWD, CROWD, CROWD)
    newcomers.redeeming(0, yes=True)
    assert newcomers.displaced() == (1, CROWD)
    newcomers.redeeming(0, yes=False)  # refused
    assert newcomers.displaced() == (0, CROWD)
    for pid in range(3):
        newcomers.redeeming(pid, yes=True)
    assert newcomers.displaced() is None
    assert newcomers.wait(99.0) is None
    newcomers.forget(1)  # redeemed
    assert newcomers.wait(99.0) == 0


def test_nobody_makes_room_before_it_could_have_asked() -> None:
    newcomers = crowded(CROWD)
    assert newcomers.wait(0.0) == GRACE
    assert newcomers.wait(GRACE / 2) == GRACE / 2
    assert newcomers.wait(99.0) == 0


def test_strangers_are_passed_over() -> None:
    newcomers = crowded(CROWD)
    newcomers.forget(7)
    newcomers.redeeming(7, yes=True)
    assert newcomers.displaced() == (0, CROWD)


def test_what_counts_as_one_source() -> None:
    assert source_of("2001:db8:1:2::1") == source_of("2001:db8:1:2:ffff::")
    assert source_of("2001:db8:1:2::1") != source_of("2001:db8:1:3::1")
    assert source_of("fe80::1%eth0") == source_of("fe80::2%eth0")
    assert source_of("::ffff:192.0.2.1") == source_of("192.0.2.1") == "192.0.2.1"
    assert source_of("::ffff:192.0.2.1") != source_of("::ffff:192.0.2.2")
    assert source_of("") == ""


def test_a_newcomer_that_has_just_ended_makes_room_too() -> None:
    """Its process may be reaped before its end is heard of: the number is nobody's by then, or
    another process's. That cannot be timed from outside, so these are the gateway's own steps."""
    gateway = ConsoleProxy(
        Settings("127.0.0.1", 0, source="", web="", rules=Rules(max_unauthenticated=1))
    )
    gateway._poll = select.poll()
    ended = subprocess.Popen(["true"])
    ended.wait()
    channel, told = os.pipe()
    os.close(told)
    gateway._channels[channel] = ended.pid
    gateway._poll.register(channel)
    gateway._newcomers.add(ended.pid, CROWD, 0.0)
    gateway._make_room(set())
    assert gateway._newcomers.displaced() is None
    assert not gateway._channels
    gateway._listening.close()
