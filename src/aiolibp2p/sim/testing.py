"""`sim_test`: a coroutine of a World as an ordinary test, run once for every seed; no test runner is needed.

Under pytest the plugin beside this module adds options and reports; see `aiolibp2p.sim.pytest_plugin`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, overload

from aiolibp2p.profile import TaskProfile
from aiolibp2p.sim.loop import LeftoverError
from aiolibp2p.sim.scheduler import LIMIT_SECONDS, DeadlockError, LivelockError, Schedule, TimeLimitError
from aiolibp2p.sim.sweep import SweepResult, processors, sweep
from aiolibp2p.sim.trace import Trace, first_divergence
from aiolibp2p.sim.world import InvariantError, World, run_world

_BY_THE_LOOP = (DeadlockError, LivelockError, TimeLimitError, LeftoverError, InvariantError)
WorldTest = Callable[..., Coroutine[Any, Any, None]]
_SEEDS_SHOWN = 10
_OTHER_VERDICT = "neither passed nor failed"

__unittest = True
"""So that reports of unittest begin with the test's own lines."""


@dataclass(slots=True)
class Options:
    """What the test runner says of all simulated tests; the plugin for pytest sets it."""

    seed: int | str | None = None
    """The one seed to run."""
    seeds: int | None = None
    """How many seeds to run, in parallel, whatever the test says."""
    jobs: int | None = None
    """How many processes a sweep uses; None is one a processor."""
    replay: Callable[[int | str], str] | None = None
    """Returns the command that runs the test again with one seed."""
    verdicts: tuple[type[BaseException], ...] = ()
    """Exceptions by which a test says something else than that it failed."""
    sections: bool = False
    """Whether reports are shown by the runner, rather than as a note of the exception."""


OPTIONS = Options()


class NotRepeatedError(AssertionError):
    """A seed failed in a process of its own and not again in this one: something beside the seed decides."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One test with its arguments, ready to run with any seed."""

    test: Callable[[World], Coroutine[Any, Any, None]]
    schedule: Schedule
    max_virtual: float
    strict: bool

    def run(
        self,
        seed: int | str,
        trace: Trace | None = None,
        on_failure: Callable[[World, BaseException], object] | None = None,
    ) -> None:
        run_world(
            self.test,
            seed=seed,
            schedule=self.schedule,
            limit_seconds=self.max_virtual,
            trace=trace,
            strict=self.strict,
            on_failure=on_failure,
        )

    def check(self, seed: int) -> str | None:
        try:
            self.run(seed)
        except OPTIONS.verdicts:
            return _OTHER_VERDICT
        except BaseException as error:  # noqa: BLE001  # told to the process that asked
            return f"{type(error).__name__}: {error}"
        return None

    def trace(self, seed: int | str) -> tuple[list[str], bool]:
        """Return the lines of a run, and whether it failed; it prints and logs nothing."""
        trace = Trace(keep=True, steps=True)
        failed = False
        with _quiet():
            try:
                self.run(seed, trace)
            except Exception:  # noqa: BLE001  # this run is only for its trace
                failed = True
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    raise
                failed = True
        return trace.lines or [], failed


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)


@overload
def sim_test(test: WorldTest, /) -> Callable[..., None]: ...


@overload
def sim_test(
    *,
    seeds: int | Sequence[int] = 1,
    schedule: Schedule = "fifo",
    max_virtual: float = LIMIT_SECONDS,
    strict: bool = False,
) -> Callable[[WorldTest], Callable[..., None]]: ...


def sim_test(
    test: WorldTest | None = None,
    /,
    *,
    seeds: int | Sequence[int] = 1,
    schedule: Schedule = "fifo",
    max_virtual: float = LIMIT_SECONDS,
    strict: bool = False,
) -> Callable[..., Any]:
    """Make a test of `async def test(sim: World, …)`: an ordinary function without that first argument.

    It runs the coroutine in a world of its own for each seed and fails at the first seed that fails. What is behind the
    first argument, after `self` in a class, are fixtures and parameters as of any test; they are made once, not for
    each seed.

    Args:
        test: the coroutine function, where the decorator is used without arguments.
        seeds: how many seeds to run, from 0; or which.
        schedule: "random" runs the tasks of one turn in a seeded order, plain callbacks in theirs.
        max_virtual: seconds of virtual time after which a run fails.
        strict: fail when a task or a timer is left at the end.
    """
    if test is None:
        return functools.partial(sim_test_of, (seeds, schedule, max_virtual, strict))
    return sim_test_of((seeds, schedule, max_virtual, strict), test)


