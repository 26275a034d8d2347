"""Binding a unix socket: a stale file is replaced, anybody else's is left alone."""

from __future__ import annotations

import contextlib
import os
import socket
import stat

import pytest

from serial_console.errors import SetupError
from serial_console.listener import Listener, make_directory
from tests import rig


@pytest.fixture
def path(run_dir: str) -> str:
    return os.path.join(run_dir, "s.sock")


def test_the_mode_is_as_asked_and_the_file_goes_with_the_listener(path: str) -> None:
    listener = Listener(path, mode=0o600)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    listener.close()
    assert not os.path.exists(path)


def test_a_stale_socket_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    Listener(path).close()
    assert not os.path.exists(path)


def test_a_live_socket_is_left_alone(path: str) -> None:
    first = Listener(path)
    try:
        with pytest.raises(SetupError, match="in use by a running program"):
            Listener(path)
        assert os.path.exists(path)
    finally:
        first.close()


def test_another_file_is_left_alone(path: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write("mine")
    with pytest.raises(SetupError, match="is not a socket"):
        Listener(path)
    with open(path, encoding="utf-8") as file:
        assert file.read() == "mine"
    os.unlink(path)


def test_a_successor_s_socket_is_not_removed(path: str) -> None:
    first = Listener(path)
    os.unlink(path)
    second = Listener(path)
    first.close()
    assert os.path.exists(path)
    second.close()


def test_who_connects_is_known(path: str) -> None:
    listener = Listener(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        accepted = listener.accept()
        assert accepted is not None
        sock, peer = accepted
        sock.close()
        assert (peer.pid, peer.uid) == (os.getpid(), os.geteuid())
    assert listener.accept() is None
    listener.close()


def test_an_impossible_directory_says_what_to_do(run_dir: str) -> None:
    file = os.path.join(run_dir, "file")
    open(file, "w", encoding="utf-8").close()
    with pytest.raises(SetupError, match=r"cannot make the directory .*; make it by hand"):
        make_directory(os.path.join(file, "sub"), 0o700)
    os.unlink(file)


@pytest.mark.parametrize(
    ("mode", "group", "why"),
    [(0o777, 0, "everybody"), (0o1777, 0, "everybody"), (0o770, 1, "group 1")],
)
def test_a_directory_that_others_can_write_is_refused(
    run_dir: str, mode: int, group: int, why: str
) -> None:
    if os.geteuid() != 0 and group:
        rig.missing("root, to give a directory to another group")
    path = os.path.join(run_dir, "open")
    os.mkdir(path)
    if group:
        os.chown(path, -1, group)
    os.chmod(path, mode)
    with pytest.raises(SetupError, match=f"can be written by {why}, so that others could replace"):
        make_directory(path, 0o711)
    os.chmod(path, 0o750)
    make_directory(path, 0o711)


def test_a_directory_of_another_user_is_refused(run_dir: str) -> None:
    if os.geteuid() != 0:
        rig.missing("root, to give a directory to another user")
    path = os.path.join(run_dir, "theirs")
    os.mkdir(path)
    os.chown(path, rig.NOBODY, -1)
    with pytest.raises(SetupError, match=f"belongs to uid {rig.NOBODY}, so that others"):
        make_directory(path, 0o711)


@pytest.mark.parametrize("target", ["nothing", "file", "socket"])
def test_a_link_in_the_socket_s_place_is_not_followed(path: str, run_dir: str, target: str) -> None:
    aim = os.path.join(run_dir, "aim")
    with contextlib.ExitStack() as stack:
        if target == "file":
            open(aim, "w", encoding="utf-8").close()
        elif target == "socket":  # nobody answers: a stale one, but not in our place
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(aim)
        os.symlink(aim, path)
        with pytest.raises(SetupError, match="exists and is not a socket; move it away"):
            Listener(path)
        assert os.path.islink(path)
        assert os.path.lexists(aim) == (target != "nothing")
        os.unlink(path)
        if target != "nothing":
            os.unlink(aim)


def test_a_socket_that_was_bound_for_us_keeps_its_file(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(path)
        given.listen()
        listener = Listener(path, inherited=given)
        assert listener.gid == os.stat(path).st_gid
        assert listener.accept() is None
        listener.close()
    assert os.path.exists(path)
    os.unlink(path)
    with (
        socket.socket(socket.AF_UNIX) as given,
        pytest.raises(SetupError, match=r"systemd's socket .* is not there: .*; restart its"),
    ):
        Listener(path, inherited=given)
