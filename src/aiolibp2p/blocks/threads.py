"""Threads for calls that may block: a few daemon threads, where a call that hangs costs one thread and no more.

A call past `Timeouts.storage` is given up: whoever waits for it is told, and its thread is written off and replaced,
while there are fewer than `Limits.storage_threads_max`. When the call returns after all, its thread works again, or
ends where there are enough. Threads are daemons: a call that never returns does not hold up the end of the process.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Generic, TypeVar

from aiolibp2p.errors import DeadlineError, LocalProtocolError
from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.log import logger_of

_log = logger_of("blocks")

T = TypeVar("T")


class State(Enum):
    """How far a call is."""

    WAITING = "waiting"
    RUNNING = "running"
    RETURNED = "returned"
    DROPPED = "dropped"


class Call:
    """One call on a storage thread, and everybody who waits for its end.

    Only the loop's thread reads and changes it, except for its beginning and its end on a storage thread: they are made
    known under the lock of the threads, and the loop's thread learns of the end in `_returned`.
    """

    __slots__ = ("ended", "error", "late", "state", "timer", "waiters")

    def __init__(self) -> None:
        self.state = State.WAITING
        self.late = False
        self.ended = False
        self.error: BaseException | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.waiters: set[asyncio.Future[None]] = set()

    def run(self) -> None:
        """Do the work, on a storage thread; what it raises becomes `error`."""
        raise NotImplementedError

    def changed(self) -> None:
        """Hear, on the loop's thread, that the call is late, has returned or was dropped.

        A call that is late may return later, or never.
        """

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.late or self.state in (State.RETURNED, State.DROPPED)

    async def wait(self) -> None:
        """Wait until the call has returned, is late or was dropped.

        Cancellation: the call goes on, and so do others who wait for it.
        """
        if self.over:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiters.add(waiter)
        try:
            await waiter
        finally:
            self.waiters.discard(waiter)

    def wake(self) -> None:
        """Tell the owner, then those who wait."""
        self.changed()
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)


class _Result(Call, Generic[T]):
    """A call with a result."""

    __slots__ = ("_function", "result")

    result: T

    def __init__(self, function: Callable[[], T]) -> None:
        super().__init__()
        self._function = function

    def run(self) -> None:
        self.result = self._function()

    def changed(self) -> None:
        """Take no note: who waits looks for itself."""


class StorageThreads:
    """The threads of one store; they begin when there is work, and belong to the loop that runs then."""

    def __init__(self, name: str, *, limits: Limits, timeouts: Timeouts) -> None:
        """Prepare threads that are called `name` and a number."""
        self._name = name
        self._limits = limits
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        # Guards all below, and the state of every call.
        self._changed = threading.Condition()
        self._waiting: deque[Call] = deque()
        self._threads = 0
        self._idle = 0
        self._hanging = 0
        self._begun = 0
        self._finish: Callable[[], None] | None = None
        self._finished: asyncio.Future[BaseException | None] | None = None

    @property
    def hanging(self) -> int:
        """Calls past their deadline that have not returned."""
        return self._hanging

    @property
    def alive(self) -> int:
        """Threads there are, those of calls that hang included."""
        return self._threads

    def start(self, call: Call) -> None:
        """Run a call on the next free thread; its deadline counts from now.

        Raises:
            LocalProtocolError: the threads were closed.
        """
        if self._finish is not None:
            raise LocalProtocolError("the store is closed")
        call.timer = self._loop.call_later(self._timeouts.storage, self._give_up, call)
        with self._changed:
            self._waiting.append(call)
            self._changed.notify()
            self._add_thread()

    def drop(self, call: Call) -> bool:
        """Take a call back that has not begun; return whether that was so."""
        with self._changed:
            if call.state is not State.WAITING:
                return False
            self._waiting.remove(call)
            call.state = State.DROPPED
        self._disarm(call)
        call.wake()
        return True

    async def run(self, function: Callable[[], T]) -> T:
        """Return what `function` returns on a storage thread.

        Raises:
            DeadlineError: it has not returned within `Timeouts.storage`, its turn included.
            LocalProtocolError: the threads were closed.
            Anything that it raises.
        Cancellation: what has begun goes on; what waits is given up.
        """
        call = _Result(function)
        self.start(call)
        try:
            await call.wait()
        finally:
            self.drop(call)
        if call.error is not None:
            raise call.error
        if call.state is State.RETURNED:
            return call.result
        if self._finish is not None:
            raise LocalProtocolError("the store was closed")
        raise DeadlineError("storage", self._timeouts.storage)

    async def close(self, finish: Callable[[], None]) -> None:
        """Drop the calls that wait, let those that run return, then run `finish` on the last thread.

        Raises:
            DeadlineError: a call has not returned within `Timeouts.storage`; `finish` runs when it does.
        Cancellation: the threads end all the same.
        """
        if self._finished is None:
            self._finished = self._loop.create_future()
            for call in list(self._waiting):
                self.drop(call)
            with self._changed:
                self._finish = finish
                self._changed.notify_all()
                if not self._threads:
                    self._spawn()
        try:
            async with asyncio.timeout(self._timeouts.storage):
                error = await asyncio.shield(self._finished)
        except TimeoutError:
            raise DeadlineError("storage", self._timeouts.storage, stage="close") from None
        if error is not None:
            raise error

    # ------------------------------------------------------------------------------------------ on the loop's thread

    def _give_up(self, call: Call) -> None:
        call.timer = None
        if self.drop(call):
            return
        with self._changed:
            if call.ended:
                # The news is on its way.
                return
            call.late = True
            self._hanging += 1
            self._add_thread()
        _log.warning("a call to the disk has not returned", extra={"threads": self._name, "hanging": self._hanging})
        call.wake()

    def _returned(self, call: Call) -> None:
        call.state = State.RETURNED
        self._disarm(call)
        call.wake()

    @staticmethod
    def _disarm(call: Call) -> None:
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None

    def _add_thread(self) -> None:
        """Begin a thread where work waits and the limits allow one; the lock is held."""
        # An idle thread that was notified counts as idle until it has taken its call.
        if (
            len(self._waiting) > self._idle
            and self._threads - self._hanging < self._limits.storage_threads
            and self._threads < self._limits.storage_threads_max
        ):
            self._spawn()

    def _spawn(self) -> None:
        self._threads += 1
        self._begun += 1
        threading.Thread(target=self._work, name=f"{self._name}-{self._begun}", daemon=True).start()

    # ------------------------------------------------------------------------------------------- on a storage thread

    def _work(self) -> None:
        while (call := self._next()) is not None:
            try:
                call.run()
            except BaseException as error:  # noqa: BLE001 - whoever waits for the call raises it
                call.error = error
            with self._changed:
                call.ended = True
                if call.late:
                    self._hanging -= 1
            self._tell(self._returned, call)
            # Kept in a variable, the call would hold its data until the next one.
            del call
        with self._changed:
            last = self._finish is not None and not self._threads
        if last:
            self._end()

    def _next(self) -> Call | None:
        """Return the next call; None when this thread ends, which is then counted out."""
        with self._changed:
            while not self._waiting:
                if self._finish is not None or self._threads - self._hanging > self._limits.storage_threads:
                    self._threads -= 1
                    return None
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            call = self._waiting.popleft()
            call.state = State.RUNNING
            return call

    def _end(self) -> None:
        """Finish, on the last of the threads."""
        error: BaseException | None = None
        try:
            if self._finish is not None:
                self._finish()
        except BaseException as raised:  # noqa: BLE001 - `close` raises it
            error = raised
        self._tell(self._settle, error)

    def _settle(self, error: BaseException | None) -> None:
        if self._finished is not None and not self._finished.done():
            self._finished.set_result(error)

    def _tell(self, function: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            # The loop was closed before the call returned: nobody is left to hear of it.
            pass
