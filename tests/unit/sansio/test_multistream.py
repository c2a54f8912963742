"""multistream-select 1.0; M1 to M10 are the rows of the conformance checklist."""

from __future__ import annotations

import pytest

from aiolibp2p.errors import InvalidValueError, LocalProtocolError, NegotiationError, RemoteProtocolError
from aiolibp2p.sansio.multistream import (
    HEADER,
    MESSAGE_BYTES,
    NA,
    REFUSALS,
    EagerInitiator,
    LazyInitiator,
    MessageReader,
    Responder,
    encode_listing,
    encode_message,
    proposal,
)

ECHO = "/echo/1.0.0"
PING = "/ipfs/ping/1.0.0"
LONGEST = "/" + "x" * (MESSAGE_BYTES - 2)

MALFORMED = {
    "empty message": b"\x00",
    "only a newline": b"\x01\n",
    "no newline": b"\x05/echo",
    "not UTF-8": b"\x03\xff\xfe\n",
    "one byte too long": b"\x81\x08",
    "length of three bytes": b"\xff\xff\x01",
    "length that is not minimal": b"\x83\x00na\n",
}


def responder(*protocols: str) -> Responder:
    return Responder(protocols, lambda: protocols)


@pytest.mark.conforms("M1")
def test_m1_message_has_varint_length_and_newline() -> None:
    assert encode_message("/multistream/1.0.0") == HEADER == b"\x13/multistream/1.0.0\n"
    assert encode_message("na") == NA == b"\x03\x6e\x61\x0a"
    assert encode_message("x" * 126) == b"\x7f" + b"x" * 126 + b"\n"
    assert encode_message("x" * 127) == b"\x80\x01" + b"x" * 127 + b"\n"
    assert proposal(ECHO) == HEADER + b"\x0c/echo/1.0.0\n"


@pytest.mark.parametrize("first", [b"\x0c/echo/1.0.0\n", NA, b"\x13/multistream/2.0.0\n", b"GET / HTTP/1.1\r\n"])
@pytest.mark.conforms("M2")
def test_m2_first_message_other_than_the_header_aborts(first: bytes) -> None:
    for negotiation in (responder(ECHO), EagerInitiator([ECHO]), LazyInitiator(ECHO)):
        with pytest.raises(RemoteProtocolError) as caught:
            negotiation.receive_bytes(first + bytes(1100))
        assert caught.value.protocol == "multistream-select"


@pytest.mark.conforms("M3")
def test_m3_responder_takes_header_proposal_and_payload_in_one_chunk() -> None:
    negotiation = responder(PING, ECHO)
    assert negotiation.receive_bytes(proposal(ECHO) + b"payload") == ECHO
    assert negotiation.bytes_to_send() == proposal(ECHO)
    assert negotiation.bytes_to_send() == b""
    assert negotiation.unread == b"payload"


def test_m3_responder_takes_single_bytes_and_answers_the_header_first() -> None:
    negotiation = responder(ECHO)
    sent = b""
    chosen = None
    for byte in proposal(ECHO):
        assert chosen is None
        chosen = negotiation.receive_bytes(bytes((byte,)))
        sent += negotiation.bytes_to_send()
    assert chosen == ECHO
    assert sent == proposal(ECHO)
    assert negotiation.unread == b""


@pytest.mark.parametrize("initiator", [lambda: LazyInitiator(ECHO), lambda: EagerInitiator([ECHO, PING])])
@pytest.mark.conforms("M3")
def test_m3_initiator_sends_header_and_first_proposal_at_once(initiator: object) -> None:
    assert callable(initiator)
    negotiation = initiator()
    assert negotiation.bytes_to_send() == proposal(ECHO)
    assert negotiation.receive_bytes(HEADER) is None
    assert negotiation.receive_bytes(encode_message(ECHO) + b"answer") == ECHO
    assert negotiation.unread == b"answer"
    assert negotiation.bytes_to_send() == b""


@pytest.mark.conforms("M3")
def test_m3_initiator_takes_header_answer_and_payload_in_one_chunk() -> None:
    for negotiation in (LazyInitiator(ECHO), EagerInitiator([ECHO])):
        assert negotiation.receive_bytes(memoryview(proposal(ECHO) + b"answer")) == ECHO
        assert negotiation.unread == b"answer"


@pytest.mark.conforms("M4")
def test_m4_lazy_initiator_learns_of_na() -> None:
    negotiation = LazyInitiator(ECHO)
    assert negotiation.receive_bytes(HEADER + NA[:2]) is None
    with pytest.raises(NegotiationError) as caught:
        negotiation.receive_bytes(NA[2:])
    assert caught.value.offered == (ECHO,)
    with pytest.raises(LocalProtocolError):
        negotiation.receive_bytes(b"")


def test_eager_initiator_proposes_the_next_protocol_after_na() -> None:
    negotiation = EagerInitiator(["/a", "/b", "/c"])
    assert negotiation.bytes_to_send() == proposal("/a")
    assert negotiation.receive_bytes(HEADER + NA) is None
    assert negotiation.bytes_to_send() == encode_message("/b")
    assert negotiation.receive_bytes(NA) is None
    assert negotiation.bytes_to_send() == encode_message("/c")
    assert negotiation.receive_bytes(encode_message("/c")) == "/c"


def test_eager_initiator_names_all_refused_protocols() -> None:
    negotiation = EagerInitiator(["/a", "/b"])
    negotiation.receive_bytes(HEADER + NA)
    with pytest.raises(NegotiationError) as caught:
        negotiation.receive_bytes(NA)
    assert caught.value.offered == ("/a", "/b")


