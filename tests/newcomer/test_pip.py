"""A newcomer with pip: a clean Debian 12 with libvirt and a guest, then docs/install.md."""

import os
import shutil
import signal

import psutil
import pytest

from tests import documents, packages, rig
from tests.cleanroot import report, timed
from tests.machine import ROOT

from . import hosts
from .hosts import GUEST, leave, opened, prompt

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def newcomer(pytestconfig):
    """A host with a guest at its login prompt; the wheel is installed, and how long that took."""
    wheel = packages.built("wheel")
    with hosts.clean(pytestconfig) as root:
        root.copy(wheel, f"/root/{os.path.basename(wheel)}")
        with timed(root.seconds, "package"):
            root.type(documents.block("docs/install.md", "pip"), online=True, seconds=400)
        yield root


def test_a_newcomer_gets_to_a_prompt(newcomer, capsys):
    run = documents.block("docs/install.md", "pip-run")
    with newcomer.typing(f"exec {run}") as service:
        with timed(newcomer.seconds, "start"):
            while (line := service.stdout.readline()) != "ready\n":
                assert line, f"it ended: {service.wait()}"
        with timed(newcomer.seconds, "doctor"):
            newcomer.type(documents.block("docs/install.md", "pip-doctor"))
        with timed(newcomer.seconds, "token"):
            token = newcomer.type(documents.block("docs/install.md", "pip-token")).split()[-1]
        with timed(newcomer.seconds, "prompt"), opened(newcomer, token) as terminal:
            prompt(terminal)
            leave(terminal)
        (running,) = psutil.Process(service.pid).children()
        running.send_signal(signal.SIGINT)  # Ctrl-C
        service.communicate(timeout=20)
    assert service.returncode == 0
    for directory in ("/run/console", "/run/serial-console", "/run/serial-console-api"):
        assert rig.files_below(newcomer.path(directory)) == []
    with capsys.disabled():
        print(f"\nwith pip: {report(newcomer.seconds)}")


def test_its_units_serve_too(newcomer):
    """What docs/systemd.md says, in a checkout."""
    shutil.copytree(f"{ROOT}/systemd", newcomer.path("/root/systemd"))
    newcomer.type(documents.block("docs/systemd.md", "units"))
    assert newcomer.systemctl("is-enabled", "serial-console.target") == "enabled"
    token = newcomer.type(f"serial-console token {GUEST}").strip()
    with opened(newcomer, token) as terminal:
        prompt(terminal)
        leave(terminal)
