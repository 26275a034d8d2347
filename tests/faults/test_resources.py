"""The host runs out of something: what is refused says so, sessions go on, and when there is room
again the same processes serve again."""

import contextlib
import glob
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import websockets.exceptions

from tests import rig
from tests.stack import Stack, descendants

from .shortages import (
    TTL,
    Plain,
    as_plain,
    assert_command_fails,
    assert_problem,
    assert_refused,
    assert_rests,
    assert_served,
    cpu,
    crowd,
    descriptors,
    echo,
    false_clock,
    fds,
    fill_blocks,
    fill_inodes,
    processes,
    read_only,
    settled,
    unread_log,
)

# ---- file descriptors


def test_the_supervisor_has_no_descriptor_left(make_stack, make_guest):
    stack = make_stack("supervisor", "gateway", "api")
    mine, other = make_guest(), make_guest(state="off")
    pid = stack.pid("supervisor")
    path = f"/v1/guests/{other.name}/tokens"
    with stack.open(mine.uuid) as terminal:
        echo(terminal, b"before")
        before = settled(pid)
        for left in range(4):  # each step of opening a console fails once
            console = stack.token(other.uuid, ttl=TTL)
            watch = stack.token(mine.uuid, ttl=TTL, mode="ro")
            spent = cpu(pid)
            with crowd(stack, left):
                if left == 0:
                    assert_command_fails(stack.cli("sessions"), "too many connections")
                    assert_command_fails(stack.cli("token", other.name), "too many connections")
                    assert_problem(stack.rest("POST", path, {}), 503, "unavailable")
                    for token in (console, watch):
                        with stack.connect(token) as refused:
                            assert_refused(refused, 4503, "too many connections", "try again")
                elif left < 3:
                    with stack.connect(console) as refused:
                        assert_refused(refused, 4503, "cannot start another process", "try again")
                    with stack.connect(watch) as watcher:
                        echo(terminal, b"seen")
                        watcher.read_until(b"seen")
                    (session,) = stack.wait_sessions("connected")
                    assert session["guest"] == mine.name
                else:
                    assert_served(stack, console)
                echo(terminal, b"meanwhile")
            assert cpu(pid) - spent < 1
            if left < 3:
                assert_served(stack, console)
            if left == 0:
                with stack.connect(watch) as watcher:
                    echo(terminal, b"seen")
                    watcher.read_until(b"seen")
            stack.wait_sessions("connected")
        assert settled(pid) == before
    stack.wait_free()


def test_the_inventory_cannot_be_started(stack, echo_guest):
    assert stack.token(echo_guest.uuid)
    (inventory,) = (child.pid for child in descendants(stack.pid("supervisor")))
    os.kill(inventory, signal.SIGKILL)
    assert rig.eventually(lambda: not descendants(stack.pid("supervisor")))
    with crowd(stack, left=1):
        assert_command_fails(stack.cli("token", echo_guest.name), "cannot start another process")
        assert stack.ask("guests")["code"] == "unavailable"
    assert stack.token(echo_guest.uuid)


