"""The plugin in front of a FAKE supervisor that answers what a real one never would."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import Any

import pytest
from websockify.websockifyserver import WebSockifyServer

from serial_console.listener import Listener
from websockify_tokens import ConsoleTokens, client

from .. import fakes

NO_PROPER_ANSWER = "no proper answer"
BROKE_OFF = "broke off"


def line(**fields: Any) -> bytes:
    return json.dumps({"v": 1, **fields}).encode() + b"\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", BROKE_OFF),
        (b"half a line", BROKE_OFF),
        (b"x" * 10000, BROKE_OFF),
        (b"\n", NO_PROPER_ANSWER),
        (b"[]\n", NO_PROPER_ANSWER),
        (b"\xff\n", NO_PROPER_ANSWER),
        (b"[" * 3000 + b"\n", NO_PROPER_ANSWER),  # RecursionError
        (b'{"ok": true, "path": ' + b"[" * 3000 + b"}\n", NO_PROPER_ANSWER),
        (line(ok=True), NO_PROPER_ANSWER),
        (line(ok=True, path=None), NO_PROPER_ANSWER),  # became "None"
        (line(ok=True, path=""), NO_PROPER_ANSWER),
        (line(ok=True, path=["/x"]), NO_PROPER_ANSWER),
        (line(ok=True, path="/x\0y"), NO_PROPER_ANSWER),
        (line(ok=True, path="/\ud800"), NO_PROPER_ANSWER),
        (line(ok="no", path="/x"), NO_PROPER_ANSWER),
        (line(ok=False, close=4409, message=7), NO_PROPER_ANSWER),
        (line(ok=False, close=70000, message="no"), NO_PROPER_ANSWER),  # fits no close frame
        (line(ok=False, close=float("inf"), message="no"), NO_PROPER_ANSWER),  # OverflowError
        (line(op="end", code=-1, reason="over"), NO_PROPER_ANSWER),
        (line(op="end", code=10**300, reason="over"), NO_PROPER_ANSWER),
    ],
    ids=lambda value: repr(value[:60]) if isinstance(value, bytes) else "",
)
def test_an_answer_that_is_none_is_a_refusal(run_dir: str, answer: bytes, words: str) -> None:
    with fakes.FakeSupervisor(run_dir) as supervisor:
        supervisor.raw_redeem = answer
        source = f"{run_dir}/redeem.sock"
        with pytest.raises(client.RefusedError, match=words) as raised:
            client.Redemption(source, "token").answer()
        assert raised.value.close == 4503
        with pytest.raises(WebSockifyServer.EClose, match=words):
            ConsoleTokens(source).lookup("token")


def test_a_reason_is_shown_without_what_a_terminal_would_obey(run_dir: str) -> None:
    with fakes.FakeSupervisor(run_dir) as supervisor:
        supervisor.raw_redeem = line(ok=False, close=4409, message="\x1b[2J\ud800no\n" + "x" * 3000)
        with pytest.raises(client.RefusedError) as raised:
            client.Redemption(f"{run_dir}/redeem.sock", "token").answer()
    assert raised.value.close == 4409
    assert raised.value.reason.isprintable()
    assert len(raised.value.reason) == client.REASON_MAX


@pytest.mark.parametrize(
    "token", ["", "\0", "\ud800\udfff", "\n", '"}', "x" * (1 << 20)], ids=lambda text: text[:9]
)
def test_any_token_is_asked_about_or_refused(run_dir: str, token: str) -> None:
    with fakes.FakeSupervisor(run_dir), pytest.raises(client.RefusedError):
        client.Redemption(f"{run_dir}/redeem.sock", token).answer()


def test_a_supervisor_that_dribbles_is_not_waited_for(
    run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes in time; all of them would take minutes."""
    monkeypatch.setattr(client, "TIMEOUT", 0.5)
    over = threading.Event()

    def dribble(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            while not over.wait(0.05):
                connection.sendall(b" ")

    with contextlib.closing(Listener(f"{run_dir}/redeem.sock")) as listener:
        listener.sock.setblocking(True)
        thread = threading.Thread(target=dribble, args=(listener.sock,))
        thread.start()
        began = time.monotonic()
        try:
            with pytest.raises(client.RefusedError, match="cannot be reached"):
                client.Redemption(listener.path, "token").answer()
            assert time.monotonic() - began < 2
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize(
    "event",
    [
        b"[" * 3000,
        b'{"v": 1}',
        line(op="end", code=70000, reason="over")[:-1],
        line(op="end", code=4410)[:-1],
        line(op="end", code="4410", reason="over")[:-1],
    ],
    ids=lambda event: repr(event[:40]),
)
def test_an_event_that_is_none_is_passed_over(event: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs, contextlib.closing(client.WayBack(ours, b"")) as back:
        theirs.sendall(event + b"\n" + line(op="end", code=4410, reason="bob has it"))
        assert [(one["code"], one["reason"]) for one in back.events()] == [(4410, "bob has it")]
