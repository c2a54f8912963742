"""What we want of one peer, and what it is told."""

from __future__ import annotations

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.bitswap.message import PRIORITY_MAX, Entry, Message
from aiolibp2p.sansio.bitswap.wantlist import Wantlist
from tests.unit.sansio.bitswap.wire import cid

REPAIR = Timeouts().bitswap_repair


class Wanting:
    """A wantlist and what its peer remembers of it."""

    def __init__(self, **limits: int) -> None:
        self.to_write: dict[str, None] = {}
        self.wantlist: Wantlist[str] = Wantlist(
            "peer", Limits(**limits), Timeouts(), supports_have=True, to_write=self.to_write
        )
        self.remembered: dict[bytes, bool] = {}

    def tell(self, now: float = 0.0) -> Message | None:
        message = self.wantlist.message_to_send()
        if message is not None:
            self.apply(message)
            self.wantlist.message_sent(now)
        return message

    def apply(self, message: Message) -> None:
        if message.full:
            self.remembered.clear()
        for entry in message.entries:
            if entry.cancel:
                self.remembered.pop(entry.cid, None)
            else:
                self.remembered[entry.cid] = entry.want_have


def told(message: Message | None) -> list[tuple[bytes, bool, bool]]:
    return [] if message is None else [(entry.cid, entry.want_have, entry.cancel) for entry in message.entries]


def test_the_first_message_of_a_stream_is_full_and_the_next_are_differences() -> None:
    wanting = Wanting()
    wanting.wantlist.want("s", cid(1))
    assert wanting.to_write == {"peer": None}
    first = wanting.tell()
    assert first is not None
    assert first.full
    assert wanting.to_write == {}
    wanting.wantlist.want("s", cid(2), have=True)
    second = wanting.tell()
    assert second is not None
    assert not second.full
    assert told(second) == [(cid(2), True, False)]
    assert all(entry.send_dont_have for entry in second.entries)


def test_nothing_to_say_is_no_message() -> None:
    wanting = Wanting()
    assert wanting.tell() is None
    wanting.wantlist.want("s", cid(1))
    wanting.wantlist.unwant("s", cid(1))
    assert wanting.tell() is None
    wanting.wantlist.want("s", cid(1))
    wanting.tell()
    wanting.wantlist.want("s", cid(1))
    wanting.wantlist.unwant("other", cid(1))
    assert wanting.tell() is None
    assert wanting.to_write == {}


def test_priorities_fall_in_the_order_of_wanting() -> None:
    wanting = Wanting()
    for n in range(3):
        wanting.wantlist.want("s", cid(n))
    first = wanting.tell()
    wanting.wantlist.want("s", cid(3))
    second = wanting.tell()
    assert first is not None
    assert second is not None
    priorities = [entry.priority for entry in first.entries + second.entries]
    assert priorities == sorted(priorities, reverse=True)
    assert priorities[0] < PRIORITY_MAX


def test_a_want_goes_only_when_nobody_wants_it() -> None:
    wanting = Wanting()
    wanting.wantlist.want("one", cid(1))
    wanting.wantlist.want("two", cid(1))
    wanting.tell()
    wanting.wantlist.unwant("one", cid(1))
    assert wanting.tell() is None
    wanting.wantlist.unwant("two", cid(1))
    assert told(wanting.tell()) == [(cid(1), False, True)]
    assert wanting.remembered == {}


def test_a_want_have_becomes_a_want_block_when_anybody_wants_the_block() -> None:
    wanting = Wanting()
    wanting.wantlist.want("one", cid(1), have=True)
    wanting.tell()
    wanting.wantlist.want("two", cid(1))
    assert told(wanting.tell()) == [(cid(1), False, False)]
    wanting.wantlist.want("two", cid(1), have=True)
    assert wanting.tell() is None


def test_one_message_is_written_at_a_time_and_what_changed_meanwhile_follows() -> None:
    wanting = Wanting()
    wanting.wantlist.want("s", cid(1))
    first = wanting.wantlist.message_to_send()
    assert first is not None
    wanting.wantlist.want("s", cid(2))
    wanting.wantlist.unwant("s", cid(1))
    assert wanting.wantlist.message_to_send() is None
    wanting.apply(first)
    wanting.wantlist.message_sent(0.0)
    assert wanting.to_write == {"peer": None}
    assert told(wanting.tell()) == [(cid(1), False, True), (cid(2), False, False)]


def test_what_a_peer_has_answered_needs_no_cancel() -> None:
    wanting = Wanting()
    wanting.wantlist.want("s", cid(1))
    wanting.wantlist.want("s", cid(2), have=True)
    wanting.tell()
    wanting.wantlist.received_block(cid(1))
    wanting.wantlist.unwant("s", cid(1))
    wanting.wantlist.received_have(cid(2))
    wanting.wantlist.unwant("s", cid(2))
    wanting.wantlist.received_have(cid(3))
    assert wanting.tell() is None


