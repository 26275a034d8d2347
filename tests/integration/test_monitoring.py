"""Metrics, health and log of real services, with real sessions."""

import contextlib
import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import documents, rig
from tests.clients import echo
from tests.journaled import Journaled
from tests.stack import http, pss

RELAY_MAX = 30 << 20
"""Bytes of PSS of a relay whose siblings are few: what libvirt's client and Python need."""


class Figures:
    """One scrape: ``figures("input_bytes_total")``, ``figures("sessions", mode="rw", …)``."""

    def __init__(self, stack):
        status, _, body = http(
            stack.api_port, "GET", "/metrics", {"Authorization": f"Bearer {stack.key}"}
        )
        assert status == 200, body
        self._found = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }

    def __call__(self, name, **labels):
        return self._found[f"serial_console_{name}", tuple(sorted(labels.items()))]


READY = documents.block("docs/monitoring.md", "ready")


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def shell(stack, text):
    """Run a block of the document, with this stack's configuration and port."""
    text = text.replace("127.0.0.1:6084", f"127.0.0.1:{stack.api_port}")
    text = text.replace("serial-console ", f"{' '.join(stack.program)} ", 1)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", text], capture_output=True, text=True, timeout=30
    )


def test_what_sessions_do_is_counted_and_stays_counted(shared, shared_guest):
    before = Figures(shared)
    with shared.open(shared_guest.uuid) as terminal:
        assert echo(terminal, b"hello") == b"hello"
        with shared.open(shared_guest.uuid, mode="ro") as watcher:
            shared.wait_sessions("connected", "connected")
            assert shared.connect("wrong").ended()[0] == 4401
            assert shared.open(shared_guest.uuid).ended()[0] == 4409
            shared.ask("issue", guest="there is none")
            terminal.send(b"!")
            watcher.read_until(b"!")
            here = Figures(shared)
            for mode in ("rw", "ro"):
                assert here("sessions", mode=mode, state="connected") == 1
                opened = here("sessions_opened_total", mode=mode)
                assert opened == before("sessions_opened_total", mode=mode) + 1
            assert here("relays") == 1
            for code in ("bad_token", "in_use"):
                refused = here("sessions_refused_total", code=code)
                assert refused == before("sessions_refused_total", code=code) + 1
            failed = here("tokens_refused_total", code="no_such_guest")
            assert failed == before("tokens_refused_total", code="no_such_guest") + 1
            # One of the four tokens was not burnt, being refused for what may pass.
            assert here("tokens_issued_total") == before("tokens_issued_total") + 3
            assert here("tokens_redeemed_total") == before("tokens_redeemed_total") + 2
            count = "session_setup_seconds_count"
            assert here(count) == before(count) + 2
            spent = here("session_setup_seconds_sum") - before("session_setup_seconds_sum")
            assert 0 < spent < 20
            (session, _) = shared.sessions()
            relay = session["relay_pid"]
            assert here("relay_memory_bytes") == pytest.approx(pss(relay), rel=0.5)
            assert 0 < here("relay_memory_bytes") < RELAY_MAX
            assert session["memory"] == here("relay_memory_bytes")
            assert session["cpu"] > 0
    shared.wait_free()
    assert rig.eventually(lambda: Figures(shared)("relays") == 0)
    after = Figures(shared)
    assert after("sessions", mode="rw", state="connected") == 0
    assert after("input_bytes_total") == before("input_bytes_total") + 6
    shown = after("output_bytes_total") - before("output_bytes_total")
    assert shown >= 6 + 1  # the typist's, and what the watcher saw live
    assert (
        after("sessions_ended_total", code="1000")
        == before("sessions_ended_total", code="1000") + 2
    )
    assert after("relay_cpu_seconds_total") > before("relay_cpu_seconds_total")
    assert after("relay_cpu_seconds_total") >= here("relay_cpu_seconds_total")
    assert after("libvirt_up") == 1
    assert rig.eventually(lambda: Figures(shared)("guests") >= 1)


