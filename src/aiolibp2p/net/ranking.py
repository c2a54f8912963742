"""In which order, and how far apart, the addresses of a peer are dialled; and which are not dialled at all.

The order is go-libp2p's. Loopback and private addresses, public ones, and those behind a relay are three groups, each
dialled as RFC 8305 has it. In a group QUIC comes before TCP and both before what is left (WebRTC); of each, the best
address of IPv6 goes first, the best of IPv4 one step later, and all others a step after that. Lower ports go first, as
they are more likely to be those that a peer listens on.

A step is `Timeouts.dial_step`, and `Timeouts.dial_private_step` in the group of private addresses. Public addresses
begin one of the latter behind the private ones, so that a peer beside us is not reached from outside, and those behind
a relay `Timeouts.dial_relay_delay` behind all others. Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.limits import Timeouts
from aiolibp2p.runtime import is_link_local

_Kind = Literal[0, 1, 2]
_QUIC: _Kind = 0
_TCP: _Kind = 1
_OTHER: _Kind = 2
_OTHER_STEPS = 4
"""Steps between TCP and what is needed only where nothing else is offered."""
_UNSPECIFIED = frozenset({"0.0.0.0", "::", "::ffff:0.0.0.0"})


def rank(addresses: Iterable[Multiaddr], timeouts: Timeouts) -> list[tuple[Multiaddr, float]]:
    """Return each address once, with the seconds after which it is to be dialled, the first ones first."""
    private: list[Multiaddr] = []
    public: list[Multiaddr] = []
    relayed: list[Multiaddr] = []
    for address in dict.fromkeys(addresses):
        if "p2p-circuit" in address.protocols:
            relayed.append(address)
        else:
            (private if address.is_private else public).append(address)
    behind_private = timeouts.dial_private_step if private else 0.0
    behind_direct = timeouts.dial_relay_delay if private or public else 0.0
    ranked = _group(private, timeouts.dial_private_step, 0.0)
    ranked += _group(public, timeouts.dial_step, behind_private)
    direct = max((delay for _, delay in ranked), default=0.0)
    ranked += _group(relayed, timeouts.dial_step, direct + behind_direct)
    return sorted(ranked, key=lambda pair: pair[1])


def _group(addresses: Sequence[Multiaddr], step: float, start: float) -> list[tuple[Multiaddr, float]]:
    ranked: list[tuple[Multiaddr, float]] = []
    # Each key is made once: texts are what makes the order one and the same however the addresses came.
    ordered = sorted((_score(address), str(address), address) for address in addresses)
    for kind in (_QUIC, _TCP, _OTHER):
        members = [(score, address) for score, _, address in ordered if score[0] == kind]
        if not members:
            continue
        if ranked:
            start = ranked[-1][1] + step * (_OTHER_STEPS if kind == _OTHER else 1)
        families = [score[1] for score, _ in members]
        first_ip4 = families.index(1) if 1 in families else len(members)
        is_mixed = 0 < first_ip4 < len(members)
        if is_mixed:
            members.insert(1, members.pop(first_ip4))
        for position, (_, address) in enumerate(members):
            ranked.append((address, start + step * min(position, 2 if is_mixed else 1)))
    return ranked


def _score(address: Multiaddr) -> tuple[_Kind, int, int, int]:
    """Return what decides the order within a group: kind, family, what is spoken on top, port."""
    names = address.protocols
    family = 0 if names[0] in ("ip6", "ip6zone") else 1
    port = int(address.value("udp") or address.value("tcp") or 0)
    if "udp" in names and ("quic-v1" in names or "quic" in names):
        return _QUIC, family, int("webtransport" in names), port
    if "tcp" in names:
        return _TCP, family, int("ws" in names or "wss" in names), port
    return _OTHER, family, 0, port


def undialable(endpoint: tuple[str, int]) -> str | None:
    """Return why nothing can be reached at an IP address and port, whoever it is; None where that is not known."""
    host, port = endpoint
    if port == 0:
        return "its port is 0"
    if host in _UNSPECIFIED:
        return "an unspecified address leads nowhere"
    if is_link_local(host) and "%" not in host:
        return "a link-local address means nothing without its zone"
    return None
