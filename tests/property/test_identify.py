"""Identify: what is said is heard, however it is cut, within every size."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st

from aiolibp2p.errors import LimitError, RemoteProtocolError
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.limits import Limits
from aiolibp2p.sansio.identify import MESSAGE_BYTES, MESSAGES, Decoder, Identify, encode, merge_push, verify


class SeededEntropy:
    """Bytes that follow from a seed."""

    def __init__(self, seed: str) -> None:
        self.seed = seed

    def token(self, n: int) -> bytes:
        return (sha256(self.seed.encode()).digest() * (n // 32 + 1))[:n]

    def fork(self, label: str) -> SeededEntropy:
        return SeededEntropy(f"{self.seed}:{label}")


KEY = PrivateKey.generate(SeededEntropy("peer"))
LIMITS = Limits()

texts = st.text(st.characters(codec="utf-8"), max_size=40)
addresses = st.integers(1, 65535).map(lambda port: Multiaddr(f"/ip4/192.0.2.1/tcp/{port}"))
said = st.builds(
    Identify,
    protocol_version=st.none() | texts,
    agent_version=st.none() | texts,
    public_key=st.sampled_from([None, KEY.public]),
    listen_addresses=st.lists(addresses, max_size=LIMITS.identify_addresses, unique=True).map(tuple),
    observed_address=st.none() | addresses,
    protocols=st.lists(
        st.builds(lambda text, times: (text + "/") * times, texts, st.sampled_from([1, 2, 20])),
        max_size=20,
        unique=True,
    ).map(tuple),
    signed_peer_record=st.none() | st.binary(max_size=600),
)
cuts = st.lists(st.integers(1, 500), max_size=30)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [*chunks, data]


def hear(chunks: list[bytes]) -> Identify | str:
    decoder = Decoder(LIMITS)
    try:
        for chunk in chunks:
            decoder.receive_bytes(chunk)
        return decoder.receive_eof()
    except (LimitError, RemoteProtocolError) as error:
        return str(error)


@settings(max_examples=50)
@given(message=said, sizes=cuts)
def test_what_is_said_is_heard_however_it_is_cut(message: Identify, sizes: list[int]) -> None:
    messages = encode(message)
    assert len(messages) <= MESSAGES
    assert all(len(one) <= MESSAGE_BYTES for one in messages)
    heard = hear(cut(b"".join(messages), sizes))
    assert isinstance(heard, Identify)
    # An empty record is as good as none, and is not sent.
    assert (heard.signed_peer_record or b"") == (message.signed_peer_record or b"")
    for name in ("protocol_version", "agent_version", "public_key", "listen_addresses", "observed_address"):
        assert getattr(heard, name) == getattr(message, name)
    assert heard.protocols == message.protocols
    assert verify(heard, KEY.public.peer_id) == heard


@given(data=st.binary(max_size=80), sizes=st.lists(st.integers(1, 12), max_size=20))
def test_any_bytes_end_alike_however_they_are_cut(data: bytes, sizes: list[int]) -> None:
    assert hear(cut(data, sizes)) == hear([data])


@settings(max_examples=50)
@given(old=said, update=said)
def test_push_of_the_same_changes_nothing(old: Identify, update: Identify) -> None:
    merged = merge_push(old, update)
    assert merge_push(merged, update) == merged
    assert merge_push(old, old) == old
