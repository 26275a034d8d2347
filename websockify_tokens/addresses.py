"""Whose request it is: the client's address, as the connection and trusted proxies tell; no I/O."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNKNOWN_PORT = 0
"""Stands for the port of a client of which a proxy told the address alone."""
_HOP = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::(\d{1,5}))?|([0-9.]+)(?::(\d{1,5}))?|([0-9A-Fa-f:.]+)")


def client_of(
    peer: tuple[str, int], forwarded: Sequence[str], trusted: Sequence[Network]
) -> tuple[str, int]:
    """Return the client's address and port.

    Args:
        peer: who connected.
        forwarded: the values of all X-Forwarded-For headers, as they came. Only what a trusted
            proxy wrote counts: the last entry, and each before it while the one after is trusted.
        trusted: the proxies' addresses.
    """
    host, port = peer
    address = parsed(host)
    hops = ",".join(forwarded).split(",") if forwarded else []
    while hops and address is not None and _is_trusted(address, trusted):
        found = _HOP.fullmatch(hops.pop().strip())
        hop = parsed(found[1] or found[3] or found[5]) if found else None
        if not found or hop is None:
            break
        address, host = hop, str(hop)
        port = int(found[2] or found[4] or UNKNOWN_PORT)
    return host if address is None else str(address), port


def shown(client: tuple[str, int]) -> str:
    """Return ``host:port``, or ``[v6]:port``."""
    host, port = client
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def parsed(text: str) -> Address | None:
    """Parse an address; an IPv4 one that is written as IPv6 is IPv4."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