def sim_test_of(options: tuple[int | Sequence[int], Schedule, float, bool], test: WorldTest) -> Callable[..., None]:
    """Return the ordinary function that `sim_test` makes.

    Raises:
        TypeError: the test is no coroutine function, or takes no world.
    """
    seeds, schedule, max_virtual, strict = options
    if not inspect.iscoroutinefunction(test):
        raise TypeError(f"sim_test is for `async def test(sim)`, and {test!r} is not one")
    signature = inspect.signature(test)
    parameters = list(signature.parameters.values())
    place = 1 if parameters and parameters[0].name == "self" else 0
    if len(parameters) <= place:
        raise TypeError(f"{test.__qualname__} takes no argument for the world")
    world_name = parameters.pop(place).name

    @functools.wraps(test)
    def run_seeds(*own: Any, **fixtures: Any) -> None:
        __tracebackhide__ = True

        async def main(world: World) -> None:
            await test(*own, **{world_name: world}, **fixtures)

        run_all(_Case(main, schedule, max_virtual, strict), range(seeds) if isinstance(seeds, int) else seeds)

    run_seeds.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run_seeds


def run_all(case: _Case, seeds: Sequence[int]) -> None:
    """Run a test for the seeds that the runner asks for, or else for its own."""
    __tracebackhide__ = True
    if OPTIONS.seed is not None:
        _run_one(case, OPTIONS.seed, None)
    elif OPTIONS.seeds is not None:
        _sweep(case, range(OPTIONS.seeds))
    else:
        passed: int | None = None
        for seed in seeds:
            _run_one(case, seed, passed)
            passed = seed


def _sweep(case: _Case, seeds: Sequence[int]) -> None:
    __tracebackhide__ = True
    found = sweep(case.check, seeds, OPTIONS.jobs or processors())
    undecided = [seed for seed, text in found.failed.items() if text == _OTHER_VERDICT]
    for seed in undecided:
        del found.failed[seed]
    if found.failed:
        _fail_again(case, found)
    elif undecided and not found.passed:
        _run_one(case, min(undecided), None)  # so that the runner hears of the verdict


def _run_one(case: _Case, seed: int | str, passed: int | None, words: str = "") -> None:
    __tracebackhide__ = True
    seen: list[str] = []
    try:
        case.run(seed, on_failure=lambda *failure: seen.append(_waiting(*failure)))
    except (KeyboardInterrupt, SystemExit):
        raise
    except OPTIONS.verdicts:
        raise
    except BaseException as error:
        lines = [_headline(seed), *([words] if words else [])]
        if not isinstance(error, LivelockError):  # which is a million steps, and no event among them
            lines.append(_divergence(case, seed, passed))
        report = "\n".join(lines + seen)
        if OPTIONS.sections:
            error.simulation = report  # type: ignore[attr-defined]  # the plugin shows it
        else:
            error.add_note(report)
        error.__traceback__ = _of_the_test(case, error)
        raise


def _of_the_test(case: _Case, error: BaseException) -> TracebackType | None:
    """Return the part of a traceback that begins in the test, for what leads there is the simulator's own."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is case.test.__code__:
            return trace.tb_next
        trace = trace.tb_next
    # Of what the loop found out the message says all.
    return None if isinstance(error, _BY_THE_LOOP) else error.__traceback__


def _fail_again(case: _Case, found: SweepResult) -> None:
    __tracebackhide__ = True
    failed = sorted(found.failed)
    seed = failed[0]
    shown = ", ".join(map(str, failed[:_SEEDS_SHOWN])) + (", …" if len(failed) > _SEEDS_SHOWN else "")
    words = f"{len(failed)} of {len(failed) + len(found.passed)} seeds failed: {shown}"
    before = [other for other in found.passed if other < seed] or found.passed[:1]
    _run_one(case, seed, before[-1] if before else None, words)
    raise NotRepeatedError(
        f"seed {seed} failed in a process of its own ({found.failed[seed]}) and passed here: something beside the seed"
        f" decides. {words}"
    )


def _headline(seed: int | str) -> str:
    replay = OPTIONS.replay(seed) if OPTIONS.replay is not None else None
    return f"seed {seed}" + (f"; again with\n  {replay}" if replay else "")


def _divergence(case: _Case, seed: int | str, passed: int | None) -> str:
    """Return where a failing run parts from a passing one; both are run again for that."""
    lines, failed = case.trace(seed)
    if not failed:
        return "the seed did not fail when it was run again: something beside the seed decides"
    if passed is None:
        return f"no seed passed before it; its last event of {len(lines)}: {lines[-1] if lines else 'none'}"
    parting = first_divergence(lines, case.trace(passed)[0])
    if parting is None:
        return f"its {len(lines)} events are those of seed {passed}, which passed"
    number, ours, theirs = parting
    return (
        f"event {number} is the first that differs from seed {passed}, which passed:\n"
        f"  seed {seed}: {ours or 'the end'}\n  seed {passed}: {theirs or 'the end'}"
    )


def _waiting(world: World, error: BaseException) -> str:
    lines = [f"failed at {world.now_ns} ns of virtual time"]
    waiting = TaskProfile(tuple(task for task in world.tasks().tasks if task.wait != "running"))
    if not isinstance(error, DeadlockError | LivelockError | TimeLimitError):  # these name all tasks themselves
        lines.append(str(waiting) if waiting.tasks else "no task waited")
    stuck = world.unwakeable()
    if stuck:
        lines.append("nothing can wake: " + ", ".join(task.get_name() for task in stuck))
    return "\n".join(lines)
