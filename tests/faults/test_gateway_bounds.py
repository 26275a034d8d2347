"""What a gateway's process holds of a session stays bounded, whoever floods it from which side."""

from tests import rig
from tests.silent import Silent
from tests.stack import anonymous
from tests.unit.test_frames import masked
from websockify_tokens import frames

MIB = 1 << 20
FLOOD = 10 * MIB
LOCAL = "127.0.0.1"


def gateway_memory(session):
    """Bytes that a session's gateway process has allocated."""
    return anonymous(session["gateway_pid"])


def test_input_that_a_guest_does_not_read_is_not_kept(shared, echo_guest):
    token = shared.token(echo_guest.uuid)
    with Silent(LOCAL, shared.gateway_port, token) as client:
        shared.wait_sessions("connected")
        echo_guest.suspend()
        (session,) = shared.wait_sessions("paused")
        before = gateway_memory(session)
        sent = client.flood(masked(frames.BINARY, b"x" * 65536), FLOOD)
        grown = gateway_memory(session) - before
        print(f"{sent} bytes sent, memory {grown:+} bytes")
        assert sent < FLOOD
        assert grown < 2 * MIB
    shared.wait_free()


def test_output_and_pongs_that_a_client_does_not_read_are_not_kept(shared, echo_guest):
    with shared.open(echo_guest.uuid) as typist:
        shared.wait_sessions("connected")
        issued = shared.issue(echo_guest.uuid, mode="ro")

        def watching():
            return next(one for one in shared.sessions() if one["token_id"] == issued["id"])

        def skips(count):
            return lambda: typist.read_exactly(65536) and watching()["skipped"] > count

        with Silent(LOCAL, shared.gateway_port, issued["token"]) as client:
            shared.wait_sessions("connected", "connected")
            before = gateway_memory(watching())
            typist.send(b"\6")
            assert rig.eventually(skips(0), 60)
            sent = client.flood(masked(frames.PING, b"p" * 125), FLOOD)
            assert rig.eventually(skips(watching()["skipped"] + MIB // 2), 60)
            grown = gateway_memory(watching()) - before
            print(f"{sent} bytes sent, memory {grown:+} bytes")
            assert sent >= FLOOD
            assert grown < 2 * MIB
        typist.send(b"x")
        typist.read_until(b"\4")
    shared.wait_free()
