"""multistream-select: chunks mean nothing, and hostile bytes end in a documented error."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from aiolibp2p.errors import NegotiationError, RemoteProtocolError
from aiolibp2p.sansio.multistream import HEADER, NA, EagerInitiator, LazyInitiator, Responder, encode_message

Negotiation = Responder | EagerInitiator | LazyInitiator

SPOKEN = ("/echo/1.0.0", "/" + "long" * 60)

ROLES: list[Callable[[], Negotiation]] = [
    lambda: Responder(SPOKEN, lambda: SPOKEN),
    lambda: EagerInitiator(SPOKEN),
    lambda: LazyInitiator(SPOKEN[0]),
]

pieces = st.one_of(
    st.sampled_from([HEADER, NA, b"\x03ls\n", *map(encode_message, SPOKEN), encode_message("/unknown")]),
    st.binary(max_size=12),
)
conversations = st.one_of(
    st.lists(pieces, max_size=8).map(b"".join),
    st.lists(pieces, max_size=6).map(lambda rest: HEADER + b"".join(rest)),
)
cuts = st.lists(st.integers(1, 40), max_size=40)


def run(negotiation: Negotiation, chunks: list[bytes]) -> tuple[object, bytes, bytes]:
    """Return how it ended, everything sent, and the bytes of the next protocol."""
    sent = negotiation.bytes_to_send()
    for position, chunk in enumerate(chunks):
        try:
            chosen = negotiation.receive_bytes(chunk)
        except (RemoteProtocolError, NegotiationError) as error:
            return str(error), sent + negotiation.bytes_to_send(), b""
        sent += negotiation.bytes_to_send()
        if chosen is not None:
            return (chosen,), sent, negotiation.unread + b"".join(chunks[position + 1 :])
    return None, sent, b""


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [*chunks, data]


@given(role=st.sampled_from(ROLES), data=conversations, sizes=cuts)
def test_how_bytes_are_cut_changes_nothing(role: Callable[[], Negotiation], data: bytes, sizes: list[int]) -> None:
    whole = run(role(), [data])
    assert run(role(), cut(data, sizes)) == whole
    assert run(role(), [data[i : i + 1] for i in range(len(data))]) == whole


@given(
    offered=st.lists(st.sampled_from(["/a", "/b", "/c", "/d"]), min_size=1, max_size=4, unique=True),
    spoken=st.sets(st.sampled_from(["/a", "/b", "/c", "/d"])),
    sizes=st.lists(st.integers(1, 30), min_size=1),
)
def test_two_sides_settle_on_the_first_common_protocol(offered: list[str], spoken: set[str], sizes: list[int]) -> None:
    initiator = EagerInitiator(offered)
    responder = Responder(spoken)
    expected = next((protocol for protocol in offered if protocol in spoken), None)
    ours = theirs = None
    refused: tuple[str, ...] = ()
    try:
        while to_responder := initiator.bytes_to_send():
            for chunk in cut(to_responder, sizes):
                theirs = theirs or responder.receive_bytes(chunk)
            for chunk in cut(responder.bytes_to_send(), sizes):
                ours = ours or initiator.receive_bytes(chunk)
    except NegotiationError as error:
        refused = error.offered
    assert ours == theirs == expected
    assert refused == (() if expected else tuple(offered))
