"""TXT records of a name may hold anything: what they name ends as was asked for, or the name does not resolve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.net.resolve import look_up
from aiolibp2p.runtime import Family

PEER = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
ASKED = tuple(Multiaddr(f"/dnsaddr/example.org{rest}") for rest in ("", f"/p2p/{PEER}", "/tcp/4001"))
MOST = 4


class _Records:
    """Names whose every answer is the same."""

    def __init__(self, records: list[str]) -> None:
        self._records = records

    async def resolve(self, host: str, family: Family | None) -> list[str]:
        raise AssertionError("a /dnsaddr is looked up in TXT records")

    async def txt(self, name: str) -> list[str]:
        return self._records


def txt(data: bytes) -> None:
    """Take lines as the TXT records of a name; the first byte says which address is looked up."""
    address = ASKED[(data[0] if data else 0) % len(ASKED)]
    records = data[1:].decode("utf-8", "replace").split("\n")
    try:
        found = asyncio.run(look_up(_Records(records), address, MOST))
    except OSError:
        return
    assert 0 < len(found) <= MOST
    rest = str(address).removeprefix("/dnsaddr/example.org")
    assert all(str(one).endswith(rest) for one in found)


TARGETS: dict[str, Callable[[bytes], None]] = {"txt": txt}

SEEDS: dict[str, list[bytes]] = {
    "txt": [
        f"\x01dnsaddr=/ip4/192.0.2.1/tcp/4001/p2p/{PEER}\nv=spf1\ndnsaddr=/dnsaddr/example.com/p2p/{PEER}".encode(),
        b"\x00dnsaddr=/ip6/2001:db8::1/udp/4001/quic-v1\ndnsaddr=/ip4/1",
        b"\x02dnsaddr=/ip4/192.0.2.1/tcp/4001\ndnsaddr=/dns4/a/tcp/4001",
    ]
}
