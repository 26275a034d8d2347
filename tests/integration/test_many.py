"""200 sessions, one after another, leave nothing; and what a session costs."""

import statistics
import time

import psutil
import pytest

from tests import rig
from tests.stack import descendants, pss

SESSIONS = 200


def pids(stack):
    return {
        name: sorted(process.pid for process in descendants(service.pid))
        for name, service in stack.services.items()
    }


def fds(stack):
    return {name: service.fds() for name, service in stack.services.items()}


@pytest.mark.timeout(240)
def test_200_sessions_leave_nothing(libvirtd, both, via, echo_guest, record_property, capsys):
    stack = both
    # What is made at the first use and kept, the inventory above all, counts as there before.
    with stack.open(echo_guest.uuid, via) as terminal:
        terminal.send(b"x")
        terminal.read_until(b"x")
    stack.wait_free()
    before = pids(stack), fds(stack), rig.files_below(stack.run_dir)
    daemon = psutil.Process(libvirtd.pid)
    daemon_fds = daemon.num_fds()

    setup = []
    for _ in range(SESSIONS):
        token = stack.token(echo_guest.uuid)
        began = time.monotonic()
        with stack.connect(token, via):
            while [one["state"] for one in stack.sessions()] != ["connected"]:
                assert time.monotonic() - began < 10
            setup.append(time.monotonic() - began)
        while stack.sessions():
            assert time.monotonic() - began < 20

    with stack.open(echo_guest.uuid, via) as terminal:
        terminal.send(b"x")
        terminal.read_until(b"x")
        (session,) = stack.wait_sessions("connected")
        memory = {"relay": pss(session["relay_pid"]), "gateway": pss(session["gateway_pid"])}
    stack.wait_free()

    after = None
    for _ in range(200):
        after = pids(stack), fds(stack), rig.files_below(stack.run_dir)
        if after == before:
            break
        time.sleep(0.01)
    assert after == before
    zombies = [child for child in psutil.Process(stack.pid(via)).children() if child.is_running()]
    assert len(zombies) <= len(before[0][via])
    assert libvirtd.pid == daemon.pid
    assert daemon.is_running()
    assert daemon.num_fds() <= daemon_fds + 2
    figures = {
        "set-up p50 (ms)": round(statistics.median(setup) * 1000, 1),
        "set-up p95 (ms)": round(sorted(setup)[int(0.95 * SESSIONS)] * 1000, 1),
        **{f"PSS {who} (MiB)": round(size / 2**20, 2) for who, size in memory.items()},
    }
    for name, value in figures.items():
        record_property(f"{via}: {name}", value)
    with capsys.disabled():
        print(f"\n{via}: {figures}")