def test_eager_initiator_needs_a_protocol() -> None:
    with pytest.raises(LocalProtocolError):
        EagerInitiator([])


def test_initiators_refuse_an_answer_that_was_not_proposed() -> None:
    for negotiation in (EagerInitiator(["/a", "/b"]), LazyInitiator("/a")):
        with pytest.raises(RemoteProtocolError):
            negotiation.receive_bytes(HEADER + encode_message("/b"))


@pytest.mark.conforms("M5")
def test_m5_message_of_the_limit_is_sent_and_accepted() -> None:
    assert len(encode_message(LONGEST)) == MESSAGE_BYTES + 2
    negotiation = responder(LONGEST)
    assert negotiation.receive_bytes(proposal(LONGEST) + b"x") == LONGEST
    assert negotiation.bytes_to_send() == proposal(LONGEST)
    assert negotiation.unread == b"x"


@pytest.mark.parametrize("text", ["", "two\nlines", LONGEST + "x", "\ud800"])
def test_m5_text_that_is_no_message_cannot_be_proposed(text: str) -> None:
    for propose in (encode_message, proposal, LazyInitiator, lambda text: EagerInitiator([ECHO, text])):
        with pytest.raises(InvalidValueError):
            propose(text)


@pytest.mark.conforms("M5")
def test_m5_oversized_length_is_refused_before_the_message_arrives() -> None:
    reader = MessageReader()
    reader.feed(b"\x81\x08")
    with pytest.raises(RemoteProtocolError):
        reader.next_message()


@pytest.mark.conforms("M5")
def test_m5_no_more_than_one_unfinished_message_is_kept() -> None:
    reader = MessageReader()
    reader.feed(encode_message(ECHO) * 1000 + encode_message(LONGEST)[:-1])
    for _ in range(1000):
        assert reader.next_message() == ECHO
    assert reader.next_message() is None
    assert len(reader.take_rest()) == MESSAGE_BYTES + 1


@pytest.mark.conforms("M6")
def test_m6_ls_is_answered_with_a_nested_list() -> None:
    negotiation = responder("/a", "/b/1")
    assert negotiation.receive_bytes(HEADER + b"\x03ls\n") is None
    assert negotiation.bytes_to_send() == HEADER + b"\x0b\x03/a\n\x05/b/1\n\n"
    assert negotiation.receive_bytes(encode_message("/a")) == "/a"


@pytest.mark.conforms("M6")
def test_m6_ls_without_a_listing_is_answered_na() -> None:
    negotiation = Responder({ECHO})
    assert negotiation.receive_bytes(HEADER + b"\x03ls\n") is None
    assert negotiation.bytes_to_send() == HEADER + NA


def test_m6_list_is_cut_at_the_longest_message() -> None:
    listing = encode_listing(f"/protocol/{n}" for n in range(1000))
    reader = MessageReader()
    reader.feed(listing)
    text = reader.next_message()
    assert text is not None
    assert text.startswith("\x0c/protocol/0\n")
    assert text.endswith("\n")
    assert MESSAGE_BYTES - 16 < len(text) < MESSAGE_BYTES


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.conforms("M7")
def test_m7_malformed_message_is_an_error_in_every_role(message: bytes) -> None:
    for negotiation in (responder(ECHO), EagerInitiator([ECHO]), LazyInitiator(ECHO)):
        with pytest.raises(RemoteProtocolError) as caught:
            negotiation.receive_bytes(HEADER + message)
        assert caught.value.protocol == "multistream-select"
        with pytest.raises(LocalProtocolError):
            negotiation.receive_bytes(b"")


@pytest.mark.conforms("M8")
def test_m8_unknown_protocols_are_answered_na() -> None:
    negotiation = responder(ECHO)
    assert negotiation.receive_bytes(HEADER + encode_message("/libp2p/simultaneous-connect")) is None
    assert negotiation.bytes_to_send() == HEADER + NA
    assert negotiation.receive_bytes(encode_message(PING) + encode_message(ECHO) + b"x") == ECHO
    assert negotiation.bytes_to_send() == NA + encode_message(ECHO)
    assert negotiation.unread == b"x"


def test_m9_refusals_are_bounded_at_their_edge() -> None:
    negotiation = responder(ECHO)
    assert negotiation.receive_bytes(HEADER + encode_message("/x") * REFUSALS) is None
    assert negotiation.bytes_to_send() == HEADER + NA * REFUSALS
    with pytest.raises(RemoteProtocolError):
        negotiation.receive_bytes(encode_message("/x"))
    assert negotiation.bytes_to_send() == b""


def test_m9_ls_counts_as_a_refusal() -> None:
    with pytest.raises(RemoteProtocolError):
        responder(ECHO).receive_bytes(HEADER + b"\x03ls\n" * (REFUSALS + 1))


@pytest.mark.conforms("M10")
def test_m10_the_protocols_are_asked_for_every_proposal() -> None:
    spoken: set[str] = set()
    negotiation = Responder(lambda protocol: protocol in spoken)
    assert negotiation.receive_bytes(HEADER + encode_message(ECHO)) is None
    spoken.add(ECHO)
    assert negotiation.receive_bytes(encode_message(ECHO)) == ECHO


def test_a_list_of_several_lines_is_never_a_proposal() -> None:
    negotiation = Responder(lambda _protocol: True)
    assert negotiation.receive_bytes(HEADER + b"\x06/a\n/b\n") is None
    assert negotiation.bytes_to_send() == HEADER + NA
