"""SIGHUP: the configuration is read again, and what is open goes on."""

import contextlib
import os
import signal
import socket

import pytest
from websockets.exceptions import InvalidStatus

from tests import rig
from tests.clients import Pty
from tests.stack import http

ORIGIN = "https://manager.example"


@pytest.fixture
def three(make_stack):
    return make_stack(
        "supervisor",
        "gateway",
        "api",
        limits={"sessions": 2},
        gateway={"allowed_origins": ["https://other.example"]},
        api={"rate": 1000},
    )


def edit(stack, old, new):
    with open(stack.config, encoding="utf-8") as file:
        text = file.read()
    assert text.count(old) == 1
    with open(stack.config, "w", encoding="utf-8") as file:
        file.write(text.replace(old, new))


def reload(stack, name, said):
    before = stack.services[name].logged()
    os.kill(stack.pid(name), signal.SIGHUP)
    assert rig.eventually(lambda: said in stack.services[name].logged()[len(before) :], 5)


def test_each_service_takes_what_it_can_and_sessions_go_on(three, make_guest):
    first, second = make_guest("echo"), make_guest(state="off")
    with three.open(first.uuid) as client:
        edit(three, "sessions = 2", "sessions = 1")
        edit(three, "other.example", "manager.example")
        edit(three, "rate = 1000", "rate = 1")
        with three.open(second.uuid):
            three.wait_sessions("connected", "waiting")  # nobody has read it yet
        three.wait_sessions("connected")

        reload(three, "supervisor", "limits.sessions in force")
        with three.open(second.uuid) as refused:
            assert refused.ended() == (4429, "All 1 sessions of this host are in use.")

        with pytest.raises(InvalidStatus):
            three.connect(three.token(first.uuid, mode="ro"), origin=ORIGIN)
        reload(three, "gateway", "gateway.allowed_origins in force")
        with three.connect(three.token(first.uuid, mode="ro"), origin=ORIGIN) as refused:
            assert refused.ended()[0] == 4429, "its Origin is no longer what is wrong"

        assert {three.rest("GET", "/v1/sessions")[0] for _ in range(5)} == {200}
        reload(three, "api", "again: api.rate, ")
        assert {three.rest("GET", "/v1/sessions")[0] for _ in range(5)} == {200, 429}

        client.send(b"still here")
        client.read_until(b"still here")
    three.wait_free()


def test_limits_headers_and_the_log_are_as_the_file_says_from_then_on(three, make_guest):
    guest = make_guest(state="off").uuid
    edit(three, 'level = "debug"', 'format = "json"')
    edit(three, "sessions = 2", "tokens = 1")
    edit(three, '["https://other.example"]', f'["{ORIGIN}"]\nmax_unauthenticated = 1')
    for name in ("supervisor", "gateway", "api"):
        reload(three, name, '"message": "the configuration was read again: ')
        assert " debug " not in three.services[name].logged().partition('"message"')[2]

    assert three.ask("issue", guest=guest)["ok"]
    assert three.ask("issue", guest=guest)["code"] == "limit_reached"

    assert ORIGIN in http(three.gateway_port, "GET", "/")[1]["content-security-policy"]
    where = "127.0.0.1", three.gateway_port
    with socket.create_connection(where, 5) as first, socket.create_connection(where, 5):
        assert first.recv(1) == b"", "it has made room, before handshake_timeout ends it"


def test_a_file_that_is_wrong_changes_nothing_and_is_told(three, make_guest):
    guests = [make_guest(state="off").uuid for _ in range(3)]
    edit(three, "sessions = 2", "sessions = 5\nsesions = 5")
    for name in ("supervisor", "gateway", "api"):
        reload(three, name, "was not read again, the former one stays")
        assert "did you mean sessions?" in three.services[name].logged()
    os.unlink(three.config)
    os.mkfifo(three.config)
    for name in ("supervisor", "gateway", "api"):
        reload(three, name, "is not a regular file, but a pipe")
    with three.open(guests[0]), three.open(guests[1]):
        three.wait_sessions("waiting", "waiting")
        with three.open(guests[2]) as refused:
            assert refused.ended()[0] == 4429


def test_what_needs_a_restart_is_told_and_waits_for_it(three, echo_guest):
    edit(three, f"127.0.0.1:{three.gateway_port}", "127.0.0.1:1")
    reload(three, "gateway", "gateway.listen at a restart")
    reload(three, "api", "gateway.listen at a restart")
    status, token = three.rest("POST", f"/v1/guests/{echo_guest.uuid}/tokens", {})
    assert status == 201
    assert f":{three.gateway_port}/" in token["websocket_url"]
    with three.connect(token["token"]) as client:
        client.send(b"here")
        client.read_until(b"here")


def test_a_service_ends_with_the_terminal_that_it_was_started_in(make_stack):
    stack = make_stack()
    with contextlib.ExitStack() as opened:
        terminals = [
            opened.enter_context(Pty([*stack.program, name]))
            for name in ("supervisor", "gateway", "api")
        ]
        for terminal in terminals:
            terminal.read_until(b"ready")
            terminal.hang_up()
        assert [terminal.wait() for terminal in terminals] == [0, 0, 0]
        assert not os.path.exists(stack.admin_path)


def test_a_service_under_nohup_outlives_the_terminal(make_stack):
    stack = make_stack()
    nohup = ["sh", "-c", 'trap "" HUP; exec "$@"', "nohup", *stack.program, "supervisor"]
    with Pty(nohup) as terminal:
        terminal.read_until(b"ready")
        terminal.hang_up()
        assert stack.ask("health")["ok"]
        terminal.process.terminate()
        assert terminal.wait() == 0
