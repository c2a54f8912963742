"""multistream-select 1.0: who speaks which protocol (libp2p specs, connections/README.md).

A message is an unsigned varint length, UTF-8 text and a newline that the length counts. Both sides may send the header
without waiting, so everything here takes header, answer and the first bytes of the next protocol in one chunk; that is
also the common case, and costs one comparison and one slice. All classes keep the Handshake contract of
`aiolibp2p.sansio`: once a call has returned the protocol, `unread` is what belongs to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Sequence
from functools import lru_cache

from aiolibp2p.errors import InvalidValueError, LocalProtocolError, NegotiationError, RemoteProtocolError

PROTOCOL = "/multistream/1.0.0"
HEADER = b"\x13/multistream/1.0.0\n"
NA = b"\x03na\n"

MESSAGE_BYTES = 1024
"""The longest message, newline included: go and js refuse more."""

REFUSALS = 64
"""How many messages a responder answers with anything but a protocol before it calls that an abuse."""

_NA_TEXT = "na"
_LS_TEXT = "ls"
_CACHED = 512
"""Protocol ids whose messages are kept: far more than one program speaks."""


@lru_cache(maxsize=_CACHED)
def encode_message(text: str) -> bytes:
    """Return `text` as one message.

    Raises:
        InvalidValueError: `text` is empty, has a newline, is not encodable, or is longer than a message may be.
    """
    try:
        body = text.encode() + b"\n"
    except UnicodeEncodeError as error:
        raise InvalidValueError("a protocol id must be Unicode text without surrogates") from error
    if len(body) == 1 or b"\n" in body[:-1]:
        raise InvalidValueError(f"a protocol id is one line of text, not {text!r}")
    return _frame(body)


@lru_cache(maxsize=_CACHED)
def proposal(protocol: str) -> bytes:
    """Return the header and the proposal of `protocol`: what a dialler sends first, and what accepts it.

    Raises:
        InvalidValueError: `protocol` cannot be a message.
    """
    return HEADER + encode_message(protocol)


def _frame(body: bytes) -> bytes:
    size = len(body)
    if size > MESSAGE_BYTES:
        raise InvalidValueError(f"a message of {size} bytes is longer than {MESSAGE_BYTES}")
    prefix = bytes((size,)) if size < 0x80 else bytes((size & 0x7F | 0x80, size >> 7))
    return prefix + body


def encode_listing(protocols: Iterable[str]) -> bytes:
    """Return the answer to `ls`: one message that holds a message for each protocol, as many as fit.

    Raises:
        InvalidValueError: a protocol cannot be a message.
    """
    body = b""
    for protocol in protocols:
        message = encode_message(protocol)
        if len(body) + len(message) + 1 > MESSAGE_BYTES:
            break
        body += message
    return _frame(body + b"\n")


class MessageReader:
    """Cuts a stream of bytes into messages; keeps no more than one unfinished message between two calls."""

    __slots__ = ("_at", "_data")

    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes; all messages before them must have been taken."""
        self._data = self._data[self._at :] + bytes(data)
        self._at = 0

    def next_message(self) -> str | None:
        """Return the next message without its newline, or None when it has not arrived whole.

        Raises:
            RemoteProtocolError: its length is no varint or too large, or it is empty, not UTF-8, or has no newline.
        """
        data = self._data
        at = self._at
        size, start = _read_length(data, at)
        if start == 0 or len(data) - start < size:
            # Only the tail is kept: a chunk must not live as long as the message that ends it.
            self._data = data[at:]
            self._at = 0
            return None
        self._at = end = start + size
        if data[end - 1] != 0x0A:
            raise _broken("a message does not end with a newline")
        if size == 1:
            raise _broken("a message is empty")
        try:
            return data[start : end - 1].decode()
        except UnicodeDecodeError as error:
            raise _broken("a message is not UTF-8") from error

    def take_rest(self) -> bytes:
        """Return and forget the bytes after the last message."""
        rest = self._data[self._at :]
        self._data = b""
        self._at = 0
        return rest


def _read_length(data: bytes, at: int) -> tuple[int, int]:
    """Return a message's length and where its text starts; a start of 0 when the length itself is incomplete."""
    available = len(data) - at
    if available < 1:
        return 0, 0
    size = data[at]
    start = at + 1
    if size >= 0x80:
        if available < 2:
            return 0, 0
        high = data[start]
        start += 1
        # 1,024 takes two bytes; a third, or a second that adds nothing, cannot be right.
        if high >= 0x80 or high == 0:
            raise _broken("a message's length is no varint within the limit")
        size = size & 0x7F | high << 7
    if size == 0:
        raise _broken("a message is empty")
    if size > MESSAGE_BYTES:
        raise _broken(f"a message of {size} bytes is longer than {MESSAGE_BYTES}")
    return size, start


