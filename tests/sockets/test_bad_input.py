"""What is not the protocol, on real sockets: an error that names the stage; other connections go on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aiolibp2p import Host
from aiolibp2p.errors import ConnectionEndedError, DialError, ListenError, PeerIdMismatchError, RemoteProtocolError
from aiolibp2p.net.events import InboundFailed
from aiolibp2p.runtime import SystemEntropy
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.noise import NoiseIdentity
from aiolibp2p.sansio.yamux import RST, SYN
from tests.support.raw import RawLink, RawPeer, Script
from tests.support.scripts import MESSAGE_3, SELECTED, initiating, responding

pytestmark = pytest.mark.sockets

LISTEN = ["/ip4/127.0.0.1/tcp/0"]
ECHO = "/echo/1.0.0"
PING = "/ipfs/ping/1.0.0"
MULTISTREAM_GARBAGE = {
    "truncated": (b"\x13/multistream", True),
    "oversized": (b"\x81\x08" + b"x" * 1025, False),
    "an overlong length": (b"\x93\x00/multistream/1.0.0\n", False),
    "no multistream": (b"SSH-2.0-OpenSSH_9.6\r\n" + bytes(100), False),
}
NOISE_GARBAGE = {
    "truncated": (b"\x00\xc8" + bytes(100), True),
    "oversized": (b"\xff\xff" + bytes(65535), False),
    "too short": (b"\x00\x01\x00", False),
    "of other keys": (b"\x00\xc8" + bytes(range(200)), False),
}


def raw(script: Script) -> RawPeer:
    return RawPeer(script, entropy=SystemEntropy())


@asynccontextmanager
async def undisturbed() -> AsyncIterator[Host]:
    """Give a host with another connection, which must not notice."""
    async with Host(listen=LISTEN) as host, Host(listen=LISTEN) as other:
        connection = await host.connect(other.addresses[0])
        await host.ping(other.peer_id)
        yield host
        assert connection.ended is None
        await host.ping(other.peer_id)


def writing(garbage: bytes, *, then_close: bool, after: Script | None = None) -> Script:
    async def script(link: RawLink) -> None:
        if after is not None:
            await after(link)
        link.write(garbage)
        if then_close:
            link.transport.close()

    return script


async def failed_dial(host: Host, peer: RawPeer) -> BaseException:
    with pytest.raises(DialError) as caught:
        await host.connect(peer.address)
    (failure,) = caught.value.failures.values()
    return failure


@pytest.mark.parametrize("case", MULTISTREAM_GARBAGE)
async def test_multistream_garbage_fails_a_dial(case: str) -> None:
    garbage, truncated = MULTISTREAM_GARBAGE[case]
    async with undisturbed() as host, raw(writing(garbage, then_close=truncated)) as peer:
        failure = await failed_dial(host, peer)
        assert isinstance(failure, ConnectionEndedError if truncated else RemoteProtocolError)
        assert failure.stage == "security negotiation"


@pytest.mark.parametrize("case", NOISE_GARBAGE)
async def test_noise_garbage_fails_a_dial(case: str) -> None:
    garbage, truncated = NOISE_GARBAGE[case]
    script = writing(garbage, then_close=truncated, after=responding(SELECTED))
    async with undisturbed() as host, raw(script) as peer:
        failure = await failed_dial(host, peer)
        assert isinstance(failure, ConnectionEndedError if truncated else RemoteProtocolError)
        assert failure.stage in ("noise message 2", "noise handshake")


@pytest.mark.parametrize("case", MULTISTREAM_GARBAGE)
async def test_multistream_garbage_ends_an_inbound_socket(case: str) -> None:
    garbage, truncated = MULTISTREAM_GARBAGE[case]
    async with undisturbed() as host, raw(writing(garbage, then_close=truncated)) as peer:
        events = host.events()
        link = await peer.dial(host.addresses[0])
        event = await anext(events)
        assert isinstance(event, InboundFailed)
        assert event.error.stage == "security negotiation"
        await link.closed()


@pytest.mark.parametrize("case", ["truncated", "oversized", "too short"])
async def test_noise_garbage_ends_an_inbound_socket(case: str) -> None:
    garbage, truncated = NOISE_GARBAGE[case]
    script = writing(garbage, then_close=truncated, after=initiating(SELECTED))
    async with undisturbed() as host, raw(script) as peer:
        events = host.events()
        link = await peer.dial(host.addresses[0])
        event = await anext(events)
        assert isinstance(event, InboundFailed)
        assert event.error.stage in ("noise message 1", "noise handshake")
        await link.closed()


async def test_another_peer_than_the_dialled_one() -> None:
    async with undisturbed() as host, raw(responding()) as peer, raw(responding()) as expected:
        with pytest.raises(DialError) as caught:
            await host.connect(peer.address.replace(str(peer.peer_id), str(expected.peer_id)))
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, PeerIdMismatchError)
        assert (failure.expected, failure.actual) == (str(expected.peer_id), str(peer.peer_id))


def forge(peer: RawPeer) -> None:
    """Let a peer claim its key with a signature over another static key."""
    forged = NoiseIdentity(peer.key, SystemEntropy())
    forged.static = peer.identity.static
    peer.identity = forged


async def test_a_bad_payload_signature_fails_a_dial() -> None:
    async with undisturbed() as host, raw(responding()) as peer:
        forge(peer)
        failure = await failed_dial(host, peer)
        assert isinstance(failure, RemoteProtocolError)
        assert (failure.protocol, failure.stage) == ("noise", "noise message 2")


async def test_a_bad_payload_signature_ends_an_inbound_socket() -> None:
    async with undisturbed() as host, raw(initiating(MESSAGE_3)) as peer:
        forge(peer)
        events = host.events()
        link = await peer.dial(host.addresses[0])
        event = await anext(events)
        assert isinstance(event, InboundFailed)
        assert isinstance(event.error, RemoteProtocolError)
        assert (event.error.protocol, event.error.stage) == ("noise", "noise message 3")
        await link.closed()


@pytest.mark.parametrize("encrypted", [True, False], ids=["instead of yamux", "instead of a record"])
async def test_garbage_on_a_connection_ends_it(encrypted: bool) -> None:
    async with undisturbed() as host, raw(responding()) as peer:
        connection = await host.connect(peer.address)
        link = await peer.link()
        stream = await connection.open_stream(ECHO)
        await link.stream_for(ECHO)
        (link.send if encrypted else link.write)(b"\x00\x18" + bytes([9]) * 24)
        with pytest.raises(RemoteProtocolError) as caught:
            await stream.read()
        assert (caught.value.protocol, caught.value.stage) == ("yamux" if encrypted else "noise", "connection")
        await connection.wait_closed()
        await link.closed()


async def test_garbage_on_a_stream_resets_it_alone() -> None:
    async with undisturbed() as host, raw(initiating()) as peer:
        link = await peer.dial(host.addresses[0])
        link.send_data(1, MULTISTREAM_GARBAGE["oversized"][0], SYN)
        await link.frame(lambda frame: frame.stream_id == 1 and bool(frame.flags & RST))
        link.send_data(3, proposal(PING) + bytes(32), SYN)
        answer = proposal(PING) + bytes(32)
        while link.sent_on(3) != answer:
            await link.more()


async def test_random_bytes_end_only_their_own_socket() -> None:
    async with undisturbed() as host, raw(initiating("accepted")) as peer:
        for _ in range(20):
            link = await peer.dial(host.addresses[0])
            link.write(os.urandom(2000))
            link.transport.write_eof()
            await link.closed()


async def test_a_port_in_use_is_a_listen_error() -> None:
    async with undisturbed() as host:
        address = str(host.addresses[0]).split("/p2p/")[0]
        with pytest.raises(ListenError) as caught:
            await Host(listen=[address]).__aenter__()
        assert (caught.value.address, caught.value.stage) == (address, "listen")
        assert "in use" in str(caught.value)


async def test_a_refused_connection_and_a_name_that_no_resolver_takes() -> None:
    async with undisturbed() as host:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        for address, stage in ((f"/ip4/127.0.0.1/tcp/{port}", "connect"), ("/dns4/a..b/tcp/1", "resolve")):
            with pytest.raises(DialError) as caught:
                await host.connect(address)
            (failure,) = caught.value.failures.values()
            assert isinstance(failure, ConnectionEndedError)
            assert failure.stage == stage
