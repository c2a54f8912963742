"""What one peer wants of us, and what became of the answers.

Wants are a state, not a queue of requests: a message changes them, and one with `full` replaces them exactly. A want
whose block is missing is remembered, and answered when the block arrives. An answer is taken into a batch, its bytes
are accepted by a stream, and it is done only when the peer's credit, or time without a reset, covers them: a stream
that is reset before that gives its answers back, once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.limits import Limits, Refused, Timeouts, unheard
from aiolibp2p.sansio.bitswap.cids import prefix_of, wanted_multihash
from aiolibp2p.sansio.bitswap.message import (
    EMPTY_BYTES,
    Entry,
    Message,
    Payload,
    Presence,
    block_bytes,
    presence_bytes,
)
from aiolibp2p.sansio.bitswap.stat import CANCELLED, EVICTED, IGNORED, LOST, REFUSED, REPLACED, Sent
from aiolibp2p.sansio.bitswap.stat import GONE as PEER_GONE
from aiolibp2p.sansio.bitswap.wants import (
    ABSENT,
    ASKED,
    BLOCK,
    DONT_HAVE,
    GONE,
    HAVE,
    NOTHING,
    READY,
    TAKEN,
    WRITTEN,
    Batch,
    Waiting,
    Want,
)


class Ledger:
    """What one peer wants.

    Args:
        limits: `bitswap_wants_per_peer`, `bitswap_cid_bytes`, `bitswap_inline_bytes` and `bitswap_message_bytes`.
        timeouts: after `bitswap_stall` without a reset an answer counts as received.
        waiting: shared by the ledgers of a node, so that a new block finds who waits for it.
        refused: hears of wants for which there is no room.
    """

    def __init__(
        self, limits: Limits, timeouts: Timeouts, waiting: Waiting | None = None, refused: Refused = unheard
    ) -> None:
        self.sent = Sent()
        self.dropped: dict[str, int] = {}
        """Wants dropped without an answer that counts, by reason."""
        self._limits = limits
        self._confirm_after = timeouts.bitswap_stall
        self._refused = refused
        self._waiting: Waiting = {} if waiting is None else waiting
        self._wants: dict[bytes, Want] = {}
        # Entries whose want is no longer READY, or has another priority now, are passed over.
        self._heap: list[tuple[int, int, int, Want]] = []
        self._ready = self._order = self._pushes = 0
        self._asked: dict[Want, None] = {}
        """Wants that are ASKED, and some that were."""
        self._victims: list[tuple[bool, int, int, int, Want]] | None = None
        """Who makes room next; kept while there is none, and like the other heap it has entries to pass over."""
        self._taken: dict[Batch, None] = {}
        self._written: deque[Batch] = deque()
        self._unconfirmed: dict[bytes, Want] = {}

    def __len__(self) -> int:
        return len(self._wants)

    def __contains__(self, cid: object) -> bool:
        return cid in self._wants

    @property
    def ignored(self) -> int:
        """Entries that were not taken: no CID, too long, a digest too short, identity."""
        return self.dropped.get(IGNORED, 0)

    @property
    def lost(self) -> int:
        """Answers that were given back twice, and given up."""
        return self.dropped.get(LOST, 0)

    @property
    def unconfirmed(self) -> int:
        """How many answers a stream has accepted that nothing has confirmed."""
        return len(self._unconfirmed)

    @property
    def unconfirmed_since(self) -> float:
        """Since when the oldest batch is unconfirmed; `math.inf` where there is none."""
        return self._written[0].written_at if self._written else math.inf

    @property
    def wants(self) -> list[Want]:
        """Everything wanted now, in the order in which it was first asked for."""
        return list(self._wants.values())

    @property
    def ready(self) -> int:
        """How many wants can be answered now."""
        return self._ready

    # -- what the peer says ------------------------------------------------------------------------------------------

    def receive(self, message: Message) -> list[bytes]:
        """Take the entries of a message; return the multihashes to look up in the store, each once.

        A want that is repeated although its block was missing is looked up, and answered, again.
        """
        entries, cancels = self._merged(message)
        reason = REPLACED if message.full else CANCELLED
        if message.full:
            cancels = [cid for cid in (*self._wants, *self._unconfirmed) if cid not in entries]
        for cid in cancels:
            self._forget_answer(cid)
            self._drop(cid, reason)
        look_up: dict[bytes, None] = {}
        fresh: list[Want] = []
        for cid, (entry, multihash) in entries.items():
            want = self._wants.get(cid)
            if want is None or not self._update(want, entry):
                self._order += 1
                fresh.append(Want(self, entry, multihash, self._order))
            elif want.state == ASKED:
                self._asked[want] = None
                look_up[multihash] = None
        for want in self._admitted(fresh):
            self._forget_answer(want.cid)
            self._wants[want.cid] = want
            want.state = ASKED
            self._asked[want] = None
            self._note(want)
            self._wait(want)
            look_up[want.multihash] = None
        if len(self._asked) > 2 * self._limits.bitswap_wants_per_peer:
            self.unknown()
        return list(look_up)

    def _merged(self, message: Message) -> tuple[dict[bytes, tuple[Entry, bytes]], list[bytes]]:
        """Return one entry for each wanted CID, with its multihash, and what is cancelled.

        Within a message a cancel outweighs a want, and a want-block a want-have.
        """
        cancels = dict.fromkeys(entry.cid for entry in message.entries if entry.cancel)
        entries: dict[bytes, tuple[Entry, bytes]] = {}
        for entry in message.entries:
            cid = entry.cid
            if cid in cancels:
                continue
            earlier = entries.get(cid)
            if earlier is not None:
                if earlier[0].want_have and not entry.want_have:
                    entries[cid] = entry, earlier[1]
                continue
            try:
                entries[cid] = entry, wanted_multihash(cid, self._limits.bitswap_cid_bytes)
            except InvalidValueError:
                self._count(IGNORED)
        return entries, list(cancels)

    def _update(self, want: Want, entry: Entry) -> bool:
        """Change a want that is repeated; return False where it needs a new one beside the answer on its way."""
        if want.state == TAKEN:
            if want.want_have and not entry.want_have:
                self._drop(want.cid, REPLACED)
                return False
            return True
        # A want-have does not take back a want-block.
        want.want_have = want.want_have and entry.want_have
        want.send_dont_have = entry.send_dont_have
        if want.state == ABSENT:
            want.state = ASKED
            self._note(want)
        if want.state == READY:
            if want.size is None and not want.send_dont_have:
                self._leave_ready(want, ABSENT)
            elif want.priority != entry.priority:
                want.priority = entry.priority
                self._push(want)
                self._note(want)
        elif want.priority != entry.priority:
            want.priority = entry.priority
            self._note(want)
        return True

    def _admitted(self, fresh: list[Want]) -> list[Want]:
        """Return which of the new wants are taken, having evicted others where there are too many.

        What goes first: wants for blocks that we lack, then those of lowest priority, of these the youngest. A want for
        a block that is there, or may be, gives way only to a higher priority.
        """
        over = len(self._wants) + len(fresh) - self._limits.bitswap_wants_per_peer
        if over <= 0:
            if 2 * len(self._wants) < self._limits.bitswap_wants_per_peer:
                self._victims = None
            return fresh
        self._refused("bitswap_wants_per_peer", over)
        fresh.sort(key=lambda want: (-want.priority, want.order))
        if self._victims is None:
            self._rank_victims()
        room = max(0, len(fresh) - over)
        for want in fresh[room:]:
            victim = self._next_victim()
            if victim is None or (not victim.lacking and victim.priority >= want.priority):
                break
            self._drop(victim.cid, EVICTED)
            room += 1
        self._count(REFUSED, len(fresh) - room)
        return fresh[:room]

    def _rank_victims(self) -> None:
        self._victims = []
        for want in self._wants.values():
            self._note(want)

    def _note(self, want: Want) -> None:
        """Rank a want anew among those that may make room: it is new, or its state or priority has changed."""
        victims = self._victims
        if victims is None:
            return
        self._pushes += 1
        heappush(victims, (not want.lacking, want.priority, -want.order, self._pushes, want))
        if len(victims) > 4 * self._limits.bitswap_wants_per_peer:
            self._rank_victims()

    def _next_victim(self) -> Want | None:
        """Return the want that is to make room first; one on its way cannot, and is ranked again if it comes back."""
        victims = self._victims
        while victims:
            held, priority, _, _, want = victims[0]
            if want.state not in (TAKEN, GONE, WRITTEN) and (held, priority) == (not want.lacking, want.priority):
                return want
            heappop(victims)
        return None

    def _count(self, reason: str, wants: int = 1) -> None:
        if wants:
            self.dropped[reason] = self.dropped.get(reason, 0) + wants

    def _drop(self, cid: bytes, reason: str) -> None:
        want = self._wants.pop(cid, None)
        if want is not None:
            self._count(reason)
            if want.size is None:
                self._unwait(want)
            if want.state == READY:
                self._leave_ready(want, GONE)
            want.state = GONE

    # -- what the store says -----------------------------------------------------------------------------------------

    def unknown(self) -> list[bytes]:
        """Return the multihashes that the store has not answered yet, each once: what is still to be looked up."""
        self._asked = dict.fromkeys(want for want in self._asked if want.state == ASKED)
        return list(dict.fromkeys(want.multihash for want in self._asked))

    def looked_up(self, sizes: Mapping[bytes, int | None]) -> None:
        """Take the sizes of blocks that `receive` asked for, by multihash; None where there is none for this peer."""
        for multihash, size in sizes.items():
            for want in tuple(self._waiting.get(multihash, ())):
                if want.ledger is self and want.state == ASKED:
                    self.found(want, size)

    def look_up_failed(self, multihashes: Iterable[bytes]) -> None:
        """Take note that the store did not answer: nothing is said about these blocks, not even DONT_HAVE."""
        for multihash in multihashes:
            for want in tuple(self._waiting.get(multihash, ())):
                if want.ledger is self and want.state == ASKED:
                    self._enter_absent(want)

    def found(self, want: Want, size: int | None) -> None:
        """Take the size of the block of one want that waits; a block that fits in no message counts as missing."""
        if (
            size is not None
            and block_bytes(prefix_of(want.cid), size) + EMPTY_BYTES > self._limits.bitswap_message_bytes
        ):
            size = None
        if size is not None:
            want.size = size
            self._unwait(want)
            self._note(want)
        if want.state in (ASKED, ABSENT):
            if size is None and (want.state == ABSENT or not want.send_dont_have):
                self._enter_absent(want)
            else:
                self._enter_ready(want)

    # -- what goes out -----------------------------------------------------------------------------------------------

    def take(self, max_bytes: int) -> Batch | None:
        """Take the most urgent answers, of at most `max_bytes` together, but at least one; None where there is none."""
        heap = self._heap
        answers: dict[Want, str] = {}
        n_bytes = EMPTY_BYTES
        while heap:
            priority, _, _, want = heap[0]
            if want.state != READY or -priority != want.priority:
                heappop(heap)
                continue
            says = self._says(want)
            cost = block_bytes(prefix_of(want.cid), want.size or 0) if says == BLOCK else presence_bytes(want.cid)
            if answers and n_bytes + cost > max_bytes:
                break
            heappop(heap)
            self._leave_ready(want, TAKEN)
            answers[want] = says
            n_bytes += cost
        if not answers:
            return None
        batch = Batch(self, answers, n_bytes)
        self._taken[batch] = None
        return batch

    def answer(self, batch: Batch, blocks: Mapping[bytes, bytes | None]) -> Message:
        """Return the message of a batch; it may be empty, as what was cancelled meanwhile is left out.

        Args:
            blocks: what was loaded, by multihash; None where the block is no longer there, and no item where the store
                failed: then nothing is said.
        """
        message = Message()
        for want, says in batch.answers.items():
            if want.state != TAKEN:
                continue
            if says == BLOCK:
                data = blocks.get(want.multihash)
                if data is not None:
                    message.payloads.append(Payload(prefix_of(want.cid), data))
                    continue
                want.size = None
                self._wait(want)
                says = DONT_HAVE if want.multihash in blocks and want.send_dont_have else NOTHING
                batch.answers[want] = says
            if says != NOTHING:
                message.presences.append(Presence(want.cid, says == HAVE))
        return message

    def written(self, batch: Batch, now: float, position: int = 0) -> None:
        """Take note that a stream has accepted all bytes of a batch.

        Args:
            position: how many bytes that stream has then accepted in all.
        """
        if batch not in self._taken:
            return  # it was given back when its stream was reset
        del self._taken[batch]
        batch.position = position
        batch.written_at = now
        self._written.append(batch)
        sent = self.sent
        sent.messages += 1
        for want, says in batch.answers.items():
            if want.state != TAKEN:
                continue
            if says in (BLOCK, HAVE):
                if says == BLOCK:
                    sent.blocks += 1
                    sent.block_bytes += want.size or 0
                else:
                    sent.haves += 1
                del self._wants[want.cid]
                want.state = WRITTEN
                self._unconfirmed[want.cid] = want
            elif want.size is None:
                sent.dont_haves += says == DONT_HAVE
                self._enter_absent(want)
            else:  # the block arrived while we said that it is missing
                self._enter_ready(want)
        # What lies further back than this has been received: no stream's window holds more.
        while len(self._unconfirmed) > self._limits.bitswap_wants_per_peer and len(self._written) > 1:
            self._confirm()

    def credited(self, position: int) -> None:
        """Take note that the peer has read the stream up to `position`."""
        while self._written and self._written[0].position <= position:
            self._confirm()

    def handle_timeout(self, now: float) -> None:
        """Confirm what was written long enough ago, without a reset since."""
        while self._written and self._written[0].written_at + self._confirm_after <= now:
            self._confirm()

    def next_timeout(self) -> float:
        """Return when `handle_timeout` has something to do; `math.inf` for never."""
        return self._written[0].written_at + self._confirm_after if self._written else math.inf

    def reset(self, now: float) -> None:
        """Take note that the stream was reset: answers that nothing confirmed are due again, but only once."""
        self.handle_timeout(now)
        batches = [*self._written, *self._taken]
        self._written.clear()
        self._taken.clear()
        for batch in batches:
            for want, says in batch.answers.items():
                if want.state == TAKEN and says == NOTHING and want.size is None:
                    self._enter_absent(want)
                elif want.state in (TAKEN, WRITTEN) or (want.state == ABSENT and says == DONT_HAVE):
                    self._give_back(want)
        self._unconfirmed.clear()

    def let_go(self, batch: Batch) -> None:
        """Take back a batch of which nothing was written: its answers are due, as if it had not been taken."""
        if batch not in self._taken:
            return
        del self._taken[batch]
        for want, says in batch.answers.items():
            if want.state == TAKEN:
                if says == NOTHING and want.size is None:
                    self._enter_absent(want)
                else:
                    self._enter_ready(want)

    def clear(self) -> None:
        """Drop everything: the peer is gone."""
        for cid in list(self._wants):
            self._drop(cid, PEER_GONE)
        self._heap.clear()
        self._taken.clear()
        self._written.clear()
        self._unconfirmed.clear()
        self._asked.clear()
        self._victims = None

    def _give_back(self, want: Want) -> None:
        written = want.state == WRITTEN
        if want.again or (written and len(self._wants) >= self._limits.bitswap_wants_per_peer):
            if written:
                want.state = GONE
                self._count(LOST)
            elif want.state == TAKEN:
                self._drop(want.cid, LOST)
            else:
                self._count(LOST)
            return
        if written:
            self._wants[want.cid] = want
        want.again = True
        self._enter_ready(want)

    def _confirm(self) -> None:
        for want in self._written.popleft().answers:
            if want.state == WRITTEN:
                self.sent.confirmed += 1
                self._forget_answer(want.cid)

    def _forget_answer(self, cid: bytes) -> None:
        """Give an answer that was written back no more: it arrived, was cancelled, or is wanted anew."""
        want = self._unconfirmed.pop(cid, None)
        if want is not None:
            want.state = GONE

    def _says(self, want: Want) -> str:
        if want.size is None:
            return DONT_HAVE
        return HAVE if want.want_have and want.size > self._limits.bitswap_inline_bytes else BLOCK

    # -- ready and waiting -------------------------------------------------------------------------------------------

    def _enter_ready(self, want: Want) -> None:
        want.state = READY
        self._ready += 1
        self._push(want)
        self._note(want)

    def _enter_absent(self, want: Want) -> None:
        want.state = ABSENT
        self._note(want)

    def _leave_ready(self, want: Want, state: str) -> None:
        want.state = state
        self._ready -= 1

    def _push(self, want: Want) -> None:
        if len(self._heap) > 2 * self._limits.bitswap_wants_per_peer:
            ready = [want for want in self._wants.values() if want.state == READY]
            self._heap = [(-want.priority, want.order, 0, want) for want in ready]
            heapify(self._heap)
        self._pushes += 1
        heappush(self._heap, (-want.priority, want.order, self._pushes, want))

    def _wait(self, want: Want) -> None:
        self._waiting.setdefault(want.multihash, set()).add(want)

    def _unwait(self, want: Want) -> None:
        waiters = self._waiting.get(want.multihash)
        if waiters is not None:
            waiters.discard(want)
            if not waiters:
                del self._waiting[want.multihash]
