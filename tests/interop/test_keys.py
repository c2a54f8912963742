"""Every key type against js, go and py-libp2p, ours and theirs, whoever dials: who connects has proved its key.

What a stack cannot do is a row of `OURS_REFUSED` or `THEIRS_REFUSED`, which holds for as long as that stack refuses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from aiolibp2p import Host, KeyType, PrivateKey, Stream
from aiolibp2p.errors import Libp2pError
from tests.interop.peers import PeerProgramError, Peers, Stack
from tests.interop.served import ECHO, ask_report, echo

LOCAL = ["/ip4/127.0.0.1/tcp/0"]
VECTORS = Path(__file__).parent.parent / "vectors" / "identity"
# RSA of 2,048 bits is what is generated; keys of other sizes are read.
FILES = {"rsa_4096": ("keys.json", "rsa"), "rsa_8192": ("rsa_bounds.json", "rsa_8192")}

THEIRS = [key_type.name.lower() for key_type in KeyType]
OURS = [*THEIRS, *FILES]

THEIRS_REFUSED: Final = {
    ("js", "ecdsa"): "js-libp2p generates ECDSA keys, but makes no peer ID of one, and so no host",
    ("py", "ecdsa"): "py-libp2p generates ECDSA keys, but neither signs nor verifies with one",
}
"""Keys that a host of a stack cannot have, and why."""
OURS_REFUSED: Final = {
    ("js", "ecdsa"): "js-libp2p reads public keys of ECDSA in a form of its own, not as a SubjectPublicKeyInfo",
    ("js", "rsa_8192"): "js-libp2p counts the zero octet before the modulus: 8,192 bits are 8,200 to it, and too many",
    ("py", "ecdsa"): "py-libp2p reads public keys of ECDSA as bare points, not as a SubjectPublicKeyInfo",
    ("py", "rsa_8192"): "py-libp2p takes RSA keys of 4,096 bits at most",
}
"""Keys of ours that a stack cannot read, and why."""
UNREADABLE_RECORDS: Final = {
    ("py", "rsa"): "py-libp2p leaves out of the record's envelope that the key is of type 0, RSA: the type is required",
}
"""Keys of theirs whose signed peer record nobody can open, and why."""
NO_HOST: Final = {"js": "UnsupportedKeyTypeError", "py": "NotImplementedError"}


def our_key(name: str) -> PrivateKey:
    if name in FILES:
        file, vector = FILES[name]
        vectors = json.loads((VECTORS / file).read_text("utf-8"))["keys"]
        return PrivateKey.from_bytes(bytes.fromhex(vectors[vector]["private"]))
    return PrivateKey.generate(type=KeyType[name.upper()])


def their_option(stack: Stack, name: str) -> str:
    """Return the listener's option for a key of that type."""
    return f"{'-' if stack == 'go' else '--'}key-type={name}"


def cells(names: list[str], refused: Mapping[tuple[str, str], str]) -> list[Any]:
    """Return the pairs of stack and key that work."""
    return [cell(stack, name) for stack in ("js", "go", "py") for name in names if (stack, name) not in refused]


def cell(stack: str, name: str) -> Any:
    return pytest.param(stack, name, marks=[] if stack == "js" else [getattr(pytest.mark, stack)])


async def we_dial(key: PrivateKey, peers: Peers, stack: Stack, their_type: str) -> None:
    """Dial, and check who is who on both sides."""
    listener = peers.listener(stack, "listen", their_option(stack, their_type))
    async with Host(listen=LOCAL, key=key) as host:
        connection = await host.connect(listener.addr)
        assert str(connection.peer_id) == listener.peer_id
        said = await host.identify(listener.addr)
        assert said.public_key is not None
        assert said.public_key.type.name.lower() == their_type
        assert said.public_key.peer_id == connection.peer_id
        if (stack, their_type) in UNREADABLE_RECORDS:
            assert said.peer_record is None
        else:
            assert said.peer_record is not None
            assert said.peer_record.peer_id == connection.peer_id
        assert await host.ping(listener.addr) > 0
        report = await ask_report(host, listener.addr)
        assert (report["peerId"], report["signedPeerRecord"]) == (str(key.public.peer_id), True)


async def they_dial(key: PrivateKey, peers: Peers, stack: Stack, their_type: str) -> None:
    """Be dialled, and check who is who on both sides."""
    dialer, flags = peers.dialer(stack), {"key-type": their_type}
    callers: list[str] = []
    host = Host(listen=LOCAL, key=key)

    async def echo_when_identified(stream: Stream) -> None:
        connection = stream.connection
        said = await host.identify(connection.peer_id)
        assert said.public_key is not None
        assert said.public_key.type.name.lower() == their_type
        assert said.public_key.peer_id == connection.peer_id
        callers.append(str(connection.peer_id))
        await echo(stream)

    host.handle(ECHO, echo_when_identified)
    async with host:
        address = str(host.addresses[0])
        assert address.endswith(f"/p2p/{key.public.peer_id}")  # which they check
        assert (await dialer.run("info", address, **flags))["signedPeerRecord"] is True
        answer = await dialer.run("echo", address, 1000, **flags)
        assert answer["ok"]
        assert callers == [answer["peerId"]]
        assert (await dialer.run("ping", address, 3, **flags))["n"] == 3


@pytest.mark.parametrize(("stack", "name"), cells(OURS, OURS_REFUSED))
@pytest.mark.conforms("K1")
async def test_we_dial_with_a_key_of_every_type(peers: Peers, stack: Stack, name: str) -> None:
    await we_dial(our_key(name), peers, stack, "ed25519")


@pytest.mark.parametrize(("stack", "name"), cells(OURS, OURS_REFUSED))
@pytest.mark.conforms("K1")
async def test_a_key_of_ours_of_every_type_is_dialled(peers: Peers, stack: Stack, name: str) -> None:
    await they_dial(our_key(name), peers, stack, "ed25519")


@pytest.mark.parametrize(("stack", "name"), cells(THEIRS, THEIRS_REFUSED))
@pytest.mark.conforms("K1")
async def test_we_dial_a_key_of_theirs_of_every_type(peers: Peers, stack: Stack, name: str) -> None:
    await we_dial(PrivateKey.generate(), peers, stack, name)


@pytest.mark.parametrize(("stack", "name"), cells(THEIRS, THEIRS_REFUSED))
@pytest.mark.conforms("K1")
async def test_they_dial_with_a_key_of_every_type(peers: Peers, stack: Stack, name: str) -> None:
    await they_dial(PrivateKey.generate(), peers, stack, name)


@pytest.mark.parametrize(("stack", "name"), [cell(*refused) for refused in THEIRS_REFUSED])
async def test_a_host_of_that_stack_cannot_have_such_a_key(peers: Peers, stack: Stack, name: str) -> None:
    with pytest.raises(PeerProgramError, match=NO_HOST[stack]):
        peers.listener(stack, "listen", their_option(stack, name))


@pytest.mark.parametrize(("stack", "name"), [cell(*refused) for refused in OURS_REFUSED])
async def test_that_stack_refuses_such_a_key_of_ours_and_we_say_so(peers: Peers, stack: Stack, name: str) -> None:
    listener = peers.listener(stack)
    async with Host(listen=LOCAL, key=our_key(name)) as host:
        # Our side is done when they look at our key: whether they end the connection or only leave it is theirs to say.
        with pytest.raises(Libp2pError):
            await host.identify(listener.addr)
        with pytest.raises(PeerProgramError):
            await peers.dialer(stack).run("info", host.addresses[0])