def test_a_have_for_a_want_block_leaves_it_wanted() -> None:
    wanting = Wanting()
    wanting.wantlist.want("s", cid(1))
    wanting.tell()
    wanting.wantlist.received_have(cid(1))
    wanting.wantlist.unwant("s", cid(1))
    assert told(wanting.tell()) == [(cid(1), False, True)]


def test_a_want_have_that_was_answered_but_is_still_wanted_is_told_again() -> None:
    wanting = Wanting()
    wanting.wantlist.want("one", cid(1), have=True)
    wanting.tell()
    wanting.wantlist.received_have(cid(1))
    assert told(wanting.tell()) == [(cid(1), True, False)]


def test_a_new_stream_begins_with_everything() -> None:
    wanting = Wanting()
    for n in range(3):
        wanting.wantlist.want("s", cid(n))
    wanting.tell()
    wanting.wantlist.unwant("s", cid(0))
    wanting.wantlist.stream_ended()
    message = wanting.tell()
    assert message is not None
    assert message.full
    assert wanting.remembered == {cid(1): False, cid(2): False}


def test_a_stream_that_ends_while_a_message_is_written_counts_as_told_and_not_told() -> None:
    wanting = Wanting()
    wanting.wantlist.want("s", cid(1))
    lost = wanting.wantlist.message_to_send()
    assert lost is not None
    wanting.wantlist.unwant("s", cid(1))
    wanting.wantlist.stream_ended()
    message = wanting.tell()
    assert message == Message(full=True)
    wanting.wantlist.stream_ended()
    assert wanting.tell() is None


def test_an_idle_stream_that_ends_needs_no_new_one() -> None:
    wanting = Wanting()
    wanting.wantlist.want("s", cid(1))
    wanting.tell()
    wanting.wantlist.received_block(cid(1))
    wanting.wantlist.unwant("s", cid(1))
    wanting.tell()
    wanting.wantlist.stream_ended()
    assert wanting.to_write == {}


def test_a_want_without_an_answer_is_cancelled_and_told_again_after_a_while() -> None:
    wanting = Wanting()
    wanting.wantlist.want("s", cid(1))
    wanting.tell(now=0.0)
    wanting.wantlist.want("s", cid(2))
    wanting.tell(now=5.0)
    wanting.wantlist.repair(REPAIR - 0.1)
    assert wanting.tell() is None
    wanting.wantlist.repair(REPAIR)
    assert told(wanting.tell(REPAIR)) == [(cid(1), False, True)]
    assert wanting.to_write == {"peer": None}
    assert told(wanting.tell(REPAIR)) == [(cid(1), False, False)]
    assert wanting.to_write == {}
    wanting.wantlist.repair(REPAIR + 5.0)
    assert told(wanting.tell()) == [(cid(2), False, True)]
    assert told(wanting.tell()) == [(cid(2), False, False)]


def test_a_want_that_is_answered_before_it_is_told_again_is_not() -> None:
    wanting = Wanting()
    wanting.wantlist.want("s", cid(1))
    wanting.tell(now=0.0)
    wanting.wantlist.repair(REPAIR)
    wanting.wantlist.received_block(cid(1))
    wanting.wantlist.unwant("s", cid(1))
    assert told(wanting.tell(REPAIR)) == []
    assert wanting.to_write == {}


def test_a_want_that_is_answered_and_wanted_anew_before_it_is_told_again_is_told_at_once() -> None:
    wanting = Wanting()
    wanting.wantlist.want("s", cid(1))
    wanting.tell(now=0.0)
    wanting.wantlist.repair(REPAIR)
    wanting.wantlist.received_block(cid(1))
    assert told(wanting.tell(REPAIR)) == [(cid(1), False, False)]


def test_wants_that_a_peer_may_still_remember_take_room_in_its_window() -> None:
    wanting = Wanting(bitswap_window_wants=4)
    assert wanting.wantlist.room == 4
    for n in range(3):
        wanting.wantlist.want("s", cid(n))
    assert wanting.wantlist.room == 1
    wanting.tell()
    for n in range(3):
        wanting.wantlist.unwant("s", cid(n))
    assert wanting.wantlist.room == 1
    wanting.tell()
    assert wanting.wantlist.room == 4
    assert len(wanting.wantlist) == 0
    assert cid(0) not in wanting.wantlist


def test_cancels_come_before_wants() -> None:
    wanting = Wanting()
    wanting.wantlist.want("s", cid(1))
    wanting.tell()
    wanting.wantlist.want("s", cid(2))
    wanting.wantlist.unwant("s", cid(1))
    message = wanting.tell()
    assert message is not None
    assert message.entries[0] == Entry(cid(1), 0, True)
    assert message.entries[1].cid == cid(2)
