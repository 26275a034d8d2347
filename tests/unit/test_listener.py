"""Binding a unix socket: a stale file is replaced, anybody else's is left alone."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from serial_console.errors import SetupError
from serial_console.listener import Listener, make_directory


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
