"""Errors as one line: what failed, at which stage, and what to try.

What is said follows from the error's type and attributes and from the system's error behind it, never from the text of
a message.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace

from aiolibp2p.errors import (
    BlockNotFoundError,
    ConnectionEndedError,
    DeadlineError,
    DialError,
    Libp2pError,
    LimitError,
    ListenError,
    LocalProtocolError,
    NegotiationError,
    PeerIdMismatchError,
    RemoteProtocolError,
    StorageError,
    StreamResetError,
)
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.net.link import MUXERS
from aiolibp2p.net.race import ADDRESS_STAGE, BACKOFF_STAGE, CONNECT_STAGE, RESOLVE_STAGE
from aiolibp2p.protocols import identify, perf, ping
from aiolibp2p.runtime import os_error_text
from aiolibp2p.sansio.bitswap import message as bitswap
from aiolibp2p.sansio.noise import PROTOCOL as NOISE

_NOT_LIBP2P = "check that this port is a libp2p peer's, with Noise and Yamux over plain TCP"
_LISTEN_ERRNOS = {
    errno.EADDRINUSE: "another port, or port 0 for any that is free",
    errno.EADDRNOTAVAIL: "an address of this machine, or /ip4/0.0.0.0/… for all of them",
    errno.EACCES: "a port above 1023",
}
_CONNECT_ERRNOS = {
    errno.ECONNREFUSED: "check that the peer is running and listens on this port",
    errno.EHOSTUNREACH: "check that this machine has a route to that address",
    errno.ENETUNREACH: "check that this machine has a route to that address",
    errno.EADDRNOTAVAIL: "check the address and the port",
}
_BY_PROTOCOL = {
    perf.PROTOCOL: "aiolibp2p listen --perf, on the side of the peer",
    ping.PROTOCOL: "aiolibp2p identify ADDR shows what the peer speaks",
    identify.PROTOCOL: "aiolibp2p ping ADDR asks for less",
    NOISE: "a peer that has Noise: this version has no TLS",
    **dict.fromkeys(bitswap.PROTOCOLS, "a peer that serves blocks by Bitswap"),
    **dict.fromkeys(MUXERS, "a peer that has Yamux: this version has no other muxer"),
}
_STAGES: dict[type[Libp2pError], str] = {
    NegotiationError: "protocol negotiation",
    BlockNotFoundError: "fetch",
    StorageError: "storage",
}
"""At which stage an error happened that does not say so itself."""
_STORAGE_ERRNOS = {
    errno.ENOENT: "aiolibp2p init, or aiolibp2p add PATH, makes one; get CID --from ADDR needs none",
    errno.ENOTEMPTY: "a directory that is empty or not there yet",
    errno.ENOSPC: "again when there is room on the disk",
    errno.EACCES: "a directory of your own, with --repo DIR",
}
_STORAGE = "storage"
_FETCH = "bitswap_fetch"
_BUG = "--debug, and report what it shows"
_DNSADDR = "/dnsaddr/"
_ADDRESSES_NAMED = 4
"""So many addresses of a failed dial stand in its line; `--explain` has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a person needs to know of an error."""

    stage: str
    detail: str
    hint: str | None = None
    """What to try."""


class CommandError(Exception):
    """What the command line itself finds wrong."""

    def __init__(self, stage: str, detail: str, hint: str | None = None, *, is_usage: bool = False) -> None:
        super().__init__(detail)
        self.failure = Failure(stage=stage, detail=detail, hint=hint)
        self.is_usage = is_usage


def error_line(failure: Failure, command: str | None) -> str:
    """Return the line that is printed."""
    program = f"aiolibp2p {command}" if command else "aiolibp2p"
    hint = f". Try: {failure.hint}" if failure.hint else ""
    return " ".join(f"{program}: {failure.stage}: {failure.detail.rstrip('.')}{hint}".split())


def explain(error: BaseException) -> Failure:
    """Return what there is to say of any error."""
    if isinstance(error, CommandError):
        return error.failure
    if isinstance(error, DialError):
        return _explain_dial(error)
    if isinstance(error, Libp2pError):
        stage = error.stage or next((stage for kind, stage in _STAGES.items() if isinstance(error, kind)), "session")
        return Failure(stage=stage, detail=_detail(error), hint=_hint(error))
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        # One without a number is our own, and says in words what is wrong.
        reason = error.strerror if error.errno is None and error.strerror else os_error_text(error)
        return Failure(stage="system", detail=place + reason)
    return Failure(stage="unexpected error", detail=f"{type(error).__name__}: {error}", hint=_BUG)


def _explain_dial(error: DialError) -> Failure:
    """Explain the one address that failed, or several with the hint of the last: those never dialled if none was."""
    if not error.failures:
        return Failure(stage="dial", detail=error.describe(), hint="an address that ends in /p2p/<peer ID>")
    dialled = [(a, failure) for a, failure in error.failures.items() if not isinstance(failure, LocalProtocolError)]
    parts = [(address, _explain_address(address, failure)) for address, failure in dialled or error.failures.items()]
    address, last = parts[-1]
    if len(parts) == 1:
        return replace(last, detail=f"{last.detail} ({address})")
    named = parts[:_ADDRESSES_NAMED]
    detail = "; ".join(f"{address}: {part.stage}: {part.detail}" for address, part in named)
    if len(parts) > len(named):
        detail += f"; and {len(parts) - len(named)} more"
    return Failure(stage="dial", detail=detail, hint=last.hint)


def _explain_address(address: str, error: BaseException) -> Failure:
    """Explain why one address did not lead to a connection."""
    failure = explain(error)
    if isinstance(error, PeerIdMismatchError):
        meant = Multiaddr(address).without_peer_id().encapsulate(f"/p2p/{error.actual}")
        return replace(failure, detail="another peer answered", hint=f"{meant}, if that is the peer you mean")
    if failure.stage == RESOLVE_STAGE:
        return _explain_name(address, error)
    if isinstance(error, NegotiationError | LocalProtocolError | LimitError) or failure.stage == CONNECT_STAGE:
        return failure
    # It went wrong between TCP and the muxer.
    return replace(failure, hint=_NOT_LIBP2P)


def _explain_name(address: str, error: BaseException) -> Failure:
    """Explain why the name in an address led nowhere."""
    is_dnsaddr = address.startswith(_DNSADDR)
    if isinstance(error, DeadlineError) or (isinstance(error, ConnectionEndedError) and error.by == "local"):
        hint = "check that this machine reaches a nameserver, or give an address of the form /ip4/…/tcp/…"
    elif is_dnsaddr:
        hint = "/dns/…/tcp/…, if the name is a machine's, or check its TXT records at _dnsaddr."
    else:
        hint = "check the name, or give an address of the form /ip4/…/tcp/…"
    if isinstance(error, ConnectionEndedError) and not is_dnsaddr:
        return Failure(stage=RESOLVE_STAGE, detail="the name does not resolve", hint=hint)
    return replace(explain(error), hint=hint)


def _detail(error: Libp2pError) -> str:
    if isinstance(error, ConnectionEndedError) and error.stage == CONNECT_STAGE:
        cause = error.__cause__
        return os_error_text(cause) if isinstance(cause, OSError) else error.describe()
    if isinstance(error, DeadlineError):
        what = {_FETCH: error.message, _STORAGE: "the disk has not answered"}.get(error.deadline, "no answer")
        return f"{what} within {error.seconds:g} s"
    if isinstance(error, ListenError):
        cause = error.__cause__
        reason = os_error_text(cause) if isinstance(cause, OSError) else "no transport of this host listens there"
        return f"{reason} ({error.address})"
    return error.describe()


def _hint(error: Libp2pError) -> str | None:
    if isinstance(error, ListenError):
        number = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
        return "an address like /ip4/127.0.0.1/tcp/0" if number is None else _LISTEN_ERRNOS.get(number)
    if isinstance(error, NegotiationError):
        return next((_BY_PROTOCOL[name] for name in error.offered if name in _BY_PROTOCOL), None)
    if isinstance(error, LocalProtocolError) and error.stage == BACKOFF_STAGE:
        return "again after that, or give the address itself: that is dialled at once"
    if isinstance(error, LocalProtocolError) and error.stage == ADDRESS_STAGE:
        return "another address of the peer"
    if isinstance(error, LocalProtocolError) and error.stage == "dial":
        return "an address of the form /ip4/…/tcp/…, /ip6/…/tcp/… or /dns/…/tcp/…: this version has no other transport"
    if error.stage == CONNECT_STAGE:
        return _connect_hint(error)
    return _session_hint(error)


def _connect_hint(error: Libp2pError) -> str | None:
    if isinstance(error.__cause__, OSError):
        return _CONNECT_ERRNOS.get(error.__cause__.errno or 0)
    if isinstance(error, DeadlineError):
        return "check that the peer is up and that no firewall drops the packets"
    return None


def _session_hint(error: Libp2pError) -> str | None:
    """Say what to try when the connection itself was made."""
    if isinstance(error, StorageError):
        return _STORAGE_ERRNOS.get(error.errno or 0)
    if isinstance(error, BlockNotFoundError):
        return "--from ADDR, the address of a peer that has it"
    if isinstance(error, DeadlineError) and error.deadline == _STORAGE:
        return "again later, and look at the disk: it is slow, or hangs"
    if isinstance(error, DeadlineError):
        return "again later: the connection was made, but the peer does not answer"
    if isinstance(error, ConnectionEndedError | StreamResetError) and error.by == "remote":
        return "again, and look at the peer's log: it ended this"
    if isinstance(error, RemoteProtocolError):
        return "--debug, and report it to the authors of the peer's software"
    if isinstance(error, LimitError):
        return "again when less is going on"
    return None
