"""Every exception that leaves this package.

Libp2pError
├── LocalProtocolError      the caller asked for what the protocol does not allow here
├── RemoteProtocolError     the peer broke a protocol               .protocol
│   └── PeerIdMismatchError it is not the peer that was dialled     .expected .actual
├── NegotiationError        no protocol in common                   .offered
├── DialError               every address failed                    .peer_id .failures .report
├── ListenError             an address could not be listened on     .address
├── ConnectionEndedError    the connection is over                  .by .code
├── StreamResetError        this stream was reset                   .by .code
├── StreamBusyError         two readers, or two writers, at once
├── LimitError              a limit of ours was reached             .limit
├── DeadlineError           an operation took too long              .deadline .seconds   (also a TimeoutError)
├── BlockNotFoundError      no block of this name could be had      .cid
├── StorageError            the disk, or what is on it, failed us   .path .errno
└── InvalidValueError       bad bytes or text of a value            (also a ValueError)

`by` is "local" or "remote"; `deadline` names a field of Timeouts, `limit` a field of Limits. `stage`, where known, says
at which step of a dial, an upgrade or a negotiation it happened. The end of a stream is `b""`, not an exception.
Never match on the text of a message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from aiolibp2p.report import DialReport

By = Literal["local", "remote"]


class Libp2pError(Exception):
    """Anything that went wrong in this package; `stage` says at which step, where that is known."""

    def __init__(self, message: str = "", *, stage: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.stage = stage

    def describe(self) -> str:
        """Return the text without the stage."""
        return self.message or type(self).__name__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __str__(self) -> str:
        text = self.describe()
        return f"{self.stage}: {text}" if self.stage else text


class LocalProtocolError(Libp2pError):
    """The caller asked for what the protocol does not allow in this state; nothing was changed."""


class RemoteProtocolError(Libp2pError):
    """The peer broke `protocol`."""

    def __init__(self, message: str = "", *, protocol: str | None = None, stage: str | None = None) -> None:
        super().__init__(message, stage=stage)
        self.protocol = protocol

    def describe(self) -> str:
        return f"the peer broke {self.protocol}: {self.message}" if self.protocol else self.message


class PeerIdMismatchError(RemoteProtocolError):
    """The peer proved to be `actual`, where `expected` was dialled (both as text)."""

    def __init__(self, expected: str, actual: str, *, stage: str | None = None) -> None:
        super().__init__(stage=stage)
        self.expected = expected
        self.actual = actual

    def describe(self) -> str:
        return f"dialled {self.expected}, but {self.actual} answered"


class NegotiationError(Libp2pError):
    """The peer speaks none of the `offered` protocols."""

    def __init__(self, offered: Sequence[str], *, stage: str | None = None) -> None:
        super().__init__(stage=stage)
        self.offered = tuple(offered)

    def describe(self) -> str:
        return f"the peer does not speak {' or '.join(self.offered)}"


class DialError(Libp2pError):
    """No address of the peer could be dialled; `failures` maps each address (as text) to what happened.

    `report` says more of each, and of those that were left out; it is None where there was no address at all.
    """

    def __init__(
        self, peer_id: str | None, failures: Mapping[str, BaseException], report: DialReport | None = None
    ) -> None:
        super().__init__(stage="dial")
        self.peer_id = peer_id
        self.failures = dict(failures)
        self.report = report

    def describe(self) -> str:
        if not self.failures:
            return f"no address known for {self.peer_id}" if self.peer_id else "no address was found"
        return "; ".join(f"{address}: {error}" for address, error in self.failures.items())


class ListenError(Libp2pError):
    """`address` (as text) cannot be listened on."""

    def __init__(self, address: str, message: str) -> None:
        super().__init__(message, stage="listen")
        self.address = address

    def describe(self) -> str:
        return f"cannot listen on {self.address}: {self.message}"


class ConnectionEndedError(Libp2pError):
    """The connection is over: `by` says who ended it, `code` what a peer gave as its reason."""

    def __init__(self, message: str = "", *, by: By, code: int | None = None, stage: str | None = None) -> None:
        super().__init__(message, stage=stage)
        self.by = by
        self.code = code

    def describe(self) -> str:
        if self.stage in ("resolve", "connect") and self.message:
            return self.message  # there was no connection yet
        who = "we" if self.by == "local" else "the peer"
        code = f" (code 0x{self.code:x})" if self.code else ""
        return f"{who} ended the connection{code}" + (f": {self.message}" if self.message else "")


class StreamResetError(Libp2pError):
    """The stream was reset, with `code`, by us or by the peer."""

    def __init__(self, *, by: By, code: int = 0, stage: str | None = None) -> None:
        super().__init__(stage=stage)
        self.by = by
        self.code = code

    def describe(self) -> str:
        who = "we" if self.by == "local" else "the peer"
        return f"{who} reset the stream" + (f" (code 0x{self.code:x})" if self.code else "")


class StreamBusyError(Libp2pError):
    """Another task is already reading, or already writing, on this stream."""


class LimitError(Libp2pError):
    """`limit`, a field of Limits, was reached."""

    def __init__(self, limit: str, message: str = "", *, stage: str | None = None) -> None:
        super().__init__(message, stage=stage)
        self.limit = limit

    def describe(self) -> str:
        return f"limit {self.limit} reached" + (f": {self.message}" if self.message else "")


class DeadlineError(Libp2pError, TimeoutError):
    """The operation did not end within `deadline`, a field of Timeouts, which was `seconds` long."""

    def __init__(self, deadline: str, seconds: float, message: str = "", *, stage: str | None = None) -> None:
        super().__init__(message, stage=stage)
        self.deadline = deadline
        self.seconds = seconds

    def describe(self) -> str:
        what = self.message or "no progress"
        return f"{what} within {self.seconds:g} s (Timeouts.{self.deadline})"


class BlockNotFoundError(Libp2pError):
    """The block `cid` (as text) is in none of the places that were asked."""

    def __init__(self, cid: str, message: str = "", *, stage: str | None = None) -> None:
        super().__init__(message, stage=stage)
        self.cid = cid

    def describe(self) -> str:
        return f"block {self.cid} not found" + (f": {self.message}" if self.message else "")


class StorageError(Libp2pError):
    """The disk failed us at `path`, or what is there is not ours to use; `errno` is what the system said, or None."""

    def __init__(self, path: str, message: str, *, errno: int | None = None, stage: str | None = None) -> None:
        super().__init__(message, stage=stage)
        self.path = path
        self.errno = errno

    def describe(self) -> str:
        return f"{self.path}: {self.message}"


class InvalidValueError(Libp2pError, ValueError):
    """Bytes or text that are not a value of the type: a bad varint, multiaddr, peer ID, key or message."""
