"""Whose request it is."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serial_console.sessions import _is_from
from websockify_tokens import addresses

PROXY = ("10.0.0.1", 4711)
TRUSTED = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "fd00::/8", "192.0.2.1")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        (("203.0.113.1", 1), ["198.51.100.9"], ("203.0.113.1", 1)),  # nobody that we trust
        (PROXY, [], PROXY),
        (PROXY, ["198.51.100.9"], ("198.51.100.9", 0)),
        (PROXY, ["198.51.100.9:5"], ("198.51.100.9", 5)),
        (PROXY, ["2001:db8::1"], ("2001:db8::1", 0)),
        (PROXY, ["[2001:db8::1]:5"], ("2001:db8::1", 5)),
        (PROXY, ["[2001:DB8::1]"], ("2001:db8::1", 0)),
        (PROXY, ["::ffff:198.51.100.9"], ("198.51.100.9", 0)),
        # What the client itself wrote is left of what the proxy wrote.
        (PROXY, ["127.0.0.1, 198.51.100.9"], ("198.51.100.9", 0)),
        (PROXY, ["127.0.0.1", "198.51.100.9"], ("198.51.100.9", 0)),
        (PROXY, ["127.0.0.1", "198.51.100.9 ,10.1.1.1", "fd00::7"], ("198.51.100.9", 0)),
        # Proxies all the way: the first of them asks for itself.
        (PROXY, ["10.1.1.1, 10.2.2.2"], ("10.1.1.1", 0)),
        # A malformed entry ends the walk at whoever passed it on.
        (PROXY, ["198.51.100.9, unknown"], PROXY),
        (PROXY, ["198.51.100.9, unknown, 10.1.1.1"], ("10.1.1.1", 0)),
        (PROXY, [""], PROXY),
        (PROXY, ["198.51.100.9,"], PROXY),
        (PROXY, ["198.51.100.9:x"], PROXY),
        (PROXY, ["1.2.3.4.5"], PROXY),
        (PROXY, ["01.2.3.4"], PROXY),
        (PROXY, ["_hidden"], PROXY),
        (PROXY, ['"198.51.100.9"'], PROXY),
        (("::ffff:10.0.0.1", 7), ["198.51.100.9"], ("198.51.100.9", 0)),
        (("::ffff:203.0.113.1", 7), ["198.51.100.9"], ("203.0.113.1", 7)),
        (("fd00::1%eth0", 7), ["198.51.100.9"], ("198.51.100.9", 0)),
        (("192.0.2.2", 7), ["198.51.100.9"], ("192.0.2.2", 7)),
    ],
)
def test_who_is_believed(
    peer: tuple[str, int], forwarded: list[str], client: tuple[str, int]
) -> None:
    assert addresses.client_of(peer, forwarded, TRUSTED) == client


@given(st.lists(st.text(alphabet="0123456789abcdef.:[], %x\x85", max_size=60), max_size=4))
def test_any_header_gives_an_address_that_a_token_can_be_bound_to(forwarded: list[str]) -> None:
    client = addresses.client_of(PROXY, forwarded, TRUSTED)
    assert _is_from(addresses.shown(client), client[0])


@given(st.lists(st.text(max_size=60), max_size=4))
def test_nobody_else_is_believed(forwarded: list[str]) -> None:
    peer = ("203.0.113.1", 5)
    assert addresses.client_of(peer, forwarded, TRUSTED) == peer
    assert addresses.client_of(PROXY, forwarded, []) == PROXY
