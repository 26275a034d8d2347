"""A newcomer with a package, the Debian one or the RPM: a clean Debian 12 with libvirt and a guest,
then what docs/install.md says, from the installation to the removal."""

import pathlib
import re

import psutil
import pytest

from tests import documents
from tests.cleanroot import CleanRoot, report, timed

from .hosts import GUEST, UNITS, connect, leave, opened, prompt, session, states

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.parametrize("package", ["deb", "rpm"], indirect=True, scope="module"),
]

CONFIG = "/etc/serial-console/config.toml"
MINE = "# An operator's own line.\n"


def test_a_newcomer_gets_to_a_prompt(newcomer, package, capsys):
    with timed(newcomer.seconds, "doctor"):
        newcomer.type(documents.block("docs/install.md", "doctor"))
    with timed(newcomer.seconds, "token"):
        token = newcomer.type(f"serial-console token {GUEST}").strip()
    with timed(newcomer.seconds, "prompt"), opened(newcomer, token) as terminal:
        prompt(terminal)
        leave(terminal)
    with capsys.disabled():
        print(f"\n{package.name}: {report(newcomer.seconds)}")


def test_the_units_are_enabled_and_started(newcomer):
    assert newcomer.systemctl("is-enabled", "serial-console.target") == "enabled"
    assert states(newcomer, *UNITS) == ["active"] * len(UNITS)
    assert newcomer.systemctl("is-system-running") == "running"
    assert newcomer.run("systemd-analyze", "--man=no", "verify", *UNITS).stderr == ""
    # At the next boot as well.
    assert "serial-console.target" in newcomer.systemctl(
        "list-dependencies", "--plain", "multi-user.target"
    )


def change_configuration(root):
    with open(root.path(CONFIG), "a", encoding="utf-8") as file:
        file.write(MINE)


def test_an_upgrade_keeps_the_sessions_and_the_configuration(newcomer, package):
    change_configuration(newcomer)
    token = newcomer.ask("issue", guest=GUEST, resume=60)["token"]
    with opened(newcomer, token) as terminal:
        prompt(terminal)
        before = session(newcomer)
        pids = {unit: newcomer.main_pid(f"{unit}.service") for unit in ("supervisor", "api")}
        package.upgrade(newcomer)
        for unit, pid in pids.items():
            assert newcomer.main_pid(f"{unit}.service") != pid
        assert terminal.ended()[0] == 1012
    with opened(newcomer, token) as terminal:
        prompt(terminal)
        after = session(newcomer)
        assert (after["id"], after["relay_pid"]) == (before["id"], before["relay_pid"])
        leave(terminal)
    assert states(newcomer, *UNITS) == ["active"] * len(UNITS)
    assert pathlib.Path(newcomer.path(CONFIG)).read_text("utf-8").endswith(MINE)
    if package.new_configuration:
        new = pathlib.Path(newcomer.path(package.new_configuration)).read_text("utf-8")
        assert new.endswith("# next\n")


def files(root):
    """Return the paths of ours that there are."""
    places = "/etc", "/lib", "/opt", "/root/.cache", "/run", "/srv", "/tmp", "/usr", "/var"
    others = "/var/lib/dpkg/", "/var/cache/apt/", "/var/log/apt/"
    found = []
    for path in (one for place in places for one in pathlib.Path(root.path(place)).rglob("*")):
        inner = str(path).removeprefix(root.path(""))
        ours = re.search("serial.console|websockify|^/run/console", inner)
        if ours and not inner.startswith(others):
            found.append(inner)
    return found


def accounts(root):
    """Return the users and groups of ours, and the groups that have them as members."""
    lines = [
        line
        for name in ("passwd", "group", "shadow", "gshadow")
        for line in pathlib.Path(root.path(f"/etc/{name}")).read_text("utf-8").splitlines()
    ]
    return [line for line in lines if "serial-console" in line]


def units(root):
    """Return the units of ours that systemd knows of."""
    known = root.run(
        "systemctl", "list-units", "--all", "--plain", "--no-legend", "serial-console*"
    )
    return known.stdout.splitlines()


def processes(root):
    """Return the processes of our users."""
    uids = {int(line.split(":")[2]) for line in accounts(root) if line.count(":") == 6}
    return [pid for pid in root.pids() if psutil.Process(pid).uids().real in uids]


def test_removal_leaves_nothing(package):
    with CleanRoot() as root:
        package.prepare(root)
        assert files(root) + accounts(root) + units(root) == []
        package.install(root)
        change_configuration(root)
        root.add_guest(GUEST)
        with connect(root, resume=60) as terminal:
            prompt(terminal)
            assert len(processes(root)) >= 5  # services, inventory, relay, gateway's child
            package.remove(root)
            assert terminal.ended() == (4503, "The console service on the host was stopped.")
        assert processes(root) == []
        # Debian's own habit: a unit that was enabled is masked until the purge.
        assert [unit for unit in units(root) if " masked " not in unit] == []
        assert [path for path in files(root) if not re.match(package.left, path)] == []
        kept = pathlib.Path(root.path(package.removed_configuration)).read_text("utf-8")
        assert kept.endswith(MINE)
        package.install(root)  # again: it runs as after the first time
        assert states(root, *UNITS) == ["active"] * len(UNITS)
        # Without the target nothing of systemd's ends the sessions.
        root.systemctl("stop", "serial-console.target")
        root.systemctl("start", "serial-console-supervisor", "serial-console-gateway")
        with connect(root, resume=60) as terminal:
            prompt(terminal)
            package.remove(root)
            assert terminal.ended()[0] == 1012
        assert processes(root) == []
        package.purge(root)
        assert files(root) + accounts(root) + units(root) == []
        assert root.systemctl("is-system-running") == "running"
        assert "running" in root.type(f"virsh domstate {GUEST}")
