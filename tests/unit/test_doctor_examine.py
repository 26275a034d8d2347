"""The doctor itself: it always finishes, whatever a check does."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from serial_console.doctor.examine import examine
from serial_console.doctor.finding import Finding
from serial_console.errors import SetupError

ALONE = "config", "supervisor"
"""Checks that need none of the packages, or psutil alone."""
FINE = Finding("fine", "ok", "all is well")


def fine():
    yield FINE


def hangs():
    yield FINE
    signal.pause()


def dies():
    os.kill(os.getpid(), signal.SIGKILL)
    yield FINE


def lacks():
    import no_such_package_of_ours

    yield no_such_package_of_ours


def refuses():
    raise SetupError("this is wrong; do that")
    yield


def fails():
    os.write(2, b"a library's words")
    raise RuntimeError("secret")
    yield


def denied():
    os.stat("/nonexistent/file")
    yield


def test_one_that_hangs_is_ended_and_keeps_neither_others_nor_what_it_had_found():
    began = time.monotonic()
    found = examine({"libvirt": hangs, "fine": fine}, limit=0.5)
    assert time.monotonic() - began < 5
    assert found[0] == FINE
    assert found[1][:2] == ("libvirt", "fail")
    assert found[1].message.startswith("nothing came of this check for 0.5")
    assert "libvirtd hangs" in found[1].fix
    assert found[2:] == [FINE]


def test_one_that_never_ends_is_ended():
    def endless():
        while True:
            time.sleep(0.02)
            yield FINE

    found = examine({"name": endless}, most=0.3)
    assert (found[-1].check, found[-1].status) == ("name", "fail")
    assert len(found) > 2


@pytest.mark.parametrize(
    ("check", "message", "fix"),
    [
        (dies, "this check was killed", "dmesg"),
        (lacks, "the Python package no_such_package_of_ours is missing", "install"),
        (refuses, "this is wrong", "do that"),
        (fails, "this check itself failed: RuntimeError", "report it"),
        (denied, "cannot look: No such file or directory", "as root"),
    ],
)
def test_one_that_fails_is_a_finding_and_no_traceback(check, message, fix, capfd):
    (found,) = examine({"name": check})
    assert (found.check, found.status) == ("name", "fail")
    assert found.message.startswith(message)
    assert fix in found.fix
    assert "secret" not in str(found)
    assert capfd.readouterr() == ("", "")


def test_they_run_side_by_side_and_are_shown_in_order(tmp_path):
    """Each waits for the other."""

    def meets(mine, other):
        def check():
            with open(tmp_path / mine, "r+b", 0) as reading, open(tmp_path / other, "r+b", 0) as to:
                to.write(b"x")
                reading.read(1)
                yield Finding(mine, "ok", "")

        return check

    for name in ("one", "two"):
        os.mkfifo(tmp_path / name)
    found = examine({"one": meets("one", "two"), "two": meets("two", "one")})
    assert [(one.check, one.status) for one in found] == [("one", "ok"), ("two", "ok")]


def doctor(*arguments, **environment):
    command = [sys.executable, "-m", "serial_console", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
        env={**os.environ, **environment},
    )


def test_with_a_broken_configuration_and_nothing_there(tmp_path):
    """It says what is wrong in the file, and goes on with what is right in it."""
    path = tmp_path / "config.toml"
    path.write_text(
        f"[gateway]\nlisten = 5\n[libvirt]\nuri = 'qemu+unix:///session?socket={tmp_path}/none'\n"
        f"[paths]\nconsoles = '{tmp_path}/c'\ncontrol = '{tmp_path}/s'\napi = '{tmp_path}/a'\n"
        "[api]\nlisten = '127.0.0.1:0'\n"
    )
    done = doctor("--config", str(path), "doctor", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert [set(one) for one in found] == [{"check", "status", "message", "fix"}] * len(found)
    by_check = {one["check"]: one for one in found}
    assert f"{path}, line 2, key gateway.listen" in by_check["config"]["message"]
    assert str(tmp_path) in by_check["libvirt"]["message"]
    assert by_check["supervisor"]["status"] == "fail"
    assert all(one["fix"] for one in found if one["status"] != "ok")
    assert not (set(os.listdir(tmp_path)) - {"config.toml"})


def test_each_finding_is_a_line_and_each_fix_one_below_it(tmp_path):
    done = doctor("--config", str(tmp_path / "none.toml"), "doctor")
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[0].startswith("fail  config  ")
    assert lines[1].lstrip() == "fix: name a readable file with --config"
    starts = {line.index(line.split(None, 1)[1]) for line in lines if line[0] != " "}
    assert len(starts) == 1


@pytest.mark.parametrize(
    ("package", "message"),
    [
        ("libvirt", "the Python package libvirt-python is missing"),
        ("psutil", "the Python package psutil is missing"),
        ("websockify", "the Python package websockify is missing"),
        ("fastapi", "there is no REST: fastapi missing"),
    ],
)
def test_without_a_package(package, message, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Gone:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name.split('.')[0] == {package!r}:\n"
        f"            raise ModuleNotFoundError('gone', name={package!r})\n"
        "sys.meta_path.insert(0, Gone())\n"
    )
    done = doctor("doctor", "--json", PYTHONPATH=str(tmp_path))
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert message in [one["message"] for one in found]
    assert not any("failed" in one["message"] for one in found)
    config, supervisor = (next(one for one in found if one["check"] == name) for name in ALONE)
    assert config["status"] == "ok"
    assert package == "psutil" or "missing" not in supervisor["message"]


def test_without_what_everything_needs_it_says_so(tmp_path):
    (tmp_path / "msgspec.py").write_text("raise ModuleNotFoundError('gone', name='msgspec')\n")
    done = doctor("doctor", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == (
        "serial-console: the Python package msgspec is missing; "
        "install serial-console again (docs/install.md)\n"
    )
