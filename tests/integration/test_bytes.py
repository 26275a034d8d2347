"""What goes in comes out, byte for byte: our gateway and an unmodified websockify."""

import hashlib
import random

import pytest

from tests import rig

BYTES = bytes(set(range(256)) - set(rig.ECHO_COMMANDS))
TYPED = bytes(random.Random(1).choices(BYTES, k=65536))


EACH = pytest.mark.parametrize("via", ["gateway", pytest.param("stock", marks=pytest.mark.slow)])


@EACH
def test_a_mebibyte_of_noise_arrives_as_it_was_sent(either, via, shared_guest):
    with either.open(shared_guest.uuid, via) as terminal:
        terminal.send(b"\5")
        data = terminal.read_exactly(rig.NOISE_BYTES)
        assert hashlib.sha256(data).digest() == hashlib.sha256(rig.noise()).digest()
        terminal.send(b"x")
        assert terminal.read_exactly(1) == b"x"
    either.wait_free()


@EACH
def test_64_kib_typed_in_one_message_come_back_whole(either, via, shared_guest):
    # Without an escape key: a byte that the network happens to deliver alone must not be one.
    # Without notices: a guest that has no processor for a while is said to take no input.
    with either.open(shared_guest.uuid, via, escape="", notices=False) as terminal:
        terminal.send(TYPED)
        assert terminal.read_exactly(len(TYPED)) == TYPED
        assert terminal.rest() == b""
    either.wait_free()


def test_single_bytes_keep_their_order(either, via, shared_guest):
    with either.open(shared_guest.uuid, via, escape="", notices=False) as terminal:
        for byte in TYPED[:4096]:
            terminal.send(bytes([byte]))
        assert terminal.read_exactly(4096) == TYPED[:4096]
    either.wait_free()


def test_every_byte_alone(either, via, shared_guest):
    with either.open(shared_guest.uuid, via) as terminal:
        for byte in sorted(set(BYTES) - {0x11}):  # Ctrl-Q alone is the escape key
            terminal.send(bytes([byte]))
            assert terminal.read_exactly(1) == bytes([byte])
    either.wait_free()


def test_token_may_come_as_a_subprotocol(shared, shared_guest):
    with shared.connect(None, subprotocol_token=shared.token(shared_guest.uuid)) as terminal:
        assert terminal.subprotocol == "binary"
        terminal.send(b"x")
        terminal.read_until(b"x")
