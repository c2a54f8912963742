"""Look-ups by key on storage threads: in batches, and each key by one call at a time.

Two who ask for the same key share one call. A call that hangs is given up (`threads.py`): the key where it hangs is
refused until it returns, the keys after it are asked for again on another thread, and the answers before it count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from aiolibp2p.blocks.threads import Call, State, StorageThreads
from aiolibp2p.errors import DeadlineError
from aiolibp2p.limits import Limits, Timeouts

T = TypeVar("T")


class Piece(Call, Generic[T]):
    """Some keys, looked up by one call on one thread.

    The thread appends to `found`, in the order of `keys`, and stops early where `unwanted` says so.
    """

    __slots__ = ("_lookups", "found", "keys", "places", "readers", "stuck")

    def __init__(self, lookups: Lookups[T], keys: Sequence[bytes]) -> None:
        super().__init__()
        self._lookups = lookups
        self.keys = keys
        self.places = {key: place for place, key in enumerate(keys)}
        self.found: list[T | None] = []
        self.readers = 0
        self.stuck: bytes | None = None

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for the rest."""
        return self.late or not self.readers

    def run(self) -> None:
        """Look the keys up, on a storage thread."""
        self._lookups.read(self)

    def changed(self) -> None:
        """Hear that the call is over."""
        self._lookups.piece_changed(self)


class Refused:
    """Keys of calls that hang, each with how many of them."""

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}

    def add(self, keys: Iterable[bytes]) -> None:
        """Refuse each of the keys once more."""
        for key in keys:
            self._counts[key] = self._counts.get(key, 0) + 1

    def remove(self, keys: Iterable[bytes]) -> None:
        """Refuse each of the keys once less."""
        for key in keys:
            if self._counts[key] == 1:
                del self._counts[key]
            else:
                self._counts[key] -= 1

    def first(self, keys: Iterable[bytes]) -> bytes | None:
        """Return the first key that is refused, or None."""
        return next((key for key in keys if key in self._counts), None) if self._counts else None

    def __len__(self) -> int:
        return len(self._counts)


class Lookups(Generic[T]):
    """Look-ups of one kind: `read` fills a piece, on a storage thread."""

    def __init__(
        self,
        threads: StorageThreads,
        read: Callable[[Piece[T]], None],
        refused: Refused,
        *,
        limits: Limits,
        timeouts: Timeouts,
    ) -> None:
        self._threads = threads
        self.read = read
        self._refused = refused
        self._limits = limits
        self._timeouts = timeouts
        self._asked: dict[bytes, Piece[T]] = {}

    def ask(self, keys: Sequence[bytes]) -> Asking[T]:
        """Begin to look keys up; whoever asks has to `leave`.

        Raises:
            LocalProtocolError: the store is closed.
        """
        return Asking(self, keys)

    async def find(self, keys: Sequence[bytes]) -> dict[bytes, T | None]:
        """Return what each key has, None where it is missing.

        Raises:
            DeadlineError: a look-up has taken too long, now or in an earlier call that has not returned.
            LocalProtocolError: the store is closed.
        Cancellation: others who ask for the same keys get their answer.
        """
        asking = self.ask(keys)
        try:
            return await asking.answers()
        finally:
            asking.leave()

    def _join(self, keys: Iterable[bytes]) -> list[Piece[T]]:
        """Return pieces that look the keys up, those that run already included, and count a reader into each."""
        joined: dict[int, Piece[T]] = {}
        fresh: list[bytes] = []
        for key in keys:
            piece = self._asked.get(key)
            if piece is None:
                fresh.append(key)
            else:
                joined[id(piece)] = piece
        pieces = list(joined.values())
        for piece in pieces:
            piece.readers += 1
        for start in range(0, len(fresh), self._limits.storage_read_blocks):
            piece = Piece(self, fresh[start : start + self._limits.storage_read_blocks])
            # Counted before it begins: a piece without readers is given up by its thread.
            piece.readers += 1
            self._threads.start(piece)
            self._asked.update(dict.fromkeys(piece.keys, piece))
            pieces.append(piece)
        return pieces

    def _leave(self, pieces: Iterable[Piece[T]]) -> None:
        for piece in pieces:
            piece.readers -= 1
            if not piece.readers:
                self._threads.drop(piece)

    def piece_changed(self, piece: Piece[T]) -> None:
        """Take note that a piece is over: nobody joins it, and the key where it hangs is refused until it returns."""
        for key in piece.keys:
            if self._asked.get(key) is piece:
                del self._asked[key]
        if piece.state is not State.RUNNING:
            if piece.stuck is not None:
                self._refused.remove((piece.stuck,))
        elif len(piece.found) < len(piece.keys):
            piece.stuck = piece.keys[len(piece.found)]
            self._refused.add((piece.stuck,))

    def _late(self) -> DeadlineError:
        return DeadlineError("storage", self._timeouts.storage, stage="read")


class Asking(Generic[T]):
    """One question for several keys."""

    __slots__ = ("_keys", "_lookups", "_pieces")

    def __init__(self, lookups: Lookups[T], keys: Sequence[bytes]) -> None:
        self._lookups = lookups
        self._keys = list(dict.fromkeys(keys))
        self._pieces = [] if lookups._refused.first(self._keys) else lookups._join(self._keys)

    async def answers(self) -> dict[bytes, T | None]:
        """Return what each key has, None where it is missing.

        Raises:
            DeadlineError: a look-up has taken too long, now or in an earlier call that has not returned.
            LocalProtocolError: the store is closed.
        Cancellation: others who ask for the same keys get their answer.
        """
        lookups = self._lookups
        if self._keys and not self._pieces:
            raise lookups._late()
        try:
            async with asyncio.timeout(lookups._timeouts.storage):
                return await self._collect()
        except DeadlineError:
            raise
        except TimeoutError:
            raise lookups._late() from None

    def leave(self) -> None:
        """Stop asking; what nobody else asks for is not looked up any more."""
        pieces, self._pieces = self._pieces, []
        self._lookups._leave(pieces)

    async def _collect(self) -> dict[bytes, T | None]:
        lookups = self._lookups
        answers: dict[bytes, T | None] = {}
        wanted = self._keys
        while True:
            for piece in self._pieces:
                await piece.wait()
            left = [key for key in wanted if not self._take(key, answers)]
            if not left:
                return answers
            if lookups._refused.first(left):
                raise lookups._late()
            # Another's piece, joined on the way, was late or given up before it came to these.
            wanted = left
            self.leave()
            self._pieces = lookups._join(wanted)

    def _take(self, key: bytes, answers: dict[bytes, T | None]) -> bool:
        """Take the answer for `key` from the piece that has it; return whether one has."""
        for piece in self._pieces:
            place = piece.places.get(key)
            if place is None:
                continue
            if place < len(piece.found):
                answers[key] = piece.found[place]
                return True
            if piece.error is not None:
                raise piece.error
        return False
