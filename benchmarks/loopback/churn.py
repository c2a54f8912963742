"""10,000 silent inbound connections and 10,000 connect/close rounds: what is left of them, and who gets in meanwhile.

    python -m benchmarks.loopback.churn [--count 10000] [--warm-up 1000] [--loop uvloop|asyncio] [--out FILE]

A host of aiolibp2p listens, in a process of its own. Another process opens sockets to it that never speak, or connects,
identifies, pings and disconnects, first so often as the warm-up is, then in full. After both, the server's RssAnon,
tasks and descriptors are read when no connection is left: they must agree within 5 %. During all of it a third process
dials from nothing to the answer of a ping, 50 times a second at most: the median must be under 50 ms.

`silent`: sockets that never speak; the server holds `Limits.pending_inbound` of them, and each for `Timeouts.upgrade`.
`rounds`: whole connections by eight peers. `strangers`: whole connections, each by a peer with a new key. A host
remembers peers and keys, within bounds, and that is no leak: so here the warm-up is twice as long, more than the 1,024
public keys of a process, and the server remembers half as many peers as the other rows warm up with
(`Limits.peers_remembered`). The command ends with 1 when something failed or a goal was missed.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

from aiolibp2p import Limits, Timeouts
from benchmarks.loopback import record
from benchmarks.loopback.processes import OwnProgram, anonymous_bytes, end_on_sigterm
from benchmarks.versus.programs import ROOT, START_SECONDS, Answer
from tests.interop.peers import PeerProgramError

COUNT = 10_000
WARM_UP = 1_000
SILENT_PER_SECOND = 2_000.0
SAMPLES = 9
SAMPLE_EVERY_SECONDS = 0.05
TOLERANCE = 0.05
DIAL_MILLISECONDS = 50.0
DIAL_SLICE_SECONDS = 0.5
ROWS = ("silent", "rounds", "strangers")


class Churner(OwnProgram):
    """One of the programs of `churning`."""

    def __init__(self, name: str, mode: str, loop: str, *options: object) -> None:
        words = [sys.executable, "-m", "benchmarks.loopback.churning", "--loop", loop, *map(str, options), mode]
        super().__init__(name, words, ROOT)


class Honest:
    """Dials all the time while it is entered, by a program of its own."""

    def __init__(self, program: Churner, address: str) -> None:
        self.milliseconds: list[float] = []
        self.failures: list[str] = []
        self._program = program
        self._address = address
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._dial, name="honest", daemon=True)

    def __enter__(self) -> Honest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _dial(self) -> None:
        try:
            while not self._ended.is_set():
                answer = self._program.ask(["dials", self._address, DIAL_SLICE_SECONDS])
                self.milliseconds += answer["milliseconds"]
                self.failures += answer["why"]
        except PeerProgramError as error:
            self.failures.append(str(error))


def level(server: Churner, settle_seconds: float) -> Answer:
    """Return what the server holds when it holds no connection: medians of several samples, every one of them kept."""
    end = time.monotonic() + settle_seconds
    while (facts := server.ask(["facts"]))["sockets"] and time.monotonic() < end:
        time.sleep(SAMPLE_EVERY_SECONDS)
    samples: list[int] = []
    for _ in range(SAMPLES):
        time.sleep(SAMPLE_EVERY_SECONDS)
        facts = server.ask(["facts"])
        samples.append(anonymous_bytes(server.pid))
    return facts | {"rss_anon_bytes": int(median(samples)), "rss_anon_samples": samples}


def attack(program: Churner, row: str, address: str, count: int, silent_per_second: float) -> Answer:
    words: list[Any] = [row, address, count]
    answer = program.ask(words + ([silent_per_second] if row == "silent" else []))
    if answer["failed"]:
        raise PeerProgramError(f"{row}: {answer['failed']} of {count} failed: {answer.get('why')}")
    return answer


class Programs:
    """The server, what attacks it and the honest dialler, from when it is entered to its end."""

    def __init__(self, loop: str, upgrade: float, remember: int) -> None:
        self._stack = ExitStack()
        self._loop = loop
        self._bounds = ("--upgrade", upgrade, "--remember", remember)
        self._settle_seconds = upgrade + Timeouts().close + 5

    def __enter__(self) -> Programs:
        with ExitStack() as stack:
            self._server = stack.enter_context(closing(Churner("the server", "serve", self._loop, *self._bounds)))
            self._attacker, self._dialler = (
                stack.enter_context(closing(Churner(name, "session", self._loop)))
                for name in ("the attacker", "the honest dialler")
            )
            self._address = str(self._server.next_line(START_SECONDS)["addr"])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(
        self, row: str, warm_up: int, count: int, silent_per_second: float = SILENT_PER_SECOND
    ) -> dict[str, Any]:
        """Measure one row.

        Raises:
            PeerProgramError: a program failed, or a round did.
        """
        before = level(self._server, self._settle_seconds)
        honest = Honest(self._dialler, self._address)
        with honest:
            warmed = attack(self._attacker, row, self._address, warm_up, silent_per_second)
        warm = level(self._server, self._settle_seconds)
        meanwhile = Honest(self._dialler, self._address)
        with meanwhile:
            full = attack(self._attacker, row, self._address, count, silent_per_second)
        after = level(self._server, self._settle_seconds)
        meanwhile.failures += honest.failures
        return {
            "warm_up": warmed,
            "full": full,
            "levels": {"before": before, "after_the_warm_up": warm, "after_all": after},
            "honest": {"milliseconds": meanwhile.milliseconds, "failures": meanwhile.failures},
            "goals": goals(warm, after, meanwhile),
        }


def goals(warm: Answer, after: Answer, honest: Honest) -> list[dict[str, Any]]:
    """Return what was to be reached, and whether it was."""
    found: list[dict[str, Any]] = []
    for what in ("rss_anon_bytes", "tasks", "descriptors"):
        ratio = after[what] / warm[what]
        reached = abs(ratio - 1) <= TOLERANCE if what == "rss_anon_bytes" else after[what] == warm[what]
        found.append({"what": f"{what} after all, of those after the warm-up", "value": ratio, "reached": reached})
    if honest.milliseconds:
        value = median(honest.milliseconds)
        found.append({"what": "median of an honest dial, in ms", "value": value, "reached": value < DIAL_MILLISECONDS})
    found.append({"what": "honest dials that failed", "value": len(honest.failures), "reached": not honest.failures})
    return found


def print_row(row: str, result: dict[str, Any]) -> None:
    levels = result["levels"]
    for name, at in levels.items():
        print(
            f"  {name.replace('_', ' '):18} RssAnon {at['rss_anon_bytes'] / 1e6:6.1f} MB, {at['tasks']} tasks,"
            f" {at['descriptors']} descriptors, {at['sockets']} sockets, {at['peersRemembered']} peers remembered"
        )
    dials = result["honest"]["milliseconds"]
    if dials:
        print(f"  {len(dials)} honest dials: median {median(dials):.1f} ms, longest {max(dials):.1f} ms")
    for goal in result["goals"]:
        print(f"  {row}: {goal['what']}: {goal['value']:.3f}, {'reached' if goal['reached'] else 'NOT reached'}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--warm-up", type=int, default=WARM_UP)
    parser.add_argument("--only", choices=ROWS, nargs="+", default=ROWS)
    parser.add_argument("--upgrade", type=float, default=Timeouts().upgrade, help="Timeouts.upgrade of the server")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--out", type=Path, default=record.RESULTS / "churn.json")
    return parser.parse_args()


def main() -> int:
    options = parsed()
    result = record.metadata("churn", sys.argv[1:])
    rows: dict[str, Any] = {}
    failures: list[str] = []
    for row in options.only:
        print(f"{row}: {options.count}", flush=True)
        try:
            remember = options.warm_up // 2 if row == "strangers" else Limits().peers_remembered
            with Programs(options.loop, options.upgrade, remember) as programs:
                warm_up = options.warm_up * 2 if row == "strangers" else options.warm_up
                rows[row] = programs.measure(row, warm_up, options.count)
        except PeerProgramError as error:
            failures.append(f"{row}: {error}")
            print(failures[-1], flush=True)
            continue
        print_row(row, rows[row])
    record.keep(options.out, result | {"failures": failures, "rows": rows})
    missed = any(not goal["reached"] for measured in rows.values() for goal in measured["goals"])
    return 1 if failures or missed else 0


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
