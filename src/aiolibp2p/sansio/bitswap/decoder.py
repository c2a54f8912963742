"""Reading Bitswap messages from a stream, however it is cut, within every bound.

One bad entry, block or presence is skipped and counted; a message that is too long, or no protobuf, ends the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from aiolibp2p.errors import InvalidValueError, LimitError, RemoteProtocolError
from aiolibp2p.identity.varint import scan_varint
from aiolibp2p.limits import Limits
from aiolibp2p.sansio.bitswap.cids import PREFIX_BYTES_MAX, V0_PREFIX, WANTED_CID_BYTES_MIN
from aiolibp2p.sansio.bitswap.message import Entry, Message, Payload, Presence

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_VARINT_BITS_MAX = 70
# What costs a peer two bytes must not cost us a microsecond two million times: an item has few fields, and a list
# few items that are smaller than a want.
_ITEM_FIELDS = 64
_SMALL_ITEMS = 4096
_AROUND_BYTES = 64
"""What there may be before and after the only block of a message."""
_ITEM_BYTES = WANTED_CID_BYTES_MIN
_PREFIX_BYTES_MIN = 4

_WANTLIST, _BLOCK, _PAYLOAD, _PRESENCE, _PENDING = 1, 2, 3, 4, 5
_PRIORITY, _CANCEL, _WANT_TYPE, _SEND_DONT_HAVE = 2, 3, 4, 5


class _MalformedError(Exception):
    """Bytes that are no protobuf; never leaves this module."""


class _EnoughError(Exception):
    """So much of one message was bad that the rest of it is dropped; never leaves this module."""


class Decoder:
    """Turns the bytes of one stream into messages.

    Args:
        limits: `bitswap_message_bytes` bounds a message and `bitswap_cid_bytes` a CID; wants, cancels, blocks and
            presences beyond `bitswap_wants_per_peer` in one message are dropped and counted.
    """

    def __init__(self, limits: Limits) -> None:
        self.failure: RemoteProtocolError | LimitError | None = None
        """Why nothing more is read; look at it after every call."""
        self._limits = limits
        self._length = b""
        self._chunks: list[bytes] = []
        self._missing = -1
        self._buffered_bytes = 0

    @property
    def buffered_bytes(self) -> int:
        """How much of an unfinished message is held."""
        return self._buffered_bytes

    def receive_bytes(self, data: bytes) -> list[Message]:
        """Take bytes of the stream and return the messages that they complete; see `failure` afterwards."""
        messages: list[Message] = []
        if self.failure is None:
            try:
                self._receive(data, messages)
            except (_MalformedError, InvalidValueError) as error:
                self._fail(RemoteProtocolError(str(error), protocol="bitswap"))
            except LimitError as error:
                self._fail(error)
        return messages

    def receive_eof(self) -> None:
        """Take note of the end of the stream: inside a message it is a failure."""
        if self.failure is None and (self._length or self._missing >= 0):
            self._fail(RemoteProtocolError("the stream ended inside a message", protocol="bitswap"))

    def _fail(self, error: RemoteProtocolError | LimitError) -> None:
        self.failure = error
        self._chunks.clear()
        self._length = b""
        self._buffered_bytes = 0

    def _receive(self, data: bytes, messages: list[Message]) -> None:
        if self._length:
            data = self._length + data
            self._length = b""
        at, end = 0, len(data)
        while at < end:
            if self._missing < 0:
                found = scan_varint(data, at)
                if found is None:
                    self._length = data[at:]
                    return
                self._missing, at = found
                if self._missing > self._limits.bitswap_message_bytes:
                    raise LimitError("bitswap_message_bytes", f"a message of {self._missing} bytes", stage="bitswap")
            missing = self._missing
            if self._chunks or end - at < missing:
                chunk = data[at : at + missing]
                at += len(chunk)
                self._chunks.append(chunk)
                self._buffered_bytes += len(chunk)
                self._missing = missing - len(chunk)
                if self._missing:
                    return
                chunks, self._chunks, self._buffered_bytes = self._chunks, [], 0
                messages.append(_read_chunks(chunks, self._limits))
            else:
                messages.append(_Reading(data, self._limits).read(at, at + missing))
                at += missing
            self._missing = -1


def _read_chunks(chunks: list[bytes], limits: Limits) -> Message:
    """Read a message that came in several chunks.

    One that is little more than one block is not put together first: that copy costs as much as all the rest.
    """
    size = sum(map(len, chunks))
    found = _one_block(chunks[0], size)
    if found is None:
        body = b"".join(chunks)
        return _Reading(body, limits).read(0, size)
    start, prefix, low, high = found
    last = chunks[-1]
    tail_at = len(last) - (size - high)
    if tail_at < 0:
        return _Reading(b"".join(chunks), limits).read(0, size)
    chunks[-1] = last[:tail_at]
    head, chunks[0] = chunks[0], chunks[0][low:]
    reading = _Reading(head, limits)
    reading.read(0, start)
    reading.block(prefix, b"".join(chunks))
    return reading.read_on(last[tail_at:])


def _one_block(head: bytes, size: int) -> tuple[int, bytes, int, int] | None:
    """Return where in a message its only large block begins, its prefix, and the bounds of its data.

    None where the message, of which `head` is there, does not look like that, or there is anything unusual in it.
    """
    start = 0
    try:
        for number, wire, low, high in _fields(head, 0, size):
            if high <= len(head) and high <= _AROUND_BYTES:
                start = high
                continue
            if number != _PAYLOAD or wire != _DELIMITED or size - high > _AROUND_BYTES:
                return None
            fields = list(islice(_fields(head, low, high), 2))
            if len(fields) != 2:
                return None
            (first, _, prefix_at, prefix_end), (second, _, data_at, data_end) = fields
            if (first, second, data_end) != (1, 2, high) or data_at > len(head):
                return None
            prefix = head[prefix_at:prefix_end]
            return (start, prefix, data_at, high) if _PREFIX_BYTES_MIN <= len(prefix) <= PREFIX_BYTES_MAX else None
    except (_MalformedError, _EnoughError, IndexError):
        pass
    return None


class _Reading:
    """One message being read."""

    __slots__ = ("_cancels", "_cid_bytes_max", "_data", "_message", "_most", "_wants")

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._data = data
        self._most = limits.bitswap_wants_per_peer
        self._cid_bytes_max = limits.bitswap_cid_bytes
        self._message = Message()
        self._wants = self._cancels = 0

    def read(self, start: int, end: int) -> Message:
        message = self._message
        try:
            for number, wire, low, high in _items(self._data, start, end):
                if wire == _DELIMITED:
                    if number == _PAYLOAD:
                        self._payload(low, high)
                    elif number == _WANTLIST:
                        self._wantlist(low, high)
                    elif number == _PRESENCE:
                        self._presence(low, high)
                    elif number == _BLOCK:
                        self.block(V0_PREFIX, self._data[low:high])
                elif number == _PENDING and wire == _VARINT:
                    message.pending_bytes = max(0, _int32(low))
        except _EnoughError:
            message.dropped += 1
        return message

    def read_on(self, data: bytes) -> Message:
        """Read what follows."""
        self._data = data
        return self.read(0, len(data))

    def _wantlist(self, start: int, end: int) -> None:
        for number, wire, low, high in _items(self._data, start, end):
            if wire == _DELIMITED and number == 1:
                self._entry(low, high)
            elif wire == _VARINT and number == 2:
                self._message.full = bool(low)

    def _entry(self, start: int, end: int) -> None:
        # What is dropped anyway is not looked into.
        if self._wants >= self._most and self._cancels >= self._most:
            self._message.dropped += 1
            return
        cid = b""
        values = [0] * (_SEND_DONT_HAVE + 1)
        try:
            for number, wire, low, high in _fields(self._data, start, end):
                if wire == _DELIMITED:
                    if number == 1:
                        cid = self._cid(low, high)
                elif _PRIORITY <= number <= _SEND_DONT_HAVE:
                    values[number] = low
        except (_MalformedError, _EnoughError):
            cid = b""
        if not cid or values[_WANT_TYPE] > 1:
            self._skip()
        elif values[_CANCEL]:
            self._cancels += 1
            if self._cancels <= self._most:
                self._message.entries.append(Entry(cid, _int32(values[_PRIORITY]), True))
            else:
                self._message.dropped += 1
        else:
            self._wants += 1
            if self._wants <= self._most:
                have, dont_have = values[_WANT_TYPE] == 1, values[_SEND_DONT_HAVE] != 0
                self._message.entries.append(Entry(cid, _int32(values[_PRIORITY]), False, have, dont_have))
            else:
                self._message.dropped += 1

    def _payload(self, start: int, end: int) -> None:
        prefix, data_at, data_end = b"", start, start
        try:
            for number, wire, low, high in _fields(self._data, start, end):
                if wire == _DELIMITED:
                    if number == 1:
                        prefix = self._data[low : min(high, low + PREFIX_BYTES_MAX + 1)]
                    elif number == 2:
                        data_at, data_end = low, high
        except (_MalformedError, _EnoughError):
            prefix = b""
        if _PREFIX_BYTES_MIN <= len(prefix) <= PREFIX_BYTES_MAX:
            self.block(prefix, self._data[data_at:data_end])
        else:
            self._skip()

    def block(self, prefix: bytes, data: bytes) -> None:
        """Take a block."""
        # No more can be wanted of one peer, and each costs a hash.
        if len(self._message.payloads) < self._most:
            self._message.payloads.append(Payload(prefix, data))
        else:
            self._message.dropped += 1

    def _presence(self, start: int, end: int) -> None:
        if len(self._message.presences) >= self._most:
            self._message.dropped += 1
            return
        cid, kind = b"", 0
        try:
            for number, wire, low, high in _fields(self._data, start, end):
                if number == 1 and wire == _DELIMITED:
                    cid = self._cid(low, high)
                elif number == 2 and wire == _VARINT:
                    kind = low
        except (_MalformedError, _EnoughError):
            cid = b""
        if not cid or kind > 1:
            self._skip()
        else:
            self._message.presences.append(Presence(cid, kind == 0))

    def _cid(self, low: int, high: int) -> bytes:
        if high - low <= self._cid_bytes_max:
            return self._data[low:high]
        self._message.long_cids += 1
        return b""

    def _skip(self) -> None:
        self._message.skipped += 1
        if self._message.skipped > self._most:
            raise _EnoughError


def _items(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    return _fields(data, start, end, _SMALL_ITEMS + (end - start) // _ITEM_BYTES)


def _fields(data: bytes, at: int, end: int, most: int = _ITEM_FIELDS) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type, and the value of a varint (twice) or the bounds of a delimited field.

    Raises:
        _MalformedError: it is no protobuf.
        _EnoughError: there are more than `most` fields.
    """
    while at < end:
        most -= 1
        if most < 0:
            raise _EnoughError
        tag = data[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(data, at - 1, end)
        wire = tag & 7
        if wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
            if at > end:
                raise _MalformedError("a field is cut off")
            continue
        if wire != _DELIMITED and wire != _VARINT:
            raise _MalformedError(f"a field of wire type {wire}")
        if at < end and data[at] < 0x80:
            value = data[at]
            at += 1
        else:
            value, at = _varint(data, at, end)
        if wire == _VARINT:
            yield tag >> 3, _VARINT, value, value
        else:
            if value > end - at:
                raise _MalformedError("a field is cut off")
            yield tag >> 3, _DELIMITED, at, at + value
            at += value


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Read a varint of protobuf: unlike that of multiformats it may be padded, and has up to ten bytes."""
    value = shift = 0
    while at < end and shift < _VARINT_BITS_MAX:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _MalformedError("a varint is cut off or too long")


def _int32(value: int) -> int:
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >> 31 else value
