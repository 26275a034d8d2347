"""What docs/systemd.md says of the units, and what an operator does with them: on a newcomer's host
with the Debian package. The RPM has the same units (tests/packaging)."""

import json
import os
import pathlib
import signal

import pytest

from tests import documents, rig
from tests.machine import write
from tests.stack import alive, http

from .hosts import GUEST, UNITS, connect, leave, opened, prompt, session, states

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.parametrize("package", ["deb"], indirect=True, scope="module"),
]

WATCHDOG = 20.0
"""Seconds (the units' WatchdogSec)."""


def entries(root, *match):
    """What the journal has of us, each entry with its fields."""
    done = root.run("journalctl", "--output=json", "--no-pager", *match)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_page_of_a_token_shows_the_prompt(newcomer):
    from playwright.sync_api import expect  # slow to import

    from tests import chromium

    url = newcomer.type(f"serial-console token {GUEST} --url").strip()
    with newcomer.network.entered(), chromium.launched() as browser:
        page = browser.new_page()
        page.goto(url)
        expect(chromium.status(page)).to_have_text("Connected", timeout=20000)
        page.keyboard.press("Enter")
        chromium.shows(page, "login:")


@pytest.mark.parametrize("service", ["supervisor", "gateway", "api"])
def test_the_first_connection_starts_a_service(newcomer, service):
    unit = f"serial-console-{service}.service"
    newcomer.systemctl("stop", unit)
    assert states(newcomer, unit) == ["inactive"]
    if service == "api":
        with newcomer.network.entered():
            assert http(6084, "GET", "/healthz")[0] == 200
    else:
        with connect(newcomer) as terminal:
            prompt(terminal)
            leave(terminal)
    assert states(newcomer, unit) == ["active"]


def test_a_restart_drops_no_session(newcomer):
    with connect(newcomer, user="alice") as terminal:
        prompt(terminal)
        before = session(newcomer)
        newcomer.type(documents.block("docs/systemd.md", "restart"))
        prompt(terminal)
        after = session(newcomer)
        assert [after[key] for key in ("id", "relay_pid", "gateway_pid")] == [
            before[key] for key in ("id", "relay_pid", "gateway_pid")
        ]
        newcomer.type(documents.block("docs/configuration.md", "reload"))
        newcomer.systemctl("restart", "libvirtd")
        prompt(terminal)
        assert session(newcomer)["id"] == before["id"]
        leave(terminal)


def test_the_supervisor_can_be_kept_down_and_sessions_live_on(newcomer):
    unused = newcomer.ask("issue", guest=GUEST)["token"]
    with connect(newcomer) as terminal:
        prompt(terminal)
        before = session(newcomer)
        newcomer.type(documents.block("docs/systemd.md", "down"))
        prompt(terminal)
        with opened(newcomer, unused) as refused:
            assert refused.ended()[0] == 4503
        assert states(newcomer, "serial-console-supervisor.service") == ["inactive"]
        newcomer.type(documents.block("docs/systemd.md", "up"))
        assert session(newcomer)["id"] == before["id"]
        prompt(terminal)
        leave(terminal)
    assert states(newcomer, *UNITS) == ["active"] * len(UNITS)


def test_the_target_s_stop_ends_all_of_it(newcomer):
    with connect(newcomer) as terminal:
        prompt(terminal)
        listed = newcomer.type(documents.block("docs/systemd.md", "state"))
        assert terminal.ended()[0] == 4503
    assert all(f"{unit} " in listed for unit in UNITS)
    assert states(newcomer, *UNITS) == ["active"] * len(UNITS)


def test_an_operator_needs_the_group_and_nothing_else(newcomer):
    newcomer.type("useradd alice; useradd mallory")
    newcomer.type(documents.block("docs/systemd.md", "operator"))
    assert newcomer.run("serial-console", "sessions", user="alice").returncode == 0
    assert newcomer.run("serial-console", "sessions", user="mallory").returncode == 1