def test_what_a_relay_used_counts_though_nobody_asked_while_it_lived(shared, shared_guest):
    before = Figures(shared)
    with shared.open(shared_guest.uuid) as terminal:
        echo(terminal, b"x")
        terminal.send(b"\x11")
        assert terminal.ended()[0] == 1000
    assert rig.eventually(lambda: not shared.relay_sockets())
    after = Figures(shared)
    assert after("relay_cpu_seconds_total") > before("relay_cpu_seconds_total")
    shared.wait_free()


def test_a_relay_that_is_killed_leaves_its_count(shared, shared_guest):
    with shared.open(shared_guest.uuid) as terminal:
        assert echo(terminal, b"hello") == b"hello"
        here = Figures(shared)
        os.kill(shared.session_of(shared_guest)["relay_pid"], signal.SIGKILL)
        assert terminal.ended()[0] == 4412
    shared.wait_free()
    after = Figures(shared)
    for name in ("input_bytes_total", "output_bytes_total", "relay_cpu_seconds_total"):
        assert after(name) >= here(name) > 0
    ended = "sessions_ended_total"
    assert after(ended, code="4412") == here(ended, code="4412") + 1


def test_input_that_a_guest_does_not_take(shared, make_guest):
    guest = make_guest("echo")
    with shared.open(guest.uuid) as terminal:
        assert echo(terminal, b"hello") == b"hello"
        guest.suspend()
        shared.wait_sessions("paused")
        terminal.send(b"held")
        assert rig.eventually(lambda: Figures(shared)("held_input_bytes") == 4)
        assert Figures(shared)("sessions", mode="rw", state="paused") == 1
    shared.wait_free()
    assert Figures(shared)("held_input_bytes") == 0


def test_health_and_metrics_never_hang(shared):
    assert shared.key
    supervisor = shared.pid("supervisor")
    with stopped(supervisor), ThreadPoolExecutor() as pool:
        began = time.monotonic()
        ready = pool.submit(http, shared.api_port, "GET", "/healthz/ready")
        failed = pool.submit(shell, shared, READY)
        scraped = pool.submit(Figures, shared)
        assert http(shared.api_port, "GET", "/healthz")[0] == 200
        assert time.monotonic() - began < 2
        status, _, body = ready.result()
        health = json.loads(body)
        assert (status, health["supervisor"]) == (503, "unavailable")
        assert health["libvirt"] == "unknown"
        assert (failed.result().returncode, "503" in failed.result().stderr) == (22, True)
        assert scraped.result()("up") == 0
        assert time.monotonic() - began < 10
    assert rig.eventually(lambda: shell(shared, READY).returncode == 0)
    assert Figures(shared)("up") == 1


def test_libvirt_that_hangs(libvirtd, shared):
    libvirtd.freeze()
    try:
        began = time.monotonic()
        status, _, body = http(shared.api_port, "GET", "/healthz/ready")
        assert (status, json.loads(body)["libvirt"]) == (503, "unavailable")
        assert json.loads(body)["supervisor"] == "ok"
        assert Figures(shared)("libvirt_up") == 0
        assert time.monotonic() - began < 8
    finally:
        libvirtd.thaw()
    assert rig.eventually(lambda: Figures(shared)("libvirt_up") == 1, 20)


def test_the_gateway_has_a_path_for_balancers(shared):
    status, headers, body = http(shared.gateway_port, "GET", "/healthz")
    assert (status, body) == (200, b"ok\n")
    assert headers["cache-control"] == "no-cache"


def test_a_libvirtd_that_restarts_is_a_reconnect(libvirtd, shared, shared_guest):
    before = Figures(shared)("libvirt_reconnects_total")
    with shared.open(shared_guest.uuid) as terminal:
        assert echo(terminal, b"hello") == b"hello"
        libvirtd.stop_daemon()
        libvirtd.start()
        shared.wait_sessions("connected", seconds=30)
        assert Figures(shared)("libvirt_reconnects_total") == before + 1
    shared.wait_free()


