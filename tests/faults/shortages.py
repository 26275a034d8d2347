"""Ways to make the host run out of something, and what is to be seen of it."""

import contextlib
import glob
import os
import resource
import socket
import subprocess
import time

import psutil

from tests import rig
from tests.stack import Stack, alive

TTL = 120
"""Seconds that tokens live here: longer than any test."""


def echo(terminal, data):
    terminal.send(data)
    assert terminal.read_exactly(len(data), seconds=10) == data


def assert_served(stack, token):
    """A guest that is off: a console is opened all the same, and no QEMU has to look at its pty."""
    with stack.connect(token) as terminal:
        terminal.read_until(b"waiting for its start.]")


def fds(pid):
    return {int(name) for name in os.listdir(f"/proc/{pid}/fd")}


def cpu(pid):
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def assert_refused(terminal, code, *words):
    """It was closed with this code and a sentence fit to show, which tells nothing of the host."""
    got, reason = terminal.ended()
    assert got == code, reason
    for word in words:
        assert word in reason
    assert reason.endswith((".", "\u2026"))
    assert "/" not in reason


def assert_rests(log):
    """It accepts in vain, and tries again five times a second, not as often as a CPU can."""

    def tries():
        return log().count("cannot accept a connection")

    assert rig.eventually(lambda: tries() > 0)
    goal, began = tries() + 3, time.monotonic()
    assert rig.eventually(lambda: tries() >= goal)
    assert time.monotonic() - began > 0.3


def assert_command_fails(done, *words):
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = (one for one in done.stderr.splitlines() if " warning " not in one)
    assert line.startswith("serial-console: ")
    for word in words:
        assert word in line


def assert_problem(answer, status, code):
    got, problem = answer
    assert (got, problem["code"]) == (status, code), answer
    assert "/" not in problem["detail"]


# ---- file descriptors


def settled(pid):
    """Return a process's descriptors once those of what was asked before are closed."""
    seen = [fds(pid), time.monotonic()]

    def same():
        if (now := fds(pid)) != seen[0]:
            seen[:] = now, time.monotonic()
        return time.monotonic() - seen[1] > 0.1

    assert rig.eventually(same)
    return seen[0]


@contextlib.contextmanager
def descriptors(pid, left):
    """Let a running process open only so many more."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = settled(pid)
    free = [number for number in range(max(used) + left + 2) if number not in used]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[left], hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def crowd(stack, left, room=32):
    """Idle connections to the supervisor, until it can open only so many descriptors more."""
    pid = stack.pid("supervisor")
    with descriptors(pid, room), contextlib.ExitStack() as sockets:
        goal = len(fds(pid)) + room - left
        for _ in range(room - left):
            one = sockets.enter_context(socket.socket(socket.AF_UNIX))
            one.connect(stack.redeem_path)
        assert rig.eventually(lambda: len(fds(pid)) == goal)
        yield


# ---- processes and directories


class Plain(Stack):
    """Services of an ordinary user, whom limits of processes and modes of directories bind."""

    def __init__(self, libvirtd, run_dir, directory, **sections):
        super().__init__(libvirtd.uri, run_dir, directory, **sections)
        if os.geteuid() == 0:
            os.mkdir(os.path.join(directory, "keys"))
            for path in (run_dir, os.path.join(directory, "keys")):
                os.chown(path, rig.NOBODY, rig.NOBODY)

    @property
    def program(self):
        return as_plain(super().program)


def as_plain(command):
    return rig.as_another(command) if os.geteuid() == 0 else command


@contextlib.contextmanager
def processes(pid, most=1):
    """Let a running process start none any more; by that user, as another one may not."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)  # ours, which it has inherited

    def limit(count):
        text = "unlimited" if count == resource.RLIM_INFINITY else count
        command = as_plain(["prlimit", "--pid", str(pid), f"--nproc={text}:"])
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    assert limit(most)
    try:
        yield
    finally:
        assert limit(soft) or rig.eventually(lambda: not alive(pid))


@contextlib.contextmanager
def read_only(directory):
    """Nothing can be made or removed in a directory."""
    mode = os.stat(directory).st_mode & 0o7777
    os.chmod(directory, 0o555)
    try:
        yield
    finally:
        os.chmod(directory, mode)


# ---- disks


def fill_inodes(directory, left):
    """Make files until only so many more can be made; return their paths."""
    made = []
    with contextlib.suppress(OSError):
        while True:
            made.append(os.path.join(directory, f"fill-{len(made)}"))
            os.close(os.open(made[-1], os.O_CREAT | os.O_EXCL))
    del made[-1]
    for path in made[len(made) - left :]:
        os.unlink(path)
    return made[: len(made) - left]


def fill_blocks(directory):
    """Write a file until the disk is full; return its path."""
    path = os.path.join(directory, "fill")
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    return path


@contextlib.contextmanager
def unread_log(path):
    """A service's log is a pipe that nobody reads; yields the descriptor that could."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        yield reader
    finally:
        os.unlink(path)  # what a test reads afterwards must end
        with open(path, "w"):
            os.close(reader)


# ---- the clock


@contextlib.contextmanager
def false_clock(monkeypatch, path):
    """Programs started within see another time of day, not another monotonic clock; yields what
    makes it jump, by seconds from the true time."""
    libraries = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    if not libraries:
        rig.missing("libfaketime; install the package faketime")

    def jump(seconds):
        draft = f"{path}.new"
        with open(draft, "w") as file:
            file.write(f"{seconds:+d}\n")
        os.replace(draft, path)

    jump(0)
    with monkeypatch.context() as environment:
        environment.setenv("LD_PRELOAD", libraries[0])
        environment.setenv("FAKETIME_TIMESTAMP_FILE", str(path))
        environment.setenv("FAKETIME_NO_CACHE", "1")
        environment.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        yield jump
