"""TCP: which multiaddrs are TCP addresses, and what the two ends of a socket are called."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv6Address

from aiolibp2p.errors import ListenError
from aiolibp2p.identity.multiaddr import Multiaddr

NAME = "tcp"
_UNKNOWN = Multiaddr("/ip4/0.0.0.0/tcp/0")
"""What a socket is called that is already gone."""


def listen_endpoint(address: Multiaddr) -> tuple[str, int]:
    """Return host and port to listen on.

    Raises:
        ListenError: it is not of the form /ip4/…/tcp/… or /ip6/…/tcp/….
    """
    found = address.tcp_endpoint if address.is_plain_tcp else None
    if found is None or address.protocols[0] not in ("ip4", "ip6", "ip6zone"):
        raise ListenError(str(address), "not an address of the form /ip4/…/tcp/… or /ip6/…/tcp/…")
    return found


def address_of(sockaddr: object) -> Multiaddr:
    """Return the multiaddr of what a socket calls its name or its peer's."""
    if not isinstance(sockaddr, tuple) or len(sockaddr) < 2:
        return _UNKNOWN
    try:
        if len(sockaddr) == 2:  # IPv4, as every dial needs it twice: its bytes, without going through text
            return Multiaddr(b"\x04" + IPv4Address(sockaddr[0]).packed + b"\x06" + int(sockaddr[1]).to_bytes(2, "big"))
        return Multiaddr.from_tcp(str(sockaddr[0]), int(sockaddr[1]))
    except ValueError:
        return _UNKNOWN


def addresses_of(transport: asyncio.BaseTransport) -> tuple[Multiaddr, Multiaddr]:
    """Return the local and the remote address of a connected socket."""
    return (
        address_of(transport.get_extra_info("sockname")),
        address_of(transport.get_extra_info("peername")),
    )


def network_of(transport: asyncio.BaseTransport) -> str:
    """Return where a socket's peer is, coarse enough for one owner: an address of IPv4, the first 64 bits of IPv6."""
    remote = transport.get_extra_info("peername")
    if not isinstance(remote, tuple) or not remote:
        return ""
    if len(remote) == 2:
        return str(remote[0])
    try:
        address = IPv6Address(str(remote[0]))
    except ValueError:
        return ""
    return str(address.ipv4_mapped or address.packed[:8].hex())
