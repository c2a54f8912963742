"""Every default number of the project: Timeouts in seconds, Limits in counts and bytes.

Numbers that a wire format fixes (a header's size, the largest Noise message) stand beside that format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long an operation may take, in seconds; `math.inf` means for ever."""

    dial: float = 60.0
    """A dial, over all addresses: it ends with DialError."""
    dial_address: float = 15.0
    """One address, from TCP to the muxer: the next address is tried."""
    dial_private_address: float = 5.0
    """The same for loopback and private addresses."""
    dial_backoff: float = 5.0
    """An address whose dial failed is left alone for this long, unless the caller names it."""
    dial_backoff_step: float = 1.0
    """That grows by this, times the square of the failures before."""
    dial_backoff_max: float = 300.0
    """The longest such back-off."""
    dialled_address: float = 7 * 86400.0
    """An address where a peer was reached is remembered for this long after its last connection."""
    recent_address: float = 900.0
    """An address that a peer said it has is remembered for this long after its last connection."""
    found_address: float = 3600.0
    """An address that others say a peer has is remembered for this long."""
    peerstore_write: float = 5.0
    """What is learnt of peers is written to a peerstore's disk after this long: what a crash loses."""
    dial_step: float = 0.25
    """The next of several addresses is dialled this long after the one before, unless that has failed earlier."""
    dial_private_step: float = 0.03
    """The same for loopback and private addresses; public ones begin this long after them."""
    dial_relay_delay: float = 0.5
    """Addresses behind a relay are dialled this long after the direct ones."""
    resolve: float = 10.0
    """What a name in an address stands for, over all names that it leads to: the address has failed."""
    interfaces: float = 5.0
    """How long this machine's list of addresses is used before the system is asked again."""
    upgrade: float = 15.0
    """Security and muxer, either side: the socket is dropped."""
    negotiate: float = 10.0
    """Eager protocol negotiation, either side: the stream is reset."""
    open_stream: float = 15.0
    """Waiting for room to open a stream: DeadlineError."""
    stream_idle: float = 120.0
    """A read that waits this long without a byte: DeadlineError."""
    write_stall: float = 120.0
    """A write that waits this long without progress: the stream is reset."""
    close: float = 10.0
    """What a closed stream's peer still owes: then its tombstone goes."""
    identify: float = 5.0
    """The peer's identify message: the connection stays, unidentified."""
    identify_push_delay: float = 0.1
    """Changes of our protocols or addresses within this time go out as one push."""
    ping: float = 10.0
    """The answer to a ping: DeadlineError."""
    keepalive: float = 30.0
    """A connection this quiet is asked whether it lives."""
    keepalive_answer: float = 10.0
    """The answer to that: the connection is aborted."""
    bitswap_stall: float = 10.0
    """A peer that takes no byte of an answer for this long, and the time its unread bytes need: its stream is reset."""
    bitswap_hold: float = 0.5
    """Blocks loaded for a peer that takes nothing for this long, but for the message begun, are let go; a peer that is
    merely far away takes more within a few round trips, and nothing is read for it twice."""
    bitswap_repair: float = 30.0
    """How often all wants are said again, in case the peer has lost them."""
    bitswap_answer: float = 5.0
    """A peer that says nothing to a want for this long: another is asked."""
    bitswap_search: float = 10.0
    """A search for peers that have a block: those found by then are tried."""
    bitswap_search_again: float = 60.0
    """A block for which peers were searched is not searched for again for this long."""
    bitswap_fetch: float = 60.0
    """A block that is wanted while no peer sends anything for this long: DeadlineError."""
    bitswap_reopen: float = 1.0
    """After the stream for our wants was lost, the next one waits this long."""
    backoff: float = 10.0
    """A peer that stalled is not served for this long, doubling with each time, until it takes an answer."""
    backoff_max: float = 300.0
    """The longest such back-off."""
    connection_grace: float = 20.0
    """A connection younger than this is not closed to make room."""
    shutdown: float = 30.0
    """Leaving `async with Host`: what refuses to end is named and abandoned."""
    storage: float = 10.0
    """A call to the store, waiting for its turn included: DeadlineError; until it returns its blocks are refused."""
    connection_close: float = 1.0
    """After `Connection.close`, the time for what is queued to leave: the socket is aborted."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much may be held, in counts and bytes."""

    connections: int = 1024
    """Connections in all: a new one is refused."""
    connections_high: int = 960
    """More connections than this: those of least use are closed, politely, but of those in use no more than have to."""
    connections_low: int = 768
    """How many are left then, where so many are idle; see `Host.protect` and `Timeouts.connection_grace`."""
    connections_per_peer: int = 8
    """Connections to one peer: a new one is refused."""
    dials: int = 160
    """Addresses being dialled, and names being looked up, in all: further ones wait for their turn."""
    dials_per_peer: int = 8
    """The same for one peer."""
    dials_waiting: int = 1024
    """Peers whose dial waits for its turn: a further one is refused."""
    dial_addresses: int = 100
    """Addresses and names looked at in one dial: further ones are left out."""
    dns_depth: int = 32
    """Names that lead to names: what comes behind is left out."""
    dns_records: int = 100
    """Records looked at of one answer, and addresses taken from it."""
    pending_inbound: int = 256
    """Inbound connections being upgraded: of the network that has most, a silent one, else the oldest, makes room."""
    streams_per_connection: int = 1024
    """Streams on one connection, either direction: a new one is reset or waits."""
    streams_per_peer: int = 2048
    """Streams with one peer: as above."""
    streams: int = 65536
    """Streams in all: as above."""
    handlers_per_peer: int = 1024
    """Running handlers for one peer: its new streams are reset."""
    handlers: int = 16384
    """Running handlers in all: as above."""
    tombstones_per_connection: int = 1024
    """Closed streams whose peer still owes something: the oldest goes first."""
    tombstones: int = 65536
    """The same in all."""
    forgotten_ids: int = 1024
    """Ids of forgotten streams kept per connection, so that what is late for them is dropped."""
    forgotten_bytes: int = 1024
    """Late bytes dropped for one forgotten id: then it is reset."""
    connection_send_bytes: int = 1 << 20
    """Bytes queued to one socket: writers wait."""
    transport_buffer_bytes: int = 256 << 10
    """Encrypted bytes in front of a socket that does not take them: nothing more is encrypted."""
    connection_unread_bytes: int = 16 << 20
    """Received bytes that nobody has read, per connection (memory: twice that): the longest unread stream is reset."""
    connection_control_bytes: int = 256 << 10
    """Control frames queued to one socket that a peer caused without reading: the connection is aborted."""
    yamux_window: int = 256 << 10
    """Bytes a peer may send on a new stream (the spec's initial window)."""
    yamux_window_max: int = 16 << 20
    """What that window may grow to."""
    yamux_ack_backlog: int = 256
    """Streams we opened that the peer has not acknowledged: the next open waits."""
    early_streams: int = 10
    """Streams opened before the peer's first frame (js-libp2p drops the connection at more)."""
    addresses_remembered: int = 1024
    """Addresses that are backing off, and addresses whose ways, that are remembered: the oldest goes first."""
    peers_remembered: int = 4096
    """Peers without a connection that the peerstore knows: those of least worth go first."""
    peerstore_bytes: int = 16 << 20
    """What they take in memory, about: as above."""
    ping_streams: int = 2
    """Inbound ping streams of one peer: a further one is reset."""
    events: int = 1024
    """Events kept for one consumer of `Host.events`: the oldest is dropped and counted."""
    identify_bytes: int = 8 << 10
    """One identify message: a longer one is refused."""
    identify_messages: int = 10
    """Messages merged from one identify stream."""
    identify_addresses: int = 64
    """Addresses kept of one peer."""
    identify_protocols: int = 1024
    """Protocols kept of one peer."""
    storage_threads: int = 8
    """Threads of a store that work at the same time: calls wait."""
    storage_threads_max: int = 32
    """Those that hang included: until one returns, calls wait."""
    storage_read_blocks: int = 64
    """Blocks read by one call on a storage thread: more are read by several."""
    storage_ahead_bytes: int = 2 << 20
    """Bytes that a reader of many blocks asks for at once, and again while it looks at them."""
    storage_commit_bytes: int = 32 << 20
    """Bytes of waiting puts that are made durable together; one put of many blocks is never divided."""
    storage_map_bytes: int = 1 << 40
    """Addresses reserved for the map of an LMDB store, less where the system has less; it doubles when it is full."""
    bitswap_wants_per_peer: int = 1024
    """Wants remembered of one peer: those for missing blocks go first, then low priorities."""
    bitswap_window_wants: int = 500
    """Wants asked of one peer at a time: more wait. Servers remember 1,024, and drop what is more without a word."""
    bitswap_broadcast_peers: int = 32
    """Peers asked at a time whether they have a block, and peers tried at a time of which nothing is known yet."""
    bitswap_searches: int = 4
    """Searches for peers that have a block, of one session at a time: others wait."""
    bitswap_providers: int = 10
    """Peers taken from one search: it ends."""
    bitswap_cid_bytes: int = 168
    """The longest CID that is looked at in a message."""
    bitswap_inline_bytes: int = 1024
    """A block up to this size is sent where only HAVE was asked for."""
    bitswap_ahead_blocks: int = 256
    """Blocks wanted ahead of who reads them in order, per reader."""
    bitswap_ahead_bytes: int = 32 << 20
    """Fetched blocks that wait for their turn, per reader: no further ones are wanted."""
    bitswap_message_bytes: int = 4 << 20
    """One message: a longer one is refused, and none is sent."""
    bitswap_batch_bytes: int = 256 << 10
    """Blocks loaded for one answer, unless a single one is larger."""
    bitswap_loaded_bytes: int = 64 << 20
    """Loaded blocks on their way to peers that take them: loading waits."""
    bitswap_stalled_bytes: int = 64 << 20
    """Loaded blocks for peers that take nothing: the peer that has stalled longest is reset."""
    bitswap_credit_bytes: int = 64 << 10
    """Credit that shows that a peer reads: its next back-off is a first one. A window has four times as much."""
    bitswap_bytes_per_second: int = 12_500
    """The slowest peer that is served: its unread bytes lengthen `Timeouts.bitswap_stall` at this rate."""


class Refused(Protocol):
    """Hears that a limit has refused, ended or dropped something; `Host.refusals` counts it."""

    def __call__(self, limit: str, count: int = 1, /) -> None:
        """Take note; `limit` is a field of Limits."""
        ...


def unheard(limit: str, count: int = 1, /) -> None:
    """Take note of nothing: for a state machine whose refusals nobody counts."""
