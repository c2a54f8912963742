"""What is not the protocol ends one connection or one stream, with an error that names the stage; others go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aiolibp2p import Host, PrivateKey
from aiolibp2p.errors import ConnectionEndedError, DialError, ListenError, PeerIdMismatchError, RemoteProtocolError
from aiolibp2p.net.events import InboundFailed
from aiolibp2p.sansio.multistream import HEADER, proposal
from aiolibp2p.sansio.noise import PROTOCOL as NOISE
from aiolibp2p.sansio.noise import NoiseIdentity
from aiolibp2p.sansio.yamux import DATA, RST, SYN
from aiolibp2p.sim import SeededEntropy, current_loop, current_net
from tests.support.hosts import ECHO, OTHER, raw_peer, sim_host, two_hosts
from tests.support.raw import RawLink, RawPeer
from tests.support.scripts import MESSAGE_1, MESSAGE_2, MESSAGE_3, SELECTED, initiating, responding

NEGOTIATION = "security negotiation"

MULTISTREAM_GARBAGE = {
    "no multistream": b"SSH-2.0-OpenSSH_9.6\r\n" + bytes(100),
    "a length that never ends": b"\xff\xff\xff\xff",
    "a length that is too long for its value": b"\x93\x00/multistream/1.0.0\n",
    "a message that is too long": b"\x81\x08" + b"x" * 1025,
    "an empty message": b"\x00",
    "no newline": b"\x13/multistream/1.0.0!",
    "another version": b"\x13/multistream/2.0.0\n",
    "no text": b"\x04\xff\xfe\xfd\n",
    "an unknown answer": HEADER + b"\x05what\n",
}
NOISE_GARBAGE = {
    "a message of no bytes": b"\x00\x00",
    "a message that is too short": b"\x00\x05hello",
    "a message that is too long": b"\xff\xff" + bytes(65535),
    "a message that does not decrypt": b"\x00\xc8" + bytes(range(200)),
    "a key of zeros": b"\x00\xc8" + bytes(200),
}


@asynccontextmanager
async def undisturbed() -> AsyncIterator[Host]:
    """Give a host with another connection, which must not notice."""
    async with two_hosts() as (alice, bob, connection):
        yield alice
        assert connection.ended is None
        assert await alice.ping(bob.peer_id) == 0


async def failed_dial(host: Host, peer: RawPeer) -> BaseException:
    with pytest.raises(DialError) as caught:
        await host.connect(peer.address)
    assert caught.value.peer_id == str(peer.peer_id)
    (failure,) = caught.value.failures.values()
    assert current_loop().time_ns() == 0
    return failure


@pytest.mark.parametrize("garbage", MULTISTREAM_GARBAGE.values(), ids=MULTISTREAM_GARBAGE.keys())
async def test_garbage_instead_of_a_security_negotiation_fails_the_dial(garbage: bytes) -> None:
    async def script(link: RawLink) -> None:
        link.write(garbage)

    async with undisturbed() as host, raw_peer(script) as peer:
        failure = await failed_dial(host, peer)
        assert isinstance(failure, RemoteProtocolError)
        assert (failure.protocol, failure.stage) == ("multistream-select", NEGOTIATION)


@pytest.mark.parametrize("garbage", MULTISTREAM_GARBAGE.values(), ids=MULTISTREAM_GARBAGE.keys())
async def test_garbage_instead_of_a_security_negotiation_ends_an_inbound_socket(garbage: bytes) -> None:
    async def script(link: RawLink) -> None:
        link.write(garbage)

    async with undisturbed() as host, raw_peer(script) as peer:
        events = host.events()
        link = await peer.dial(host.addresses[0])
        if garbage == MULTISTREAM_GARBAGE["an unknown answer"]:
            assert await link.read(len(HEADER) + 4) == HEADER + b"\x03na\n"
            return  # a proposal that is not spoken here
        assert await link.closed() == 0
        event = await anext(events)
        assert isinstance(event, InboundFailed)
        assert isinstance(event.error, RemoteProtocolError)
        assert event.error.stage == NEGOTIATION


@pytest.mark.parametrize("garbage", NOISE_GARBAGE.values(), ids=NOISE_GARBAGE.keys())
async def test_garbage_instead_of_noise_message_2_fails_the_dial(garbage: bytes) -> None:
    async def script(link: RawLink) -> None:
        await responding(SELECTED)(link)
        link.write(garbage)

    async with undisturbed() as host, raw_peer(script) as peer:
        failure = await failed_dial(host, peer)
        assert isinstance(failure, RemoteProtocolError)
        assert (failure.protocol, failure.stage) == ("noise", "noise message 2")


@pytest.mark.parametrize(
    ("until", "garbage"),
    [
        pytest.param(until, garbage, id=f"{until}, {name}")
        for until in (SELECTED, MESSAGE_1)
        for name, garbage in NOISE_GARBAGE.items()
        # The first message is neither encrypted nor signed: what follows its key is not looked at.
        if (until, name) != (SELECTED, "a message that does not decrypt")
    ],
)
async def test_garbage_instead_of_noise_message_1_or_3_ends_an_inbound_socket(until: str, garbage: bytes) -> None:
    async def script(link: RawLink) -> None:
        await initiating(until)(link)
        link.write(garbage)

    async with undisturbed() as host, raw_peer(script) as peer:
        events = host.events()
        link = await peer.dial(host.addresses[0])
        event = await anext(events)
        assert isinstance(event, InboundFailed)
        assert isinstance(event.error, RemoteProtocolError)
        assert event.error.protocol == "noise"
        assert event.error.stage == ("noise message 1" if until == SELECTED else "noise message 3")
        assert await link.closed() == 0


@pytest.mark.parametrize("until", [SELECTED, MESSAGE_1, MESSAGE_2])
async def test_a_socket_that_closes_during_the_handshake_fails_the_dial_with_its_stage(until: str) -> None:
    async def script(link: RawLink) -> None:
        await responding(SELECTED)(link)
        if until != SELECTED:
            link.begin_noise()
            message_2 = await link.read_noise()
            link.write(message_2[:-1] if until == MESSAGE_2 else b"\x00")
        link.transport.close()

    async with undisturbed() as host, raw_peer(script) as peer:
        failure = await failed_dial(host, peer)
        assert isinstance(failure, ConnectionEndedError)
        assert (failure.by, failure.stage) == ("remote", "noise handshake")


@pytest.mark.conforms("N7")
async def test_another_peer_than_the_dialled_one_is_told_by_name_and_tried_once() -> None:
    async with undisturbed() as host, raw_peer() as peer, raw_peer(name="expected") as expected:
        address = peer.address.replace(str(peer.peer_id), str(expected.peer_id))
        with pytest.raises(DialError) as caught:
            await host.connect(address)
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, PeerIdMismatchError)
        assert (failure.expected, failure.actual) == (str(expected.peer_id), str(peer.peer_id))
        assert failure.stage == "noise message 2"
        assert len(peer.links) == 1
        await host.connect(peer.address)


@pytest.mark.conforms("N4")
async def test_a_payload_whose_signature_is_not_the_identity_keys_fails_the_dial() -> None:
    async with undisturbed() as host, raw_peer() as peer:
        forge(peer)
        failure = await failed_dial(host, peer)
        assert isinstance(failure, RemoteProtocolError)
        assert not isinstance(failure, PeerIdMismatchError)
        assert (failure.protocol, failure.stage) == ("noise", "noise message 2")


@pytest.mark.conforms("N4")
async def test_a_payload_whose_signature_is_not_the_identity_keys_ends_an_inbound_socket() -> None:
    async with undisturbed() as host, raw_peer(initiating(MESSAGE_3)) as peer:
        forge(peer)
        events = host.events()
        link = await peer.dial(host.addresses[0])
        event = await anext(events)
        assert isinstance(event, InboundFailed)
        assert isinstance(event.error, RemoteProtocolError)
        assert (event.error.protocol, event.error.stage) == ("noise", "noise message 3")
        assert await link.closed() == 0


def forge(peer: RawPeer) -> None:
    """Let a peer claim its key with a signature over another static key."""
    stolen = NoiseIdentity(peer.key, SeededEntropy("another static key"))
    stolen.static = peer.identity.static
    peer.identity = stolen


@pytest.mark.parametrize(
    ("garbage", "encrypted"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (bytes(12 * 3).replace(b"\x00", b"\x09"), True),
        (b"\x00\x00\x00\x01\x00\x00\x00\x02\xff\xff\xff\xff", True),
        (b"\x00\x20" + bytes(32), False),
        (b"\x00\x03abc", False),
    ],
    ids=["no yamux", "an unknown version", "a frame beyond its window", "a record of other keys", "a record too short"],
)
async def test_garbage_on_a_connection_ends_it_alone(garbage: bytes, encrypted: bool) -> None:
    async with undisturbed() as host, raw_peer() as peer:
        connection = await host.connect(peer.address)
        link = await peer.link()
        stream = await connection.open_stream(ECHO)
        await current_loop().settle()
        (link.send if encrypted else link.write)(garbage)
        with pytest.raises(RemoteProtocolError) as caught:
            await stream.read()
        assert (caught.value.protocol, caught.value.stage) == ("yamux" if encrypted else "noise", "connection")
        assert connection.ended is caught.value
        await connection.wait_closed()
        assert await link.closed() == 0


@pytest.mark.conforms("N12")
async def test_a_connection_that_ends_within_a_record_was_truncated() -> None:
    async with undisturbed() as host, raw_peer() as peer:
        connection = await host.connect(peer.address)
        link = await peer.link()
        await current_loop().settle()
        link.write(b"\x40\x00 and nothing more")
        link.transport.close()
        await current_loop().settle()
        assert isinstance(connection.ended, ConnectionEndedError)
        assert (connection.ended.by, connection.ended.stage) == ("remote", "connection")


@pytest.mark.parametrize("garbage", MULTISTREAM_GARBAGE.values(), ids=MULTISTREAM_GARBAGE.keys())
async def test_garbage_instead_of_a_negotiation_resets_an_inbound_stream_alone(garbage: bytes) -> None:
    async with undisturbed() as host, raw_peer(initiating()) as peer:
        link = await peer.dial(host.addresses[0])
        link.send_data(1, proposal("/ipfs/ping/1.0.0"), SYN)
        link.send_data(3, garbage, SYN)
        link.send_data(1, bytes(32))
        await current_loop().settle()
        if garbage == MULTISTREAM_GARBAGE["an unknown answer"]:
            assert link.sent_on(3) == HEADER + b"\x03na\n"
        else:
            assert len(link.flagged(3, RST)) == 1
        assert link.sent_on(1) == proposal("/ipfs/ping/1.0.0") + bytes(32)


@pytest.mark.parametrize("garbage", MULTISTREAM_GARBAGE.values(), ids=MULTISTREAM_GARBAGE.keys())
@pytest.mark.parametrize("protocols", [(ECHO,), (ECHO, OTHER)], ids=["lazy", "eager"])
async def test_garbage_instead_of_an_answer_resets_our_stream_alone(garbage: bytes, protocols: tuple[str, ...]) -> None:
    async with undisturbed() as host, raw_peer() as peer:
        connection = await host.connect(peer.address)
        link = await peer.link()

        def garble(frame) -> None:  # type: ignore[no-untyped-def]
            if ECHO.encode() in frame.body:
                link.send_frame(DATA, 0, frame.stream_id, None, garbage)

        link.on_frame = garble
        with pytest.raises(RemoteProtocolError) as caught:
            await (await connection.open_stream(*protocols)).read()
        assert (caught.value.protocol, caught.value.stage) == ("multistream-select", "protocol negotiation")
        await current_loop().settle()
        number = await link.stream_for(ECHO)
        assert len(link.flagged(number, RST)) == 1
        assert connection.ended is None


async def test_a_port_in_use_is_a_listen_error_with_the_address_and_the_first_host_goes_on() -> None:
    async with undisturbed() as host:
        address = str(host.addresses[0]).split("/p2p/")[0]
        runtime = host._runtime
        with pytest.raises(ListenError) as caught:
            async with Host(listen=[address], runtime=runtime, key=PrivateKey.generate(SeededEntropy("x"))):
                raise AssertionError("it listens on a port in use")
        assert (caught.value.address, caught.value.stage) == (address, "listen")
        assert len(current_net().listeners) == 2


@pytest.mark.parametrize("address", ["/ip4/9.9.9.9/tcp/4001", "/ip4/127.0.0.1/udp/4001", "/dns4/localhost/tcp/1"])
async def test_what_cannot_be_listened_on_is_a_listen_error(address: str) -> None:
    with pytest.raises(ListenError) as caught:
        async with sim_host("ours", listen=["/ip4/127.0.0.1/tcp/0", address]):
            raise AssertionError("it listens on what is not ours")
    assert caught.value.address == address
    assert current_net().listeners == []


async def test_a_noise_proposal_is_all_that_is_taken_on_a_raw_socket() -> None:
    async def script(link: RawLink) -> None:
        link.write(proposal("/plaintext/2.0.0"))
        assert await link.read(len(HEADER) + 4) == HEADER + b"\x03na\n"
        link.write(proposal("/tls/1.0.0")[len(HEADER) :])
        assert await link.read(4) == b"\x03na\n"
        link.write(proposal(NOISE)[len(HEADER) :])
        assert await link.read_message() == NOISE

    async with sim_host("ours") as host, raw_peer(script) as peer:
        await peer.dial(host.addresses[0])