def test_another_port_is_given_to_unit_and_configuration(newcomer):
    config = newcomer.path("/etc/serial-console/config.toml")
    before = pathlib.Path(config).read_text("utf-8")
    drop = "serial-console-gateway.socket.d"
    try:
        keys = '[gateway]\nlisten = "[::]:443"\ninsecure = true\n'
        pathlib.Path(config).write_text(before.replace("[gateway]\n", keys), "utf-8")
        write(
            newcomer.path(f"/etc/systemd/system/{drop}/override.conf"),
            documents.block("docs/systemd.md", "port"),
        )
        newcomer.systemctl("daemon-reload")
        newcomer.type(documents.block("docs/systemd.md", "port-in-force"))
        with newcomer.network.entered():
            assert http(443, "GET", "/")[0] == 200
    finally:
        pathlib.Path(config).write_text(before, "utf-8")
        newcomer.type(f"rm -r /etc/systemd/system/{drop}; systemctl daemon-reload")
        newcomer.type(documents.block("docs/systemd.md", "port-in-force"))
    with connect(newcomer) as terminal:
        prompt(terminal)
        leave(terminal)


def test_a_gateway_s_restart_is_told_to_its_clients_who_come_back(newcomer):
    """The page does it by itself: the token's ``resume`` leads back to the session."""
    token = newcomer.ask("issue", guest=GUEST, resume=60)["token"]
    with opened(newcomer, token) as terminal:
        prompt(terminal)
        before = session(newcomer)["id"]
        newcomer.systemctl("restart", "serial-console-gateway")
        assert terminal.ended()[0] == 1012
    with opened(newcomer, token) as again:
        prompt(again)
        assert session(newcomer)["id"] == before
        leave(again)


def test_the_journal_has_who_did_what_as_fields(newcomer):
    with connect(newcomer, user="bob", mode="rw") as terminal:
        prompt(terminal)
        mine = session(newcomer)
        leave(terminal)
    tag = "SYSLOG_IDENTIFIER=serial-console-audit"
    match = tag, f"SERIAL_CONSOLE_SESSION={mine['id']}"
    ended = rig.eventually(
        lambda: any(
            one["SERIAL_CONSOLE_EVENT"] == "session_closed" for one in entries(newcomer, *match)
        )
    )
    assert ended, newcomer.journal()
    found = {one["SERIAL_CONSOLE_EVENT"]: one for one in entries(newcomer, *match)}
    assert set(found) == {"token_redeemed", "session_opened", "session_closed"}
    for one in found.values():
        assert one["_SYSTEMD_UNIT"] == "serial-console-supervisor.service"
        fields = [one[f"SERIAL_CONSOLE_{key}"] for key in ("GUEST", "UUID", "USER", "MODE")]
        assert fields == [GUEST, mine["uuid"], "bob", "rw"]
    assert found["session_closed"]["SERIAL_CONSOLE_CODE"] == "1000"
    assert int(found["session_closed"]["SERIAL_CONSOLE_BYTES_OUT"]) > 0
    # The log's own lines.
    match = "SYSLOG_IDENTIFIER=serial-console-supervisor", match[1]
    log = {one["SERIAL_CONSOLE_EVENT"]: one for one in entries(newcomer, *match)}
    assert set(log) == {"session_opened", "session_closed"}
    for one in log.values():
        assert (one["PRIORITY"], one["_SYSTEMD_UNIT"]) == ("6", "serial-console-supervisor.service")
        fields = [one[f"SERIAL_CONSOLE_{key}"] for key in ("GUEST", "UUID", "USER", "MODE")]
        assert fields == [GUEST, mine["uuid"], "bob", "rw"]
    assert float(log["session_opened"]["SERIAL_CONSOLE_SETUP_SECONDS"]) > 0
    said = newcomer.type(documents.block("docs/systemd.md", "journal"))
    assert f"session_closed session={mine['id']}" in said  # the audit's line
    assert log["session_closed"]["MESSAGE"] in said


def test_the_watchdog_of_the_unit_restarts_a_supervisor_that_hangs(newcomer):
    with connect(newcomer) as terminal:
        prompt(terminal)
        before = session(newcomer)
        pid = newcomer.main_pid("supervisor.service")
        os.kill(pid, signal.SIGSTOP)
        assert rig.eventually(lambda: not alive(pid), WATCHDOG + 5)
        prompt(terminal)
        assert session(newcomer)["id"] == before["id"]  # asked of the next one
        leave(terminal)
    result = entries(newcomer, "_PID=1", "UNIT=serial-console-supervisor.service")
    assert any("Watchdog timeout" in one["MESSAGE"] for one in result)
