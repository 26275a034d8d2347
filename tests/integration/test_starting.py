"""A service that cannot start says so in one line and touches nothing."""

import os
import re
import socket
import subprocess

import pytest

from tests import rig

QUIET = {"level": "error"}


def refused(stack, *arguments, another=False):
    """Run a command that must fail with one line on stderr; return the line."""
    command = [*stack.program, *arguments]
    if another:
        command = rig.as_another(command)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"serial-console: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


@pytest.mark.parametrize("which", ["consoles", "control"])
def test_a_file_where_a_directory_should_be(make_stack, run_dir, tmp_path, which):
    (tmp_path / "file").write_text("mine")
    paths = {"consoles": f"{run_dir}/c", "control": f"{run_dir}/s"}
    for below in ("file", "file/below"):
        stack = make_stack(paths=paths | {which: str(tmp_path / below)}, log=QUIET)
        line = refused(stack, "supervisor")
        assert str(tmp_path / below) in line
        assert "[paths]" in line
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("which", ["consoles", "control"])
def test_a_directory_that_is_not_ours_to_write(make_stack, run_dir, which):
    os.chmod(run_dir, 0o777)
    closed = os.path.join(run_dir, "closed")
    os.mkdir(closed, 0o555)
    stack = make_stack(
        paths={"consoles": f"{run_dir}/c", "control": f"{run_dir}/s"} | {which: closed}, log=QUIET
    )
    line = refused(stack, "supervisor", another=os.geteuid() == 0)
    assert closed in line
    assert "not writable" in line
    assert rig.files_below(run_dir) == []


@pytest.mark.parametrize("service", ["gateway", "api"])
def test_port_in_use(make_stack, service):
    stack = make_stack("supervisor", log=QUIET)
    port = {"gateway": stack.gateway_port, "api": stack.api_port}[service]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        line = refused(stack, service)
        assert f"127.0.0.1:{port}" in line
        assert "in use" in line
        assert f"{service}.listen" in line


def test_run_ends_what_it_started_when_a_port_is_in_use(make_stack):
    stack = make_stack()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", stack.api_port))
        taken.listen()
        done = stack.cli("run")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"127.0.0.1:{stack.api_port}" in done.stderr
    assert rig.files_below(stack.run_dir) == []


@pytest.mark.parametrize("command", ["supervisor", "gateway", "api", "run", "guests"])
def test_unknown_key_in_the_configuration(make_stack, command):
    stack = make_stack()
    with open(stack.config, "a") as file:
        file.write("[session]\nreplay = 0\nidel_timeout = 5\n")
    with open(stack.config) as file:
        number = file.read().splitlines().index("idel_timeout = 5") + 1
    line = refused(stack, command)
    assert f"{stack.config}, line {number}, key session.idel_timeout: unknown key" in line
    assert "idle_timeout" in line
    refused(stack, "config", "check")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[session]\nidle_timeout = 'x'\n", "line 2, key session.idle_timeout"),
        ("[nonsense]\n", "line 1, key nonsense"),
        ("[session\n", "line 1"),
        ("[gateway]\nlisten = '0.0.0.0:1'\n", "insecure"),
        ("[gateway]\nlisten = 'nowhere'\n", "listen"),
    ],
)
def test_other_mistakes_in_the_configuration(make_stack, text, words):
    stack = make_stack()
    with open(stack.config, "w") as file:
        file.write(text)
    line = refused(stack, "supervisor")
    assert stack.config in line
    assert words in line
