"""Names in addresses: what `/dns`, `/dns4`, `/dns6` and `/dnsaddr` at the head of an address stand for.

Spec: multiaddr, `protocols/dns.md` and `dnsaddr`. A `/dnsaddr` is looked up in TXT records of the form
`dnsaddr=<multiaddr>`, of the name behind `_dnsaddr.`; a record counts if it ends as the address does behind the name.
What a record names may begin with a name again: whoever asks goes on, and sees to it that it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.runtime import Family, Names, is_link_local

DNSADDR = "dnsaddr"
_FAMILIES: dict[str, Family | None] = {"dns": None, "dns4": "ip4", "dns6": "ip6"}
_RECORD = "dnsaddr="
_SUBDOMAIN = "_dnsaddr."


def begins_with_name(address: Multiaddr) -> bool:
    """Whether an address has to be looked up before it can be dialled."""
    head = address.protocols[0]
    return head in _FAMILIES or head == DNSADDR


async def look_up(names: Names, address: Multiaddr, most: int) -> list[Multiaddr]:
    """Return what the name at the head of an address stands for, one step of it.

    Args:
        most: records looked at, and addresses returned; those behind are left out.

    Raises:
        OSError: the name does not resolve, or not to what the address asks for.
    Cancellation: the answer is not waited for.
    """
    kind, host = address.components[0]
    assert host is not None  # names have a value
    rest = str(address)[len(f"/{kind}/{host}") :]
    if kind == DNSADDR:
        records = await names.txt(_SUBDOMAIN + host)
        return _named(records, rest, most)
    found = [ip for ip in await names.resolve(host, _FAMILIES[kind]) if not is_link_local(ip)]
    addresses = [Multiaddr(f"/{'ip6' if ':' in ip else 'ip4'}/{ip}{rest}") for ip in found[:most]]
    if not addresses:
        raise OSError(f"{host} has no address of {kind}")
    return addresses


def _named(records: Sequence[str], rest: str, most: int) -> list[Multiaddr]:
    """Return the addresses in TXT records that end as is asked for; what is no address is skipped."""
    found: dict[Multiaddr, None] = {}
    for record in islice(records, most):
        if not record.startswith(_RECORD):
            continue
        try:
            address = Multiaddr(record[len(_RECORD) :])
        except InvalidValueError:
            continue
        if str(address).endswith(rest):
            found[address] = None
    if not found:
        raise OSError(f"no record names an address that ends in {rest}" if rest else "no record names an address")
    return list(found)