def test_a_new_supervisor_counts_what_is_new(make_stack, echo_guest):
    stack = make_stack("supervisor", "gateway", "api")
    with stack.open(echo_guest.uuid) as terminal:
        assert echo(terminal, b"before") == b"before"
        old = Figures(stack)
        assert stack.end("supervisor", signal.SIGUSR1) == 0
        assert Figures(stack)("up") == 0
        stack.start("supervisor")
        new = Figures(stack)
        assert new("start_time_seconds") > old("start_time_seconds")
        assert new("sessions", mode="rw", state="connected") == 1
        assert (new("input_bytes_total"), new("relay_cpu_seconds_total")) == (0, 0)
        assert echo(terminal, b"after") == b"after"
        assert Figures(stack)("input_bytes_total") == len(b"after")
    stack.wait_free()


def test_commands_of_the_document(shared, shared_guest):
    with shared.open(shared_guest.uuid, user="ann") as terminal:
        assert echo(terminal, b"hello") == b"hello"
        shown = shell(shared, documents.block("docs/monitoring.md", "top"))
        assert shown.returncode == 0, shown.stderr
        assert "ann" in shown.stdout
        listed = shared.cli("sessions").stdout.splitlines()
        titles, session = listed[0].split(), listed[1]
        assert titles[-2:] == ["MEMORY", "CPU"]
        assert "ann" in session
        made = shell(shared, documents.block("docs/monitoring.md", "key"))
        assert made.returncode == 0, made.stderr
        status = http(
            shared.api_port, "GET", "/metrics", {"Authorization": f"Bearer {made.stdout.strip()}"}
        )[0]
        assert status == 200
    shared.wait_free()


def test_a_session_is_two_lines_of_json(make_stack, echo_guest):
    stack = make_stack("supervisor", "gateway", log={"level": "info", "format": "json"})
    token = stack.token(echo_guest.uuid, user="ann")
    with stack.connect(token) as terminal:
        assert echo(terminal, b"hello") == b"hello"
        (session,) = stack.wait_sessions("connected")
    stack.wait_free()
    logged = [json.loads(line) for line in stack.services["supervisor"].logged().splitlines()]
    began, ended = (one for one in logged if one.get("session") == session["id"])
    assert (began["event"], ended["event"]) == ("session_opened", "session_closed")
    for one in (began, ended):
        assert (one["guest"], one["console"], one["user"]) == (echo_guest.name, "serial0", "ann")
        assert one["level"] == "info"
    assert (ended["code"], ended["bytes_in"]) == (1000, 5)
    assert 0 < began["setup_seconds"] < ended["seconds"] + 1
    assert token not in stack.logs()


def test_under_systemd_the_journal_has_level_and_fields(libvirtd, run_dir, tmp_path, echo_guest):
    with Journaled(libvirtd.uri, run_dir, str(tmp_path), log={"level": "info"}) as stack:
        stack.start("supervisor", "gateway")
        with stack.open(echo_guest.uuid, user="ann") as terminal:
            (session,) = stack.wait_sessions("connected")
            os.kill(session["relay_pid"], signal.SIGKILL)
            assert terminal.ended()[0] == 4412
        stack.wait_free()

        def closed():
            return [
                one
                for one in stack.entries
                if b"SYSLOG_IDENTIFIER=serial-console-supervisor\n" in one
                and b"SERIAL_CONSOLE_EVENT=session_closed\n" in one
            ]

        assert rig.eventually(lambda: len(closed()) == 1)
        (entry,) = closed()
        assert b"PRIORITY=3\n" in entry
        assert b"SERIAL_CONSOLE_SESSION=" + session["id"].encode() + b"\n" in entry
        assert b"SERIAL_CONSOLE_CODE=4412\n" in entry
        assert any(b"SYSLOG_IDENTIFIER=serial-console-gateway\n" in one for one in stack.entries)
        assert stack.services["supervisor"].logged() == ""
