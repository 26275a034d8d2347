"""serial_console.client as a host manager uses it: real services, a real guest."""

import pytest

from serial_console.client import ApiError, Client
from tests import rig
from tests.clients import Terminal, echo


@pytest.fixture
def client(shared):
    return Client(f"http://127.0.0.1:{shared.api_port}", shared.key)


def test_a_console_is_there_for_the_block_and_gone_behind_it(shared, shared_guest, client):
    with client.console(shared_guest.name, user="anna") as url:
        terminal = Terminal(url)
        assert echo(terminal, b"hello") == b"hello"
        (session,) = client.sessions()
        assert (session.guest, session.user, session.mode) == (shared_guest.name, "anna", "rw")
        assert session.client.startswith("127.0.0.1:")
        assert session.bytes_in == 5
        assert client.guest(shared_guest.name).sessions == (session.id,)
        assert client.session(session.id).uuid == shared_guest.uuid
    with terminal:
        assert terminal.ended()[0] == 4411
    shared.wait_free()
    assert client.sessions() == []
    with pytest.raises(ApiError) as caught:
        client.session(session.id)
    assert caught.value.code == "no_such_session"


def test_a_token_that_was_not_used_is_good_for_nothing_behind_the_block(
    shared, shared_guest, client
):
    with client.console(shared_guest.name) as url:
        pass
    with Terminal(url) as terminal:
        assert terminal.ended()[0] == 4401


def test_a_session_that_the_person_ended_is_no_error(shared, shared_guest, client):
    with client.console(shared_guest.name) as url, Terminal(url) as terminal:
        echo(terminal, b"x")
        terminal.send(b"\x11")
        assert terminal.ended()[0] == 1000
        shared.wait_free()


def test_a_read_only_key_ends_what_it_began_and_nothing_else(shared, shared_guest, client):
    added = shared.cli("key", "add", "client-watcher", "--mode", "ro")
    watcher = Client(f"http://127.0.0.1:{shared.api_port}", added.stdout)
    with Terminal(client.issue(shared_guest.name).websocket_url) as other:
        echo(other, b"x")
        with watcher.console(shared_guest.name) as url:
            terminal = Terminal(url)
            assert rig.eventually(lambda: len(client.sessions()) == 2, 5)
        with terminal:
            assert terminal.ended()[0] == 4411
        assert rig.eventually(lambda: len(client.sessions()) == 1, 5)
        (session,) = client.sessions()
        for token in (session.token_id, client.issue(shared_guest.name).id):
            with pytest.raises(ApiError, match="only what it has issued") as caught:
                watcher.revoke(token)
            assert caught.value.code == "forbidden"
        assert echo(other, b"y") == b"y"
    shared.wait_free()


def test_a_session_is_closed_and_its_client_told(shared, shared_guest, client):
    with Terminal(client.issue(shared_guest.name).websocket_url) as terminal:
        echo(terminal, b"x")
        (session,) = client.sessions()
        client.close(session.id)
        assert terminal.ended()[0] == 4411
    assert rig.eventually(lambda: client.sessions() == [], 5)


def test_what_there_is(shared, shared_guest, client):
    guest = next(one for one in client.guests() if one.uuid == shared_guest.uuid)
    assert (guest.name, guest.state) == (shared_guest.name, "running")
    assert (guest.consoles[0].alias, guest.consoles[0].supported) == ("serial0", True)
    local = Client(f"{shared.run_dir}/api/api.sock")  # we are a permitted user
    assert local.guest(shared_guest.uuid) == guest
    assert local.health().libvirt == "ok"


def test_refusals_of_the_real_services(shared, shared_guest, client):
    with pytest.raises(ApiError) as caught:
        client.issue(shared_guest.name, console="serial9")
    assert caught.value.code == "no_such_console"
    with pytest.raises(ApiError) as caught:
        client.issue("a/guest that is\nnot there")
    assert caught.value.code == "no_such_guest"
