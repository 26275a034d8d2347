"""``serial-console doctor`` where all is well, and where libvirtd, services and files are not."""

import json
import os
import signal
import subprocess
import time

from serial_console.doctor.checks import checks
from tests import certs, documents, rig

HOSTS = {"users", "clock"}
"""What this machine is not for tests: root runs all, and there may be no time server."""


def doctor(stack, status):
    """Run it; return what it says of each check, the worst where there are several."""
    done = stack.cli("doctor", "--json")
    assert (done.returncode, done.stderr) == (status, ""), done.stdout
    found = {}
    order = ["ok", "warn", "fail"]
    for one in json.loads(done.stdout):
        known = found.setdefault(one["check"], one)
        if order.index(one["status"]) > order.index(known["status"]):
            found[one["check"]] = one
    return found


def test_all_is_well(shared, shared_guest, make_guest):
    assert shared.key  # so that there is one
    null = make_guest(serial="null", state="off")
    found = doctor(shared, 0)
    name = f"console {null.name}"
    assert found.pop(name)["status"] == "warn"
    bad = {one["check"]: one for one in found.values() if one["status"] != "ok"}
    assert not {check for check in bad if not check.startswith("console ")} - HOSTS, bad
    assert found[f"console {shared_guest.name}"]["message"].startswith("serial0 (pty), running")
    assert {"libvirt rights", "event loop", *checks(shared.config)} == {
        check for check in found if not check.startswith("console ")
    }
    for one in ("supervisor", "gateway", "api"):
        assert f"(pid {shared.pid(one)})" in found["versions"]["message"]
    assert shared.key not in json.dumps(found)
    typed = documents.block("docs/troubleshooting.md", "doctor").split()
    said = shared.cli(*typed[1:]).stdout.splitlines()
    assert sum(line.startswith(("ok    ", "warn  ", "fail  ")) for line in said) >= len(found)


def test_it_does_not_disturb_a_session(shared, shared_guest):
    with shared.open(shared_guest.name) as terminal:
        doctor(shared, 0)
        terminal.send(b"still here")
        terminal.read_until(b"still here")
        assert len(shared.sessions()) == 1
    shared.wait_free()


def test_libvirtd_hangs_and_is_dead(shared, libvirtd):
    libvirtd.freeze()
    try:
        began = time.monotonic()
        found = doctor(shared, 1)
        assert time.monotonic() - began < 15
    finally:
        libvirtd.thaw()
    assert found["libvirt"]["status"] == "fail"
    assert "libvirtd hangs" in found["libvirt"]["fix"]
    assert found["supervisor"]["status"] == "fail"
    assert "libvirt" in found["supervisor"]["message"]
    assert found["gateway port"]["status"] == "ok"
    libvirtd.kill()
    try:
        found = doctor(shared, 1)
    finally:
        libvirtd.start()
    assert found["libvirt"]["status"] == "fail"
    assert "journalctl" in found["libvirt"]["fix"]


def test_the_supervisor_hangs_and_is_off(make_stack):
    stack = make_stack("supervisor")
    os.kill(stack.pid("supervisor"), signal.SIGSTOP)
    try:
        found = doctor(stack, 1)
    finally:
        os.kill(stack.pid("supervisor"), signal.SIGCONT)
    assert "sessions go on" in found["supervisor"]["fix"]
    stack.end("supervisor")
    found = doctor(stack, 1)
    assert {found[one]["status"] for one in ("supervisor", "sockets")} == {"fail"}
    assert "serial-console run" in found["supervisor"]["fix"]
    assert found["libvirt"]["status"] == "ok"


def test_an_expired_certificate_and_key_files_open_to_others(make_stack, tmp_path):
    cert, key = certs.make(tmp_path, since="-3 days")
    stack = make_stack(gateway={"tls_cert": cert, "tls_key": key})
    assert stack.key
    api_keys = tmp_path / "keys" / "api-keys"
    found = doctor(stack, 1)
    assert "has expired" in found["tls"]["message"]
    assert (found["tls key"]["status"], found["api keys"]["status"]) == ("ok", "ok")
    os.chmod(api_keys, 0o604)
    os.chmod(key, 0o644)
    found = doctor(stack, 1)
    assert found["tls key"]["fix"] == f"chmod g-w,o= {key}"
    assert str(api_keys) in found["api keys"]["fix"]
    # It changes nothing.
    assert os.stat(api_keys).st_mode & 0o777 == 0o604
    with open(key, encoding="ascii") as file:
        assert file.read().splitlines()[1] not in json.dumps(found)


def test_another_program_has_the_port(make_stack):
    """A stock websockify is not our gateway."""
    stack = make_stack()
    stack.stock_port = stack.gateway_port
    stack.start("stock")
    taken = doctor(stack, 1)["gateway port"]
    assert f"(pid {stack.pid('stock')})" in taken["message"]
    assert "end that program" in taken["fix"]


def test_another_user_is_told_what_he_may_not_see(shared):
    command = rig.as_another([*shared.program, "doctor", "--json"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd="/")
    assert (done.returncode, done.stderr) == (1, "")
    found = {one["check"]: one for one in json.loads(done.stdout)}
    assert "usermod -aG serial-console-admin" in found["supervisor"]["fix"]
