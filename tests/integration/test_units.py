"""The units: systemd's own judgement of them, and a real systemd that runs them."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time

import pytest

from serial_console import config
from serial_console.demo import host
from serial_console.errors import SetupError
from tests import documents, machine, rig
from tests.clients import Terminal, echo
from tests.stack import alive, http

EXPOSURE = {"supervisor": 2.5, "gateway": 1.5, "api": 1.5}
"""The most that is allowed (issue 4); 0 is best, 10 worst."""
WATCHDOG = 2
"""Seconds; the units' own would make for a long test."""
OPERATOR = 61904
REMOTE = documents.block("docs/systemd.md", "remote").replace("192.0.2.7", "127.0.0.1")
"""For a libvirt of another host."""


@pytest.fixture(scope="module")
def analyze():
    try:
        return host.program("systemd-analyze", "systemd")
    except SetupError as error:
        rig.missing(str(error))


@pytest.mark.parametrize("unit", EXPOSURE)
def test_a_service_is_exposed_to_little(analyze, unit, capsys):
    path = os.path.join(machine.UNITS, f"serial-console-{unit}.service")
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", path], capture_output=True, text=True
    )
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    with capsys.disabled():
        print(f"\n{unit}: exposure {found[1]}")
    assert float(found[1]) <= EXPOSURE[unit], done.stdout