def test_a_relay_has_no_descriptor_left(stack, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        echo(terminal, b"before")
        (session,) = stack.wait_sessions("connected")
        pid = session["relay_pid"]
        before = settled(pid)
        with descriptors(pid, left=0), stack.open(echo_guest.uuid, mode="ro") as refused:
            assert_refused(refused, 4503, "Too many files are open", "try again")
            echo(terminal, b"first")
        stack.wait_sessions("connected")
        with contextlib.ExitStack() as limited:
            limited.enter_context(descriptors(pid, left=1))  # for the way back, not for the client
            with stack.open(echo_guest.uuid, mode="ro") as watcher:
                assert_rests(stack.services["supervisor"].logged)
                echo(terminal, b"second")
                limited.close()
                watcher.read_until(b"second")
        stack.wait_sessions("connected")
        assert rig.eventually(lambda: fds(pid) == before)
    stack.wait_free()


def test_a_relay_that_calls_libvirt_in_vain_holds_no_more_for_it(stack, libvirtd, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        echo(terminal, b"before")
        (session,) = stack.wait_sessions("connected")
        before = len(settled(session["relay_pid"]))
        libvirtd.stop_daemon()
        try:
            stack.wait_sessions("reconnecting")
            end = time.monotonic() + 1.5  # four calls
            rig.eventually(lambda: time.monotonic() > end)
            assert len(fds(session["relay_pid"])) <= before + 4  # a call may be under way
        finally:
            libvirtd.start()
        terminal.read_until(b"connection to libvirt is back.]\x1b[22m\r\n", seconds=30)
        echo(terminal, b"after")
        assert len(settled(session["relay_pid"])) <= before
    stack.wait_free()


def test_the_gateway_has_no_descriptor_left(stack, make_guest):
    mine, other = make_guest(), make_guest(state="off")
    token = stack.token(other.uuid, ttl=TTL)
    pid = stack.pid("gateway")
    with stack.open(mine.uuid) as terminal, ThreadPoolExecutor(1) as threads:
        echo(terminal, b"before")
        before = settled(pid)
        with descriptors(pid, left=0):
            coming = threads.submit(stack.connect, token)
            assert_rests(stack.services["gateway"].logged)
            echo(terminal, b"meanwhile")
        with coming.result() as served:
            served.read_until(b"waiting for its start.]")
        assert rig.eventually(lambda: fds(pid) == before)
    stack.wait_free()


def test_the_api_has_no_descriptor_left(make_stack, echo_guest):
    stack = make_stack("supervisor", "api")
    assert stack.rest("GET", "/v1/sessions")[0] == 200
    pid = stack.pid("api")
    with descriptors(pid, left=1):  # for the connection of who asks
        assert_problem(stack.rest("GET", "/v1/sessions"), 503, "unavailable")
    with ThreadPoolExecutor(1) as threads:
        with descriptors(pid, left=0):
            coming = threads.submit(stack.rest, "GET", "/v1/sessions")
            log = stack.services["api"].logged
            assert rig.eventually(lambda: "out of system resource" in log())
        assert coming.result()[0] == 200


# ---- processes and directories


@pytest.fixture
def plain(libvirtd, run_dir, tmp_path):
    with contextlib.closing(Plain(libvirtd, run_dir, str(tmp_path))) as stack:
        yield stack


def test_no_process_can_be_started(plain, libvirtd, make_guest):
    stack = plain.start("supervisor", "gateway", "api")
    mine, other = make_guest(), make_guest(state="off")
    path = f"/v1/guests/{other.name}"
    token = stack.token(other.uuid, ttl=TTL)
    with stack.open(mine.uuid) as terminal:
        echo(terminal, b"before")
        (session,) = stack.wait_sessions("connected")
        before = {name: settled(stack.pid(name)) for name in ("supervisor", "gateway")}
        with processes(stack.pid("supervisor")):
            with stack.connect(token) as refused:
                assert_refused(refused, 4503, "cannot start another process", "try again")
            assert [one["guest"] for one in stack.sessions()] == [mine.name]
            echo(terminal, b"supervisor")
        with processes(stack.pid("gateway")):
            for _ in range(3):
                with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
                    stack.connect(token)
                assert refused.value.response.status_code == 503
                assert b"try again" in refused.value.response.body
            echo(terminal, b"gateway")
        with processes(stack.pid("api")):
            assert_problem(stack.rest("GET", path), 503, "unavailable")
        with processes(session["relay_pid"]):
            libvirtd.kill()
            libvirtd.start()
            log = stack.services["supervisor"].logged
            assert rig.eventually(lambda: "cannot call libvirt" in log(), seconds=10)
            stack.wait_sessions("reconnecting")
        terminal.read_until(b"connection to libvirt is back.]\x1b[22m\r\n", seconds=30)
        echo(terminal, b"relay")
        assert_served(stack, token)
        assert stack.rest("GET", path)[0] == 200
        stack.wait_sessions("connected")
        for name, open_then in before.items():
            assert settled(stack.pid(name)) == open_then
        with processes(session["relay_pid"]):
            terminal.close()
            stack.wait_free()
    assert "Traceback" not in stack.logs()
    assert "status 70" not in stack.logs()


def test_run_says_that_it_cannot_start_anything(plain):
    command = as_plain(["prlimit", "--nproc=0:0", *Stack.program.fget(plain), "run"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "cannot start the supervisor: Resource temporarily unavailable" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_the_directory_of_the_consoles_is_not_writable(plain, make_guest):
    stack = plain.start("supervisor", "gateway")
    mine, other = make_guest(), make_guest(state="off")
    token = stack.token(other.uuid, ttl=TTL)
    with stack.open(mine.uuid) as terminal:
        echo(terminal, b"before")
        with read_only(stack.consoles):
            with stack.connect(token) as refused:
                assert_refused(refused, 4503, "its operator finds why in the log")
            assert "Permission denied" in stack.services["supervisor"].logged()
            echo(terminal, b"meanwhile")
            terminal.close()  # its socket cannot be removed
            stack.wait_sessions()
        with read_only(os.path.join(stack.control, "relays")):
            with stack.connect(token) as refused:
                assert_refused(refused, 4503, "its operator finds why in the log")
            stack.wait_sessions()
    assert_served(stack, token)
    with stack.open(mine.uuid) as terminal:  # whose socket is still there, without a relay
        echo(terminal, b"after")
    stack.wait_free()


# ---- disks and logs


@pytest.fixture
def small_disk(run_dir):
    """The run directory is a file system of 64 KiB and 40 inodes."""
    if os.geteuid() != 0:
        rig.missing("root, to mount a small file system")
    options = "size=64k,nr_inodes=40,mode=0711"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", run_dir], check=True)
    try:
        yield run_dir
    finally:
        subprocess.run(["umount", run_dir], check=True)


def test_the_disk_is_full(small_disk, make_stack, tmp_path, make_guest):
    logs = os.path.join(small_disk, "logs")
    os.mkdir(logs)
    for name in ("supervisor", "gateway", "api"):
        (tmp_path / f"{name}.log").symlink_to(os.path.join(logs, f"{name}.log"))
    keys = {"keys": os.path.join(small_disk, "keys", "api-keys")}
    stack = make_stack("supervisor", "gateway", "api", api=keys)
    mine, other = make_guest(), make_guest(state="off")
    token = stack.token(other.uuid, ttl=TTL)
    assert stack.rest("GET", "/v1/sessions")[0] == 200
    with stack.open(mine.uuid) as terminal:
        echo(terminal, b"before")
        stack.wait_sessions("connected")
        sockets = sorted(stack.relay_sockets())
        blocks = fill_blocks(small_disk)
        for left in range(2):  # each of a relay's two sockets fails once
            files = fill_inodes(small_disk, left)
            with stack.connect(token) as refused:
                assert_refused(refused, 4503, "its operator finds why in the log")
            assert [one["guest"] for one in stack.sessions()] == [mine.name]
            assert rig.eventually(lambda: sorted(stack.relay_sockets()) == sockets)
            if left == 0:
                assert_command_fails(stack.cli("key", "add", "new"), "No space left on device")
                assert stack.cli("token", other.name).returncode == 0
                for _ in range(50):  # there was still room in the log's last block
                    stack.token(other.uuid)
            echo(terminal, b"meanwhile")
            for path in files:
                os.unlink(path)
        status, answer = stack.rest("GET", "/v1/sessions")
        assert (status, len(answer["sessions"])) == (200, 1)
        os.unlink(blocks)
        assert_served(stack, token)
        assert stack.cli("key", "add", "new").returncode == 0
        assert stack.rest("GET", "/v1/sessions")[0] == 200
        assert "lines before this one could not be written" in stack.services["supervisor"].logged()
    stack.wait_free()


def test_nothing_can_start_on_a_full_disk(small_disk, make_stack):
    stack = make_stack()
    fill_inodes(small_disk, left=0)
    assert_command_fails(stack.cli("supervisor"), "No space left on device", stack.consoles)
    assert_command_fails(stack.cli("api"), "No space left on device", "api")
    for path in glob.glob(os.path.join(small_disk, "fill-*")):
        os.unlink(path)
    fill_inodes(small_disk, left=4)  # three directories and one of two sockets
    assert_command_fails(stack.cli("supervisor"), "No space left on device", "admin.sock")
    assert [path for path in rig.files_below(small_disk) if path.endswith(".sock")] == []


def test_output_on_a_full_disk_is_one_clear_line(shared, shared_guest):
    for arguments in (("guests",), ("token", shared_guest.name), ("sessions", "--json")):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*shared.program, *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=30,
                check=False,
            )
        done.stdout = ""
        assert_command_fails(done, "No space left on device")


def test_services_whose_log_nobody_reads_go_on(make_stack, tmp_path, echo_guest):
    with (
        unread_log(tmp_path / "supervisor.log") as log,
        unread_log(tmp_path / "gateway.log"),
    ):
        stack = make_stack("supervisor", "gateway")
        with stack.open(echo_guest.uuid) as terminal:
            for _ in range(1000):  # more than a pipe holds
                stack.token(echo_guest.uuid)
            echo(terminal, b"meanwhile")
            while len(os.read(log, 1 << 20)) == 1 << 20:
                pass
            stack.token(echo_guest.uuid)
            assert b"lines before this one could not be written\n" in os.read(log, 1 << 20)
        stack.wait_free()


# ---- the clock


def test_the_clock_jumps(make_stack, tmp_path, monkeypatch, make_guest):
    mine, other = make_guest(), make_guest(state="off")
    hour = 3600
    with false_clock(monkeypatch, tmp_path / "clock") as jump:
        stack = make_stack("supervisor", "gateway", session={"idle_timeout": 3})
    with stack.open(mine.uuid) as terminal:
        echo(terminal, b"before")
        long, short = stack.token(other.uuid, ttl=TTL), stack.issue(other.uuid, ttl=1)
        expired = time.monotonic() + 1.1
        jump(+hour)
        later = stack.issue(other.uuid, ttl=TTL)
        assert later["expires_at"] - time.time() > hour, "the clock did not jump"
        assert_served(stack, long)
        echo(terminal, b"nobody was idle")
        typed = time.monotonic()
        jump(-hour)
        assert stack.issue(other.uuid, ttl=TTL)["expires_at"] - time.time() < -hour / 2
        (session,) = stack.wait_sessions("connected")
        assert 0 <= session["idle"] < 3
        assert rig.eventually(lambda: time.monotonic() > expired)
        assert stack.redeem(short["token"])["code"] == "bad_token"
        assert terminal.ended()[0] == 4408
        assert 2.5 < time.monotonic() - typed < 6
    stack.wait_free()