def _broken(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(message, protocol="multistream-select")


class _Negotiation(ABC):
    """What the three roles share: pending output, the reader, and that the peer's first message is the header."""

    __slots__ = ("_ended", "_header_answer", "_headed", "_out", "_reader", "unread")

    def __init__(self, out: bytes, header_answer: bytes = b"") -> None:
        self.unread = b""
        """What came after the negotiation; complete once a call has returned the protocol."""
        self._out = out
        self._header_answer = header_answer
        self._reader: MessageReader | None = None
        self._headed = False
        self._ended = False

    def bytes_to_send(self) -> bytes:
        """Return and forget what is to be sent now."""
        out = self._out
        self._out = b""
        return out

    def receive_bytes(self, data: bytes | bytearray | memoryview) -> str | None:
        """Take bytes of the peer and return the protocol when it is settled.

        Raises:
            RemoteProtocolError: the peer did not speak multistream-select.
            NegotiationError: the peer refused every protocol proposed.
            LocalProtocolError: the negotiation is over.
        """
        if self._ended:
            raise LocalProtocolError("the negotiation is over")
        if type(data) is not bytes:
            data = bytes(data)
        if self._reader is None:
            chosen = self._receive_at_once(data)
            if chosen is not None:
                self._ended = True
                return chosen
            self._reader = MessageReader()
        try:
            chosen = self._receive_messages(self._reader, data)
        except (RemoteProtocolError, NegotiationError):
            self._ended = True
            raise
        if chosen is not None:
            self._ended = True
            self.unread = self._reader.take_rest()
        return chosen

    def _receive_messages(self, reader: MessageReader, data: bytes) -> str | None:
        reader.feed(data)
        while (text := reader.next_message()) is not None:
            if not self._headed:
                if text != PROTOCOL:
                    raise _broken(f"the first message is {text!r} and not {PROTOCOL}")
                self._headed = True
                self._out += self._header_answer
                continue
            chosen = self._receive_message(text)
            if chosen is not None:
                return chosen
        return None

    @abstractmethod
    def _receive_at_once(self, data: bytes) -> str | None:
        """Settle the common case, all in the first chunk; None leaves it to the messages one by one."""

    @abstractmethod
    def _receive_message(self, text: str) -> str | None:
        """Take one message after the header; return the protocol when it settles it."""


class Responder(_Negotiation):
    """Answers the proposals of a dialler: echoes the first protocol that is spoken here, refuses others.

    Args:
        protocols: what is spoken here now: a container, or a predicate; asked for every proposal.
        listing: names the protocols for `ls`, which is refused without it.
    """

    __slots__ = ("_accepts", "_listing", "_refusals")

    def __init__(
        self,
        protocols: Callable[[str], bool] | Container[str],
        listing: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        super().__init__(b"", header_answer=HEADER)
        self._accepts: Callable[[str], bool] = protocols if callable(protocols) else protocols.__contains__
        self._listing = listing
        self._refusals = 0

    def _receive_at_once(self, data: bytes) -> str | None:
        header_bytes = len(HEADER)
        if not data.startswith(HEADER) or len(data) == header_bytes:
            return None
        size = data[header_bytes]
        end = header_bytes + 1 + size
        # Whatever is unusual here, a long id or a broken one, is judged in one place: by the messages.
        if size >= 0x80 or len(data) < end or data[end - 1] != 0x0A:
            return None
        try:
            protocol = data[header_bytes + 1 : end - 1].decode()
        except UnicodeDecodeError:
            return None
        if not protocol or "\n" in protocol or not self._accepts(protocol):
            return None
        self._out = proposal(protocol)
        self.unread = data[end:]
        return protocol

    def _receive_message(self, text: str) -> str | None:
        if "\n" not in text and self._accepts(text):
            self._out += encode_message(text)
            return text
        self._refusals += 1
        if self._refusals > REFUSALS:
            raise _broken(f"more than {REFUSALS} proposals that are not spoken here")
        listing = self._listing if text == _LS_TEXT else None
        self._out += NA if listing is None else encode_listing(listing())
        return None


class EagerInitiator(_Negotiation):
    """Proposes one protocol after the other and waits for each answer.

    Args:
        protocols: at least one, the preferred first.

    Raises:
        InvalidValueError: a protocol cannot be a message.
        LocalProtocolError: no protocol is given.
    """

    __slots__ = ("_next", "_protocols")

    def __init__(self, protocols: Sequence[str]) -> None:
        if not protocols:
            raise LocalProtocolError("there is no protocol to propose")
        self._protocols = tuple(protocols)
        self._next = 1
        for protocol in self._protocols:
            encode_message(protocol)
        super().__init__(proposal(self._protocols[0]))

    def _receive_at_once(self, data: bytes) -> str | None:
        return _accepted_at_once(self, data, self._protocols[0])

    def _receive_message(self, text: str) -> str | None:
        proposed = self._protocols[self._next - 1]
        if text == proposed:
            return proposed
        if text != _NA_TEXT:
            raise _broken(f"the answer to {proposed} is {text!r}")
        if self._next == len(self._protocols):
            raise NegotiationError(self._protocols)
        self._out += encode_message(self._protocols[self._next])
        self._next += 1
        return None


class LazyInitiator(_Negotiation):
    """Proposes one protocol and waits for nothing: what is sent after it belongs to the protocol already.

    The answer precedes the peer's first byte of the protocol. Where it is `na`, nothing that was sent has been
    delivered.

    Raises:
        InvalidValueError: the protocol cannot be a message.
    """

    __slots__ = ("_protocol",)

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol
        super().__init__(proposal(protocol))

    def _receive_at_once(self, data: bytes) -> str | None:
        return _accepted_at_once(self, data, self._protocol)

    def _receive_message(self, text: str) -> str | None:
        if text == self._protocol:
            return text
        if text == _NA_TEXT:
            raise NegotiationError((self._protocol,))
        raise _broken(f"the answer to {self._protocol} is {text!r}")


def _accepted_at_once(negotiation: EagerInitiator | LazyInitiator, data: bytes, protocol: str) -> str | None:
    answer = proposal(protocol)
    if not data.startswith(answer):
        return None
    negotiation.unread = data[len(answer) :]
    return protocol