def test_systemd_finds_nothing_wrong_with_the_units(analyze, tmp_path):
    """In a scratch root, since executables must exist; man pages come with the package."""
    root = str(tmp_path)
    machine.install(root)
    machine.write(f"{root}/usr/bin/serial-console", "#!/bin/sh\n", 0o755)
    for name in ("systemctl", "sh"):
        shutil.copy(f"/usr/bin/{name}", f"{root}/usr/bin/{name}")
    os.symlink("usr/bin", f"{root}/bin")
    os.makedirs(f"{root}/usr/lib")
    shutil.copytree("/usr/lib/systemd/system", f"{root}/usr/lib/systemd/system", symlinks=True)
    os.symlink("usr/lib", f"{root}/lib")
    units = [name for name in os.listdir(machine.UNITS) if name.startswith("serial-console")]
    assert len(units) == 9
    done = subprocess.run(
        [analyze, "verify", f"--root={root}", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_users_groups_and_directories_are_as_documented(tmp_path):
    """What docs/systemd.md says to run, in a scratch root."""
    if os.geteuid() != 0:
        rig.missing("root, to give directories to users")
    root = str(tmp_path)
    machine.install(root)
    for name in ("passwd", "group"):
        shutil.copy(f"/etc/{name}", f"{root}/etc/{name}")
    confs = "serial-console.conf", "serial-console-libvirt.conf"
    subprocess.run(["systemd-sysusers", f"--root={root}", *confs], check=True)
    subprocess.run(["systemd-tmpfiles", f"--root={root}", "--create", confs[0]], check=True)

    users, groups, members = {}, {}, {}
    with open(f"{root}/etc/passwd", encoding="utf-8") as file:
        for name, _, uid, *_, shell in (line.strip().split(":") for line in file):
            users[int(uid)] = name
            assert shell.endswith("nologin") or not name.startswith("serial-console")
    with open(f"{root}/etc/group", encoding="utf-8") as file:
        for name, _, gid, who in (line.strip().split(":") for line in file):
            groups[int(gid)] = name
            members[name] = who
    assert [members[f"serial-console{one}"] for one in ("-redeem", "-admin", "-rest", "")] == [
        "serial-console-gateway",
        "serial-console-api",
        "",
        "",
    ]
    assert "serial-console" in members["libvirt"].split(",")
    found = {}
    for path in (
        "/run/serial-console",
        "/run/serial-console/relays",
        "/run/console",
        "/run/serial-console-api",
        "/etc/serial-console/config.toml",
        "/etc/serial-console/api-keys",
    ):
        status = os.stat(root + path)
        mode = stat.S_IMODE(status.st_mode)
        found[path] = f"{mode:04o} {users[status.st_uid]}:{groups[status.st_gid]}"
    assert found == {
        "/run/serial-console": "0711 serial-console:serial-console",
        "/run/serial-console/relays": "0700 serial-console:serial-console",
        "/run/console": "2710 serial-console:serial-console-redeem",
        "/run/serial-console-api": "0711 root:root",
        "/etc/serial-console/config.toml": "0644 root:root",
        "/etc/serial-console/api-keys": "0640 root:serial-console-api",
    }
    with open(f"{root}/etc/serial-console/config.toml", encoding="utf-8") as file:
        text = file.read()
    assert text.endswith("\n"), "what is appended to it would be part of its comment"
    assert config.parse(text, "") == config.parse("", "")


@pytest.fixture(scope="module")
def booted(libvirtd):
    """A systemd with our units, not started; our supervisor's user may use libvirt."""
    if os.geteuid() != 0:
        rig.missing("root, to run a systemd")
    directory = os.path.dirname(libvirtd.socket)
    before = os.stat(directory).st_mode, os.stat(libvirtd.socket).st_uid
    with machine.scratch() as scratch:
        one = machine.Machine(scratch, directory)
        users = one.configure(api={"peer_uids": [OPERATOR]})
        os.chmod(directory, 0o711)  # on the host, the one above it lets nobody in
        os.chown(libvirtd.socket, users["serial-console"], -1)
        units = ("supervisor", WATCHDOG), ("gateway", WATCHDOG), ("api", WATCHDOG)
        for name, seconds in units:
            conf = f"etc/systemd/system/serial-console-{name}.service.d/quick.conf"
            machine.write(f"{one.upper}/{conf}", f"[Service]\nWatchdogSec={seconds}\n")
        try:
            with one:
                yield one
        finally:
            os.chmod(directory, stat.S_IMODE(before[0]))
            os.chown(libvirtd.socket, before[1], -1)


@pytest.fixture
def serving(booted):
    """The same, with everything started; ended by the target's stop."""
    booted.systemctl("start", "serial-console.target")
    yield booted
    booted.systemctl("stop", "serial-console.target")
    assert rig.eventually(lambda: active(booted) == "", 20.0), active(booted)
    print(booted.journal())


def active(booted):
    states = "--state=active,activating,deactivating"
    listing = "systemctl", "list-units", "--no-legend", states, "serial-console*"
    return booted.run(*listing).stdout


def token(serving, guest, **fields):
    answer = serving.ask("issue", guest=guest.uuid, **fields)
    assert answer["ok"], f"{answer} {serving.journal()}"
    return answer["token"]


def connect(serving, guest, **fields):
    url = f"ws://127.0.0.1:{serving.gateway_port}/websockify?token="
    return Terminal(url + token(serving, guest, **fields))


def session(serving):
    (one,) = serving.ask("sessions")["sessions"]
    return one


def on_host(serving, inner):
    """Return the host's number of a process."""
    return next(pid for pid, names in serving.pids().items() if names[-1] == inner)


def status(pid, *names):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        found = dict(line.strip().split(":\t", 1) for line in file if ":\t" in line)
    return [found[name] for name in names]


def test_everything_serves_under_its_restrictions(serving, shared_guest):
    key = serving.run("serial-console", "key", "add", "tests").stdout.strip()
    headers = {"Authorization": f"Bearer {key}"}
    with connect(serving, shared_guest, user="alice") as terminal:
        assert echo(terminal, b"hello") == b"hello"
        answer, _, body = http(serving.api_port, "GET", "/v1/sessions", headers)
        assert (answer, b"alice" in body) == (200, True)
        pids = [serving.main_pid(name) for name in EXPOSURE]
        pids.append(on_host(serving, session(serving)["relay_pid"]))
        pids.append(on_host(serving, session(serving)["gateway_pid"]))
        for pid in pids:
            restricted = ["1", "2", 16 * "0", 16 * "0"]
            assert status(pid, "NoNewPrivs", "Seccomp", "CapEff", "CapBnd") == restricted
        assert len({tuple(status(pid, "Uid", "Gid")) for pid in pids}) == 3
        # An operator, by the group alone; the configuration and its paths are the system's.
        user = ["setpriv", f"--reuid={OPERATOR}", f"--regid={OPERATOR}"]
        for groups, result in ("--groups=serial-console-admin", 0), ("--clear-groups", 1):
            done = serving.run(*user, groups, "serial-console", "sessions")
            assert (done.returncode, "alice" in done.stdout) == (result, result == 0), done.stderr
        figures = http(serving.api_port, "GET", "/metrics", headers)[2].decode()
        assert "serial_console_up 1.0" in figures
        memory = re.search(r"^serial_console_relay_memory_bytes (\S+)", figures, re.MULTILINE)
        assert memory, figures
        assert float(memory[1]) > 1 << 20  # a relay may look at itself
        terminal.send(b"\x11")
        assert terminal.ended()[0] == 1000
    ask = documents.block("docs/monitoring.md", "journal")
    assert rig.eventually(lambda: serving.run("sh", "-c", ask).stdout != "", 10.0)
    entry = json.loads(serving.run("sh", "-c", ask).stdout.splitlines()[-1])
    assert (entry["SERIAL_CONSOLE_USER"], entry["PRIORITY"]) == ("alice", "6")
    assert entry["_SYSTEMD_UNIT"] == "serial-console-supervisor.service"
    for name in "gateway", "api":
        assert serving.run("journalctl", "-q", "-t", f"serial-console-{name}").stdout, name


def test_a_reload_changes_what_it_can_and_ends_nothing(serving, shared_guest):
    pids = [serving.main_pid(name) for name in EXPOSURE]
    text = serving.run("cat", "/etc/serial-console/config.toml").stdout
    with connect(serving, shared_guest) as terminal:
        write = 'printf "%s" "$0" > /etc/serial-console/config.toml'
        try:
            assert serving.run("sh", "-c", write, f"{text}[tokens]\nttl = 77\n").returncode == 0
            done = serving.run("sh", "-c", documents.block("docs/configuration.md", "reload"))
            assert (done.returncode, done.stderr) == (0, "")
            ask = "journalctl", "-q", "-u", "serial-console-supervisor"
            assert rig.eventually(lambda: "tokens.ttl" in serving.run(*ask).stdout, 10.0)
            issued = serving.ask("issue", guest=shared_guest.uuid)
            assert 60 < issued["expires_at"] - time.time() <= 77
        finally:
            serving.run("sh", "-c", write, text)
        assert echo(terminal, b"reloaded") == b"reloaded"
        assert [serving.main_pid(name) for name in EXPOSURE] == pids
        terminal.send(b"\x11")
        assert terminal.ended()[0] == 1000


def test_sessions_outlive_the_supervisor_s_unit(serving, shared_guest):
    with connect(serving, shared_guest) as terminal:
        assert echo(terminal, b"before") == b"before"
        before = session(serving)
        serving.systemctl("restart", "serial-console-supervisor")
        assert echo(terminal, b"restarted") == b"restarted"
        assert session(serving)["id"] == before["id"]
        # With its sockets, that would start it again.
        serving.systemctl("stop", "serial-console-redeem.socket", "serial-console-admin.socket")
        assert serving.show("supervisor.service", "ActiveState") == "inactive"
        assert echo(terminal, b"stopped") == b"stopped"
        serving.systemctl("start", "serial-console-supervisor")
        assert session(serving)["relay_pid"] == before["relay_pid"]
        os.kill(serving.main_pid("supervisor.service"), signal.SIGKILL)
        assert echo(terminal, b"killed") == b"killed"
        assert session(serving)["id"] == before["id"]  # asked of the next one
        terminal.send(b"\x11")
        assert terminal.ended()[0] == 1000


def test_the_watchdog_ends_a_service_that_hangs(serving, shared_guest):
    with connect(serving, shared_guest) as terminal:
        assert echo(terminal, b"before") == b"before"
        before = session(serving)
        hang(serving, "supervisor", "api")
        assert echo(terminal, b"still") == b"still"
        assert session(serving)["id"] == before["id"]
        assert http(serving.api_port, "GET", "/healthz")[0] == 200
        hang(serving, "gateway")
        assert terminal.ended()[0] in (1006, 1012)
    with connect(serving, shared_guest, takeover=True) as again:
        assert echo(again, b"again") == b"again"
        again.send(b"\x11")
        assert again.ended()[0] == 1000


def hang(serving, *names):
    """Stop services until the watchdog has ended them, and others serve."""
    pids = [serving.main_pid(f"{name}.service") for name in names]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for name, pid in zip(names, pids, strict=True):
        assert rig.eventually(lambda: not alive(pid), 20.0)  # noqa: B023
        unit = f"serial-console-{name}.service"
        active = "systemctl", "is-active", "--quiet", unit
        assert rig.eventually(lambda: serving.run(*active).returncode == 0, 20.0)  # noqa: B023
        assert "watchdog" in serving.run("journalctl", f"--unit={unit}").stdout.lower()


@pytest.mark.parametrize("supervisor", ["with", "without"])
def test_the_target_s_stop_ends_sessions(serving, shared_guest, supervisor):
    with connect(serving, shared_guest, resume=60) as terminal:
        assert echo(terminal, b"before") == b"before"
        relay = on_host(serving, session(serving)["relay_pid"])
        if supervisor == "without":
            serving.systemctl("stop", "serial-console-redeem.socket", "serial-console-admin.socket")
        serving.systemctl("stop", "serial-console.target")
        told = terminal.ended()
        if supervisor == "with":
            assert told == (4503, "The console service on the host was stopped.")
        assert rig.eventually(lambda: not alive(relay))
    for directory in ("/run/console", "/run/serial-console"):
        assert rig.eventually(lambda: rig.files_below(serving.path(directory)) == [])  # noqa: B023


def test_a_broken_into_service_gets_nowhere(serving, shared_guest):
    with connect(serving, shared_guest) as terminal:
        assert echo(terminal, b"x") == b"x"
        (name,) = os.listdir(serving.path("/run/console"))
        pids = [session(serving)[key] for key in ("relay_pid", "gateway_pid")]
        pids.append(int(serving.show("supervisor.service", "MainPID")))
        libvirt = ["ask", f"{machine.LIBVIRT}/libvirt-sock", {}]
        network = ["dial", "127.0.0.1", serving.api_port]
        for unit, own, foreign in (
            ("gateway", "/run/serial-console/redeem.sock", "/run/serial-console/admin.sock"),
            ("api", "/run/serial-console/admin.sock", "/run/serial-console/redeem.sock"),
        ):
            came_of = serving.attack(
                unit,
                ["ask", own, {"v": 1, "op": "nonsense"}],
                ["ask", foreign, {}],
                ["ask", f"/run/console/{name}", {}],
                libvirt,
                network,
                ["plant", "/run/console"],
                ["plant", "/tmp"],  # its own
                ["become", 0],
                *(["trace", pid] for pid in pids),
                *(["steal", pid] for pid in pids),
                *(["read", f"/proc/{pid}/environ"] for pid in pids),
                *(["read", f"/proc/{pid}/mem"] for pid in pids),
            )
            assert json.loads(came_of[0])["code"] == "unknown_op"  # it gets there
            relay = "" if unit == "gateway" else "EACCES"  # closed: this process redeemed nothing
            assert came_of[1:8] == [
                "EACCES", relay, "EACCES", "EAFNOSUPPORT", "EACCES", "planted", "EPERM"
            ]  # fmt: skip
            assert came_of[8:] == 6 * ["EPERM"] + 6 * ["ENOENT"]
        keys = ["read", "/etc/serial-console/api-keys"]
        assert serving.attack("supervisor", network, keys) == ["EAFNOSUPPORT", "EACCES"]
        assert serving.attack("supervisor", network, more=REMOTE) == ["connected"]
        assert echo(terminal, b"y") == b"y"
        terminal.send(b"\x11")
        assert terminal.ended()[0] == 1000


@pytest.mark.slow
def test_a_console_on_a_tcp_socket_needs_what_is_documented(serving, make_guest):
    """And no more; without it the log says what to read."""
    guest = make_guest("echo", serial="tcp")
    with connect(serving, guest) as terminal:
        assert terminal.ended()[0] == 4503
    assert "Address family not supported by protocol; docs/consoles.md" in serving.journal()
    drop_in = "/etc/systemd/system/serial-console-supervisor.service.d/tcp-consoles.conf"
    machine.write(serving.path(drop_in), documents.block("docs/consoles.md", "tcp-consoles"))
    try:
        serving.systemctl("daemon-reload")
        serving.systemctl("restart", "serial-console-supervisor.service")
        with connect(serving, guest) as terminal:
            assert echo(terminal, b"x") == b"x"
    finally:
        os.unlink(serving.path(drop_in))
        serving.systemctl("daemon-reload")
        serving.systemctl("restart", "serial-console-supervisor.service")
