"""The scheduler of the simulated loop: virtual time in integer nanoseconds, ties first in, first out."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
import re
import threading
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextvars import Context
from typing import Any, Literal, NoReturn, TypeVarTuple

from aiolibp2p.sim.tasks import describe_blocked, task_of
from aiolibp2p.sim.trace import Trace

Ts = TypeVarTuple("Ts")
Schedule = Literal["fifo", "random"]
"""In which order the tasks of one turn run: as asyncio runs them, or in an order drawn from the seed."""

_NUMBERED = re.compile(r"Task-\d+")
"""The name of a task that `asyncio.Task` made without asking the loop, as aiohttp does: by a counter of the process."""

NS = 1_000_000_000
"""Nanoseconds in a second."""
NEVER_NS = 1 << 62
"""Later than any event: the time of an infinite timer."""
LIMIT_SECONDS = 30 * 86400.0
"""The virtual time a run may take unless told otherwise: a loop of keepalives must end some day."""
EPOCH_NS = 946_684_800 * NS
"""The wall clock at virtual time 0: 2000-01-01T00:00Z."""


class DeadlockError(RuntimeError):
    """Nothing can run and no timer or network event is pending: the message names every blocked task."""


class LivelockError(RuntimeError):
    """Very many callbacks ran while virtual time stood still."""


class TimeLimitError(RuntimeError):
    """The run passed its limit of virtual time."""


class EscapeError(RuntimeError):
    """Code under simulation reached for the real world."""


class SimEvent:
    """What happens at one instant of virtual time; a timer without context or arguments."""

    __slots__ = ("_cancelled", "_run")

    def __init__(self, callback: Callable[[], object]) -> None:
        self._run = callback
        self._cancelled = False

    def cancel(self) -> None:
        """Do not run it."""
        self._cancelled = True


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """An event loop whose clock is its next event."""

    livelock_callbacks = 1_000_000
    """Callbacks at one instant that are taken for a livelock."""
    creep_timers = 1000
    """Late timers at one instant after which the clock creeps on by a nanosecond."""

    screen: Callable[[deque[asyncio.Handle | SimEvent]], None] | None = None
    """Takes out of what is about to run what must not: callbacks of hosts that have crashed, or stand still."""

    # Of BaseEventLoop, which the type stubs leave out.
    _ready: deque[asyncio.Handle | SimEvent]
    _asyncgens: set[AsyncGenerator[Any, Any]]
    _stopping: bool
    _thread_id: int | None
    _clock_resolution: float
    _check_closed: Callable[[], None]

    def __init__(
        self,
        seed: int | str = 0,
        *,
        schedule: Schedule = "fifo",
        limit_seconds: float = LIMIT_SECONDS,
        trace: Trace | None = None,
    ) -> None:
        """Make a loop at virtual time 0.

        Args:
            seed: everything random in the simulation is drawn from it.
            schedule: "random" runs the tasks of one turn in a seeded order, and plain callbacks in theirs, as asyncio
                promises.
            limit_seconds: virtual time after which the run fails; `math.inf` for none.
            trace: where to record what happens.

        Raises:
            ValueError: there is no such schedule.
        """
        super().__init__()
        if schedule not in ("fifo", "random"):
            asyncio.BaseEventLoop.close(self)  # else the collector warns of a loop that was not closed
            raise ValueError(f"no schedule {schedule!r}: there are 'fifo' and 'random'")
        self.seed = seed
        self.trace = trace
        self.next_order = itertools.count(1).__next__
        """Return the next number that orders tasks, futures and transports in sets."""
        self._clock_resolution = 1 / NS
        self._now_ns = 0
        self._now = 0.0
        self._next_made = itertools.count(1).__next__
        self._steps = trace if trace is not None and trace.steps else None
        self._limit_ns = NEVER_NS if math.isinf(limit_seconds) else round(limit_seconds * NS)
        # Entries compare by time and then by age: what is due at one instant runs first in, first out, where asyncio's
        # own heap of handles would shuffle it.
        self._heap: list[tuple[int, int, asyncio.TimerHandle | SimEvent]] = []
        self._age = itertools.count()
        self._cancelled_timers = 0
        self._late_timers = 0
        self._settlers: deque[asyncio.Future[None]] = deque()
        self._checks: list[Callable[[], object]] = []
        self._shuffle = random.Random(f"{seed}/schedule") if schedule == "random" else None

    # Time

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def time_ns(self) -> int:
        """Return the virtual time in nanoseconds."""
        return self._now_ns

    def wall(self) -> float:
        """Return seconds since 1970 on the virtual wall clock."""
        return (EPOCH_NS + self._now_ns) / NS

    async def settle(self) -> None:
        """Wait until everything else is blocked, without time passing.

        Cancellation: nothing happens.
        """
        settled = self.create_future()
        self._settlers.append(settled)
        await settled

    def at_each_instant(self, check: Callable[[], object]) -> Callable[[], None]:
        """Call `check()` whenever nothing more can run at an instant; return what ends that.

        That is before the clock moves and before `settle` returns. What it raises ends the run.
        """
        self._checks.append(check)

        def end() -> None:
            if check in self._checks:
                self._checks.remove(check)

        return end

    async def pass_time(self, seconds: float) -> None:
        """Wait until `seconds` of virtual time have passed; a test may, for it costs no real time.

        Cancellation: nothing happens.
        """
        await asyncio.sleep(seconds)

    # Timers

    def _deadline_ns(self, when: float) -> int:
        if math.isnan(when):
            raise ValueError("the time of a timer is not a number")
        if when * NS >= NEVER_NS:
            return NEVER_NS
        when_ns = round(when * NS)
        if when_ns > self._now_ns:
            return when_ns
        # A deadline a fraction of a nanosecond ahead has to move the clock, or "while time() < deadline:
        # sleep(deadline - time())" would never end.
        if when > self._now:
            return self._now_ns + 1
        # Code may set a due timer again until "a <= b - c" agrees with "a + c <= b". On a real clock the next reading
        # differs; here it would spin for ever.
        self._late_timers += 1
        return self._now_ns + (self._late_timers > self.creep_timers)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call `callback(*args)` at the virtual time `when`, in seconds; `math.inf` is never.

        Raises:
            ValueError: `when` is not a number.
        """
        self._check_closed()
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        timer._scheduled = True  # type: ignore[attr-defined]  # so that cancelling it is counted
        heapq.heappush(self._heap, (self._deadline_ns(when), next(self._age), timer))
        return timer

    def call_at_ns(self, when_ns: int, callback: Callable[[], object]) -> SimEvent:
        """Call `callback()` at the virtual time `when_ns`, first in, first out; for the simulated world itself."""
        event = SimEvent(callback)
        self.schedule(when_ns, event)
        return event

    def schedule(self, when_ns: int, event: SimEvent) -> None:
        """Let an event happen at the virtual time `when_ns`, first in, first out."""
        heapq.heappush(self._heap, (max(when_ns, self._now_ns), next(self._age), event))

    def scheduled(self) -> list[tuple[int, asyncio.Handle | SimEvent]]:
        """Return all that is to happen and when, in nanoseconds: what can run, then timers and events by their time."""
        entries = [(when_ns, handle) for when_ns, _, handle in sorted(self._heap, key=lambda entry: entry[:2])]
        ready: list[tuple[int, asyncio.Handle | SimEvent]] = [(self._now_ns, handle) for handle in self._ready]
        return [entry for entry in ready + entries if not entry[1]._cancelled]

    def make_ready(self, handles: Iterable[asyncio.Handle | SimEvent]) -> None:
        """Let callbacks that were set aside run in the next turn."""
        self._ready.extend(handles)

    def forget_generators(self, generators: Iterable[AsyncGenerator[Any, Any]]) -> None:
        """Do not close these asynchronous generators at the end of the loop."""
        for generator in generators:
            self._asyncgens.discard(generator)

    def pending_timers(self) -> list[asyncio.TimerHandle]:
        """Return the timers that are set, soonest first, infinite ones too."""
        entries = sorted(self._heap, key=lambda entry: entry[:2])
        return [t for _, _, t in entries if isinstance(t, asyncio.TimerHandle) and not t.cancelled()]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancelled_timers += 1
        if self._cancelled_timers > 1024 and self._cancelled_timers > len(self._heap) // 2:
            self._heap[:] = [entry for entry in self._heap if not entry[2]._cancelled]
            heapq.heapify(self._heap)
            self._cancelled_timers = 0

    def _pop_timer(self) -> asyncio.TimerHandle | SimEvent:
        timer = heapq.heappop(self._heap)[2]
        if isinstance(timer, asyncio.TimerHandle):
            timer._scheduled = False  # type: ignore[attr-defined]
            self._cancelled_timers -= timer.cancelled()
        return timer

    # Scheduling

    def _run_once(self) -> None:
        # Runs until stop(), for BaseEventLoop calls it again only while the loop is not stopping.
        ready, heap = self._ready, self._heap
        callbacks = 0
        while True:
            if self.screen is not None or (heap and heap[0][0] <= self._now_ns):
                self._collect_due()
            turn = len(ready)
            if not turn:
                if self._stopping:
                    return
                if self._end_instant():
                    callbacks = 0
                continue
            callbacks += turn
            if callbacks > self.livelock_callbacks:
                self._livelock(callbacks)
            if self._shuffle is not None and turn > 1:
                self._reorder(self._shuffle)
            if self._steps is not None:
                self._trace_steps(self._steps)
            for _ in range(turn):
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
            handle = None  # type: ignore[assignment]  # the last callback must not live on while the loop waits
            if self._stopping:
                return

    def _collect_due(self) -> None:
        heap = self._heap
        while heap and heap[0][0] <= self._now_ns:
            timer = self._pop_timer()
            if not timer._cancelled:
                self._ready.append(timer)
        if self.screen is not None:
            self.screen(self._ready)

    def _end_instant(self) -> bool:
        """Find something to do when nothing can run any more, and return whether the clock moved for it."""
        if (self._checks and self._run_checks()) or self._wake_settler():
            return False
        self._advance()
        return True

    def _run_checks(self) -> bool:
        """Run what is to run at each instant, and return whether that made work."""
        for check in tuple(self._checks):
            check()
        return bool(self._ready or (self._heap and self._heap[0][0] <= self._now_ns))

    def _wake_settler(self) -> bool:
        while self._settlers:
            settled = self._settlers.popleft()
            if not settled.done():
                settled.set_result(None)
                return True
        return False

    def _advance(self) -> None:
        heap = self._heap
        while heap and heap[0][2]._cancelled:
            self._pop_timer()
        if not heap or heap[0][0] >= NEVER_NS:
            raise DeadlockError(
                f"deadlock at {self._now:.9f} s: nothing can run, no timer and no network event is pending\n"
                + describe_blocked(self)
            )
        if heap[0][0] > self._limit_ns:
            raise TimeLimitError(
                f"the limit of {self._limit_ns / NS:g} s of virtual time is reached\n" + describe_blocked(self)
            )
        self._now_ns = heap[0][0]
        self._now = self._now_ns / NS
        self._late_timers = 0

    def _livelock(self, callbacks: int) -> NoReturn:
        names = Counter(str(task_of(handle) or handle) for handle in itertools.islice(self._ready, 1000))
        busiest = "\n".join(f"  {name}" for name, _ in names.most_common(5))
        raise LivelockError(
            f"{callbacks} callbacks at {self._now:.9f} s and no end; runnable are\n{busiest}\n" + describe_blocked(self)
        )

    def _reorder(self, rng: random.Random) -> None:
        """Shuffle the steps of tasks and merge them among the plain callbacks, whose order stays."""
        ready = self._ready
        steps = [handle for handle in ready if task_of(handle) is not None]
        if not steps:
            return
        plain = deque(handle for handle in ready if task_of(handle) is None)
        rng.shuffle(steps)
        ready.clear()
        while plain and steps:
            is_plain = rng.random() * (len(plain) + len(steps)) < len(plain)
            ready.append(plain.popleft() if is_plain else steps.pop())
        ready.extend(plain)
        ready.extend(steps)

    def _trace_steps(self, trace: Trace) -> None:
        for handle in self._ready:
            task = task_of(handle)
            if task is not None:
                if _NUMBERED.fullmatch(task.get_name()):
                    task.set_name(f"made-{self._next_made()}")
                trace.add(f"{self._now_ns} step {task.get_name()}")

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call `callback(*args)` soon.

        Raises:
            EscapeError: called from another thread, whose timing no seed decides.
        """
        if self._thread_id is not None and self._thread_id != threading.get_ident():
            raise EscapeError("call_soon_threadsafe from a real thread inside a simulation")
        return self.call_soon(callback, *args, context=context)
