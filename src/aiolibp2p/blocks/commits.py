"""One writer for a store: puts and deletes that wait are made durable together.

A commit costs two syncs of the disk whatever its size, so what has gathered while one was made goes into the next, up
to `Limits.storage_commit_bytes`. What one caller gives is never divided. Where a commit of several fails, each is
tried alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from aiolibp2p.blocks.lookups import Refused
from aiolibp2p.blocks.threads import Call, State, StorageThreads
from aiolibp2p.errors import DeadlineError, LocalProtocolError
from aiolibp2p.limits import Limits, Timeouts

Change = tuple[bytes, bytes | None]
"""A key and what to keep there; None forgets it."""


class Batch:
    """The changes of one caller, and its place in the queue."""

    __slots__ = ("alone", "begun", "changes", "done", "refused", "size_bytes")

    def __init__(self, changes: Sequence[Change], done: asyncio.Future[None]) -> None:
        self.changes = changes
        self.size_bytes = sum(len(key) + len(value or b"") for key, value in changes)
        self.done = done
        self.alone = False
        self.begun = False
        self.refused = False

    def end(self, error: BaseException | None) -> None:
        """Tell the caller, unless it has left."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Commit(Call):
    """Some batches, made durable by one call."""

    __slots__ = ("_commits", "batches", "refused")

    def __init__(self, commits: Commits, batches: list[Batch]) -> None:
        super().__init__()
        self._commits = commits
        self.batches = batches
        self.refused: list[bytes] = []

    def run(self) -> None:
        """Make the changes and make them durable, on a storage thread."""
        self._commits.write([change for batch in self.batches for change in batch.changes])

    def changed(self) -> None:
        """Hear that the call is over."""
        self._commits.commit_changed(self)


class Commits:
    """The queue of a store's changes; `write` makes them, all or none, durable on a storage thread."""

    def __init__(
        self, threads: StorageThreads, write: Callable[[Sequence[Change]], None], *, limits: Limits, timeouts: Timeouts
    ) -> None:
        self._threads = threads
        self.write = write
        self._limits = limits
        self._timeouts = timeouts
        self._refused = Refused()
        self._waiting: deque[Batch] = deque()
        self._running: Commit | None = None
        self._closed = False

    async def make(self, changes: Sequence[Change]) -> None:
        """Make the changes, all or none; they are durable when this returns.

        Raises:
            DeadlineError: that has taken longer than `Timeouts.storage`, or a key is part of an earlier commit of which
                that is true and which has not returned; whether the changes were or will be made is not known.
            LocalProtocolError: the store is closed.
            Anything that `write` raises: the changes were not made.
        Cancellation: what has begun is completed; what waits is given up.
        """
        if self._closed:
            raise LocalProtocolError("the store is closed")
        if self._refused.first(key for key, _ in changes):
            raise self._late()
        batch = Batch(changes, asyncio.get_running_loop().create_future())
        self._waiting.append(batch)
        self._pump()
        try:
            async with asyncio.timeout(self._timeouts.storage):
                await batch.done
        except DeadlineError:
            raise
        except TimeoutError:
            self._refuse(batch)
            raise self._late() from None
        finally:
            if not batch.begun and batch in self._waiting:
                self._waiting.remove(batch)

    def close(self) -> None:
        """Give up what waits; what runs is completed."""
        self._closed = True
        waiting, self._waiting = self._waiting, deque()
        for batch in waiting:
            batch.end(self._closed_early())

    def _pump(self) -> None:
        """Begin the next commit, unless one runs."""
        if self._running is not None or not self._waiting:
            return
        batches = [self._waiting.popleft()]
        size_bytes = batches[0].size_bytes
        while (
            self._waiting
            and not (batches[0].alone or self._waiting[0].alone)
            and size_bytes + self._waiting[0].size_bytes <= self._limits.storage_commit_bytes
        ):
            batch = self._waiting.popleft()
            size_bytes += batch.size_bytes
            batches.append(batch)
        for batch in batches:
            batch.begun = True
        self._running = Commit(self, batches)
        self._threads.start(self._running)

    def commit_changed(self, commit: Commit) -> None:
        """Take note that a commit is late, has returned or was dropped."""
        if commit.state is State.RUNNING:
            for batch in commit.batches:
                self._refuse(batch)
                batch.end(self._late())
            return
        self._running = None
        self._refused.remove(commit.refused)
        error = commit.error
        if commit.state is State.DROPPED:
            error = self._closed_early() if self._closed else self._late()
        elif error is not None and len(commit.batches) > 1:
            for batch in reversed(commit.batches):
                if not batch.done.done():
                    batch.alone = True
                    batch.begun = False
                    self._waiting.appendleft(batch)
            commit.batches = []
        for batch in commit.batches:
            batch.end(error)
        if not self._closed:
            self._pump()

    def _refuse(self, batch: Batch) -> None:
        """Refuse the keys of a batch that is being written until it is."""
        if self._running is not None and batch.begun and not batch.refused:
            batch.refused = True
            keys = [key for key, _ in batch.changes]
            self._running.refused += keys
            self._refused.add(keys)

    @staticmethod
    def _closed_early() -> LocalProtocolError:
        return LocalProtocolError("the store was closed before the blocks were written")

    def _late(self) -> DeadlineError:
        return DeadlineError("storage", self._timeouts.storage, stage="write")
